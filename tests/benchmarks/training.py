"""What a training costs and what comes of it."""

import json
import re
import statistics
from pathlib import Path
from typing import NamedTuple

from classifier.console import InputError

from .runs import Run, fresh_data_dir, read_csv, run

# The article's validation accuracy, and one that its recipe does not reach in ten epochs.
ARTICLE_VAL_ACC = 0.98825
HIGH_VAL_ACC = 0.9930


class Training(NamedTuple):
    """A training that has ended, with its epochs in order."""

    run: Run
    images: int  # in an epoch
    epoch_seconds: list[float]  # training and validation
    val_accs: list[float]

    def seconds_until(self, val_acc: float) -> float | None:
        """From process start to the end of the first epoch with that val_acc; None if none has."""
        for stamp, reached in zip(self.run.stamps, self.val_accs, strict=True):
            if reached >= val_acc:
                return stamp
        return None


def read_val_accs(history: Path) -> list[float]:
    # Rounded as in the checkpoints' names: the article's 0.98825 is 11,855 of 11,996 images.
    return [round(float(row["val_acc"]), 5) for row in read_csv(history)]


def train(data_dir: Path, *flags: object, least_epochs: int = 0, until: float = 2.0) -> Training:
    """Run `--mode train`; stop it early once `until` is reached and least_epochs are done."""
    history = data_dir / "report" / "history.csv"

    def enough() -> bool:
        val_accs = read_val_accs(history)
        return len(val_accs) >= least_epochs and max(val_accs) >= until

    done = run(
        *("mnist_keras.py", "--mode", "train", "--data_dir", data_dir, *flags),
        watched=history,
        enough=enough,
    )
    val_accs = read_val_accs(history)
    if len(done.stamps) != len(val_accs):
        raise InputError(f"{history}: {len(val_accs)} epochs, seen {len(done.stamps)}")
    images = json.loads((data_dir / "model_weight" / "model.json").read_text())["images"]
    seconds = [float(row["seconds"]) for row in read_csv(history)]
    return Training(done, images, seconds, val_accs)


class Figures(NamedTuple):
    """What a round says of a recipe; None where a val_acc was not reached."""

    epoch: float
    images_a_second: float
    until_article: float | None
    until_high: float | None


def side_by_side(work_dir: Path, rounds: int, epochs: int, precision: str) -> None:
    """Train by both recipes in turn and print times, speeds and their ratios.

    A round is the article's recipe until it has its val_acc (two to four epochs), the default
    one with --epochs 1 (then 2, if one isn't enough: its learning rate follows the epochs asked
    for), and the default one with --epochs EPOCHS for the higher val_acc. Ratios are formed
    within a round, so that noise which outlasts it cancels. Seconds an epoch are the median of a
    recipe's epochs: a run's first one includes TensorFlow's tracing, whatever follows.
    """
    pairs = []
    for seed in range(rounds):
        print(f"round {seed + 1} of {rounds}")
        article = article_figures(work_dir, seed)
        pairs.append((article, default_figures(work_dir, seed, epochs, precision)))
    print(f"\n| median of {rounds} | article | default, {precision} | ratio |")
    print("| --- | --- | --- | --- |")
    print_row("seconds an epoch", [(a.epoch, d.epoch) for a, d in pairs])
    speeds = [(a.images_a_second, d.images_a_second) for a, d in pairs]
    print_row("images a second", speeds, digits=0, faster_is_more=True)
    until = [(a.until_article, d.until_article) for a, d in pairs]
    print_row(f"seconds until val_acc {ARTICLE_VAL_ACC}", until)
    high = [(a.until_high, d.until_high) for a, d in pairs]
    print_row(f"seconds until val_acc {HIGH_VAL_ACC:.4f}", high)


