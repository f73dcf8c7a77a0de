"""The ink of a digit that was found, as MNIST's makers would have seen it.

The finder says coarsely which ink belongs to a digit; where a stroke ends shows the picture itself:
halfway between the paper beside it and the digit's own ink.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from digits.finder import INK_STRIDE
from digits.finding import MARGIN, Mark, View, in_picture

AROUND = 6  # px of the view around a digit's box, for its soft edge
PERHAPS = 0.25  # likely is ink that is kept out of what the paper is taken from
NEAR = 0.35  # of a digit's height: so far away the paper is taken from
CORE, EDGE = 0.6, 0.15  # of a pixel that the finder gives to the digit: plainly, and hardly
FINE = 2  # pixels of the picture to one of the view
CELL = 4  # px of the view in which the paper is taken together: it is smooth

BOX_SHARE = 20 / 28  # MNIST's digits fit in 20 of the 28 pixels
OVERSAMPLING = 6  # a stroke's edge is set to a sixth of a pixel: more reads no better


class Cut(NamedTuple):
    """A digit that was cut out."""

    image: np.ndarray  # as MNIST's makers would have made it: uint8 [h, w], white ink on black
    # How much of the variance around it is explained by each pixel being either ink or paper, 0 to
    # 1 (Otsu's eta): most of it on paper and in drawings, little in photographs of things.
    two_toned: float


def cut_out(view: View, size: tuple[int, int] = (28, 28)) -> list[Cut]:
    """Cut what is marked out of a picture, in the order of the view's marks.

    Args:
        view: what finding.find gives for the picture.
        size: rows and columns of what is cut out.
    """
    if not view.marks:
        return []
    view = _shrunk(view)
    paper = _paper(view)
    return [_cut_out(mark, view, paper, size) for mark in view.marks]


def _shrunk(view: View) -> View:
    """The view of the picture with no more than FINE of its pixels to one of the view.

    A hairline is then about as wide as the finder marks its ink, or its ink would be mostly paper.
    """
    factor = int(1 / (FINE * max(view.scale)))
    if factor < 2:
        return view
    pixels = np.asarray(Image.fromarray(view.pixels).reduce(factor))
    height, width = np.divide(view.pixels.shape[:2], pixels.shape[:2])
    return view._replace(pixels=pixels, scale=(view.scale[0] * width, view.scale[1] * height))


def _cut_out(mark: Mark, view: View, paper: np.ndarray, size: tuple[int, int]) -> Cut:
    box = left, top, right, bottom = in_picture(mark, view, AROUND)
    mine = _scaled(view.owner == mark.number, INK_STRIDE, box, view)
    others = _scaled((view.owner > 0) & (view.owner != mark.number), INK_STRIDE, box, view)
    bands = [_scaled(band, CELL, box, view) for band in np.moveaxis(paper, 2, 0)]
    contrast = view.pixels[top:bottom, left:right] - np.stack(bands, axis=-1)
    core = mine >= min(CORE, mine.max())
    strength = np.abs(contrast[core]).sum(axis=1)
    ink = contrast[core][strength >= np.median(strength)].mean(axis=0)
    # 0 is paper, 1 is as much unlike it as the ink
    level = contrast @ ink / max(float(ink @ ink), 1e-6)
    # the finder marks the rim of a thick stroke, too thick for it
    near = ndimage.binary_fill_holes(mine > EDGE) & (mine >= others)
    shape = near & (level > 0.5)
    two_toned = _explained(level[others < EDGE], shape[others < EDGE])
    if not shape.any():  # its ink is no other than the paper: all that the finder knows is where
        shape, level = core, core.astype(np.float32)
    image = _rendered(np.where(near, level, 0).astype(np.float32), shape, *size)
    return Cut(image, two_toned)


def _explained(values: np.ndarray, mask: np.ndarray) -> float:
    """The share of the values' variance that is between those in the mask and the others."""
    share = mask.mean() if mask.size else 0
    if not 0 < share < 1:
        return 0.0
    between = share * (1 - share) * (values[mask].mean() - values[~mask].mean()) ** 2
    return float(between / values.var())


def _scaled(
    values: np.ndarray, stride: int, box: tuple[int, int, int, int], view: View
) -> np.ndarray:
    """What lies in a box of the picture, a value a pixel, of values for `stride` px of the view."""
    left, top, right, bottom = (
        (side * scale + MARGIN) / stride for side, scale in zip(box, 2 * view.scale, strict=True)
    )
    x, y = max(0, int(left) - 2), max(0, int(top) - 2)
    part = Image.fromarray(values[y : int(bottom) + 3, x : int(right) + 3].astype(np.float32))
    size, inner = (box[2] - box[0], box[3] - box[1]), (left - x, top - y, right - x, bottom - y)
    return np.asarray(part.resize(size, Image.Resampling.BILINEAR, inner))


