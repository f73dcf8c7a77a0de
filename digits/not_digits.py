"""Shapes that are no digit, drawn by the program: what the judge learns to turn away.

Cutting a row of handwriting into digits needs to know what is *not* one digit, since a network
that only ever saw digits calls a half or a pair of them one for sure (LeCun, Bottou, Bengio and
Haffner 1998, section V; Casey and Lecolinet 1996). Every shape goes through handwriting's own
renderer, so that it looks as it would to the network that reads.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from digits import drawn, handwriting

SCALE = 3  # pixels of the canvas for one of MNIST's: fine enough for a pen's edge
HEIGHT = 28 * SCALE
# A stick as slim as this is how most people write a 1, whatever it was cut from,
STICK = 0.55  # of its height
SOLID = 0.55  # and so is a slimmer one that fills so much of its box:
SOLID_STICK = 0.37  # one in two hundred of MNIST's 1s is broader
FLAGGED_ONES = 0.03  # of all digits; a third of the 1s
# Letters and signs that no digit looks like, as in strokes.STYLES: O, S, B, g, q and the like
# are left out, since nobody could tell them from 0, 5, 8, 9 without the word around them.
LETTERS = (
    ("0,100 30,0! 60,100", "12,62 50,62"),  # A
    ("60,4 6,0! 6,100! 60,98", "6,50 48,48"),  # E
    ("60,2 6,0! 6,100", "6,50 46,48"),  # F
    ("6,0 6,100", "60,0 60,100", "6,50 60,50"),  # H
    ("50,0 50,70 40,96 22,98 8,86 4,68",),  # J
    ("6,0 6,100", "58,0 6,54! 60,100"),  # K
    ("6,0 6,98! 58,98",),  # L
    ("0,100 10,0! 36,64! 62,0! 74,100",),  # M
    ("4,100 6,0! 58,100! 60,0",),  # N
    ("6,100 6,0! 40,2 58,16 54,40 34,52 6,52",),  # P
    ("6,100 6,0! 40,2 56,16 52,38 34,50 6,50! 60,100",),  # R
    ("0,2 66,0", "33,0 33,100"),  # T
    ("0,0 30,100! 60,0",),  # V
    ("0,0 18,100! 38,30! 58,100! 78,0",),  # W
    ("0,0 60,100", "60,0 0,100"),  # X
    ("50,20 24,10 4,34 8,80 28,92 48,66 52,16! 52,80 64,98",),  # a
    ("54,4 54,98", "54,60 36,46 12,54 4,76 16,98 38,96 54,80"),  # d
    ("6,56 56,50 50,24 28,16 6,40 6,80 28,100 58,88",),  # e
    ("56,12 44,0 30,10 28,40 26,100", "4,44 52,42"),  # f
    ("8,0 8,100! 10,64 30,44 46,54 48,100",),  # h
    ("6,30 6,100! 8,52 24,34 38,50 38,100! 40,54 56,34 70,48 72,100",),  # m
    ("6,24 6,100! 10,50 32,26 50,44 52,100",),  # n
    ("8,22 8,100! 10,52 26,30 48,28",),  # r
    ("28,0 26,80 36,98 54,94", "4,30 54,28"),  # t
    ("4,20 4,70 16,92 36,90 54,62 56,20! 56,84 66,98",),  # u
    ("0,20 10,90 28,94 40,40! 50,90 66,92 80,20",),  # w
    ("50,0 50,100", "0,50 100,50"),  # plus
    ("0,0 90,0", "0,40 90,40"),  # equals
    ("20,0 10,100", "60,0 50,100", "0,34 76,30", "0,70 74,66"),  # hash
    ("0,0 100,0! 100,100! 0,100! 0,0",),  # box
    ("50,0 100,90! 0,90! 50,0",),  # triangle
    ("0,50 40,90! 100,0",),  # tick
    ("0,50 100,50", "70,20 100,50! 70,80"),  # arrow
    ("50,100 0,40 10,6 36,4 50,30! 64,4 92,8 100,40 50,100!",),  # heart
    ("50,0 80,100! 0,36! 100,36! 20,100! 50,0",),  # star
    ("8,20 26,0 50,14 40,44 28,60 28,76", "28,94 28,99"),  # question mark
    ("60,6 20,20 20,60 60,84", "84,0 96,96"),  # bracket and bar
    ("0,50 24,20 50,50 76,80 100,50",),  # tilde
    ("100,0 60,10 100,60 40,50 90,100 10,80",),  # twirl
    ("20,100 20,40 60,40 60,100", "8,44 40,0! 74,44", "34,100 34,70 46,70 46,100"),  # house
)


def draw(count: int, seed: int, digits: np.ndarray) -> np.ndarray:
    """Draw shapes that are no digit.

    Args:
        count: how many.
        seed: the same seed and digits give the same shapes.
        digits: uint8 [n, 28, 28], white on black: what halves and pairs are made from.

    Returns:
        uint8 [count, 28, 28], as handwriting.to_mnist would have made them.
    """
    rng = np.random.default_rng(seed)
    makers, shares = zip(*KINDS, strict=True)
    kinds = rng.choice(len(makers), count, p=np.array(shares) / sum(shares))
    return np.stack([_drawn(makers[kind], rng, digits) for kind in kinds])


def _drawn(
    make: Callable[[np.random.Generator, np.ndarray], np.ndarray],
    rng: np.random.Generator,
    digits: np.ndarray,
) -> np.ndarray:
    while True:
        shape = make(rng, digits)
        box = handwriting.box_of(shape)
        if box is None or shape.sum() < 2 * SCALE**2 or _is_stick(shape[box]):
            continue
        return handwriting.render(shape.astype(np.float32), shape, 28, 28)


def _is_stick(shape: np.ndarray) -> bool:
    height, width = shape.shape
    return width < (SOLID_STICK if shape.mean() > SOLID else STICK) * height


# ---------------------------------------------------------------- from digits


def _digit(rng: np.random.Generator, digits: np.ndarray) -> np.ndarray:
    """One of the digits, tight in its box, bool [SCALE * height, SCALE * width]."""
    picture = Image.fromarray(digits[rng.integers(len(digits))])
    size = [round(HEIGHT * side) for side in rng.uniform(0.75, 1.25, 2)]
    picture = picture.rotate(rng.normal(0, 5)).resize(size, Image.Resampling.BICUBIC)
    shape = np.asarray(picture) > 110
    pen = rng.integers(3)
    if pen == 1 and shape.mean() < 0.2:  # thicker would fill the loops
        shape = ndimage.binary_dilation(shape, iterations=int(rng.integers(1, 4)))
    elif pen == 2:
        thin = ndimage.binary_erosion(shape)
        # thinner would break the strokes
        shape = thin if thin.sum() > 0.4 * shape.sum() else shape
    return shape[handwriting.box_of(shape)]


def draw_digits(
    count: int, seed: int, digits: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Digits as a page has them: by other hands and pens, cut out a little too close or too wide.

    Args:
        count: how many.
        seed: the same seed and digits give the same result.
        digits: uint8 [n, 28, 28], white on black, to be changed.
        labels: int [n], what they are.

    Returns:
        uint8 [count, 28, 28] and their labels [count].
    """
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(digits), size=count)
    labels = labels[chosen].copy()
    images = np.zeros((count, 28, 28), np.uint8)
    for n, index in enumerate(chosen):
        if rng.random() < FLAGGED_ONES:
            shape, labels[n] = _flagged_one(rng), 1
        else:
            shape = _cut_out(rng, digits[index : index + 1], digits)
        images[n] = handwriting.render(shape.astype(np.float32), shape, 28, 28)
    return images, labels


