"""Pages with digits, drawn by the program: what the finder learns from.

Every page is a piece of a picture, SIDE pixels a side, of what people hand in: rows, columns and
single digits in thick and thin pens, on plain, ruled and squared paper, in tables and frames, with
letters and signs, shadows, dust, the paper's edge on a table, in colour, light on dark, blurred,
noisy, as JPEG; and things that are no page at all.
"""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from digits.drawn_shapes import SIGN, Shape, height_of
from digits.finding import border_color

SIDE = 256
# What the finder is to find is so high; a picture is looked at in several sizes, and digits that
# are higher or lower are not to be found in this one.
LOW, HIGH = 14.0, 80.0
TOO_LOW, TOO_HIGH = (4.0, 9.0), (115.0, 330.0)
Window = tuple[int, int, int, int]  # left, top, right, bottom: what a small picture shows of a page
WHOLE = (0, 0, SIDE, SIDE)
FAINTEST = 25  # grey levels between ink and paper


class DrawnPage(NamedTuple):
    """A piece of a picture, and where the digits and signs are on it."""

    image: np.ndarray  # uint8 [SIDE, SIDE, 3]
    owner: np.ndarray  # uint8 [SIDE / 2, SIDE / 2]: whose ink it is, 1 + row of `boxes`, or 0
    boxes: np.ndarray  # float32 [n, 5]: left, top, right, bottom in pixels, and the label


class _Sheet:
    """What is written on a page while it is drawn."""

    def __init__(self):
        self.ink = np.zeros((SIDE, SIDE), np.float32)
        self.owner = np.zeros((SIDE, SIDE), np.uint8)
        self.taken = np.zeros((SIDE, SIDE), bool)
        self.boxes: list[tuple[float, ...]] = []

    def put(self, shape: Shape, x: float, y: float, height: float, rng: np.random.Generator) -> int:
        """Write a shape so high with its upper left corner there; gives its width in pixels."""
        stretch = np.exp(rng.normal(0, 0.15))
        scale = height / height_of(shape.ink, shape.label)
        wide, high = (
            max(2, round(length * scale * factor))
            for length, factor in zip(shape.ink.size, (stretch, 1), strict=True)
        )
        left, top = round(x), round(y)
        rows, columns = (
            slice(max(0, start), max(0, start + length))
            for start, length in ((top, high), (left, wide))
        )
        visible = self.taken[rows, columns]
        if not visible.size or visible.mean() > 0.2 or len(self.boxes) == 255:
            return wide
        ink = np.asarray(shape.ink.resize((wide, high), Image.Resampling.BOX), np.float32) / 255
        ink = ink[rows.start - top :, columns.start - left :][
            : visible.shape[0], : visible.shape[1]
        ]
        self.taken[rows, columns] = True
        shown = visible.size / (wide * high)
        self.ink[rows, columns] = np.maximum(self.ink[rows, columns], ink)
        self.boxes.append((left, top, left + wide, top + high, shape.label, shown))
        self.owner[rows, columns][ink > min(0.4, 0.6 * ink.max())] = len(self.boxes)
        return wide


def draw_page(rng: np.random.Generator, shapes: list[Shape]) -> DrawnPage:
    """Draw a page.

    Args:
        rng: the same numbers give the same page.
        shapes: what is written on it.
    """
    sheet = _Sheet()
    kind = rng.random()
    height = float(np.exp(rng.uniform(np.log(LOW), np.log(HIGH))))
    if kind < 0.05:
        height = float(rng.uniform(*TOO_LOW))
    elif kind < 0.16:
        height = float(np.exp(rng.uniform(*np.log(TOO_HIGH))))
    is_wanted = LOW <= height <= HIGH
    window = WHOLE
    if is_wanted and rng.random() < 0.35:
        height = float(np.exp(rng.uniform(np.log(24), np.log(HIGH))))
        window = _window(rng, height)
    lines = np.zeros((SIDE, SIDE), np.float32)
    if kind < 0.9:
        _write(sheet, shapes, height, window, rng)
        lines = _lines(sheet.boxes, height, window, rng)
    elif kind < 0.95:
        lines = _lines([], height, window, rng)
    image = _things(rng) if kind > 0.95 else _paper(rng)
    image = _inked(image, sheet.ink, lines, rng)
    image = _lit(image, rng)
    hidden = np.zeros((SIDE, SIDE), bool)
    is_small = window != WHOLE
    if is_sheet := is_small and rng.random() < 0.2:  # the small picture is a sheet on a table
        image, hidden = _on_table(image, _beyond_sheet(window, rng), rng)
    elif rng.random() < 0.25:
        image, hidden = _on_table(image, _beyond_edges(rng), rng)
    if rng.random() < 0.35:
        image = 255 - image
    image = _photographed(image, rng)
    if is_small and not is_sheet:
        hidden |= _outside(window)
        image = _padded(image, window)
    return _labelled(image, sheet, hidden, is_wanted)


