"""Pictures go through the network: loaded, preprocessed, and predicted batch by batch."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import keras
import numpy as np
from PIL import Image

from classifier import sheets
from classifier.batches import inference_batch_size, rescale, to_model_input
from classifier.console import warn
from classifier.machine import cpu_count
from classifier.opener import DECODE_ERRORS, Picture, error_reason, thumbnail
from classifier.progress import progress

LARGE_BATCH = 500_000  # bytes of files, a second's work or more
# Called with a picture that can't be read, and the reason in words.
OnError = Callable[[Picture, str], None]
# From pictures, and perhaps an OnError, to a prediction for each that can be read.
Reader = Callable[..., list["Prediction"]]
MAX_PROBABILITIES = 10  # of a prediction: of a thousand classes few are worth showing

# Of less probable answers two in five are wrong, or more.
UNSURE = 0.6


class Detection(NamedTuple):
    """What the network says of a part of a picture, where that shows several things."""

    row: int  # of the picture, from 0 at the top
    position: int  # in its row, from 0 at the left
    box: tuple[int, int, int, int]  # left, top, right, bottom in pixels of the upright picture
    label: str
    confidence: float  # 0 to 1
    second_guess: str
    second_confidence: float
    is_unsure: bool = False
    is_digit: float | None = None  # as of a Prediction


class Prediction(NamedTuple):
    """What the network says of a picture: the two likeliest classes, and how sure it is of each."""

    file: Picture
    label: str
    confidence: float  # 0 to 1
    second_guess: str
    second_confidence: float
    # Both are uint8 [h, w] or [h, w, 3], no larger than a sheet shows them; None if on no sheet.
    original: np.ndarray | None
    network_input: np.ndarray | None
    detections: Sequence[Detection] = ()  # none if the picture shows one thing
    width: int = 0  # of the upright picture, in the pixels of the parts' boxes
    # Of the MAX_PROBABILITIES likeliest classes, in the order of the classes; of one thing only.
    probabilities: Mapping[str, float] = {}
    is_unsure: bool = False
    is_digit: float | None = None  # how likely it shows a digit at all; None if nothing asked

    @property
    def is_doubtful(self) -> bool:
        """Whether it shows no digit as likely as one."""
        return self.is_digit is not None and self.is_digit <= 0.5

    @property
    def doubt(self) -> tuple[str, str]:
        """What to say if it is doubtful: the question, and the answer if that is wrong."""
        if self.detections:
            return "not only digits?", f"{self.label} if so"
        return "no digit?", f"{'an' if self.label == '8' else 'a'} {self.label} if any"

    @property
    def sureness(self) -> tuple[bool, float]:
        """Sorts the least sure to the front."""
        return not self.is_unsure, self.confidence


class LoadedPicture(NamedTuple):
    """A picture to be predicted."""

    file: Picture
    original: np.ndarray  # as the report shows it, small: uint8 [h, w, 3]
    pixels: np.ndarray  # as the network sees it: uint8 [height, width, 3]


def warn_not_predicted(file: Picture, reason: str) -> None:
    """One line on stderr, of a picture that can't be read."""
    warn(f"{file}: not predicted, {reason}")


def load_pictures(
    files: list[Picture],
    preprocess: Callable[[Picture], tuple[Image.Image, np.ndarray]],
    on_error: OnError = warn_not_predicted,
) -> list[LoadedPicture]:
    """The pictures that can be read.

    Args:
        files: the pictures.
        preprocess: from one to the picture, as opener.open_picture gives it, and the network's
            input, uint8 [height, width, 3]; it may raise OSError or ValueError.
        on_error: called with each of the others, and the reason in words.
    """

    def load_one(file: Picture) -> LoadedPicture | None:
        try:
            original, pixels = preprocess(file)
            return LoadedPicture(file, thumbnail(original), pixels)
        except DECODE_ERRORS as error:
            on_error(file, error_reason(error))
            return None

    with ThreadPoolExecutor(cpu_count()) as pool:
        return [picture for picture in pool.map(load_one, files) if picture is not None]


def classify(
    model: keras.Model, pictures: list[LoadedPicture], classes: list[str]
) -> list[Prediction]:
    """What the network says of each picture: the likeliest of its classes, and the next one."""
    if not pictures:
        return []
    images = to_model_input(rescale(np.stack([picture.pixels for picture in pictures])))
    rows = []
    for picture, probabilities in zip(pictures, model.predict_on_batch(images), strict=True):
        likeliest = np.argsort(probabilities)[::-1][:MAX_PROBABILITIES]
        first, second = likeliest[:2]
        rows.append(
            Prediction(
                picture.file,
                classes[first],
                float(probabilities[first]),
                classes[second],
                float(probabilities[second]),
                picture.original,
                thumbnail(Image.fromarray(picture.pixels)),
                probabilities={classes[n]: float(probabilities[n]) for n in sorted(likeliest)},
                is_unsure=bool(probabilities[first] < UNSURE),
            )
        )
    return rows


def predict_files(
    model: keras.Model,
    classes: list[str],
    preprocess: Callable,
    files: list[Picture],
    on_error: OnError = warn_not_predicted,
) -> list[Prediction]:
    """A prediction for each picture that can be read, as load_pictures does it."""
    return classify(model, load_pictures(files, preprocess, on_error), classes)


def read_in_batches(
    read: Reader,
    files: list[str],
    size: tuple[int, int],
    on_prediction: Callable[[Prediction], None],
) -> list[Prediction]:
    """A prediction for each file that can be read; on_prediction gets each as soon as it is there.

    Only those that the sheets may show, the least sure, keep their images.

    Args:
        read: as digits.reading.reader gives it.
        files: their paths.
        size: height and width of the network's input.
        on_prediction: as for printing.
    """
    rows, with_images = [], []
    for batch in file_batches(files, size):
        for row in read(batch):
            on_prediction(row)
            with_images.append(len(rows))
            rows.append(row)
        drop_images(rows, with_images)
    return rows


def file_batches(files: list[str], size: tuple[int, int]) -> Iterator[list[str]]:
    """The files in batches for a network of images of (height, width), with a progress bar.

    A batch's answers come together: large files are few in a batch, so that nobody waits long.
    """
    most, cores = inference_batch_size(size), cpu_count()
    with progress(total=len(files), desc="predicting") as bar:
        batch, total_bytes = [], 0
        for number, file in enumerate(files, 1):
            batch.append(file)
            total_bytes += os.path.getsize(file) if os.path.exists(file) else 0
            large = len(batch) >= cores and total_bytes > LARGE_BATCH
            if large or len(batch) == most or number == len(files):
                yield batch
                bar.update(len(batch))
                batch, total_bytes = [], 0


def drop_images(rows: list[Prediction], with_images: list[int]) -> None:
    """Remove the images from all rows but the sheets.MAX_DRAWN that are the least sure.

    Args:
        rows: all predictions so far.
        with_images: the indices of those that have images; it is updated.
    """
    with_images.sort(key=lambda index: rows[index].sureness)
    for index in with_images[sheets.MAX_DRAWN :]:
        rows[index] = rows[index]._replace(original=None, network_input=None)
    del with_images[sheets.MAX_DRAWN :]
