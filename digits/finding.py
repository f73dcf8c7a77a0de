"""Where the digits are on a picture: what the finder marks, looked at in the size that shows most.

The finder knows digits of 14 to 80 pixels. So a picture is looked at in several sizes, each half
as large again as the one before, and the one in which most is found is kept: the digits on a page
differ less in size than those that the finder knows.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.special import logit, softmax

from digits.finder import INK_STRIDE, MULTIPLE, STRIDE, Finder, Maps

# px of the picture's longer side; in the last a digit a fiftieth of the page high has 32
SIDES = (64, 100, 160, 256, 400, 640, 1024, 1600)
# A picture is enlarged so many times at most, since nothing is seen better then; a small one, in
# which digits may be as small as the finder knows them, more often, to so many px.
ENLARGED, BLURRED, SMALL = 1.3, 2.3, 100
STEP = 1.35  # times the last size: if it may be so much larger, it is looked at in that, too
PATIENCE = 3  # sizes in which less than half as much is found: then larger ones are not looked at
MARGIN = 16  # px around the picture, in its border's color
POSSIBLE = 0.2  # heat of a middle is looked at
HOT = 0.6  # heat is plainly a digit or sign; such are written by one pen, mostly
FOUND = 0.6  # likely to be a digit or sign is what is found
# A digit a quarter as likely as a sign is one: people write stranger ones than the finder saw.
STRANGE = 0.25
INKED = 0.4  # likely is what is ink
REACH = 28.0  # px by which ink may miss the middle that it belongs to
# Two marks are of one digit if so much of a box lies in the other's, or if their middles are no
# farther apart than so much of both together.
DOUBLED, SAME = 0.5, 0.2
FEWEST = 4  # pixels of ink: less is a dot
BEST_HEIGHT = 38.0  # px, in the middle of what the finder knows
LESS = 0.1  # times as much as a digit counts what looks like a sign: it may be one all the same
# Ink of no mark is a sign if it is so large, as a share of the marks' usual size, and so likely
# ink; parts of one are so far apart at most, as of a division sign.
LEFT, PLAIN, PARTED = 0.35, 0.6, 0.3
FREE, SPREAD = 0.55, 0.35  # factors of e by which a digit may differ from it, and does less well


class Mark(NamedTuple):
    """A digit or sign in a view."""

    number: int  # of its ink in View.owner
    box: tuple[int, int, int, int]  # left, top, right, bottom in pixels of the view
    middle: tuple[float, float]  # where its ink says that the middle is, likewise
    heat: tuple[float, float]  # of a digit's, and of a sign's, middle there, 0 to 1
    ink: float  # how likely its ink is such, on the mean
    labels: tuple[float, ...] = (0.0,) * 10  # how likely the finder takes it for which digit
    is_digit: float = 0.0  # how likely, 0 to 1, among the other marks
    is_sign: float = 0.0

    @property
    def is_likely_digit(self) -> bool:
        return self.is_digit >= STRANGE * self.is_sign

    @property
    def size(self) -> float:
        """A digit's height in pixels of the view, a sign's longer side: a dash is as large as it.

        Of what is wider than two digits half its width.
        """
        left, top, right, bottom = self.box
        return max(bottom - top, (right - left) / (2 if self.is_likely_digit else 1))


class View(NamedTuple):
    """A picture in one size, and what is marked there."""

    pixels: np.ndarray  # the whole picture, uint8 [height, width, 3]
    image: np.ndarray  # uint8 [h, w, 3]: the picture in this size, with its margin
    scale: tuple[float, float]  # pixels of the view to one of the picture: across, down
    ink: np.ndarray  # float32 [h / 2, w / 2]: how likely it is ink of a digit or sign
    owner: np.ndarray  # int32 [h / 2, w / 2]: the number of the mark whose ink it is, or 0
    marks: list[Mark]


def find(pixels: np.ndarray, finder: Finder) -> View:
    """The view of a picture in which most is marked.

    Args:
        pixels: uint8 [height, width, 3].
        finder: as finder.load_finder gives it.
    """
    best, most, worse = None, -1.0, 0
    for side in _sides(max(pixels.shape[:2])):
        if worse == PATIENCE:
            break
        view = look(pixels, side, finder)
        total = _total(view)
        if total > most:
            best, most, worse = view, total, 0
        elif total < most / 2 and any(mark.is_likely_digit for mark in best.marks):
            worse += 1
    return _with_rest(best)


def _sides(longest: int) -> list[int]:
    """In which sizes a picture is looked at whose longer side has so many pixels."""
    largest = max(SIDES[0], min(BLURRED * longest, SMALL), ENLARGED * longest)
    sides = [side for side in SIDES if side <= largest]
    if largest > STEP * sides[-1] and sides[-1] < SIDES[-1]:
        sides.append(round(largest))
    return sides


def _resized(pixels: np.ndarray, side: int) -> tuple[np.ndarray, tuple[float, float]]:
    """The picture with its longer side so long, in a margin; and how much smaller it is."""
    height, width = pixels.shape[:2]
    factor = side / max(height, width)
    size = [max(8, round(length * factor)) for length in (width, height)]
    how = Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC
    small = np.asarray(Image.fromarray(pixels).resize(size, how))
    whole = [-(-(length + 2 * MARGIN) // MULTIPLE) * MULTIPLE for length in small.shape[:2]]
    image = np.empty((*whole, 3), np.uint8)
    image[:] = border_color(small)
    image[MARGIN : MARGIN + size[1], MARGIN : MARGIN + size[0]] = small
    return image, (size[0] / width, size[1] / height)


def border_color(image: np.ndarray) -> np.ndarray:
    """The median color of a picture's rim, uint8 [3]: what surrounds it most likely."""
    rim = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    return np.median(rim, axis=0).astype(np.uint8)