def _window(rng: np.random.Generator, height: float) -> Window:
    """The part of the page that a small picture shows: left, top, right, bottom."""
    wide, high = (int(min(SIDE, height * rng.uniform(1.03, reach))) for reach in (6, 3))
    left, top = (int(rng.integers(0, SIDE - length + 1)) for length in (wide, high))
    return left, top, left + wide, top + high


def _write(
    sheet: _Sheet, shapes: list[Shape], height: float, window: Window, rng: np.random.Generator
) -> None:
    """Write rows, which may climb and have gaps; in a small picture one digit or a few."""
    left, top, right, bottom = window
    signs = rng.choice([0.0, 0.02, 0.3, 1.0], p=[0.5, 0.2, 0.22, 0.08])  # a share of the shapes
    spread, climb = rng.uniform(0.02, 0.16), rng.normal(0, 0.05)
    gap = rng.uniform(-0.12, 0.5) if rng.random() < 0.7 else rng.uniform(0.5, 2)
    is_grid = rng.random() < 0.2
    jump = 0.05 if rng.random() < 0.85 else 0.3
    chosen = _of_one_pen(shapes, rng)
    if right - left < SIDE and rng.random() < 0.6:
        _write_one(sheet, chosen[rng.integers(len(chosen))], height, window, rng)
        return
    y = top + rng.uniform(-0.4, 1.2) * height
    pitch = height * rng.uniform(0.9, 2.5)
    while y < bottom:
        if rng.random() < 0.15:
            y += height * rng.uniform(1, 3)
            continue
        start = x = left + rng.uniform(-0.6, 2) * height
        while x < right:
            shape = chosen[rng.integers(len(chosen))]
            if (shape.label == SIGN) != (rng.random() < signs):
                continue
            high = height * np.exp(rng.normal(0, spread))
            if shape.label == SIGN:
                high *= rng.uniform(0.4, 1.2)
            down = y + climb * (x - start) + height * rng.normal(0, jump)
            wide = sheet.put(shape, x, down + (height - high) * rng.random(), high, rng)
            x += max(pitch, wide) if is_grid else wide + gap * height * rng.uniform(0.5, 1.5)
            if rng.random() < 0.1:
                x += height * rng.uniform(0.5, 4)
        y += height * rng.uniform(1.12, 2.2)


def _of_one_pen(shapes: list[Shape], rng: np.random.Generator) -> list[Shape]:
    """Some of the shapes, mostly those whose strokes are about as wide as one's."""
    some = [shapes[n] for n in rng.integers(len(shapes), size=400)]
    if rng.random() < 0.6:
        apart = np.abs(np.array([shape.pen for shape in some]) - some[0].pen)
        some = [some[n] for n in np.argsort(apart)[:120]]
    return some


def _write_one(
    sheet: _Sheet, shape: Shape, height: float, window: Window, rng: np.random.Generator
) -> None:
    """Write one digit somewhere in a small picture."""
    left, top, right, bottom = window
    wide = height / shape.ink.height * shape.ink.width
    x = left + (right - left - wide) * rng.uniform(-0.03, 1.03)
    y = top + (bottom - top - height) * rng.uniform(-0.03, 1.03)
    sheet.put(shape, x, y, height, rng)


# ---------------------------------------------------------------- lines


def _lines(
    boxes: list[tuple[float, ...]], height: float, window: Window, rng: np.random.Generator
) -> np.ndarray:
    """What is no ink of a digit, and looks like it: float32 [SIDE, SIDE], 1 is a line."""
    thin = rng.choice([rng.uniform(0.5, 2), rng.uniform(0.5, 0.07 * height + 1)])
    kind, lean = rng.random(), rng.normal(0, 0.03)
    strokes = []  # points x, y of each, and how wide it is in half pixels
    if kind < 0.3:
        strokes = _ruling(kind < 0.22, kind > 0.1, height, lean, rng)
    elif kind < 0.36:
        strokes = _frames(boxes, height, rng)
    elif kind < 0.42:
        strokes = _underlines(boxes, height, rng)
    strokes = [(points, max(1, round(2 * thin))) for points in strokes]
    if rng.random() < 0.2:
        strokes += _rim(window, rng)
    if rng.random() < (0.2 if window == WHOLE else 0.05):
        strokes += [_long_stroke(min(height, 90), rng) for _ in range(rng.integers(1, 4))]
    canvas = Image.new("L", (2 * SIDE, 2 * SIDE))
    pencil = ImageDraw.Draw(canvas)
    for points, width in strokes:
        pencil.line([(2 * x, 2 * y) for x, y in points], fill=255, width=width)
    if rng.random() < 0.4:  # dots and dust
        for _ in range(rng.integers(1, 25)):
            x, y = 2 * rng.uniform(0, SIDE, 2)
            r = 2 * rng.uniform(0.4, max(0.8, 0.08 * min(height, HIGH)))
            pencil.ellipse([x - r, y - r * rng.uniform(0.5, 1), x + r, y + r], fill=255)
    return np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32) / 255


