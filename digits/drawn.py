"""Digits drawn by the program: a stand-in for MNIST that needs no data but its own strokes.

A network trained on 60,000 of them alone reads 98.6% of MNIST's test images (mean of three seeds;
three epochs, AdamW, small random affine transforms). One core draws about 15,000 digits a second.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from digits.strokes import STYLES, Way

# Standard deviations in half heights of the digit, chosen by how many of MNIST's training images a
# network reads that was trained on drawn digits.
JITTER = 0.095  # of each point of a stroke
LOOSE_END = 1.6  # times JITTER at both ends of a stroke, which people aim less
LIFT = 0.06  # of a whole stroke, when the pen was lifted before it
BEND = 0.09  # of each square term of the polynomial that bends the sheet
CUBIC = 0.7  # times BEND, of each cubic term

# These give width, slant and ink the means and spreads that MNIST's training images have.
WIDTH, WIDTH_STD, WIDTH_RANGE = 1.12, 0.25, (0.45, 2)  # times the width in the table
SLANT, SLANT_STD = 0.12, 0.25  # to the right for each unit up
TURN_STD = 0.1  # radians
PEN, PEN_STD, PEN_RANGE = 1.24, 0.37, (0.9, 3.2)  # radius in pixels of the finished image
PEN_SKEW = 0.06  # felt pens are further from the common pen than sharp pencils are
PRESS, PRESS_RANGE = 0.15, (0.5, 1.5)  # times the pen's radius, along a stroke
SOFT = 1.1  # pixels from full ink to none

SIDE, BOX = 28, 20  # pixels: MNIST's images, and the box that their ink is scaled to
MARGIN = (SIDE - BOX) // 2

SAMPLES = 0.36  # a unit of the table: 100 become 20 pixels, so the discs are half a pixel apart
CHUNK = 2000  # digits drawn at a time: few enough for 100 MB, many enough for numpy to be quick

# Normally distributed numbers, so many of each kind, that make one digit differ from the next.
NUMBERS = {
    "jitter": 2 * max(len(" ".join(s).split()) for ways in STYLES.values() for _, s in ways),
    "lift": 2,
    "bend": 12,
    "shape": 3,
    "pen": 1,
    "press": 3,
}

Table = dict[int, list[Way]]  # as strokes.STYLES


class Style(NamedTuple):
    """A way to write a digit, made ready for drawing many at once."""

    points: np.ndarray  # [points, 2]: x, y from the middle of the digit, in half sheets
    lifted: np.ndarray  # [points, 1]: 1 where the pen was lifted before the stroke, else 0
    looseness: np.ndarray  # [points, 1]: how freely a point strays
    weights: np.ndarray  # [samples, points]: a sample of the curve is this mean of the points
    along: np.ndarray  # [samples]: from -1 at the start of the stroke to 1 at its end


def draw(count: int, seed: int, table: Table = STYLES) -> tuple[np.ndarray, np.ndarray]:
    """Draw handwritten-looking digits, normalized as MNIST's were.

    LeCun, Cortes and Burges (http://yann.lecun.com/exdb/mnist/): "size normalized to fit in a
    20x20 pixel box while preserving their aspect ratio", grey levels from anti-aliasing,
    "centered in a 28x28 image by computing the center of mass of the pixels".

    Args:
        count: How many digits, 0 or more; the table's share them as evenly as they can.
        seed: The same seed gives the same digits on every machine, whatever its cores.
        table: How people write which digits, as strokes.STYLES.

    Returns:
        Images, uint8 [count, 28, 28], white ink (255) on black (0), and their labels of the
        table, uint8 [count], shuffled.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    labels = np.array(list(table), np.uint8)[rng.permutation(np.arange(count) % len(table))]
    ways = _choose_ways(labels, rng.random(count), table)
    images = np.zeros((count, SIDE, SIDE), np.uint8)
    for start in range(0, count, CHUNK):
        part = slice(start, start + CHUNK)
        normal = rng.standard_normal((len(labels[part]), sum(NUMBERS.values())))
        images[part] = _center(_draw_chunk(labels[part], ways[part], normal, table))
    return images, labels


def curves(label: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The strokes of one digit as a hand draws them: points x, y, float64 [n, 2] each."""
    (way,) = _choose_ways(np.array([label]), rng.random(1), STYLES)
    style = _style(*STYLES[label][way][1])
    hand = _hand(rng.standard_normal((1, sum(NUMBERS.values()))))
    x, y = _shape(*_bend(*_trace(style, hand), hand), hand)
    starts = np.flatnonzero(style.along == -1)[1:]
    return np.split(np.stack([x[0], y[0]], axis=1), starts)


def _choose_ways(labels, uniform, table):
    """Each digit's index into the ways to write it, by their shares."""
    ways = np.zeros(len(labels), int)
    for digit, styles in table.items():
        bounds = np.cumsum([share for share, _ in styles])
        of_digit = labels == digit
        ways[of_digit] = np.searchsorted(bounds[:-1], uniform[of_digit] * bounds[-1], side="right")
    return ways


def _hand(normal):
    """The numbers [n, all NUMBERS] by their kinds."""
    ends = np.cumsum(list(NUMBERS.values()))[:-1]
    return dict(zip(NUMBERS, np.split(normal, ends, axis=1), strict=True))


def _draw_chunk(labels, ways, normal, table):
    """Images [n, 28, 28] with the ink in the middle 20x20; normal is [n, all NUMBERS]."""
    discs = []
    for digit, way in sorted(set(zip(labels.tolist(), ways.tolist(), strict=True))):
        indices = np.flatnonzero((labels == digit) & (ways == way))
        hand = _hand(normal[indices])
        style = _style(*table[digit][way][1])
        radius = _pen(style, hand)
        x, y = _fit(*_shape(*_bend(*_trace(style, hand), hand), hand), radius)
        image = np.broadcast_to(indices[:, None], x.shape)
        discs.append([values.ravel() for values in (image, x, y, radius)])
    return _stamp(len(labels), *(np.concatenate(values) for values in zip(*discs, strict=True)))


@cache
def _style(*strokes):
    """The Style of a table's strokes."""
    strokes = [curve(stroke) for stroke in strokes]
    points = np.concatenate([points for points, _ in strokes])
    weights = np.zeros((sum(len(w) for _, w in strokes), len(points)))
    lifted, looseness = np.ones((2, len(points), 1))
    lifted[: len(strokes[0][0])] = 0
    along = []
    row = column = 0
    for _, block in strokes:
        rows, columns = block.shape
        weights[row : row + rows, column : column + columns] = block
        looseness[[column, column + columns - 1]] = LOOSE_END
        along.append(np.arange(rows) / (rows - 1) * 2 - 1)
        row, column = row + rows, column + columns
    middle = (points.min(0) + points.max(0)) / 2
    return Style((points - middle) / 50, lifted, looseness, weights, np.concatenate(along))


def curve(stroke):
    """A stroke's points [k, 2] and the weights [samples, k] of a Catmull-Rom curve through them."""
    corner = [point.endswith("!") for point in stroke.split()]
    points = np.array([point.rstrip("!").split(",") for point in stroke.split()], float)
    last = len(points) - 1
    corner[0] = corner[last] = True
    unit = np.eye(last + 1)
    rows = []
    for i in range(last):
        start, end = unit[i], unit[i + 1]
        # at a corner the curve begins and ends straight
        before = 2 * start - end if corner[i] else unit[i - 1]
        after = 2 * end - start if corner[i + 1] else unit[i + 2]
        steps = int(np.abs(points[i + 1] - points[i]).max() * SAMPLES) + 1
        t = (np.arange(steps + (i + 1 == last)) / steps)[:, None]
        cubic = 3 * (start - end) + after - before
        square = 2 * before - 5 * start + 4 * end - after
        rows.append(start + t / 2 * (end - before + t * (square + t * cubic)))
    return points, np.concatenate(rows)


def _trace(style, hand):
    """The samples' x and y, each [n, samples], along strokes whose points have strayed."""
    count = len(style.points)
    jitter = hand["jitter"][:, : 2 * count].reshape(-1, count, 2) * style.looseness * JITTER
    points = style.points + jitter + hand["lift"][:, None] * style.lifted * LIFT
    xy = np.zeros((2, len(points), len(style.weights)))
    # not a matrix product: BLAS adds in an order that depends on the machine
    for k in range(count):
        xy += points[:, k].T[:, :, None] * style.weights[:, k]
    return xy


def _bend(x, y, hand):
    """Bend the sheet by a polynomial whose linear part is left to _shape."""
    both = [x * x, x * y, y * y, CUBIC * x * x * y, CUBIC * x * y * y]
    for_x, for_y = np.split(hand["bend"].T[:, :, None] * BEND, 2)
    return (
        x + sum(a * term for a, term in zip(for_x, [*both, CUBIC * y * y * y], strict=True)),
        y + sum(a * term for a, term in zip(for_y, [*both, CUBIC * x * x * x], strict=True)),
    )


def _shape(x, y, hand):
    """Stretch, slant and turn."""
    width, slant, turn = hand["shape"].T[:, :, None]
    x = x * np.clip(WIDTH + WIDTH_STD * width, *WIDTH_RANGE)
    x = x - y * (SLANT + SLANT_STD * slant)
    # good for small angles, and free of a sine that differs between processors
    turn = turn * TURN_STD
    return x - y * turn, y + x * turn


def _pen(style, hand):
    """The pen's radius [n, samples] in pixels, pressed unevenly along each stroke."""
    size = hand["pen"]
    radius = np.clip(PEN + PEN_STD * size + PEN_SKEW * size * size, *PEN_RANGE)
    t = style.along
    # each has the mean 0 over a stroke, so that pressing makes no pen thicker on the whole
    waves = [t, t * t - 1 / 3, 2 * t * t * t - 1.2 * t]
    press = sum(a[:, None] * wave for a, wave in zip(hand["press"].T, waves, strict=True))
    return radius * np.clip(1 + PRESS * press, *PRESS_RANGE)


def _fit(x, y, radius):
    """Scale and move x and y so that the ink just fits the box in the middle of the image."""
    reach = radius + (SOFT - 1) / 2  # beyond that a pixel of the next row stays black
    extent = np.maximum(np.ptp(x, 1), np.ptp(y, 1))[:, None]
    scale = np.zeros_like(extent)
    # From a dot upwards, for the pen is not equally thick at all sides: the span never grows
    # faster than the extent, so no step leaves the box, and the third fills it in 99 of 100.
    for _ in range(3):
        span = np.maximum(np.ptp(_sides(x * scale, reach), 0), np.ptp(_sides(y * scale, reach), 0))
        scale += (BOX - span[:, None]) / extent
    return [v * scale - _sides(v * scale, reach).mean(0)[:, None] + SIDE / 2 for v in (x, y)]


def _sides(place, reach):
    """Where the ink begins and where it ends, [2, n]."""
    return np.stack([(place - reach).min(1), (place + reach).max(1)])


def _stamp(count, image, x, y, radius):
    """Images [count, 28, 28] of discs; the arguments' arrays hold one disc at each place."""
    canvas = np.zeros(count * SIDE * SIDE, np.uint8)
    x, y, radius = (values.astype(np.float32) for values in (x, y, radius))  # twice as quick
    patch = np.ceil(2 * radius + SOFT).astype(int)
    for side in np.unique(patch).tolist():
        discs = np.flatnonzero(patch == side)
        left = np.ceil(x[discs] - side / 2)
        top = np.ceil(y[discs] - side / 2)
        # half a pixel because a pixel is measured at its centre
        step = np.arange(side, dtype=np.float32) + 0.5
        dx = (left - x[discs])[:, None, None] + step
        dy = (top - y[discs])[:, None, None] + step[:, None]
        inside = radius[discs, None, None] - np.sqrt(dx * dx + dy * dy)
        ink = np.clip(255 * (inside / SOFT + 0.5), 0, 255).astype(np.uint8)
        corner = (image[discs] * SIDE + top.astype(int)) * SIDE + left.astype(int)
        pixel = corner[:, None, None] + (np.arange(side)[:, None] * SIDE + np.arange(side))
        np.maximum.at(canvas, pixel.ravel(), ink.ravel())
    return canvas.reshape(count, SIDE, SIDE)


def _center(images):
    """Move the centre of mass to the middle, by whole pixels as MNIST's makers did."""
    place = np.arange(SIDE)
    origins = []
    for other_axis in (2, 1):
        mass = images.sum(other_axis, dtype=np.int64)
        centre = (mass * place).sum(1) / mass.sum(1)
        # To pixel 14, half a pixel past the middle: there MNIST's makers put it. No further than
        # the margin, so that no ink falls off the image.
        shift = np.clip(np.rint(SIDE / 2 - centre), -MARGIN, MARGIN).astype(int)
        origins.append((place - shift[:, None]) % SIDE)
    rows, columns = origins
    return images[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]
