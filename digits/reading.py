"""What predict does with pictures of digits: one digit or many, or none."""

from collections.abc import Callable

import keras
import numpy as np
from PIL import Image, ImageDraw

from classifier.batches import as_float, as_input
from classifier.charts import PAGE_WIDTH, Part, Prediction
from classifier.pictures import on_white, open_picture, small
from classifier.predictions import answers, see
from digits import handwriting, page
from digits.page import Digit, Network, Page

DIGITS = list("0123456789")


def reader(model: keras.Model, is_digit: Network) -> Callable[[list[str]], list[Prediction]]:
    """A function from files to what is on them.

    Args:
        model: reads digits: float32 [n, 28, 28, 3] in 0..1 to chances [n, 10].
        is_digit: the judge: uint8 [n, 28, 28] to the chance, float32 [n], that it is one digit.
    """

    def chances(images: np.ndarray) -> np.ndarray:
        return model.predict_on_batch(as_input(as_float(images[..., None])))

    def read(files: list[str]) -> list[Prediction]:
        """A prediction for each picture that can be read; the others are named on stderr."""
        first_looks = {}

        def look(file: str) -> tuple[Image.Image, np.ndarray]:
            picture = open_picture(file, handwriting.WORK_SIDE)
            digit, has_more = handwriting.first_look(picture)
            first_looks[file] = (picture.size, has_more)
            return picture, np.repeat(digit[..., None], 3, axis=-1)

        seen = see(files, look)
        if not seen:
            return []
        rows = answers(model, seen, DIGITS)
        judged = is_digit(np.stack([picture.pixels[..., 0] for picture in seen]))
        for place, (row, sure) in enumerate(zip(rows, judged, strict=True)):
            several = None
            if page.may_be_page(*first_looks[row.file], sure):
                several = of_page(row.file, chances, is_digit)
            if several:
                rows[place] = several
            elif sure < page.DOUBTFUL:
                rows[place] = row._replace(confidence=min(row.confidence, float(sure)))
        return rows

    return read


def of_page(file: str, chances: Network, is_digit: Network) -> Prediction | None:
    """What is on a picture of several digits; None if it is not one."""
    image = open_picture(file, page.WORK_SIDE)
    size = page.full_size(file)
    found = page.read_page(image, chances, is_digit, size)
    if len(found.digits) < 2:
        return None
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
        small(image, PAGE_WIDTH),
        small(framed),
        tuple(part_of(digit) for digit in found.digits),
        size[0],
    )


def with_second_guess(found: Page, least: Digit) -> str:
    """The text of a page, but for the digit that is the least sure."""
    labels = iter(str(digit.second if digit is least else digit.label) for digit in found.digits)
    return "".join(" " if letter == " " else next(labels) for letter in found.text)


def part_of(digit: Digit) -> Part:
    return Part(
        digit.row,
        digit.position,
        digit.box,
        str(digit.label),
        digit.confidence,
        str(digit.second),
        digit.second_confidence,
    )
