"""Results of training, evaluation and prediction as tables; charts.py and sheets.py draw them."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from classifier import charts, sheets
from classifier.console import printable, warn
from classifier.files import try_write, write_csv

if TYPE_CHECKING:  # it imports TensorFlow
    from classifier.predictions import Detection, Prediction

# With few classes evaluate also prints the table; more lines than a screen has are no help.
MAX_CLASSES_PRINTED = 20


def write_training_report(
    folder: Path, rows: list[dict[str, float]], smoothing: float, classes: int
) -> None:
    """Draw training_curves.png.

    Args:
        folder: where to put it.
        rows: one an epoch, at least one: epoch, loss, acc, val_loss, val_acc.
        smoothing: the share of each label's certainty that training, on augmented pictures, gives
            to all classes alike; 0 if it takes pictures and labels as they are.
        classes: how many there are.

    Raises:
        OSError: the disk is full or fails; this holds for evaluation and predictions, too.
    """
    least = min_loss(smoothing, classes)
    draw = partial(charts.training_curves, rows, least)
    print_written({"curves": try_write(folder / "training_curves.png", draw)})


def min_loss(smoothing: float, classes: int) -> float:
    """The cross-entropy of smoothed labels with answers that are just like them."""
    label = np.full(classes, smoothing / classes)
    label[0] += 1 - smoothing
    label = label[label > 0]
    return float(-(label * np.log(label)).sum())


def write_evaluation_report(
    folder: Path,
    classes: list[str],
    labels: np.ndarray,
    probabilities: np.ndarray,
    open_picture: Callable[[int], np.ndarray],
) -> None:
    """Print and write what evaluate found: by class, the confusion matrix, the worst mistakes.

    Args:
        folder: where to put classes.csv, confusion.png and mistakes.png.
        classes: their k names.
        labels: int [n], at least one.
        probabilities: float32 [n, k], what the network says.
        open_picture: gives the picture of an index below n, uint8 [h, w, 3]; it is called for the
            mistakes that are shown.
    """
    guesses = probabilities.argmax(axis=1)
    counts = np.zeros((len(classes), len(classes)), np.int32)
    np.add.at(counts, (labels, guesses), 1)
    table = class_table(counts, classes)
    if len(classes) <= MAX_CLASSES_PRINTED:
        print_table(table)
    names = charts.displayed_names(classes)
    wrong = np.flatnonzero(guesses != labels)
    wrong = wrong[np.argsort(-probabilities[wrong, guesses[wrong]])][: sheets.MAX_MISTAKES]
    mistakes = [
        sheets.Mistake(
            open_picture(int(index)),
            names[labels[index]],
            names[guesses[index]],
            float(probabilities[index, guesses[index]]),
        )
        for index in wrong
    ]
    draw_confusion = partial(charts.confusion_matrix, counts, names)
    written = {
        "by class": write_table(folder / "classes.csv", table),
        "confusion": try_write(folder / "confusion.png", draw_confusion),
        "mistakes": try_write(folder / "mistakes.png", partial(sheets.mistakes, mistakes)),
    }
    print_written(written)


def class_table(
    counts: np.ndarray, classes: Sequence[str]
) -> list[dict[str, str | int | float | None]]:
    """Precision, recall and F1 by class, as in scikit-learn's classification report.

    Args:
        counts: int [k, k], rows are the true classes, columns the predicted ones; not all 0.
        classes: their k names.

    Returns:
        One row a class: class, images, precision, recall, f1; what would be 0/0 is 0.0. Two more
        follow: "accuracy", the share of all images put into the right class, in the column f1; and
        "macro avg", the plain means over the classes that there are images or guesses of.
    """
    right, images, guesses = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    # Where a divisor is 0, so is what it divides.
    figures = np.stack(
        [
            right / np.maximum(guesses, 1),
            right / np.maximum(images, 1),
            2 * right / np.maximum(guesses + images, 1),
        ],
        axis=1,
    )
    total, means = int(images.sum()), figures[images + guesses > 0].mean(axis=0)
    rows = [
        *zip(classes, images.tolist(), *figures.T.tolist(), strict=True),
        ("accuracy", total, None, None, float(right.sum() / total)),
        ("macro avg", total, *means.tolist()),
    ]
    columns = ("class", "images", "precision", "recall", "f1")
    return [dict(zip(columns, row, strict=True)) for row in rows]


def print_table(table: list[dict[str, str | int | float | None]]) -> None:
    print(f"{'class':20} {'images':>7} {'precision':>9} {'recall':>9} {'f1':>9}")
    for name, images, *figures in map(dict.values, table):
        line = " ".join(" " * 9 if figure is None else f"{figure:9.4f}" for figure in figures)
        print(f"{printable(name)[:20]:20} {images:7} {line}")


def print_prediction(row: "Prediction") -> None:
    """Print the article's two lines, and on stderr that an answer is unsure."""
    tqdm.write(f"{printable(row.file)}\n预测结果为：{printable(row.label)}")
    sys.stdout.flush()
    if row.is_doubtful:
        warn("{}: {} ({})".format(row.file, *row.doubt))
    elif row.is_unsure:
        warn(
            f"{row.file}: unsure, {row.label} ({row.confidence:.0%}) or "
            f"{row.second_guess} ({row.second_confidence:.0%})"
        )