def _flagged_one(rng: np.random.Generator) -> np.ndarray:
    """A 1 with a long flag and no foot, which MNIST's writers hardly ever wrote."""
    length = 100 * rng.uniform(0.25, 0.9)
    slope = np.radians(rng.uniform(25, 60))
    tip = np.array([rng.normal(8, 8), 0])
    flag = tip + length * np.array([-np.cos(slope), np.sin(slope)])
    points = np.array([flag, tip, [0, 100]]) + rng.normal(0, 1.5, (3, 2))
    return _strokes([points], rng)


def _cut_out(rng: np.random.Generator, digit: np.ndarray, digits: np.ndarray) -> np.ndarray:
    shape = _digit(rng, digit)
    kind = rng.random()
    if kind < 0.25:  # a little is lost to the neighbour
        return _part_of(shape, rng, 1 - rng.uniform(0.02, 0.1))
    if kind < 0.55:  # a little of the neighbour is left
        part = _part_of(_digit(rng, digits), rng, rng.uniform(0.03, 0.12))
        part = part[handwriting.box_of(part)]
        drop = round(rng.random() * max(1, len(shape) - len(part)))
        gap = round(SCALE * rng.uniform(-2, 0))
        if rng.random() < 0.5:
            return _beside(shape, part, gap, drop)
        return _beside(part, shape, gap, -drop)
    return shape


