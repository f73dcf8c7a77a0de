"""Results of training, evaluation and prediction as tables; charts.py draws them."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from classifier import charts
from classifier.console import printable, warn
from classifier.files import try_write, write_csv

if TYPE_CHECKING:  # it imports TensorFlow
    from classifier.predictions import Prediction

# With few classes evaluate also prints the table; more lines than a screen has are no help.
MAX_CLASSES_PRINTED = 20
# Of MNIST's test images 83 are answered with less certainty; 20 of these answers are wrong.
UNSURE = 0.6
# The columns of an answer.
PREDICTION_COLUMNS = ("label", "confidence", "second_guess", "second_confidence")


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
    try_write(folder / "training_curves.png", partial(charts.training_curves, rows, least))


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
    try_write(folder / "classes.csv", lambda path: write_csv(path, table))
    if len(classes) <= MAX_CLASSES_PRINTED:
        print_table(table)
    try_write(folder / "confusion.png", partial(charts.confusion_matrix, counts, classes))
    wrong = np.flatnonzero(guesses != labels)
    wrong = wrong[np.argsort(-probabilities[wrong, guesses[wrong]])][: charts.MAX_MISTAKES]
    mistakes = [
        charts.Mistake(
            open_picture(int(index)),
            classes[labels[index]],
            classes[guesses[index]],
            float(probabilities[index, guesses[index]]),
        )
        for index in wrong
    ]
    try_write(folder / "mistakes.png", partial(charts.mistakes, mistakes))


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
    print(f"{printable(row.file)}\n预测结果为：{printable(row.label)}", flush=True)
    if row.confidence < UNSURE:
        warn(
            f"{row.file}: unsure, {row.label} ({row.confidence:.0%}) or "
            f"{row.second_guess} ({row.second_confidence:.0%})"
        )


def write_prediction_report(folder: Path, rows: list["Prediction"]) -> None:
    """Write predictions.csv, and predictions.png: what was given, seen and answered.

    Args:
        folder: where to put them; of many pictures there are also predictions-2.png to -5.png.
        rows: at least one; predictions.drop_images may have been through them.
    """
    table, said = folder / "predictions.csv", []
    content = [{name: getattr(row, name) for name in ("file", *PREDICTION_COLUMNS)} for row in rows]
    if try_write(table, lambda path: write_csv(path, content)):
        said.append(f"all answers: {table}")
    paths = [folder / "predictions.png"]
    paths += [folder / f"predictions-{n + 1}.png" for n in range(1, charts.MAX_SHEETS)]
    sheets = charts.prediction_pages(rows, UNSURE)
    drawn = [
        try_write(path, partial(charts.prediction_sheet, title, part, UNSURE))
        for path, (title, part) in zip(paths, sheets, strict=False)
    ]
    if all(drawn):
        said.append(f"with the pictures: {paths[0]}")
    stale = paths[len(sheets) :]  # an earlier predict had more of them
    if any(row.detections for row in rows):
        said += write_detections(folder, rows)
    else:
        stale += [folder / "digits.csv", folder / "pages.png"]
    for path in filter(Path.exists, stale):
        try_write(path, lambda old: old.unlink(missing_ok=True))  # another may do the same
    if said:
        print(printable(", ".join(said)))


def write_detections(folder: Path, rows: list["Prediction"]) -> list[str]:
    """Write digits.csv, a line a digit, and pages.png, of those pictures that show several.

    Returns:
        Where they are, in words.
    """
    said = []
    content = [
        {"file": row.file, "row": part.row, "position": part.position}
        | dict(zip(("left", "top", "right", "bottom"), part.box, strict=True))
        | {name: getattr(part, name) for name in PREDICTION_COLUMNS}
        for row in rows
        for part in row.detections
    ]
    if try_write(folder / "digits.csv", lambda path: write_csv(path, content)):
        said.append(f"digit by digit: {folder / 'digits.csv'}")
    pages = [row for row in rows if row.detections and row.original is not None]
    pages = sorted(pages, key=lambda row: row.confidence)[: charts.MAX_PAGES]
    page = partial(charts.page_sheet, pages, UNSURE)
    if pages and try_write(folder / "pages.png", page):
        said.append(f"with frames: {folder / 'pages.png'}")
    return said