def write_prediction_report(folder: Path, rows: list["Prediction"], classes: list[str]) -> None:
    """Write predictions.csv and .png, and of several digits digits.csv and pages.png; name them.

    Args:
        folder: where to put them; more sheets than one are predictions-2.png, pages-2.png, ….
        rows: at least one; predictions.drop_images may have been through them.
        classes: the names of the network's classes.
    """
    answers = [{"file": row.file} | answer(row) for row in rows]
    digits = [
        {"file": row.file, "row": part.row, "position": part.position}
        | dict(zip(("left", "top", "right", "bottom"), part.box, strict=True))
        | answer(part)
        for row in rows
        for part in row.detections
    ]
    names = dict(zip(classes, charts.displayed_names(classes), strict=True))
    shown = [
        row._replace(
            label=names.get(row.label, row.label),
            second_guess=names.get(row.second_guess, row.second_guess),
        )
        for row in rows
    ]
    pictures, pages = sheets.prediction_sheets(shown), sheets.page_sheets(shown)
    written = {
        "all answers": write_table(folder / "predictions.csv", answers),
        "with the pictures": write_sheets(
            folder / "predictions.png", pictures, sheets.prediction_sheet
        ),
        "digit by digit": write_table(folder / "digits.csv", digits),
        "with frames": write_sheets(folder / "pages.png", pages, sheets.page_sheet),
    }
    print_written(written)


def answer(row: "Prediction | Detection") -> dict[str, str | float]:
    """The columns of an answer; is_digit is one only where the network reads digits."""
    names = ["label", "confidence", "second_guess", "second_confidence"]
    names += ["is_digit"] if row.is_digit is not None else []
    return {name: getattr(row, name) for name in names}


def write_table(path: Path, rows: list[dict]) -> Path | None:
    """Write the rows as CSV; of none an earlier table goes. Returns the path if it was written."""
    return try_write(path, partial(write_csv, rows=rows)) if rows else remove(path)


def write_sheets(path: Path, contents: list[tuple[str, Sequence]], draw: Callable) -> Path | None:
    """Draw a sheet of each title and its rows: to path, path-2 and so on; others there go.

    Returns:
        The path, if there are any sheets and all were written.
    """
    paths = [path, *(path.with_stem(f"{path.stem}-{n}") for n in range(2, 100))]
    written = [
        try_write(path, partial(draw, title, rows))
        for path, (title, rows) in zip(paths, contents, strict=False)
    ]
    for earlier in paths[len(contents) :]:
        remove(earlier)
    return path if written and all(written) else None


def remove(path: Path) -> None:
    if path.exists():
        try_write(path, lambda old: old.unlink(missing_ok=True))  # another may do the same


def print_written(written: dict[str, Path | None]) -> None:
    """Name the files that were written, on one line."""
    if paths := [f"{what}: {path}" for what, path in written.items() if path]:
        print(printable(", ".join(paths)))
