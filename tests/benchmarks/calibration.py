"""How true probabilities are: of answers with 90%, are 90 in 100 right?"""

from pathlib import Path

import numpy as np

from classifier.idx import decode_part
from digits.finder import load_finder
from digits.reading import digit_reader
from tests.networks import as_function, shipped_model

from .pages import pictures_in
from .runs import idx_folder

BINS = 10

# Of some answers: their probabilities, float [n], and whether they are right, bool [n].
Answers = tuple[np.ndarray, np.ndarray]


def calibration(work_dir: Path, folder: Path, weights: list[str]) -> None:
    """Print the loss and the calibration error of networks, and draw calibration.png.

    Args:
        work_dir: where the chart goes.
        folder: pictures of one digit, whose names begin with it.
        weights: files of the networks, each with its model.json beside it.
    """
    files, finder = [str(file) for file in pictures_in(folder)], load_finder()
    images, labels = (np.asarray(part) for part in decode_part(idx_folder(), "test"))
    mnist, people = {}, {}
    for file in weights:
        model = shipped_model(file)
        probabilities = as_function(model)(images)
        loss = -np.log(probabilities[np.arange(len(labels)), labels]).mean()
        name = Path(file).parent.name
        mnist[name] = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
        rows = digit_reader(model, finder)(files)
        right = [row.label == Path(row.file).name[0] for row in rows]
        people[name] = np.array([row.confidence for row in rows]), np.array(right)
        errors = [expected_error(*answers[name]) for answers in (mnist, people)]
        print("{}: test_loss {:.5f}, calibration error {:.4f}, {:.4f}".format(file, loss, *errors))
    draw(work_dir / "calibration.png", {"MNIST's test images": mnist, folder.name: people})


def tenths(probabilities: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Of each tenth with answers: their share of all, mean probability, and how many are right."""
    tenth = np.minimum(BINS * probabilities, BINS - 1).astype(int)
    parts = [tenth == number for number in np.unique(tenth)]
    return np.array(
        [[part.mean(), probabilities[part].mean(), right[part].mean()] for part in parts]
    )


def expected_error(probabilities: np.ndarray, right: np.ndarray) -> float:
    """The expected calibration error (Naeini, Cooper and Hauskrecht 2015)."""
    share, mean, accuracy = tenths(probabilities, right).T
    return float(share @ np.abs(mean - accuracy))


def draw(path: Path, sets: dict[str, dict[str, Answers]]) -> None:
    """Draw the tenths of each set of pictures, by network, as dots as large as their share."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.7), layout="constrained")
    for axes, (title, networks) in zip(figure.subplots(1, 2), sets.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="0.7", linestyle=":", zorder=0)
        for name, answers in networks.items():
            share, mean, accuracy = tenths(*answers).T
            label = f"{name}: error {expected_error(*answers):.4f}"
            axes.scatter(mean, accuracy, 12 + 150 * share, alpha=0.8, label=label, clip_on=False)
        axes.set(title=title, xlabel="probability of the answer", ylabel="share that is right")
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        for handle in axes.legend(loc=(0.42, 0.06), fontsize=8).legend_handles:
            handle.set_sizes([30])
    figure.savefig(path, dpi=100)