def _ruling(
    is_ruled: bool, is_barred: bool, height: float, lean: float, rng: np.random.Generator
) -> list[list[tuple[float, float]]]:
    """Lines across, lines down, or both: ruled or squared paper, or a table."""
    across, down = height * rng.uniform(0.4, 2.6, 2)
    if rng.random() < 0.4:
        down = across
    first, last = (rng.uniform(-60, 60), SIDE + rng.uniform(-60, 60))
    if rng.random() < 0.6:
        first, last = -10, SIDE + 10
    strokes = []
    if is_ruled:
        for y in np.arange(rng.uniform(0, across), SIDE, across):
            strokes.append([(first, y + lean * first), (last, y + lean * last)])
    if is_barred:
        for x in np.arange(rng.uniform(0, down), SIDE, down):
            strokes.append([(x - lean * first, first), (x - lean * last, last)])
    return strokes


def _frames(
    boxes: list[tuple[float, ...]], height: float, rng: np.random.Generator
) -> list[list[tuple[float, float]]]:
    """A frame round each."""
    wide, high = height * rng.uniform(0.08, 0.4, 2)
    strokes = []
    for left, top, right, bottom, *_ in boxes:
        left, top, right, bottom = left - wide, top - high, right + wide, bottom + high
        corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        strokes.append(corners)
    return strokes


def _underlines(
    boxes: list[tuple[float, ...]], height: float, rng: np.random.Generator
) -> list[list[tuple[float, float]]]:
    """A line below most."""
    wide, low = height * rng.uniform(0.08, 0.4, 2)
    return [
        [(left - wide, bottom + low / 2), (right + wide, bottom + low)]
        for left, _, right, bottom, *_ in boxes
        if rng.random() < 0.8
    ]


def _rim(window: Window, rng: np.random.Generator) -> list[tuple[list[tuple[float, float]], int]]:
    """Some sides of the picture, or of the paper."""
    inset = rng.uniform(0, 4)
    left, top, right, bottom = np.add(window, np.multiply([1, 1, -1, -1], inset))
    sides = [[(left, top), (right, top)], [(right, top), (right, bottom)]]
    sides += [[(left, bottom), (right, bottom)], [(left, top), (left, bottom)]]
    return [(side, max(1, round(rng.uniform(1, 12)))) for side in sides if rng.random() < 0.5]


def _long_stroke(height: float, rng: np.random.Generator) -> tuple[list[tuple[float, float]], int]:
    """A stroke much longer than digits of that height are: no 1."""
    start = rng.uniform(0, SIDE, 2)
    angle = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.1)
    if rng.random() < 0.3:
        angle = rng.uniform(0, np.pi)
    end = start + rng.uniform(2.5, 8) * height * np.array([np.cos(angle), np.sin(angle)])
    return [tuple(start), tuple(end)], max(1, round(rng.uniform(1, height / 4)))


# ---------------------------------------------------------------- paper, light, camera


