"""Turn a picture that a person made of a digit into the picture MNIST's makers would have made.

MNIST's digits were black-and-white scans, fitted in proportion into 20x20 pixels (grey from
anti-aliasing alone) and laid in 28x28 with the centre of mass in the middle: LeCun, Cortes and
Burges, "The MNIST database", http://yann.lecun.com/exdb/mnist. People hand in photos of paper,
scans and Paint drawings; a network trained on MNIST reads those once they have gone the same way.
"""

import os

import numpy as np
from PIL import Image
from scipy import ndimage

from classifier.opener import open_picture, upright
from digits.cutting import BOX_SHARE, box_of, cut_out, long_side
from digits.finder import Finder
from digits.finding import INKED, Mark, View, box_in_view, find

WORK_SIDE = 1600  # px; a digit a fiftieth of the page high still has 32 px, more than MNIST's 20
# What whoever uses the network in another program has to know.
EXPECTED = (
    "A picture must look like MNIST's: one digit, white on black, scaled to fit into 20×20 of the "
    "28×28 pixels, its centre of mass in the middle. What the network says of anything else, such "
    "as a photograph of paper, means nothing. In Python, the program's digits/handwriting.py and "
    "digits/finder.py make of any picture what is to be given to the network: "
    'open_as_mnist("photo.jpg", (28, 28), load_finder())[1].'
)


class NoInkError(ValueError):
    """The picture is blank, or what is written on it is far too small to be seen."""

    def __init__(self):
        super().__init__("no ink found; if there is some, cut the picture down to it")


def to_mnist(
    picture: str | os.PathLike | Image.Image, finder: Finder, height: int = 28, width: int = 28
) -> np.ndarray:
    """Turn a picture of one handwritten thing into what MNIST's makers would have made of it.

    Args:
        picture: a file Pillow can read, or a Pillow image of any mode and size.
        finder: as finder.load_finder gives it.
        height: rows of the result.
        width: columns of the result.

    Returns:
        uint8 [height, width], white ink (255) on black (0).

    Raises:
        NoInkError: the picture is blank.
        ValueError: the picture has no pixels, or too many.
        OSError: the file cannot be read, is no picture, or ends too early.
    """
    opened = isinstance(picture, Image.Image)
    image = upright(picture, WORK_SIDE) if opened else open_picture(picture, WORK_SIDE)
    if is_mnist_like(image, height, width):
        return np.asarray(image.convert("L"))
    return cut_out_whole(find(on_paper(image), finder), (height, width))


def open_as_mnist(
    path: str, size: tuple[int, int], finder: Finder
) -> tuple[Image.Image, np.ndarray]:
    """The picture, and what the network sees of it, uint8 [h, w, 3]. Raises as to_mnist."""
    picture = open_picture(path, WORK_SIDE)
    return picture, np.repeat(to_mnist(picture, finder, *size)[..., None], 3, axis=-1)


def cut_out_whole(view: View, size: tuple[int, int] = (28, 28)) -> np.ndarray:
    """All ink of a picture as one thing: letters have strokes that are marked apart.

    Args:
        view: what finding.find gives for the picture.
        size: rows and columns of the result, uint8, white ink on black.

    Raises:
        NoInkError: there is none.
    """
    ink = view.owner > 0 if view.marks else view.ink > INKED
    box = box_of(ink)
    if box is None:
        raise NoInkError
    mark = Mark(1, box_in_view(*box), (0, 0), (0, 0), 0)
    (cut,) = cut_out(view._replace(owner=ink.astype(np.int32), marks=[mark]), size)
    return cut.image


def is_mnist_like(image: Image.Image, height: int, width: int) -> bool:
    """Whether the picture is already what to_mnist would make, give or take a pixel."""
    if image.size != (width, height) or image.mode == "RGBa":
        return False
    pixels = np.asarray(image.convert("L"))
    box = box_of(pixels > 128)
    if pixels[[0, -1]].any() or pixels[:, [0, -1]].any() or box is None:
        return False
    side = long_side(box)
    centre = ndimage.center_of_mass(pixels)
    off_centre = np.abs(np.subtract(centre, [(height - 1) / 2, (width - 1) / 2])).max()
    return abs(side - BOX_SHARE * min(height, width)) <= 2.5 and off_centre <= 1


def on_paper(image: Image.Image) -> np.ndarray:
    """Uint8 [height, width, 3]; transparency laid on what the ink stands out from."""
    pixels = np.asarray(image)
    if image.mode == "L":
        return np.repeat(pixels[..., None], 3, axis=2)
    if image.mode == "RGB":
        return pixels
    pixels = pixels.astype(np.float32)
    colour, alpha = pixels[..., :3], pixels[..., 3:]
    seen = alpha[..., 0] > 127
    if not seen.any():
        raise NoInkError
    opaque_colour = np.median(colour[seen] * (255 / alpha[seen]), axis=0)
    paper = 255.0 if opaque_colour.mean() < 128 else 0.0
    if seen.mean() > 0.6:  # no digit covers that much: what is opaque is the paper with its ink
        paper = opaque_colour
    return np.clip(colour + paper * (1 - alpha / 255), 0, 255).astype(np.uint8)