def _paper(view: View) -> np.ndarray:
    """The paper's color, float32 [h / CELL, w / CELL, 3]: the mean of what is near and no ink."""
    free = ~ndimage.binary_dilation(view.ink > PERHAPS, np.ones((3, 3)))
    free = np.kron(free, np.ones((INK_STRIDE, INK_STRIDE), np.float32))[..., None]
    height, width = (length // CELL for length in free.shape[:2])
    reach = max(1.0, NEAR * np.median([mark.size for mark in view.marks]) / CELL)
    sums = []
    for values in (view.image * free, free):
        cells = values.reshape(height, CELL, width, CELL, -1).mean(axis=(1, 3))
        sums.append(ndimage.gaussian_filter(cells, (reach, reach, 0), mode="nearest"))
    usual = np.median(view.image[free[..., 0] > 0], axis=0) if free.any() else 255.0
    little = 1e-3  # where all is ink the paper is as elsewhere
    return ((sums[0] + little * usual) / (sums[1] + little)).astype(np.float32)


# ---------------------------------------------------------------- drawing it as MNIST's makers did


def _rendered(ink: np.ndarray, mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """The digit as in Cut.image, of its ink, 0 to 1, and where that lies in the picture."""
    shape = _enlarged(ink, mask, round(BOX_SHARE * min(height, width) * OVERSAMPLING))
    shape = _usual_stroke(shape, BOX_SHARE * min(height, width) / 20)
    return _centred(shape, height, width)


def _enlarged(ink: np.ndarray, mask: np.ndarray, side: int) -> np.ndarray:
    """The digit alone, bool, its longer side `side` pixels."""
    near = ndimage.binary_dilation(mask, np.ones((3, 3)), 2)
    box = box_of(near)
    soft = np.where(near, np.clip(ink, 0, 1), 0)[box].astype(np.float32)
    scale = side / long_side(box_of(mask))
    size = [max(1, round(length * scale)) for length in soft.shape[::-1]]
    image = Image.fromarray(soft)
    if scale < 1:
        image = image.resize(size, Image.Resampling.BOX)
    else:
        image = image.resize(size, Image.Resampling.BICUBIC)
    shape = np.asarray(image) > 0.5
    return shape if shape.any() else np.asarray(image) >= np.asarray(image).max()


def _usual_stroke(shape: np.ndarray, unit: float) -> np.ndarray:
    """The digit with strokes no thinner and no thicker than MNIST's writers' pens."""
    stroke = _stroke_width(shape) / OVERSAMPLING / unit
    grow = (np.clip(stroke, 2.2, 4.5) - stroke) / 2 * OVERSAMPLING * unit
    if grow > 0:
        margin = int(np.ceil(grow))
        return ndimage.distance_transform_edt(~np.pad(shape, margin)) <= grow
    return ndimage.distance_transform_edt(np.pad(shape, 1)) > -grow


def _centred(shape: np.ndarray, height: int, width: int) -> np.ndarray:
    """The digit fitted into MNIST's 20x20 and laid with its centre of mass in the middle."""
    shape = shape[box_of(shape)]
    scale = BOX_SHARE * min(height, width) / max(shape.shape)
    size = [max(1, round(length * scale)) for length in shape.shape[::-1]]
    digit = np.asarray(
        Image.fromarray(shape.astype(np.float32) * 255).resize(size, Image.Resampling.BOX)
    )
    page = np.zeros((height, width), np.uint8)
    centre = ndimage.center_of_mass(digit)
    top, left = (
        int(np.clip(round((whole - 1) / 2 - middle), 0, whole - length))
        for whole, middle, length in zip(page.shape, centre, digit.shape, strict=True)
    )
    page[top : top + digit.shape[0], left : left + digit.shape[1]] = np.round(digit)
    return page


def long_side(box: tuple[slice, slice]) -> int:
    return max(s.stop - s.start for s in box)


def _stroke_width(mask: np.ndarray) -> float:
    # across a stroke of width w the distance to the paper averages w / 4
    return 4 * float(ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1][mask].mean()) - 1


def box_of(mask: np.ndarray) -> tuple[slice, slice] | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