def _waves(rng: np.random.Generator, count: int, strength: float) -> np.ndarray:
    """Smooth noise of about so many waves a side: float32 [SIDE, SIDE]."""
    noise = Image.fromarray(rng.standard_normal((count, count)).astype(np.float32) * strength)
    return np.asarray(noise.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _paper(rng: np.random.Generator) -> np.ndarray:
    """An empty page: float32 [SIDE, SIDE, 3]."""
    light = rng.uniform(110, 255) if rng.random() < 0.7 else 255.0
    tint = rng.normal(0, 12 if rng.random() < 0.5 else 2, 3)
    paper = np.full((SIDE, SIDE, 3), light, np.float32) + tint.astype(np.float32)
    if rng.random() < 0.7:
        paper += _waves(rng, int(rng.integers(2, 5)), rng.uniform(0, 16))[..., None]
        paper += _waves(rng, int(rng.integers(20, 90)), rng.uniform(0, 5))[..., None]
    if rng.random() < 0.1:
        paper *= rng.uniform(0.4, 1, 3).astype(np.float32)
    if rng.random() < 0.15:  # crumpled, folded
        paper += _waves(rng, int(rng.integers(5, 24)), rng.uniform(2, 9))[..., None]
        for _ in range(rng.integers(0, 6)):
            away = _distance_to_edge(rng)
            fold = np.sign(away) * np.exp(-np.abs(away) / rng.uniform(1, 30))
            paper += rng.normal(0, 12) * fold[..., None]
    return paper


def _things(rng: np.random.Generator) -> np.ndarray:
    """Things that hide one another, as on photographs: float32 [SIDE, SIDE, 3]."""
    canvas = Image.new("RGB", (SIDE, SIDE), tuple(rng.integers(0, 256, 3).tolist()))
    pencil = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(3, 60)):
        size = SIDE * np.exp(rng.uniform(np.log(0.02), np.log(0.8)))
        x, y = rng.uniform(-0.1, 1.1, 2) * SIDE
        colour = tuple(rng.integers(0, 256, 3).tolist())
        kind = rng.integers(4)
        if kind == 0:
            pencil.ellipse([x, y, x + size, y + size * rng.uniform(0.2, 1)], fill=colour)
        elif kind == 1:
            points = rng.uniform(0, size, (int(rng.integers(3, 7)), 2)) + [x, y]
            pencil.polygon([tuple(p) for p in points], fill=colour)
        elif kind == 2:
            pencil.arc([x, y, x + size, y + size], 0, int(rng.integers(90, 360)), colour, 4)
        else:
            points = rng.uniform(0, size, (2, 2)) + [x, y]
            pencil.line([tuple(p) for p in points], colour, int(rng.integers(1, 12)))
    things = np.asarray(canvas, np.float32)
    return things + _waves(rng, int(rng.integers(3, 100)), rng.uniform(0, 30))[..., None]


