"""A sheet of paper on a table: found on its photo, and laid out as if it filled the picture.

The table is no paper, and the sheet's own edge is the strongest stroke of such a photo: what looks
for ink has to be kept away from both.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from digits.handwriting import box_of, otsu

SIDE = 128  # px of the small picture in which a sheet is looked for; its ink is hardly seen there
CALM = 5  # px there: a stroke is narrower than half of it, and vanishes in a median
# Of the variance so much lies between two colours, the sheet's and the table's (Otsu's eta): 0.92
# or more on photos of sheets that were drawn in even light, less if one side is darker. What is no
# sheet is found out when it is read, so this only saves time: 6 of 46 pictures of several digits
# are taken for one.
TWO_COLOURED = 0.6
CONVEX = 0.93  # a sheet fills so much of the convex shape round it: the steps of 128 px cost 0.04
LEAST, MOST = 0.1, 0.9  # of the picture
EDGE = 2  # px of the small picture by which the sheet's edge is kept out


class Sheet(NamedTuple):
    """What lies on a sheet."""

    image: Image.Image  # RGB, its surroundings as the paper is at its edge
    left: int  # where it lies in the photo, in pixels
    top: int


def find_sheet(image: Image.Image) -> Sheet | None:
    """The sheet of paper on a photo, if there plainly is one that does not fill it.

    Args:
        image: as opener.open_picture gives it.
    """
    if image.mode == "RGBa":  # a drawing
        return None
    photo = image.convert("RGB")
    small = photo.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    calm = ndimage.median_filter(np.asarray(small), (CALM, CALM, 1), mode="nearest")
    shapes = [shape for side in _two_sides(calm) if (shape := _convex_shape(side)) is not None]
    if not shapes:
        return None
    shape = max(shapes, key=np.sum)
    inner = ndimage.binary_erosion(shape, np.ones((3, 3)), EDGE, border_value=1)
    if not inner.any():  # in a picture of a few pixels
        return None
    nearest = ndimage.distance_transform_edt(~inner, return_distances=False, return_indices=True)
    around = Image.fromarray(calm[tuple(nearest)]).resize(photo.size, Image.Resampling.BILINEAR)
    inside = Image.fromarray(inner.astype(np.uint8) * 255).resize(
        photo.size, Image.Resampling.BILINEAR
    )
    inside = inside.point(lambda value: max(0, 2 * value - 255))  # no pixel beyond its border
    rows, columns = box_of(shape)
    across, down = photo.width / small.width, photo.height / small.height
    left, top = round(columns.start * across), round(rows.start * down)
    corners = (left, top, round(columns.stop * across), round(rows.stop * down))
    return Sheet(Image.composite(photo, around, inside).crop(corners), left, top)


def _two_sides(calm: np.ndarray) -> list[np.ndarray]:
    """The pixels of either of two colours, bool [h, w] each, if uint8 [h, w, 3] has hardly more."""
    colours = calm.reshape(-1, 3).astype(np.float64)
    colours -= colours.mean(axis=0)
    axis = np.linalg.eigh(colours.T @ colours)[1][:, -1]  # along which they differ most
    values = (colours @ axis).reshape(calm.shape[:2])
    above = values > otsu(values - values.min()) + values.min()
    share, variance = above.mean(), values.var()
    if not 0 < share < 1:
        return []
    between = share * (1 - share) * (values[above].mean() - values[~above].mean()) ** 2
    return [above, ~above] if between >= TWO_COLOURED * variance else []


def _convex_shape(side: np.ndarray) -> np.ndarray | None:
    """The largest shape of the pixels, without the holes that ink leaves, if it may be a sheet."""
    from scipy.spatial import ConvexHull  # here, since few pictures come so far

    parts, count = ndimage.label(ndimage.binary_opening(side, np.ones((3, 3))))
    if not count:
        return None
    largest = parts == np.bincount(parts[parts > 0]).argmax()
    shape = ndimage.binary_fill_holes(largest)
    if not LEAST < shape.mean() < MOST:
        return None
    places = np.argwhere(shape)
    corners = np.concatenate([places + step for step in ((0, 0), (0, 1), (1, 0), (1, 1))])
    return shape if shape.sum() >= CONVEX * ConvexHull(corners).volume else None
