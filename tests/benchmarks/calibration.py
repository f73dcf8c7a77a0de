"""How true the probabilities are: of answers that are called 90% sure, are 90 in 100 right?"""

from pathlib import Path

import matplotlib
import numpy as np

from classifier.idx import decode_part
from classifier.predictions import Prediction
from digits.judge import load_judge
from digits.reading import digit_reader
from tests.networks import as_functions, shipped_model

from .pages import pictures_in
from .runs import idx_folder

BINS = 10


def calibration(work_dir: Path, folder: Path, weights: list[str]) -> None:
    """Print the loss and the calibration error of networks, and draw them as a chart.

    Args:
        work_dir: where calibration.png is drawn.
        folder: pictures of one digit, whose names begin with it.
        weights: files of the networks, each with its model.json beside it.
    """
    matplotlib.use("Agg")
    from matplotlib import pyplot

    files, judge = pictures_in(folder), load_judge()
    images, labels = (np.asarray(part) for part in decode_part(idx_folder(), "test"))
    figure, axes = pyplot.subplots(1, 2, figsize=(7, 3.6), sharey=True, layout="constrained")
    for weights_file in weights:
        model = shipped_model(weights_file)
        probabilities = as_functions(model, judge)[0](images)
        loss = -np.log(probabilities[np.arange(len(labels)), labels]).mean()
        print(f"{weights_file}: test_loss {loss:.5f}")
        rows = digit_reader(model, judge)([str(file) for file in files])
        people = np.transpose([(row.confidence, is_right(row)) for row in rows])
        mnist = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
        for axis, title, answers in (
            (axes[0], "MNIST's test images", mnist),
            (axes[1], "people's own digits", people),
        ):
            error, means, shares = bins(*answers)
            print(f"  {title}: calibration error {error:.4f}, mean {answers[0].mean():.4f}")
            name = f"{Path(weights_file).parent.name}: error {error:.3f}"
            axis.plot(means, shares, "o-", markersize=3, label=name)
            axis.set(title=title, xlabel="probability of the answer", xlim=(0, 1), ylim=(0, 1))
    for axis in axes:
        axis.plot([0, 1], [0, 1], color="0.7", linestyle=":")
        axis.legend(loc="upper left", fontsize=8)
    axes[0].set_ylabel("share that is right")
    figure.savefig(work_dir / "calibration.png", dpi=100)


def is_right(row: Prediction) -> bool:
    return row.label == Path(row.file).name[0]


def bins(confidences: np.ndarray, right: np.ndarray) -> tuple[float, list[float], list[float]]:
    """The expected calibration error in tenths; each tenth's mean, and how many of it are right.

    Args:
        confidences: float [n], 0 to 1.
        right: bool, or 0 and 1, [n].
    """
    tenth = np.minimum(BINS * confidences, BINS - 1).astype(int)
    parts = [tenth == number for number in np.unique(tenth)]
    means = [float(confidences[part].mean()) for part in parts]
    shares = [float(right[part].mean()) for part in parts]
    sizes = [part.mean() for part in parts]
    gaps = np.abs(np.subtract(means, shares))
    return float(gaps @ sizes), means, shares