def _inked(
    image: np.ndarray, ink: np.ndarray, lines: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """What is written, in one colour, and the lines, in another or the same."""
    colour = np.full(3, rng.uniform(0, 60)) if rng.random() < 0.6 else rng.uniform(0, 140, 3)
    faintest = FAINTEST / max(FAINTEST, np.abs(image.mean((0, 1)) - colour).mean())
    depth = rng.uniform(faintest, 1) if rng.random() < 0.6 else rng.uniform(max(faintest, 0.7), 1)
    if rng.random() < 0.25:  # a pencil's grain, a felt pen that runs dry
        ink = ink * np.clip(1 + _waves(rng, 128, rng.uniform(0, 0.5)), 0.3, 1)
    hue = colour if rng.random() < 0.5 else rng.uniform(0, 220, 3)
    strength = depth * rng.uniform(0.15, 1.1) if rng.random() < 0.8 else depth
    lines = np.clip(lines * strength, 0, 1)[..., None]
    ink = (ink * depth)[..., None]
    image = image + lines * (hue.astype(np.float32) - image)
    return image + ink * (colour.astype(np.float32) - image)


def _distance_to_edge(rng: np.random.Generator) -> np.ndarray:
    """How far each pixel lies beyond a straight line somewhere on the page."""
    angle = rng.uniform(0, 2 * np.pi)
    if rng.random() < 0.6:
        angle = rng.integers(4) * np.pi / 2 + rng.normal(0, 0.1)
    y, x = np.ogrid[:SIDE, :SIDE]
    at = rng.uniform(0, SIDE, 2)
    return ((x - at[0]) * np.cos(angle) + (y - at[1]) * np.sin(angle)).astype(np.float32)


def _lit(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The page in a light from one side, its colour changing, or with a shadow."""
    if rng.random() < 0.3:
        change = _distance_to_edge(rng)[..., None] / SIDE
        image = image * (1 + change * rng.uniform(-0.3, 0.3, 3).astype(np.float32))
    if rng.random() < 0.25:
        dark, soft = rng.uniform(0.1, 0.6), rng.uniform(0.7, 25)
        shade = 1 / (1 + np.exp(np.clip(-_distance_to_edge(rng) / soft, -30, 30)))
        image = image * (1 - dark * shade)[..., None]
    return image


def _beyond_edges(rng: np.random.Generator) -> np.ndarray:
    """How far each pixel lies beyond an edge of a sheet, or beyond the nearest of up to four."""
    beyond = _distance_to_edge(rng)
    if rng.random() < 0.4:
        for _ in range(rng.integers(1, 4)):
            beyond = np.maximum(beyond, _distance_to_edge(rng))
    return beyond


def _beyond_sheet(window: Window, rng: np.random.Generator) -> np.ndarray:
    """How far each pixel lies beyond the edges of a sheet that lies about straight."""
    left, top, right, bottom = window
    y, x = (
        np.mgrid[:SIDE, :SIDE] - np.array([(top + bottom) / 2, (left + right) / 2])[:, None, None]
    )
    lean = rng.normal(0, 0.08)
    across, down = (
        np.abs(x + lean * y) - (right - left) / 2,
        np.abs(y - lean * x) - (bottom - top) / 2,
    )
    return np.maximum(across, down).astype(np.float32)


def _on_table(
    image: np.ndarray, beyond: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The page with its edge on something else, and what lies beyond the edge, bool."""
    other = rng.uniform(10, 235, 3).astype(np.float32) + np.zeros_like(image)
    if rng.random() < 0.3:
        other = _things(rng)
    other = other + _waves(rng, int(rng.integers(3, 100)), rng.uniform(1, 30))[..., None]
    if rng.random() < 0.4:  # wood, cloth, a rug
        y, x = np.ogrid[:SIDE, :SIDE]
        angle = rng.uniform(0, np.pi)
        along = (x * np.cos(angle) + y * np.sin(angle)) / rng.uniform(1, 8)
        waves = np.sin(along + _waves(rng, 6, 2)) * rng.uniform(5, 40)
        other = other + waves[..., None].astype(np.float32)
    share = 1 / (1 + np.exp(np.clip(-beyond / 0.7, -30, 30)))[..., None]
    return image * (1 - share) + other * share, beyond > 0


def _photographed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The page as a camera or a program saves it: uint8 [SIDE, SIDE, 3]."""
    if rng.random() < 0.7:
        soft = rng.uniform(0.3, 1.2) if rng.random() < 0.85 else rng.uniform(1.2, 2.5)
        image = ndimage.gaussian_filter(image, (soft, soft, 0), truncate=2.5)
    if rng.random() < 0.15:  # it was a smaller picture
        small = [int(SIDE / rng.uniform(1.5, 3.5))] * 2
        image = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
        image = image.resize(small, Image.Resampling.BOX)
        image = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)
    if rng.random() < 0.6:
        noise = rng.standard_normal((SIDE, SIDE, 1), np.float32)
        image = image + noise * rng.choice([rng.uniform(0, 3), rng.uniform(0, 9)]) * rng.uniform(
            0.7, 1.3, 3
        ).astype(np.float32)
    if rng.random() < 0.3:
        image = image * 0 + image.mean(axis=2, keepdims=True)
    image = np.clip(image, 0, 255).astype(np.uint8)
    if rng.random() < 0.35:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=int(rng.integers(30, 95)))
        image = np.asarray(Image.open(file))
    return image


def _outside(window: Window) -> np.ndarray:
    left, top, right, bottom = window
    outside = np.ones((SIDE, SIDE), bool)
    outside[top:bottom, left:right] = False
    return outside


def _padded(image: np.ndarray, window: Window) -> np.ndarray:
    """The picture in the window alone, surrounded as the finder surrounds pictures."""
    left, top, right, bottom = window
    inner = image[top:bottom, left:right]
    padded = np.empty_like(image)
    padded[:] = border_color(inner)
    padded[top:bottom, left:right] = inner
    return padded


def _labelled(image: np.ndarray, sheet: _Sheet, hidden: np.ndarray, is_wanted: bool) -> DrawnPage:
    """The page with what is to be found on it: all of which most is seen, if it has the size."""
    owner = np.where(hidden, 0, sheet.owner)
    inked = np.bincount(sheet.owner.ravel(), minlength=256)
    seen = np.bincount(owner.ravel(), minlength=256)
    numbers = np.zeros(256, np.uint8)
    boxes = []
    for number, (*box, label, shown) in enumerate(sheet.boxes, 1):
        if is_wanted and seen[number] * shown > 0.65 * max(1, inked[number]):
            boxes.append((*box, label))
            numbers[number] = len(boxes)
    owner = numbers[owner]
    # a thin stroke may lie in one of four pixels
    quarters = np.stack([owner[a::2, b::2] for a in (0, 1) for b in (0, 1)])
    return DrawnPage(image, quarters.max(axis=0), np.array(boxes, np.float32).reshape(-1, 5))
