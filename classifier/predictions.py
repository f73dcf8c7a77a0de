"""What a network says of pictures: each is looked at, all are answered at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import keras
import numpy as np
from PIL import Image

from classifier.batches import as_float, as_input
from classifier.charts import Prediction
from classifier.console import warn
from classifier.machine import cores
from classifier.opener import DECODE_ERRORS, reason, small


class Seen(NamedTuple):
    """A picture to be predicted."""

    file: str
    given: np.ndarray  # as the report shows it, small: uint8 [h, w, 3]
    pixels: np.ndarray  # as the network sees it: uint8 [height, width, 3]


def see(files: list[str], look: Callable[[str], tuple[Image.Image, np.ndarray]]) -> list[Seen]:
    """The pictures that can be read; the others are named on stderr.

    Args:
        files: their paths.
        look: gives the picture, as opener.open_picture does, and the network's pixels of it,
            uint8 [height, width, 3]; or raises OSError or ValueError.
    """

    def see_one(file: str) -> Seen | None:
        try:
            given, pixels = look(file)
            return Seen(file, small(given), pixels)
        except DECODE_ERRORS as error:
            warn(f"{file}: not predicted, {reason(error)}")
            return None

    with ThreadPoolExecutor(cores()) as pool:
        return [seen for seen in pool.map(see_one, files) if seen is not None]


def answers(model: keras.Model, pictures: list[Seen], classes: list[str]) -> list[Prediction]:
    """What the network says of each picture: the likeliest of its classes, and the next one."""
    if not pictures:
        return []
    images = as_input(as_float(np.stack([picture.pixels for picture in pictures])))
    rows = []
    for picture, chances in zip(pictures, model.predict_on_batch(images), strict=True):
        first, second = np.argsort(chances)[:-3:-1]
        rows.append(
            Prediction(
                picture.file,
                classes[first],
                float(chances[first]),
                classes[second],
                float(chances[second]),
                picture.given,
                small(Image.fromarray(picture.pixels)),
            )
        )
    return rows


def read(
    model: keras.Model, classes: list[str], look: Callable, files: list[str]
) -> list[Prediction]:
    """A prediction for each picture that can be looked at, as `see`; the others are named."""
    return answers(model, see(files, look), classes)