def _beside(a: np.ndarray, b: np.ndarray, gap: int, drop: int) -> np.ndarray:
    """The two shapes on one canvas, b so far to the right of a and so far below it."""
    drop = max(drop, 1 - len(b)) if drop < 0 else min(drop, len(a) - 1)
    left = max(0, a.shape[1] + gap)
    top = max(0, -drop)
    canvas = np.zeros(
        (
            max(top + len(a), top + drop + len(b)),
            max(a.shape[1], left + b.shape[1]),
        ),
        bool,
    )
    canvas[top : top + len(a), : a.shape[1]] |= a
    canvas[top + drop : top + drop + len(b), left : left + b.shape[1]] |= b
    return canvas


def _several(rng: np.random.Generator, digits: np.ndarray) -> np.ndarray:
    """Two or three digits in a row, just apart, touching or run together."""
    shape = _digit(rng, digits)
    for _ in range(rng.integers(1, 3) if rng.random() < 0.4 else 1):
        gap = round(SCALE * rng.uniform(-5, 5))
        shape = _beside(shape, _digit(rng, digits), gap, round(SCALE * rng.normal(0, 2)))
    return shape


def _stacked(rng: np.random.Generator, digits: np.ndarray) -> np.ndarray:
    """A digit under another."""
    a, b = _digit(rng, digits).T, _digit(rng, digits).T
    gap = round(SCALE * rng.uniform(-3, 8))
    return _beside(a, b, gap, round(SCALE * rng.normal(0, 3))).T


def _part(rng: np.random.Generator, digits: np.ndarray) -> np.ndarray:
    """What a straight cut leaves of a digit: between a fifth and four fifths of its ink."""
    return _part_of(_digit(rng, digits), rng, rng.uniform(0.2, 0.8))


