"""Images like MNIST's: recognized, and joined by digits that the program draws."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from classifier.opener import DECODE_ERRORS, decode
from classifier.pictures import ROTATION_EPOCHS, ImageSet
from digits import drawn
from digits.handwriting import is_mnist_like
from digits.strokes import RARE, STYLES

# Drawn digits in an epoch. They have what MNIST's writers hardly wrote: flagged and footed 1s,
# crossed 7s, angular 6s and 9s. More of them cost accuracy on MNIST (docs/figures.md).
DRAWN_SHARE, MAX_DRAWN = 1 / 12, 1500
RARE_SHARE = 0.2  # so many more are written in ways that are rarer yet (strokes.RARE)
# And what the finder cuts out of drawn pages, which is less perfect: "images", uint8 [n, 28, 28],
# and "labels". More of them are a larger file, half as many mend less (docs/figures.md).
CUT_DIGITS = Path(__file__).with_name("cut_digits.npz")
CUT_SHARE, MAX_CUT = 1 / 10, 4800


def looks_like_mnist(paths: Sequence[str], size: tuple[int, int]) -> bool:
    """Whether 90 of 100 pictures, evenly spread, are such as handwriting.to_mnist makes."""
    alike = 0
    for index in np.linspace(0, len(paths) - 1, 100).astype(int):
        try:
            picture = Image.fromarray(decode(paths[index], size))
        except DECODE_ERRORS:
            continue
        alike += is_mnist_like(picture, *size)
    return bool(alike >= 90)


def with_drawn_digits(image_set: ImageSet, seed: int) -> ImageSet:
    """The images, of digits, and drawn ones, which in each epoch take the places of some of them.

    Nothing is added to images in color or of another size than MNIST's.
    """
    if not image_set.grayscale or image_set.size != (drawn.SIDE, drawn.SIDE):
        return image_set
    count = len(image_set.labels)
    usual, cut = min(int(DRAWN_SHARE * count), MAX_DRAWN), min(int(CUT_SHARE * count), MAX_CUT)
    tables = ((usual, STYLES), (int(RARE_SHARE * usual), RARE))
    parts = [drawn.draw(ROTATION_EPOCHS * number, seed, table) for number, table in tables]
    with np.load(CUT_DIGITS) as file:
        chosen = np.random.default_rng(seed).permutation(len(file["labels"]))
        chosen = chosen[: ROTATION_EPOCHS * cut]
        parts.append((file["images"][chosen], file["labels"][chosen]))
    images, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    by_path = {f"drawn digit {index}": image for index, image in enumerate(images)}

    def decode_or_drawn(path: str, size: tuple[int, int]) -> np.ndarray:
        image = by_path.get(path)
        return image_set.decode(path, size) if image is None else np.stack([image] * 3, axis=-1)

    pixels = image_set.pixels
    if pixels is not None:
        pixels = np.append(pixels, images[..., None], axis=0)
    return image_set._replace(
        paths=np.append(image_set.paths, list(by_path)),
        labels=np.append(image_set.labels, labels.astype(np.int32)),
        pixels=pixels,
        decode=decode_or_drawn,
        rotating=len(labels),
    )
