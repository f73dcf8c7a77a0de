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
from digits.finder import Finder, load_finder
from digits.finding import View, find
from digits.page import Digit, Network, Page, find_digits

DIGITS = list("0123456789")
# Of MNIST's test images 68 are answered with less certainty; 16 of these answers are wrong.
UNSURE = 0.9
# An answer is unsure where a digit is less likely than DOUBTED and the finder gives it less than
# OTHER: none of people's 409 sure single digits, but three of four things that were called one.
DOUBTED, OTHER = 0.8, 0.1


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
        return digit_reader(model, load_finder())
    if clean:
        preprocess = functools.partial(handwriting.open_as_mnist, finder=load_finder())
    else:
        preprocess = picture_opener(run.setting.recipe)
    preprocess = functools.partial(preprocess, size=run.image_size)
    return functools.partial(predict_files, model, classes, preprocess)


def digit_reader(model: keras.Model, finder: Finder) -> Reader:
    """A function from files to what is on them: one digit, or several if there are two or more.

    Args:
        model: reads digits: float32 [n, 28, 28, 3] in 0..1 to probabilities [n, 10].
        finder: as finder.load_finder gives it.
    """

    def probabilities(images: np.ndarray) -> np.ndarray:
        return model.predict_on_batch(to_model_input(rescale(images[..., None])))

    def read(files: list[Picture], on_error: OnError = warn_not_predicted) -> list[Prediction]:
        """A prediction for each picture that can be read; on_error is called with the others."""
        pages = {}

        def look(file: Picture) -> tuple[Image.Image, np.ndarray]:
            picture = open_picture(file, handwriting.WORK_SIDE)
            view = find(handwriting.on_paper(picture), finder)
            found = find_digits(picture, view, probabilities) or unlikely_digit(picture, view)
            pages[file] = found
            return picture, np.repeat(found.digits[0].image[..., None], 3, axis=-1)

        rows = classify(model, load_pictures(files, look, on_error), DIGITS)
        for place, row in enumerate(rows):
            found = pages[row.file]
            if found.pattern == "0":
                rows[place] = of_one(row, found.digits[0])
            else:
                rows[place] = of_page(row.file, found, probabilities)
        return rows

    return read


def unlikely_digit(picture: Image.Image, view: View) -> Page:
    """All ink of a picture on which no digit was found, as one that is none.

    Raises:
        NoInkError: the picture is blank.
    """
    image = np.asarray(picture.convert("L"))
    if not handwriting.is_mnist_like(picture, SIDE, SIDE):
        image = handwriting.cut_out_whole(view)
    return Page([Digit(0, 0, (0, 0, *picture.size), 0.0, image, (0.0,) * 10)], "0")


def of_one(row: Prediction, digit: Digit) -> Prediction:
    """The network's answer, unsure also if the picture may show no digit."""
    is_digit = likely_digit(digit, int(row.label))
    return row._replace(is_unsure=is_unsure(row.confidence, is_digit), is_digit=is_digit)


def likely_digit(digit: Digit, answer: int) -> float:
    """How likely it is a digit, 0 to 1, if the network that reads says which."""
    is_doubted = digit.is_digit < DOUBTED and digit.labels[answer] < OTHER
    return min(digit.is_digit, page.EVEN) if is_doubted else digit.is_digit


def is_unsure(confidence: float, is_digit: float) -> bool:
    return confidence < UNSURE or is_digit <= page.EVEN


def of_page(file: Picture, found: Page, probabilities: Network) -> Prediction:
    """What is on a picture of several digits, or of one among signs.

    Args:
        file: the picture.
        found: its digits.
        probabilities: the network that reads: uint8 [n, 28, 28] to float32 [n, 10].
    """
    image, width = open_picture(file, handwriting.WORK_SIDE), page.full_size(file)[0]
    enlarged = width / image.width
    answers = probabilities(np.stack([digit.image for digit in found.digits]))
    answers = page.by_one_hand(answers, answers)
    parts = tuple(
        part_of(digit, answer, enlarged)
        for digit, answer in zip(found.digits, answers, strict=True)
    )
    least = min(parts, key=lambda part: part.confidence)
    # a ? is a sign, or a digit that could not be read
    is_digit = min(page.EVEN if "?" in found.pattern else 1.0, *(part.is_digit for part in parts))
    framed = on_white(image)
    pencil = ImageDraw.Draw(framed)
    for digit in found.digits:
        pencil.rectangle(digit.box, outline="red", width=max(1, image.width // 100))
    return Prediction(
        file,
        found.text(part.label for part in parts),
        least.confidence,
        found.text(part.second_guess if part is least else part.label for part in parts),
        least.second_confidence,
        thumbnail(image, PAGE_WIDTH),
        thumbnail(framed),
        parts,
        width,
        is_unsure=is_digit <= page.EVEN or any(part.is_unsure for part in parts),
        is_digit=is_digit,
    )


def part_of(digit: Digit, probabilities: np.ndarray, enlarged: float) -> Detection:
    """What the network says of a digit; its box in a picture so many times as large."""
    first, second = np.argsort(probabilities)[:-3:-1]
    is_digit = likely_digit(digit, first)
    return Detection(
        digit.row,
        digit.position,
        tuple(round(side * enlarged) for side in digit.box),
        str(first),
        float(probabilities[first]),
        str(second),
        float(probabilities[second]),
        is_unsure(float(probabilities[first]), is_digit),
        is_digit,
    )
