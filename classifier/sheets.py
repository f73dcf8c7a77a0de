"""Sheets of pictures with text: the worst mistakes, and what predict has read."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from classifier import charts
from classifier.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from classifier.predictions import Prediction

MAX_MISTAKES = 40
SHEET_SIZE, MAX_SHEETS = 100, 5
MAX_DRAWN = MAX_SHEETS * SHEET_SIZE  # predictions whose pictures are in memory
PAGES_PER_SHEET = 12
# In pixels: around a cell, above the cells, and a picture's side.
MARGIN, HEAD, SIDE, MISTAKE_SIDE = 8, 76, 84, 130
# Frames and answers of a hundred digits can be told apart.
PAGE_WIDTH, PAGE_HEIGHT = 560, 420


class Mistake(NamedTuple):
    """A picture that was taken for what it is not."""

    picture: np.ndarray  # uint8 [h, w, 3]
    truth: str
    guess: str
    confidence: float  # of the guess, 0 to 1


class Sheet:
    """Pictures and text on a white page, at pixels from its upper left corner."""

    def __init__(self, figure: "Figure", width: int, height: int):
        self.figure, self.width, self.height = figure, width, height
        self.canvas = Image.new("RGB", (width, height), "white")

    def paste(self, image: np.ndarray, left: int, top: int, side: int) -> None:
        """Put the image, as large as fits, into the middle of a square, in a thin frame."""
        scale = side / max(image.shape[:2])
        height, width = (max(1, round(scale * length)) for length in image.shape[:2])
        # Enlarged, the network's pixels are to be seen one by one.
        how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX
        left, top = left + (side - width) // 2, top + (side - height) // 2
        self.canvas.paste(charts.LINE, (left - 1, top - 1, left + width + 1, top + height + 1))
        picture = Image.fromarray(image).convert("RGB").resize((width, height), how)
        self.canvas.paste(picture, (left, top))

    def write(self, left: float, top: float, text: str, color: str = charts.INK, **font) -> None:
        place = left / self.width, 1 - top / self.height
        self.figure.text(*place, text, va="top", color=color, **font)

    def write_name(
        self,
        left: float,
        top: float,
        room: float,
        name: str,
        end: str = "",
        color: str = charts.INK,
        **font,
    ) -> None:
        """Write the name, shortened where it and the end take more than so many pixels."""
        room -= charts.text_width(self.figure, end, **font)
        self.write(left, top, charts.fitted(self.figure, name, room, **font) + end, color, **font)

    def save(self, path: Path) -> None:
        """Save the pictures with the text on them.

        Matplotlib's own ways, figimage and imshow, take twice as long for a sheet of a hundred.
        """
        self.figure.canvas.draw()
        text = Image.fromarray(np.asarray(self.figure.canvas.buffer_rgba())[..., :3])
        with atomic_file(path) as partial:  # dark text on white: multiplied, both can be seen
            ImageChops.multiply(self.canvas, text).save(partial, format="PNG")


@contextlib.contextmanager
def new_sheet(
    path: Path,
    title: str,
    legend: str,
    texts: Sequence[str],
    cell: tuple[int, int],
    columns: int,
) -> Iterator[tuple[Sheet, Iterator[tuple[int, int]]]]:
    """A sheet that is saved when the body has drawn on it, and its cells' upper left corners.

    Args:
        path: the PNG file to write.
        title: stands above the cells.
        legend: stands below the title.
        texts: what will be written, a cell each.
        cell: width and height in pixels.
        columns: of cells.
    """
    width = 2 * MARGIN + columns * cell[0]
    height = HEAD + math.ceil(len(texts) / columns) * cell[1]
    with charts.new_figure(width, height, texts) as figure:
        sheet = Sheet(figure, width, height)
        sheet.write(2 * MARGIN, 16, title, size=12)
        sheet.write(2 * MARGIN, 44, legend, color=charts.FAINT, size=9)
        places = (divmod(number, columns) for number in range(len(texts)))
        yield sheet, ((2 * MARGIN + x * cell[0], HEAD + y * cell[1]) for y, x in places)
        sheet.save(path)


def mistakes(rows: Sequence[Mistake], path: Path) -> None:
    """Draw the mistakes, the worst first, with captions such as "5 read as 6, 89%".

    Args:
        rows: up to MAX_MISTAKES of them.
        path: the PNG file to write.
    """
    title = "The worst mistakes" if rows else "No mistakes"
    legend = "below a picture: what it is, what it was read as, and how sure the network was"
    texts = [row.truth + row.guess for row in rows]
    cell = MISTAKE_SIDE + 20, MISTAKE_SIDE + 48  # the caption may take two lines
    with new_sheet(path, title, legend, texts, cell, columns=8) as (sheet, corners):
        for row, (left, top) in zip(rows, corners, strict=True):
            sheet.paste(row.picture, left, top, MISTAKE_SIDE)
            top, font = top + MISTAKE_SIDE + 5, {"size": 9}
            truth, guess = (
                charts.fitted(sheet.figure, name, **font) for name in (row.truth, row.guess)
            )
            caption, end = f"{truth} read as {guess}", f", {charts.percent(row.confidence)}"
            if charts.text_width(sheet.figure, caption + end, **font) <= MISTAKE_SIDE:
                sheet.write(left, top, caption + end, **font)
            else:
                sheet.write_name(left, top, MISTAKE_SIDE, row.truth, " read as", **font)
                sheet.write_name(left, top + 20, MISTAKE_SIDE, row.guess, end, **font)


def prediction_sheets(rows: Sequence["Prediction"]) -> list[tuple[str, Sequence["Prediction"]]]:
    """What stands on each sheet of predictions: its title, and up to SHEET_SIZE rows.

    Of more than MAX_DRAWN rows only those are shown that the network is least sure of: the unsure
    ones, and if these don't fill the first sheet, the next ones.

    Args:
        rows: the predictions, in the order in which they are shown.
    """
    unsure = sum(row.is_unsure for row in rows)
    title = f"{charts.counted(len(rows), 'picture')}, {unsure:,} unsure"
    if len(rows) > MAX_DRAWN:
        shown = min(max(unsure, SHEET_SIZE), MAX_DRAWN)
        rows = sorted(rows, key=lambda row: row.sureness)[:shown]
        title += f"; here the {shown} least sure"
    return split(title, rows, SHEET_SIZE)


def page_sheets(rows: Sequence["Prediction"]) -> list[tuple[str, Sequence["Prediction"]]]:
    """As prediction_sheets, of the pictures that were read digit by digit; none if none was."""
    pages = [row for row in rows if row.detections]
    shown = [row for row in pages if row.original is not None]
    title = f"{charts.counted(len(pages), 'picture')} read digit by digit"
    title += f"; here the {len(shown)} least sure" if len(shown) < len(pages) else ""
    return split(title, shown, PAGES_PER_SHEET)


def split(
    title: str, rows: Sequence["Prediction"], size: int
) -> list[tuple[str, Sequence["Prediction"]]]:
    """The rows of each sheet, so many, with the title, which says which of several it is."""
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    if len(parts) == 1:
        return [(title, rows)]
    return [(f"{title} – sheet {n} of {len(parts)}", part) for n, part in enumerate(parts, 1)]


def prediction_sheet(title: str, rows: Sequence["Prediction"], path: Path) -> None:
    """Draw pictures as given and as the network saw them, with its answers.

    Unsure ones stand out, with the second guess, or the question whether it is a digit at all.

    Args:
        title: stands above them.
        rows: the predictions, with their pictures.
        path: the PNG file to write.
    """
    legend = "left: the picture as given; right: as the network saw it; below: its answer"
    texts = [row.file + row.label + row.second_guess for row in rows]
    width, height = 2 * SIDE + MARGIN, SIDE + 54  # two pictures, and three lines of text below
    # As many columns as lines, but room for the title over a few pictures.
    columns, cell = max(5, math.ceil(math.sqrt(len(rows)))), (width + 24, height + 24)
    with new_sheet(path, title, legend, texts, cell, columns) as (sheet, corners):
        for row, (left, top) in zip(rows, corners, strict=True):
            if row.is_unsure:
                right, bottom = left + width + MARGIN, top + height + MARGIN
                sheet.canvas.paste(charts.PALE_ORANGE, (left - MARGIN, top - MARGIN, right, bottom))
            sheet.paste(row.original, left, top, SIDE)
            sheet.paste(row.network_input, left + SIDE + MARGIN, top, SIDE)
            top, color = top + SIDE + 5, charts.ORANGE if row.is_unsure else charts.INK
            sheet.write_name(left, top, width, Path(row.file).name, color=charts.FAINT, size=7)
            first, second = (row.label, f"  {charts.percent(row.confidence)}"), ("", "")
            if row.is_doubtful:
                first, second = ((text, "") for text in row.doubt)
            elif row.is_unsure:
                second = f"or {row.second_guess}", f"  {charts.percent(row.second_confidence)}"
            style = {"color": color, "size": 9, "weight": "bold"}
            sheet.write_name(left, top + 15, width, *first, **style)
            sheet.write_name(left, top + 33, width, *second, color=color, size=8)


def page_sheet(title: str, rows: Sequence["Prediction"], path: Path) -> None:
    """Draw pictures that show several digits whole, with a frame and the answer at each digit.

    Unsure digits stand out.

    Args:
        title: stands above them.
        rows: the predictions, with their pictures and detections.
        path: the PNG file to write.
    """
    legend = "above a picture: its file, its digits and how sure the least sure is"
    texts, cell = [row.file for row in rows], (PAGE_WIDTH + 24, PAGE_HEIGHT + 68)
    with new_sheet(path, title, legend, texts, cell, min(2, len(rows))) as (sheet, corners):
        for row, (left, top) in zip(rows, corners, strict=True):
            sheet.write_name(left, top, PAGE_WIDTH, Path(row.file).name, color=charts.FAINT, size=7)
            sure = row.doubt[0] if row.is_doubtful else charts.percent(row.confidence)
            end, font = f"  {sure}", {"size": 9, "weight": "bold"}
            sheet.write_name(left, top + 13, PAGE_WIDTH, row.label, end, **font)
            top += 48
            picture = Image.fromarray(row.original).convert("RGB")
            scale = min(PAGE_WIDTH / picture.width, PAGE_HEIGHT / picture.height)
            picture = picture.resize([max(1, round(scale * side)) for side in picture.size])
            pencil, scale = ImageDraw.Draw(picture), picture.width / row.width
            for part in row.detections:
                color = charts.ORANGE if part.is_unsure else charts.BLUE
                box = [scale * side for side in part.box]
                pencil.rectangle(box, outline=color)
                sheet.write(left + box[0], top + box[1] - 13, part.label, color=color, size=8)
            sheet.canvas.paste(picture, (left, top))
