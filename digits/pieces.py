"""The ink on a picture, in pieces: found, freed from lines, and cut where digits touch."""

from collections.abc import Iterable

import numpy as np
from scipy import ndimage

from digits import handwriting

TOUCHING = np.ones((3, 3))  # pixels that meet at a corner are of one piece
# How dark ink must be beside the darkest near it: a faint pencil's stroke stands alone, while the
# blur and the shadow beside a dark one stay out. 0.45 loses pale loops, 0.3 fills small ones.
LOCAL = 0.38
NEAR = 24  # "near" is the picture's longer side by this: about a digit on a page of a dozen rows
PALEST = 0.25  # of the picture's own threshold: ink paler than that is paper's grain
MIN_SIDE = 8  # px; less could not be read
MIN_SHARE = 0.012  # of the picture's longer side: 19 of 1,600 px, a page of fifty rows
MAX_PIECES = 400  # the largest of them: a texture has thousands, and reading takes 2 ms for each
LINE = 1.5  # of a digit's height: no stroke of a digit is so long
MARGIN = 3  # px about a piece, for its soft edge
# A seam that goes through ink pays for its length and, for each stroke, this many pens: one
# thick joint is a likelier place to cut than two thin strokes of a loop.
ENTRY = 2.0
SEAM_ROWS = 40  # px that a piece is high when seams are sought: what matters is strokes

Box = tuple[slice, slice]


def height(box: Box) -> int:
    return box[0].stop - box[0].start


def width(box: Box) -> int:
    return box[1].stop - box[1].start


def is_stick(box: Box) -> bool:
    """Whether it is as slim as a 1 without flag or foot: every straight stroke is."""
    return width(box) < 0.4 * height(box)


class Pieces:
    """Ink shared out among numbered pieces, each with its box, its contrast and its pen's width."""

    def __init__(self, ink: np.ndarray, mask: np.ndarray, contrast: np.ndarray):
        """Take what find_ink gives, each [height, width]."""
        labels, count = ndimage.label(mask, TOUCHING)
        boxes = ndimage.find_objects(labels)
        sides = np.array([max(height(box), width(box)) for box in boxes])
        kept = sides >= min(max(MIN_SIDE, MIN_SHARE * max(mask.shape)), sides.max(initial=0))
        if kept.sum() > MAX_PIECES:
            kept &= sides >= np.sort(sides)[-MAX_PIECES]
        numbers = np.append(0, np.where(kept, np.cumsum(kept), 0)).astype(np.int32)
        self.ink, self.contrast, self.labels = ink, contrast, numbers[labels]
        self.boxes = {int(numbers[n]): box for n, box in enumerate(boxes, 1) if kept[n - 1]}
        index = np.arange(len(self.boxes) + 1)
        self.level = dict(enumerate(ndimage.mean(contrast, self.labels, index).tolist()))
        area = np.bincount(self.labels.ravel(), minlength=len(index))
        inner = ndimage.minimum_filter(self.labels, 3, mode="constant") == self.labels
        rim = np.bincount(self.labels[~inner], minlength=len(index))
        # a stroke is twice as long round as it is long
        self.pen = dict(enumerate((2 * area / np.maximum(rim, 1)).tolist()))

    def add(self, mask: np.ndarray, box: Box, like: int) -> int:
        """Make a piece of the mask, bool as large as the box; it is as dark as another was."""
        number = max(self.level) + 1
        self.labels[box][mask] = number
        inner = handwriting.box_of(mask)
        self.boxes[number] = tuple(
            slice(int(s.start + o.start), int(s.stop + o.start))
            for s, o in zip(inner, box, strict=True)
        )
        self.level[number], self.pen[number] = self.level[like], self.pen[like]
        return number

    def box(self, block: Iterable[int]) -> Box:
        """The box round several pieces."""
        rows, columns = zip(*(self.boxes[n] for n in block), strict=True)
        return tuple(
            slice(min(s.start for s in side), max(s.stop for s in side)) for side in (rows, columns)
        )

    def seen(self, block: Iterable[int]) -> np.ndarray:
        """The pieces together as MNIST's makers would have made them: uint8 [28, 28]."""
        box = tuple(slice(max(0, s.start - MARGIN), s.stop + MARGIN) for s in self.box(block))
        labels = self.labels[box]
        mask = np.isin(labels, list(block))
        ink = np.where(mask | (labels == 0), self.ink[box], 0)
        return handwriting.render(ink, mask, 28, 28)