def _part_of(shape: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """The share of the shape's ink that is on one side of a straight cut."""
    y, x = np.nonzero(shape)
    # most cuts are upright, as those between the digits of a row are
    angle = rng.normal(0, 0.35) if rng.random() < 0.7 else rng.uniform(0, np.pi)
    across = (x * np.cos(angle) + y * np.sin(angle)) * rng.choice([-1, 1])
    kept = across < np.quantile(across, share)
    part = np.zeros_like(shape)
    part[y[kept], x[kept]] = True
    return part


def _with_neighbours_part(rng: np.random.Generator, digits: np.ndarray) -> np.ndarray:
    """A digit and a piece of the next one."""
    part = _part(rng, digits)
    box = handwriting.box_of(part)
    gap = round(SCALE * rng.uniform(-4, 3))
    drop = round(box[0].start + SCALE * rng.normal(0, 1))
    shape = _beside(_digit(rng, digits), part[box], gap, drop)
    return shape[:, ::-1] if rng.random() < 0.3 else shape


def _underlined(rng: np.random.Generator, digits: np.ndarray) -> np.ndarray:
    """A digit with a line that runs past it, through it, or round it."""
    shape = np.pad(_digit(rng, digits), round(SCALE * rng.uniform(3, 10)))
    thickness = round(SCALE * rng.uniform(1, 3))
    rows = [rng.integers(len(shape) - thickness)]
    if rng.random() < 0.3:
        rows = [0, len(shape) - thickness]
        shape[:, :thickness] = shape[:, -thickness:] = True
    for row in rows:
        shape[row : row + thickness] = True
    return shape if rng.random() < 0.7 else np.rot90(shape)


def _turned(rng: np.random.Generator, digits: np.ndarray) -> np.ndarray:
    """A digit that lies on its side."""
    return np.rot90(_digit(rng, digits), rng.choice([1, 3]))


# ---------------------------------------------------------------- from nothing


def _strokes(strokes: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Lines through points [n, 2], stretched into the canvas, bool."""
    points = np.concatenate(strokes)
    low, span = points.min(axis=0), max(np.ptp(points, axis=0).max(), 1e-6)
    pen = SCALE * rng.uniform(1.2, 5)
    canvas = Image.new("1", (HEIGHT, HEIGHT))
    pencil = ImageDraw.Draw(canvas)
    for stroke in strokes:
        xy = (stroke - low) / span * (HEIGHT - 2 * pen) + pen
        pencil.line([tuple(p) for p in xy], fill=1, width=round(pen), joint="curve")
        for x, y in xy[[0, -1]]:
            pencil.ellipse([x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2], fill=1)
    return np.asarray(canvas)


def _letter(rng: np.random.Generator, _: np.ndarray) -> np.ndarray:
    curves = [drawn._curve(s) for s in LETTERS[rng.integers(len(LETTERS))]]
    shear = np.array([[rng.uniform(0.7, 1.3), 0], [rng.normal(-0.1, 0.25), 1]])
    return _strokes(
        [w @ (p + rng.normal(0, 4, p.shape) + rng.normal(0, 3, 2)) @ shear for p, w in curves], rng
    )


def _scribble(rng: np.random.Generator, _: np.ndarray) -> np.ndarray:
    """A pen that wanders about, in curves or in corners."""
    points = rng.uniform(0, 100, (rng.integers(3, 14), 2)) * [rng.uniform(0.4, 1.5), 1]
    if rng.random() < 0.4:
        return _strokes([points], rng)
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    places, weights = drawn._curve(text)
    return _strokes([weights @ places], rng)


def _lines(rng: np.random.Generator, _: np.ndarray) -> np.ndarray:
    """Up to five straight lines; a single one lies."""
    count = rng.integers(1, 6)
    if count == 1:
        slope = rng.uniform(-0.7, 0.7)
        return _strokes([np.array([[0, 0], [100, 100 * slope]])], rng)
    return _strokes(list(rng.uniform(0, 100, (count, 2, 2))), rng)


def _dots(rng: np.random.Generator, _: np.ndarray) -> np.ndarray:
    """One to six filled round or square spots."""
    canvas = Image.new("1", (HEIGHT, HEIGHT))
    pencil = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(1, 7)):
        x, y = rng.uniform(0, 0.7 * HEIGHT, 2)
        w, h = rng.uniform(0.1, 0.6, 2) * HEIGHT
        shape = pencil.ellipse if rng.random() < 0.6 else pencil.rectangle
        shape([x, y, x + w, y + h], fill=1)
    return np.asarray(canvas)


def _texture(rng: np.random.Generator, _: np.ndarray) -> np.ndarray:
    """The dark parts of smooth noise, all of them or the largest: what photographs leave."""
    side = rng.integers(HEIGHT // 2, HEIGHT + 1, 2)
    noise = ndimage.gaussian_filter(rng.normal(size=side), rng.uniform(1, 12, 2))
    if rng.random() < 0.4:  # as wide as a line: the edges of things
        noise = -np.abs(noise)
    shape = noise > np.quantile(noise, rng.uniform(0.4, 0.9))
    if rng.random() < 0.7:
        pieces, _ = ndimage.label(shape)
        shape = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    return shape


def _blot(rng: np.random.Generator, _: np.ndarray) -> np.ndarray:
    """A filled spot or splinter, upright, lying or aslant: what a solid thing leaves."""
    corners = rng.integers(3, 8) if rng.random() < 0.5 else 60
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = np.ones(corners)
    if corners == 60:  # round, with up to three soft lobes
        for wave in range(1, rng.integers(2, 5)):
            radius += rng.normal(0, 0.6 / wave) * np.cos(wave * angle + rng.uniform(0, 6))
    points = np.abs(radius[:, None]) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points *= [1, rng.uniform(0.25, 1)]
    points = _turn(points, rng.uniform(0, np.pi))
    points = (points - points.min(axis=0)) / np.ptp(points, axis=0).max()
    canvas = Image.new("1", (HEIGHT, HEIGHT))
    ImageDraw.Draw(canvas).polygon([tuple(p) for p in points * (HEIGHT - 1)], fill=1)
    return np.asarray(canvas)


def _photograph(rng: np.random.Generator, _: np.ndarray) -> np.ndarray:
    """What the ink finder takes for a digit on a picture of things that hide one another.

    Things of all sizes, one in front of the other, have edges as photographs do (Lee, Mumford and
    Huang 2001, "Occlusion models for natural images").
    """
    side = int(np.exp(rng.uniform(np.log(28), np.log(120))))
    size = (side, round(side * rng.uniform(0.7, 1.4)))
    canvas = Image.new("L", size, int(rng.integers(256)))
    pencil = ImageDraw.Draw(canvas)
    least = rng.uniform(0.02, 0.3)
    for _ in range(rng.integers(2, 60)):
        # a thing of half the size is four times as common
        radius = side * min(1.5, least / np.sqrt(rng.uniform(0.01, 1)))
        corners = rng.integers(3, 6) if rng.random() < 0.4 else 24
        angle = np.arange(corners) * 2 * np.pi / corners
        points = radius * np.stack([np.cos(angle), np.sin(angle) * rng.uniform(0.15, 1)], axis=1)
        points = _turn(points, rng.uniform(0, np.pi)) + rng.uniform(0, 1, 2) * size
        pencil.polygon([tuple(p) for p in points], fill=int(rng.integers(256)))
    light = np.asarray(canvas, float)
    for coarse in (rng.uniform(0.5, 3), side / rng.uniform(3, 12)):  # texture, and shading
        grain = ndimage.gaussian_filter(rng.normal(size=light.shape), coarse)
        light += rng.uniform(0, 30) * grain / grain.std()
    light = ndimage.gaussian_filter(light, rng.uniform(0, 0.02 * side))
    picture = Image.fromarray(np.clip(light, 0, 255).astype(np.uint8))
    try:
        seen = Image.fromarray(handwriting.to_mnist(picture))
    except handwriting.NoInkError:
        return np.zeros((HEIGHT, HEIGHT), bool)
    return np.asarray(seen.resize((HEIGHT, HEIGHT), Image.Resampling.BICUBIC)) > 110


def _turn(points: np.ndarray, angle: float) -> np.ndarray:
    return points @ [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]


# What is drawn, and its share. Halves and pairs are what cutting a row apart meets most often.
KINDS = (
    (_several, 5),
    (_stacked, 1),
    (_part, 5),
    (_with_neighbours_part, 4),
    (_underlined, 1.5),
    (_turned, 0.7),
    (_letter, 4),
    (_scribble, 2.5),
    (_lines, 1.5),
    (_dots, 1.5),
    (_texture, 3.5),
    (_blot, 2.5),
    (_photograph, 4),
)