def look(pixels: np.ndarray, side: int, finder: Finder) -> View:
    """The picture, as in find, with its longer side so long, and what the finder marks in it."""
    image, scale = _resized(pixels, side)
    maps = finder.maps(image)
    peaks = peaks_of(maps)
    while True:
        peaks, owner, marks = marked(maps, peaks)
        marks = _judged(marks, finder.weights)
        dropped = [mark for mark in marks if mark.is_digit + mark.is_sign < FOUND]
        if not dropped:
            return View(pixels, image, scale, maps.ink, owner, marks)
        peaks = _without(dropped, peaks)


def peaks_of(maps: Maps, least: float = POSSIBLE) -> np.ndarray:
    """Rows and columns [n, 2] of what is hotter than that, and than the eight around it."""
    heat = maps.places.max(axis=-1)
    return np.argwhere((heat > least) & (heat == ndimage.maximum_filter(heat, 3)))


def marked(maps: Maps, peaks: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[Mark]]:
    """The peaks that have ink, none of one digit; View.owner and View.marks, not yet judged."""
    while True:
        owner = _owners(maps, peaks)
        marks = _marks(maps, peaks, owner)
        doubled = _doubled(marks)
        if not doubled:
            return peaks, owner, marks
        peaks = _without(doubled, peaks)


def _without(marks: list[Mark], peaks: np.ndarray) -> np.ndarray:
    return np.delete(peaks, [mark.number - 1 for mark in marks], axis=0)


def _owners(maps: Maps, peaks: np.ndarray) -> np.ndarray:
    """Whose each pixel of ink is, int32 as maps.ink: 1 for the first peak, 0 for none."""
    owner = np.zeros(maps.ink.shape, np.int32)
    places = np.nonzero(maps.ink > INKED)
    if len(peaks) and len(places[0]):
        away, nearest = cKDTree((peaks + 0.5) * STRIDE).query(_middles(maps, *places))
        owner[places] = np.where(away < REACH, nearest + 1, 0)
    return owner


