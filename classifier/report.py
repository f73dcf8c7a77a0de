"""What evaluate and predict found, as tables and calls of charts."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from classifier import charts
from classifier.console import printable
from classifier.files import whole_file, write_csv
from classifier.pictures import Pictures, decode
from setting import Setting

# With few classes evaluate also prints the table; more lines than a screen has are no help.
MOST_CLASSES_PRINTED = 20
# Of MNIST's test images 83 are answered with less certainty; 20 of these answers are wrong.
UNSURE = 0.6


def write_predictions(setting: Setting, rows: list[dict[str, Any]]) -> None:
    """Write predictions.csv, and predictions.png: what was given, seen and answered."""
    folder = Path(setting.data_dir, "report")
    columns = ("file", "label", "confidence", "second_guess", "second_confidence")
    write_csv(folder / "predictions.csv", [{name: row[name] for name in columns} for row in rows])
    rows = [charts.PredictionRow(**row) for row in rows]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as beside:
        path = Path(beside, "predictions.png")
        sheets = charts.prediction_sheets(rows, path, UNSURE)
        for sheet in folder.glob("predictions*.png"):  # there may have been more of them
            sheet.unlink(missing_ok=True)  # another predict may do the same
        for sheet in sheets:
            sheet.replace(folder / sheet.name)
    print(f"all answers: {folder / 'predictions.csv'}, with the pictures: {folder / path.name}")


def write_report(
    setting: Setting, classes: list[str], pictures: Pictures, chances: np.ndarray
) -> None:
    """Write what evaluate found: by class, the confusion matrix, and the worst mistakes."""
    folder = Path(setting.data_dir, "report")
    guesses = chances.argmax(axis=1)
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (pictures.labels, guesses), 1)
    table = class_table(counts, classes)
    write_csv(folder / "classes.csv", table)
    if len(classes) <= MOST_CLASSES_PRINTED:
        print(f"{'class':20} {'images':>7} {'accuracy':>9} {'precision':>9} {'recall':>9}")
        for row in table:
            figures = " ".join(f"{row[name]:9.4f}" for name in ("accuracy", "precision", "recall"))
            print(f"{printable(row['class'])[:20]:20} {row['images']:7} {figures}")
    with whole_file(folder / "confusion.png") as partial:
        charts.confusion_matrix(counts, classes, partial)
    wrong = np.flatnonzero(guesses != pictures.labels)
    wrong = wrong[np.argsort(-chances[wrong, guesses[wrong]])][: charts.MOST_MISTAKES]
    with whole_file(folder / "mistakes.png") as partial:
        charts.mistakes(
            [decode(pictures.paths[index], setting) for index in wrong],
            [classes[pictures.labels[index]] for index in wrong],
            [classes[guesses[index]] for index in wrong],
            [float(chances[index, guesses[index]]) for index in wrong],
            partial,
        )


def class_table(counts: np.ndarray, classes: Sequence[str]) -> list[dict[str, str | int | float]]:
    """Accuracy, precision and recall by class.

    A class's accuracy is the share of all pictures that were rightly put into it or rightly kept
    out of it (one against the rest). What would be 0/0 is 0.0.

    Args:
        counts: int [k, k], rows are the true classes, columns the predicted ones.
        classes: their k names.

    Returns:
        One row a class: class, images, accuracy, precision, recall. The last row, "all", has the
        share of all pictures put into the right class, and the plain means over the classes.
    """
    right, images, guesses = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    total = counts.sum()
    # Where a divisor is 0, so is what it divides.
    accuracy = (total - images - guesses + 2 * right) / max(total, 1)
    precision, recall = right / np.maximum(guesses, 1), right / np.maximum(images, 1)
    columns = {
        "class": [*classes, "all"],
        "images": [*images.tolist(), int(total)],
        "accuracy": [*accuracy.tolist(), float(right.sum() / max(total, 1))],
        "precision": [*precision.tolist(), float(precision.mean())],
        "recall": [*recall.tolist(), float(recall.mean())],
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
