"""What predict does with pictures of digits: one digit or many, or none."""

import functools

import keras
import numpy as np
from PIL import Image, ImageDraw

from classifier.batches import rescale, to_model_input
from classifier.opener import Picture, on_white, open_picture, picture_opener, thumbnail
from classifier.predictions import (
    Detection,
    OnError,
    Prediction,
    Reader,
    classify,
    load_pictures,
    predict_files,
    warn_not_predicted,
)
from classifier.sheets import PAGE_WIDTH
from classifier.trained_run import TrainedRun
from digits import handwriting, page
from digits.drawn import SIDE
from digits.judge import load_judge
from digits.page import Digit, Page
from digits.search import Network
from digits.sheet import find_sheet

DIGITS = list("0123456789")
# Below it a picture may show things. Of 438 people's pictures of a digit one has less, of 427
# photographs of things five in six; 0.65 makes four more digits unsure and no photograph.
TWO_TONED = 0.55
EVEN = 0.5  # a picture of more tones shows a digit or none, as likely the one as the other
# Of MNIST's test images 68 are answered with less certainty; 16 of these answers are wrong.
UNSURE = 0.9


def cleans_up(run: TrainedRun) -> bool:
    """Whether the pictures are cleaned up as handwriting before the network sees them."""
    asked = run.setting.handwriting
    return run.metadata["handwriting"] if asked is None else asked


def reader(run: TrainedRun, model: keras.Model) -> Reader:
    """A function from files to a prediction for each that can be read; it names the others.

    Args:
        run: the network that was trained.
        model: it, loaded.
    """
    clean, classes = cleans_up(run), run.metadata["classes"]
    if clean and classes == DIGITS and run.image_size == (SIDE, SIDE):
        return digit_reader(model, load_judge())
    preprocess = handwriting.open_as_mnist if clean else picture_opener(run.setting.recipe)
    preprocess = functools.partial(preprocess, size=run.image_size)
    return functools.partial(predict_files, model, classes, preprocess)


def digit_reader(model: keras.Model, is_digit: Network) -> Reader:
    """A function from files to what is on them: one digit, or several if there are two or more.

    A small look is enough for most pictures of one digit; only where it finds more ink than the
    digit's, or no digit, the picture is read as a page.

    Args:
        model: reads digits: float32 [n, 28, 28, 3] in 0..1 to probabilities [n, 10].
        is_digit: the judge: uint8 [n, 28, 28] to the chance, float32 [n], that it is one digit.
    """

    def probabilities(images: np.ndarray) -> np.ndarray:
        return model.predict_on_batch(to_model_input(rescale(images[..., None])))

    def read(files: list[Picture], on_error: OnError = warn_not_predicted) -> list[Prediction]:
        """A prediction for each picture that can be read; on_error is called with the others."""
        looks = {}

        def look(file: Picture) -> tuple[Image.Image, np.ndarray]:
            picture = open_picture(file, handwriting.WORK_SIDE)
            first = extract_digit(picture)
            looks[file] = picture.size, first
            return picture, np.repeat(first.digit[..., None], 3, axis=-1)

        seen = load_pictures(files, look, on_error)
        if not seen:
            return []
        rows = classify(model, seen, DIGITS)
        judged = is_digit(np.stack([picture.pixels[..., 0] for picture in seen]))
        for place, (row, sure) in enumerate(zip(rows, judged, strict=True)):
            size, first = looks[row.file]
            several = None
            if page.may_be_page(size, first.has_more, sure):
                several = of_page(row.file, probabilities, is_digit, sure)
            rows[place] = several or of_one(row, first.two_toned, float(sure))
        return rows

    return read


def extract_digit(picture: Image.Image) -> handwriting.DigitImage:
    """The picture taken for one of a digit; or the sheet that lies on it, if it has no ink."""
    try:
        return handwriting.extract_digit(picture)
    except handwriting.NoInkError:
        if sheet := find_sheet(picture):
            return handwriting.extract_digit(sheet.image)
        raise


def of_one(row: Prediction, two_toned: float, is_digit: float) -> Prediction:
    """The network's answer, unsure also if the picture may show no digit."""
    if two_toned < TWO_TONED:
        is_digit = min(is_digit, EVEN)
    return row._replace(is_unsure=is_unsure(row.confidence, is_digit), is_digit=is_digit)


def is_unsure(confidence: float | np.ndarray, is_digit: float | np.ndarray) -> bool | np.ndarray:
    return (confidence < UNSURE) | (is_digit <= EVEN)


def of_page(
    file: Picture, probabilities: Network, is_digit: Network, sure: float
) -> Prediction | None:
    """What is on a picture of several digits, or on a sheet; None if a small look sees it better.

    Args:
        file: the picture.
        probabilities: the network that reads.
        is_digit: the judge.
        sure: how likely it was one digit at a small look.
    """
    image = open_picture(file, page.WORK_SIDE)
    size = page.full_size(file)
    found = page.read_page(image, probabilities, is_digit, size)
    if len(found.digits) < (1 if found.on_sheet and sure < page.LIKELY else 2):
        return None
    parts = tuple(part_of(digit) for digit in found.digits)
    least = min(found.digits, key=lambda digit: digit.confidence)
    framed = on_white(image)
    pencil = ImageDraw.Draw(framed)
    for digit in found.digits:
        box = [side * image.width / size[0] for side in digit.box]
        pencil.rectangle(box, outline="red", width=max(1, image.width // 100))
    return Prediction(
        file,
        found.text,
        least.confidence,
        with_second_guess(found, least),
        least.second_confidence,
        thumbnail(image, PAGE_WIDTH),
        thumbnail(framed),
        parts,
        size[0],
        is_unsure=any(part.is_unsure for part in parts),
        is_digit=min(part.is_digit for part in parts),
    )


def with_second_guess(found: Page, least: Digit) -> str:
    """The text of a page, but for the digit that is the least sure."""
    labels = iter(str(digit.second if digit is least else digit.label) for digit in found.digits)
    return "".join(letter if letter in " ?" else next(labels) for letter in found.text)


def part_of(digit: Digit) -> Detection:
    return Detection(
        digit.row,
        digit.position,
        digit.box,
        str(digit.label),
        digit.confidence,
        str(digit.second),
        digit.second_confidence,
        is_unsure(digit.confidence, digit.is_digit),
        digit.is_digit,
    )