def article_figures(work_dir: Path, seed: int) -> Figures:
    flags = ("--recipe", "article", "--epochs", 4, "--seed", seed)
    data_dir = fresh_data_dir(work_dir, "article")
    training = train(data_dir, *flags, least_epochs=2, until=ARTICLE_VAL_ACC)
    show("article", training)
    epoch = statistics.median(training.epoch_seconds)
    until = [training.seconds_until(val_acc) for val_acc in (ARTICLE_VAL_ACC, HIGH_VAL_ACC)]
    return Figures(epoch, training.images / epoch, *until)


def default_figures(work_dir: Path, seed: int, epochs: int, precision: str) -> Figures:
    def trained(epochs: int) -> Training:
        data_dir = fresh_data_dir(work_dir, "default")
        flags = ("--epochs", epochs, "--seed", seed, "--precision", precision)
        training = train(data_dir, *flags)
        show(f"default --epochs {epochs}", training)
        return training

    short = trained(1)
    if short.seconds_until(ARTICLE_VAL_ACC) is None:
        short = trained(2)
    long = trained(epochs)
    epoch = statistics.median(long.epoch_seconds)
    until = (short.seconds_until(ARTICLE_VAL_ACC), long.seconds_until(HIGH_VAL_ACC))
    return Figures(epoch, long.images / epoch, *until)


def show(name: str, training: Training) -> None:
    """Print a line a training; an epoch is training and validation, as history.csv has it."""
    seconds, ends = (
        ", ".join(f"{s:.1f}" for s in values)
        for values in (training.epoch_seconds, training.run.stamps)
    )
    val_accs = ", ".join(f"{acc:.5f}" for acc in training.val_accs)
    print(f"{name:18} seconds an epoch {seconds}; ended at {ends} s; val_acc {val_accs}")


def print_row(name: str, pairs: list[tuple], digits: int = 1, faster_is_more: bool = False) -> None:
    """Print the medians of the rounds' (article, default) and of their ratios, as Markdown."""
    article, default = zip(*pairs, strict=True)
    ratios = [(d / a if faster_is_more else a / d) if a and d else None for a, d in pairs]
    cells = (median(article, digits), median(default, digits), median(ratios, 2))
    print(f"| {name} | {' | '.join(cells)} |")


def median(values: list[float | None], digits: int) -> str:
    """The median of those that are not None, and how many they are if some are."""
    reached = [value for value in values if value is not None]
    if not reached:
        return "not reached"
    share = f" (in {len(reached)} of {len(values)})" if len(reached) < len(values) else ""
    return f"{statistics.median(reached):.{digits}f}{share}"


def accuracy(work_dir: Path, epochs: int, seeds: list[int], precision: str) -> None:
    """Train and evaluate by the command line once a seed; print test accuracy, time and memory.

    Peak memory is the training process's largest resident set, seconds are all of that process.
    """
    print(f"| --epochs {epochs}, seed | val_acc, best | test accuracy | seconds | peak MB |")
    print("| --- | --- | --- | --- | --- |")
    rows = []
    for seed in seeds:
        data_dir = fresh_data_dir(work_dir, f"seed-{seed}")
        flags = ("--epochs", epochs, "--seed", seed, "--precision", precision)
        training = train(data_dir, *flags)
        evaluation = run("mnist_keras.py", "--mode", "evaluate", "--data_dir", data_dir)
        test_acc = float(re.search(r"test_acc:([\d.]+)", evaluation.output)[1])
        row = (max(training.val_accs), test_acc, training.run.seconds, training.run.peak_memory)
        print("| {} | {:.5f} | {:.5f} | {:.0f} | {:.0f} |".format(seed, *row))
        rows.append(row)
    columns = list(zip(*rows, strict=True))
    worst = [min(columns[0]), min(columns[1]), max(columns[2]), max(columns[3])]
    print("| mean | {:.5f} | {:.5f} | {:.0f} | {:.0f} |".format(*map(statistics.mean, columns)))
    print("| worst | {:.5f} | {:.5f} | {:.0f} | {:.0f} |".format(*worst))