# ---------------------------------------------------------------- found


def find_pieces(pixels: np.ndarray) -> tuple[list[Pieces], tuple[int, int]]:
    """The pieces of ink, without ruled lines and, if that is not the same, with them.

    Only reading shows which is right: in a picture that is cut close the stroke of a 4 runs from
    border to border as a line does.

    Args:
        pixels: what handwriting.on_paper gives, float32 [height, width, 3].

    Returns:
        One or two ways to see the ink, and where their upper left corner lies in the picture.

    Raises:
        NoInkError: the picture is blank.
    """
    rows, columns = handwriting.inside_dark_edges(pixels)
    contrast = handwriting.ink_contrast(pixels[rows, columns])
    floor = handwriting.noise_floor(contrast)
    plain = handwriting.without_ruling(contrast, floor)
    ways = [plain] if np.array_equal(plain, contrast) else [plain, contrast]
    return [Pieces(*find_ink(way, floor)) for way in ways], (rows.start, columns.start)


def find_ink(contrast: np.ndarray, floor: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How strongly each pixel is ink (above 0.5 is ink), which are (bool), and the contrast."""
    usual = handwriting.ink_threshold(contrast, floor)
    palest = max(floor, PALEST * usual)
    darkest = ndimage.maximum_filter(contrast, max(9, max(contrast.shape) // NEAR))
    # 0.7 is handwriting's, for where a stroke goes on
    level = np.clip(LOCAL * darkest, palest, max(floor, 0.7 * usual))
    return contrast / (2 * level), (contrast > level) & (darkest > 1.5 * palest), contrast


# ---------------------------------------------------------------- freed from lines


def take_out_lines(pieces: Pieces, number: int, tall: float) -> list[int]:
    """Take out the long lines that join what stands on them, and the frames round it.

    Args:
        pieces: changed in place.
        number: the piece.
        tall: how high a digit is here.

    Returns:
        The pieces that are left instead, or none if there was no line.
    """
    box = pieces.boxes[number]
    mask = pieces.labels[box] == number
    contrast = np.where(mask, pieces.contrast[box], 0)
    # half a digit's height: shorter runs are found in the digits themselves
    run, thickest = max(8, int(tall / 2)), 1.5 * pieces.pen[number]
    line = np.zeros_like(mask)
    is_frame = False
    if width(box) > LINE * tall:
        line = handwriting.ruled_lines(mask, contrast, run, thickest)
        third = len(line) // 3
        is_frame = line[:third].any() and line[-third:].any()
    if height(box) > LINE * tall or is_frame:
        line |= handwriting.ruled_lines((mask & ~line).T, contrast.T, run, thickest).T
    if not line.any():
        return []
    pieces.labels[box][mask] = 0
    del pieces.boxes[number]
    parts, count = ndimage.label(mask & ~line, TOUCHING)
    left = []
    for n, part in enumerate(ndimage.find_objects(parts), 1):
        # the frame of a row that is a little askew has no side that is as high as its box
        is_side = is_frame and height(part) > 0.7 * len(mask) and width(part) < 2 * thickest
        is_crumb = max(height(part), width(part)) < 0.1 * tall
        if not is_side and not is_crumb:
            left.append(pieces.add(parts == n, box, number))
    return left


# ---------------------------------------------------------------- cut


def cut(pieces: Pieces, number: int, tall: float) -> list[int]:
    """Cut a piece along its seams; gives the parts, or none if there is no place to cut.

    Args:
        pieces: changed in place.
        number: the piece.
        tall: how high a digit is here.
    """
    box = pieces.boxes[number]
    mask = pieces.labels[box] == number
    most = int(3 * width(box) / min(height(box), 1.3 * tall)) + 2  # a cut for every third of one
    between = sum((~left).astype(int) for left in seams(mask, most))
    parts = []
    for place in np.unique(between):
        bits, count = ndimage.label(mask & (between == place), TOUCHING)
        parts += [bits == n for n in range(1, count + 1)]
    parts = [part for part in parts if part.sum() >= 0.03 * mask.sum()]
    if len(parts) < 2:
        return []
    # crumbs go to the part that is nearest
    owner = np.argmin([ndimage.distance_transform_edt(~part) for part in parts], axis=0)
    del pieces.boxes[number]
    return [pieces.add(mask & (owner == n), box, number) for n in range(len(parts))]


def seams(mask: np.ndarray, most: int) -> list[np.ndarray]:
    """Ways from the top to the bottom that go through little ink, from left to right.

    They pass where the middle row has least ink above and below it, and through the valleys of
    the outline, where two round strokes touch. A step goes down, or down and to one side.

    Args:
        mask: bool [height, width].
        most: the cheapest so many are given.

    Returns:
        For each, what lies left of it: bool [height, width].
    """
    factor = max(1, round(len(mask) / SEAM_ROWS))
    rows, columns = (length // factor for length in mask.shape)
    small = mask[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor)
    ink = small.mean((1, 3))
    solid = ink > 0.5
    rim = solid & ~ndimage.binary_erosion(solid)
    entry = ENTRY * 2 * solid.sum() / max(1, rim.sum())
    down, back = _cheapest(ink, entry)
    up, forth = (values[::-1] for values in _cheapest(ink[::-1], entry))
    through = down + up - ink - entry * solid
    paths = []
    for y, x in sorted(_places(solid, through), key=lambda place: through[place]):
        path = np.full(rows, x)
        for row in range(y, 0, -1):
            path[row - 1] = path[row] + back[row, path[row]]
        for row in range(y, rows - 1):
            path[row + 1] = path[row] + forth[row, path[row]]
        inside = rows / 8 <= path.mean() < columns - rows / 8
        if inside and all(np.abs(path - other).mean() > rows / 16 for other in paths):
            paths.append(path)
    paths = sorted(paths[:most], key=np.mean)
    upright = np.minimum(np.arange(len(mask)) // factor, rows - 1)
    across = np.arange(mask.shape[1])
    return [across < (path[upright] * factor + factor // 2)[:, None] for path in paths]


def _places(solid: np.ndarray, through: np.ndarray) -> list[tuple[int, int]]:
    """Where seams may pass: (row, column) of the middle row's cheap places and of the valleys."""
    from scipy import signal  # here, since it takes 0.7 s, and few pictures have to be cut

    rows = len(solid)
    places = [(rows // 2, x) for x in signal.find_peaks(-through[rows // 2], prominence=0.5)[0]]
    for upside_down in (False, True):
        outline = np.pad(solid[::-1] if upside_down else solid, ((0, 1), (0, 0)), constant_values=1)
        depth = outline.argmax(axis=0)
        for x in signal.find_peaks(depth, prominence=0.08 * rows)[0]:
            y = max(0, depth[x] - 1)
            places.append((rows - 1 - y if upside_down else y, x))
    return [(int(y), int(x)) for y, x in places]


def _cheapest(ink: np.ndarray, entry: float) -> tuple[np.ndarray, np.ndarray]:
    """What the cheapest way from the top to each pixel costs, and its last step's -1, 0 or 1."""
    solid = ink > 0.5
    cost = ink + entry * solid
    step = np.zeros(ink.shape, int)
    columns = ink.shape[1]
    for y in range(1, len(ink)):
        above = np.pad(cost[y - 1], 1, constant_values=np.inf)
        was_solid = np.pad(solid[y - 1], 1)
        ways = []
        for side in (0, -1, 1):
            from_there = slice(1 + side, 1 + side + columns)
            # a step to the side is 1.4 times as long; in the paper straight on is preferred
            length = ink[y] if side == 0 else 1.4 * ink[y] + 0.02
            entered = entry * (solid[y] & ~was_solid[from_there])
            ways.append(above[from_there] + entered + length)
        best = np.argmin(ways, axis=0)
        cost[y] = np.min(ways, axis=0)
        step[y] = np.array([0, -1, 1])[best]
    return cost, step