def _middles(maps: Maps, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Where these pixels of ink say that their digit's middle is: rows and columns of the view."""
    places = np.stack([rows, columns], axis=1)
    return (places + 0.5) * INK_STRIDE + maps.offsets[rows, columns, ::-1]


def _marks(maps: Maps, peaks: np.ndarray, owner: np.ndarray) -> list[Mark]:
    """Those of the peaks that have ink."""
    marks = []
    for number, place in enumerate(ndimage.find_objects(owner, len(peaks)), 1):
        if place is None or (owner[place] == number).sum() < FEWEST:
            continue
        down, across = place
        rows, columns = np.nonzero(owner[place] == number)
        y, x = _middles(maps, rows + down.start, columns + across.start).mean(axis=0).tolist()
        peak = tuple(peaks[number - 1])
        heat, labels = (tuple(values[peak].tolist()) for values in (maps.places, maps.labels))
        ink = float(maps.ink[down, across][rows, columns].mean())
        marks.append(Mark(number, box_in_view(down, across), (x, y), heat, ink, labels))
    return marks


def box_in_view(rows: slice, columns: slice) -> tuple[int, int, int, int]:
    """Mark.box of ink in these rows and columns of View.ink."""
    sides = (columns.start, rows.start, columns.stop, rows.stop)
    return tuple(INK_STRIDE * side for side in sides)


def features(marks: list[Mark]) -> np.ndarray:
    """What tells which of the marks of a view are digits and which signs: float [n, 4].

    The heat of a digit and of a sign, and how much surer the finder is of the mark's ink than of
    the plain ones', all as logits; and 1.
    """
    ink = _logit([mark.ink for mark in marks])
    plain = [max(mark.heat) > HOT for mark in marks]
    surer = ink - np.median(ink[plain]) if any(plain) else np.zeros(len(ink))
    heats = _logit([mark.heat for mark in marks])
    return np.column_stack([heats, surer, np.ones(len(ink))])


def _judged(marks: list[Mark], weights: np.ndarray) -> list[Mark]:
    """The marks with how likely they are digits and signs."""
    if not marks:
        return []
    likely = softmax(features(marks) @ weights.T, axis=1)
    return [
        mark._replace(is_digit=is_digit, is_sign=is_sign)
        for mark, (is_digit, is_sign, _) in zip(marks, likely.tolist(), strict=True)
    ]


def _logit(likely):
    return logit(np.clip(likely, 1e-4, 1 - 1e-4))  # float32 rounds what is nearly sure to 1


def _doubled(marks: list[Mark]) -> list[Mark]:
    """Marks of a digit that a likelier one marks, too."""
    marks = sorted(marks, key=lambda mark: -max(mark.heat))
    boxes = np.array([mark.box for mark in marks], float).reshape(-1, 4)
    middles = np.array([mark.middle for mark in marks]).reshape(-1, 2)
    doubled, kept = [], np.zeros(len(marks), bool)
    for n, mark in enumerate(marks):
        kept[n] = not _are_one(boxes[n], middles[n], boxes[kept], middles[kept]).any()
        if not kept[n]:
            doubled.append(mark)
    return doubled


def _are_one(box: np.ndarray, middle: np.ndarray, boxes: np.ndarray, middles: np.ndarray):
    """Whether one lies mostly in the other's box, or their ink points to one middle: bool [n]."""
    outer = np.maximum(box[2:], boxes[:, 2:]) - np.minimum(box[:2], boxes[:, :2])
    inner = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    shared = np.prod(np.maximum(inner, 0), axis=1) / np.minimum(areas, np.prod(box[2:] - box[:2]))
    away = np.abs(middles - middle).max(axis=1, initial=0)
    return (away < SAME * outer.max(axis=1, initial=0)) | (shared > DOUBLED)


def _with_rest(view: View) -> View:
    """The view with a mark, as a sign, for plain ink of no mark: dashes, and digits not known."""
    rest = (view.ink > INKED) & (view.owner == 0)
    if not view.marks or not rest.any():
        return view
    usual = np.median([mark.size for mark in view.marks])
    apart = ndimage.distance_transform_edt(~rest) * INK_STRIDE
    groups, count = ndimage.label(apart <= PARTED * usual / 2)
    groups[~rest] = 0
    likely = ndimage.mean(view.ink, groups, np.arange(1, count + 1))
    owner, marks = view.owner.copy(), list(view.marks)
    for group, (down, across) in enumerate(ndimage.find_objects(groups), 1):
        ink = float(likely[group - 1])
        left, top, right, bottom = box = box_in_view(down, across)
        if max(right - left, bottom - top) >= LEFT * usual and ink > PLAIN:
            number = int(owner.max()) + 1
            owner[groups == group] = number
            middle = ((left + right) / 2, (top + bottom) / 2)
            marks.append(Mark(number, box, middle, (0.0, 0.0), ink, is_sign=ink))
    return view._replace(owner=owner, marks=marks)


def _total(view: View) -> float:
    """How much is found, as length in the picture, so that an 8 is worth more than its halves.

    What has about the size that the finder knows best counts most, and heat more than likelihood:
    where digits are likely in several sizes they are hottest in the best.
    """
    total = 0.0
    for mark in view.marks:
        odd = max(0, abs(np.log(mark.size / BEST_HEIGHT)) - FREE) / SPREAD
        digit, sign = mark.heat
        plain = digit * np.sqrt(mark.is_digit) if mark.is_likely_digit else LESS * sign
        total += plain * mark.size / view.scale[1] * np.exp(-(odd**2) / 2)
    return total


def in_picture(mark: Mark, view: View, around: int = 0) -> tuple[int, int, int, int]:
    """The mark's box, and so many pixels of the view around it, in whole pixels of the picture."""
    (left, top, right, bottom), (across, down) = mark.box, view.scale
    height, width = view.pixels.shape[:2]
    return (
        max(0, int((left - around - MARGIN) / across)),
        max(0, int((top - around - MARGIN) / down)),
        min(width, int(np.ceil((right + around - MARGIN) / across))),
        min(height, int(np.ceil((bottom + around - MARGIN) / down))),
    )
