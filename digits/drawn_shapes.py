"""Digits and signs as somebody writes them, in pens of all widths: what drawn pages are made of."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from digits import drawn
from digits.strokes import ARITHMETIC, SIGNS

HEIGHT = 96  # px of a shape that is kept; it is shrunk when it is put on a page
# Of the digits that the program writes a quarter are 1s: nothing looks as much like a line.
SHARES = [0.25 if label == 1 else 0.75 / 9 for label in range(10)]
SIGN = 10  # the label of what is as large as a digit and is none


class Shape(NamedTuple):
    """A digit or sign as it is written: its ink, tight in its box."""

    ink: Image.Image  # mode L
    label: int  # 0 to 9, or SIGN
    pen: float  # the mean width of its strokes, as a share of its height


def draw_shapes(
    count: int, rng: np.random.Generator, images: np.ndarray, labels: np.ndarray
) -> list[Shape]:
    """Digits by MNIST's writers and by the program's, in pens of all widths, and signs.

    Args:
        count: how many.
        rng: the same numbers give the same shapes.
        images: MNIST's, uint8 [n, 28, 28].
        labels: int [n].
    """
    shapes = []
    while len(shapes) < count:
        kind = rng.random()
        if kind < 0.2:
            ink, label = _sign(rng), SIGN
        elif kind < 0.24:
            label = int(rng.integers(10))
            ink = _printed(str(label))
        elif kind < 0.6:
            label = int(rng.choice(10, p=SHARES))
            ink = _stroked(drawn.curves(label, rng), rng)
        else:
            index = rng.integers(len(images))
            ink, label = _of_mnist(images[index], rng), int(labels[index])
        if box := ink.point(lambda value: 255 * (value > 60)).getbbox():
            ink = ink.crop(box)
            ink.thumbnail((3 * HEIGHT, HEIGHT), Image.Resampling.BOX)
            inked = np.pad(np.asarray(ink) > 127, 1)
            depth = ndimage.distance_transform_edt(inked)[inked].mean() if inked.any() else 0.0
            # in a bar the mean depth is a quarter of its width
            shapes.append(Shape(ink, label, 4 * float(depth) / height_of(ink, label)))
    return shapes


def height_of(ink: Image.Image, label: int) -> float:
    """The height of the digits beside which a shape has its size: a dash is as wide as they."""
    return max(ink.height, (0.9 if label == SIGN else 0.45) * ink.width)


def _of_mnist(image: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """One of MNIST's digits, enlarged, in a thinner or thicker pen than it was written with."""
    large = Image.fromarray(image).resize((140, 140), Image.Resampling.BICUBIC)
    shear = rng.normal(0, 0.1)
    large = large.transform(
        large.size,
        Image.Transform.AFFINE,
        (1, shear, -70 * shear, 0, 1, 0),
        Image.Resampling.BILINEAR,
    ).rotate(rng.normal(0, 6), Image.Resampling.BILINEAR)
    ink = ndimage.gaussian_filter(np.asarray(large, np.float32) / 255, 1.5)
    if rng.random() < 0.45:  # a thin pen follows the ridge of the stroke
        depth = ndimage.distance_transform_edt(ink > 0.45)
        ridge = (depth > 0.8 * ndimage.maximum_filter(depth, 5)) & (depth > 1)
        pen = rng.uniform(1.5, 7)
        if ridge.any():
            ink = np.clip(pen / 2 + 0.5 - ndimage.distance_transform_edt(~ridge), 0, 1)
    elif rng.random() < 0.2:  # a brush
        ink = ndimage.gaussian_filter(ink, rng.uniform(2, 6))
        ink = np.clip((ink - rng.uniform(0.12, 0.3)) * 8 + 0.5, 0, 1)
    else:
        ink = np.clip((ink - rng.uniform(0.2, 0.75)) * 6 + 0.5, 0, 1)
    return Image.fromarray((255 * ink).astype(np.uint8))


def _stroked(strokes: list[np.ndarray], rng: np.random.Generator) -> Image.Image:
    """Strokes through points [n, 2], in any unit, by a pen of any width."""
    scale = 2 * HEIGHT
    points = np.concatenate(strokes)
    low = points.min(axis=0)
    span = max(np.ptp(points[:, 1]), 0.5 * np.ptp(points[:, 0]), 1e-6)
    pen = scale * np.exp(rng.uniform(np.log(0.022), np.log(0.24)))
    if rng.random() < 0.12:
        pen = scale * rng.uniform(0.24, 0.36)
    pencil_is_round = rng.random() < 0.8
    size = np.ceil(np.ptp(points, axis=0) / span * scale + 2 * pen + 2).astype(int)
    canvas = Image.new("L", tuple(size.tolist()))
    pencil = ImageDraw.Draw(canvas)
    for stroke in strokes:
        xy = ((stroke - low) / span * scale + pen + 1).tolist()
        pencil.line([tuple(p) for p in xy], fill=255, width=max(2, round(pen)), joint="curve")
        if pencil_is_round:
            for x, y in (xy[0], xy[-1]):
                pencil.ellipse([x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2], fill=255)
    return canvas


def _printed(letter: str) -> Image.Image:
    font = ImageFont.load_default(size=2 * HEIGHT)
    box = font.getbbox(letter)
    canvas = Image.new("L", (int(box[2]) + 2, int(box[3]) + 2))
    ImageDraw.Draw(canvas).text((0, 0), letter, font=font, fill=255)
    return canvas


def _sign(rng: np.random.Generator) -> Image.Image:
    """A letter or sign that no digit looks like, by hand or printed, or a scribble."""
    kind = rng.random()
    if kind < 0.65:
        table = ARITHMETIC if kind < 0.42 else SIGNS
        curves = [drawn.curve(stroke) for stroke in table[rng.integers(len(table))]]
        shear = np.array([[rng.uniform(0.7, 1.3), 0], [rng.normal(-0.1, 0.2), 1]])
        return _stroked(
            [w @ (p + rng.normal(0, 4, p.shape) + rng.normal(0, 3, 2)) @ shear for p, w in curves],
            rng,
        )
    if kind < 0.87:
        letter = rng.choice(list("AEFHKLMNPRTVWXadefhkmnprtwx@#+=?%&+-=/()"))
        return _printed(letter)
    points = rng.uniform(0, 100, (rng.integers(5, 14), 2)) * [rng.uniform(0.5, 1.5), 1]
    places, weights = drawn.curve(" ".join(f"{x:.1f},{y:.1f}" for x, y in points))
    return _stroked([weights @ places], rng)
