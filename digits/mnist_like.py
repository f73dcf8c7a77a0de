"""Pictures like MNIST's: told from other ones, and joined by digits that the program draws."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from classifier.opener import DECODE_ERRORS, decode
from classifier.pictures import ROTATION_EPOCHS, ImageSet
from digits import drawn, handwriting

# Drawn digits among MNIST's in an epoch: they have what MNIST's writers hardly ever wrote but
# others do, flagged and footed 1s, crossed 7s, angular 6s and 9s. More than 1,500 cost 0.0003 of
# MNIST's test images; but a set of 600 reads 0.903 of them after two epochs with one to 32, 0.912
# with one to 12 (3 seeds). They take turns since many are worth more than often: with three
# epochs' worth, 42.7 of people's 46 pictures of several digits are read, with one's 41.5 (7 and 8
# trainings).
DRAWN_SHARE, MAX_DRAWN = 1 / 12, 1500


def looks_like_mnist(paths: Sequence[str], size: tuple[int, int]) -> bool:
    """Whether the pictures are what handwriting.to_mnist makes: MNIST's digits, not photographs.

    A hundred of them, evenly spread, are put through it; MNIST's come back as they were.
    """
    alike = 0
    for index in np.linspace(0, len(paths) - 1, 100).astype(int):
        try:
            picture = decode(paths[index], size)
            clean = handwriting.to_mnist(Image.fromarray(picture), *size)
        except DECODE_ERRORS:
            continue
        # MNIST's differ by less than one grey level of 255 on average; clothes and cats by dozens.
        alike += np.abs(picture - clean[..., None].astype(float)).mean() < 4
    return bool(alike >= 90)


def with_drawn_digits(pictures: ImageSet, seed: int) -> ImageSet:
    """The images, of 0 to 9, and some drawn by the program, a third of which each epoch has.

    Nothing is added to images that are in colour or of another size than MNIST's.
    """
    if not pictures.grayscale or pictures.size != (drawn.SIDE, drawn.SIDE):
        return pictures
    count = ROTATION_EPOCHS * min(int(DRAWN_SHARE * len(pictures.labels)), MAX_DRAWN)
    images, labels = drawn.draw(count, seed)
    by_path = {f"drawn digit {index}": image for index, image in enumerate(images)}

    def decode_or_drawn(path: str, size: tuple[int, int]) -> np.ndarray:
        image = by_path.get(path)
        return pictures.decode(path, size) if image is None else np.stack([image] * 3, axis=-1)

    pixels = pictures.pixels
    if pixels is not None:
        pixels = np.append(pixels, images[..., None], axis=0)
    return pictures._replace(
        paths=np.append(pictures.paths, list(by_path)),
        labels=np.append(pictures.labels, labels.astype(np.int32)),
        pixels=pixels,
        decode=decode_or_drawn,
        rotating=count,
    )
