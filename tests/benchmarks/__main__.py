"""Measure the program: its training, parsing and predicting, and how often it is right.

Each command starts mnist_keras.py or mnist_parser.py as a user does and prints what to paste into
docs/figures.md. MNIST's IDX files are taken from MNIST_DIR, ../shared/mnist or mnist_data/raw.
Nothing is written into the repository. For Linux and macOS; other work on the machine shows in the
figures.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from classifier.console import ArgumentParser, InputError, one_line_errors

from . import calibration, pages, pictures, training
from .runs import processor

PRECISIONS = ("auto", "float32", "mixed_bfloat16")


def command_line() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "--work_dir",
        type=Path,
        help="folder for what is made, kept for the next run (default: a temporary one)",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, help: str) -> ArgumentParser:
        return commands.add_parser(name, help=help, description=help)

    train = add("train", "the article's recipe and the default one, side by side")
    option(train, "--rounds", 3, "how often each is run, in turn")
    option(train, "--epochs", 4, "of the default recipe's run for val_acc 0.9930")
    train.add_argument("--precision", choices=PRECISIONS, default="auto", help="of the default one")
    parse = add("parse", "mnist_parser.py against bare creation of as many files")
    option(parse, "--rounds", 3, "how often each is run, in turn")
    predict = add("predict", "pictures a second: many of 28x28, some of 12 megapixels")
    option(predict, "--rounds", 3, "how often each is run")
    option(predict, "--small", 10_000, "pictures of 28x28")
    option(predict, "--large", 60, "pictures of 12 megapixels")
    accuracy = add("accuracy", "test accuracy, time and memory of trainings with several seeds")
    option(accuracy, "--epochs", 8, "of each training")
    accuracy.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="(default: 0 1 2)"
    )
    accuracy.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="of each training"
    )
    wild = add("wild", "how many pictures that people made are read right, and MNIST's")
    wild.add_argument(
        "folder",
        type=Path,
        metavar="FOLDER",
        help="pictures whose names begin with their labels",
    )
    several = add("pages", "pictures of several digits, of one and of none")
    several.add_argument(
        "folder",
        type=Path,
        metavar="FOLDER",
        help="pictures named by their digits up to the last _",
    )
    several.add_argument(
        "single",
        type=Path,
        metavar="SINGLE",
        help="pictures of one digit, whose names begin with it",
    )
    option(several, "--count", 20, "pages, and pictures without a digit, drawn of each kind")
    true = add("calibration", "how true the probabilities of networks are, as a chart")
    true.add_argument(
        "folder", type=Path, metavar="FOLDER", help="pictures whose names begin with their digit"
    )
    true.add_argument("weights", nargs="+", metavar="FILE", help="with its model.json beside it")
    for reading in (predict, wild, several):
        reading.add_argument(
            "--weights",
            metavar="FILE",
            help="with its model.json beside it (default: the best in mnist_data)",
        )
    draw = add("draw", "the page to draw on: ms from a stroke to its answer, in Chromium")
    option(draw, "--strokes", 50, "of one digit, and of a line of ten")
    return parser


def option(parser: ArgumentParser, name: str, default: int, help: str) -> None:
    help = f"{help} (default: %(default)s)"
    parser.add_argument(name, type=int, default=default, metavar="N", help=help)


@contextlib.contextmanager
def folder_to_work_in(kept: Path | None) -> Iterator[Path]:
    if kept:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        yield Path(folder).resolve()


def draw(work_dir: Path, **options) -> None:
    from .draw import draw  # here, since it takes Playwright, which the others do without

    draw(work_dir, **options)


def main() -> None:
    with one_line_errors():
        if sys.platform == "win32":
            raise InputError("Windows does not say how much memory a command took")
        options = vars(command_line().parse_args())
        measure = {
            "train": training.side_by_side,
            "parse": pictures.parse,
            "predict": pictures.predict,
            "accuracy": training.accuracy,
            "wild": pictures.wild,
            "pages": pages.pages,
            "draw": draw,
            "calibration": calibration.calibration,
        }[options.pop("command")]
        sys.stdout.reconfigure(line_buffering=True)  # a log shows how far it is
        print(f"{processor()}; load at the start {os.getloadavg()[0]:.1f}")
        with folder_to_work_in(options.pop("work_dir")) as work_dir:
            measure(work_dir, **options)


if __name__ == "__main__":
    main()
