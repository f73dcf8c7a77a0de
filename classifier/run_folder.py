"""What a run leaves in its folder, and how a later one goes on from it."""

import csv
import datetime
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import keras

from classifier.console import InputError, printable, warn
from classifier.files import write_csv
from classifier.weights import load_weights, save_weights, without_optimizer
from setting import Setting

CHECKPOINT = "weights-improvement-{epoch:02d}-{val_acc:.5f}.weights.h5"
CHECKPOINT_NAME = re.compile(r"weights-improvement-(\d+)-(\d+\.\d+)\.weights\.h5")
# The state after the last finished epoch, optimizer included, from which --is_restore goes on.
LAST_EPOCH = "last-epoch.weights.h5"


def checkpoints(folder: str | os.PathLike) -> list[Path]:
    """The checkpoints in the folder, best val_acc first; of equals, the later epoch."""
    found = []
    for path in Path(folder).glob("*.weights.h5"):
        if match := CHECKPOINT_NAME.fullmatch(path.name):
            found.append((float(match[2]), int(match[1]), path))
    return [path for _, _, path in sorted(found, reverse=True)]


# The columns of history.csv between the epoch and its seconds.
CURVES = ("loss", "acc", "val_loss", "val_acc")


class Checkpoint(keras.callbacks.Callback):
    """After each epoch, keeps the weights if val_acc is the best yet, and the state to go on from.

    `rows` is the history of the run: a dict an epoch, as in history.csv.
    """

    def __init__(self, setting: Setting, rows: list[dict[str, float]]):
        super().__init__()
        self.setting, self.rows = setting, rows
        self.best = max((row["val_acc"] for row in rows), default=-1.0)

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.monotonic() - self.start
        epoch += 1  # Keras counts from 0, file names and people from 1
        folder, last = Path(self.setting.checkpoint_path), epoch == self.setting.epochs
        if logs["val_acc"] > self.best and (epoch % self.setting.save_epochs == 0 or last):
            self.best = logs["val_acc"]
            path = folder / CHECKPOINT.format(epoch=epoch, val_acc=self.best)
            save_weights(without_optimizer(self.model), path, epoch)
            print(f"\nbest val_acc yet: {printable(str(path))}")
        row = {"epoch": epoch} | {name: float(logs[name]) for name in CURVES} | {"seconds": seconds}
        self.rows.append(row)
        write_csv(Path(self.setting.data_dir, "report", "history.csv"), self.rows)
        save_weights(self.model, folder / LAST_EPOCH, epoch)


def move_earlier_run(setting: Setting) -> None:
    """Move what the last run left to model_weight/previous/<date-time>/: nothing is lost."""
    folder, reports = Path(setting.checkpoint_path), Path(setting.data_dir, "report")
    # model.json last: whatever checkpoints remain if this is interrupted can still be used.
    left = [*checkpoints(folder), *reports.glob("[!.]*")]
    left += [path for path in (folder / LAST_EPOCH, folder / "model.json") if path.exists()]
    if left:
        now = datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S-%f")
        previous = folder / "previous" / now
        previous.mkdir(parents=True)
        for path in left:
            shutil.move(path, previous / path.name)  # checkpoint_path may be on another disk
        print(f"the last run's files are now in {previous}")


def start_from(model: keras.Sequential, setting: Setting) -> int:
    """Load the weights, and after an interruption the optimizer's state, that training starts from.

    Returns:
        The number of epochs already done.
    """
    if setting.restore_model:
        load_weights(without_optimizer(model), setting.restore_model)
        return setting.initial_epoch
    if not setting.is_restore:
        return 0
    folder = Path(setting.checkpoint_path)
    if (folder / LAST_EPOCH).exists():
        try:
            return load_weights(model, folder / LAST_EPOCH)
        except InputError as error:
            warn(f"{error}; going on from the best checkpoint instead")
    for path in checkpoints(folder):
        try:
            return load_weights(without_optimizer(model), path)
        except InputError as error:
            warn(f"{error}; passed over")
    print(f"no finished epoch in {folder}: starting with the first")
    return 0


def read_history(setting: Setting, done: int) -> list[dict[str, float]]:
    """The rows of history.csv up to the epoch that is done."""
    path = Path(setting.data_dir, "report", "history.csv")
    if not done or not path.exists():
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
        for row in rows:
            if row.keys() != {"epoch", *CURVES, "seconds"} or not 0 <= row["val_acc"] <= 1:
                raise ValueError("a column is missing, or a val_acc is none")
        return [row | {"epoch": int(row["epoch"])} for row in rows if row["epoch"] <= done]
    except (ValueError, TypeError, OverflowError, csv.Error) as error:
        warn(f"{path}: damaged ({error}); the history starts anew")
        return []


def what_is_saved(folder: Path) -> str:
    if (folder / LAST_EPOCH).exists() or checkpoints(folder):
        return f"finished epochs are saved in {folder}, --is_restore goes on from there"
    return "no epoch was finished"


def read_description(path: Path) -> dict[str, Any]:
    """What describe wrote, checked. Raises InputError if it is missing or damaged."""
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        classes = description["classes"]
        sizes = (description["img_width"], description["img_height"])
        if not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
            raise ValueError("its classes are not a list of names")
        if not all(type(size) is int and 0 < size < 10_000 for size in sizes):
            raise ValueError("its image size is not a number of pixels")
        if any(name in (".", "..") or Path(name).name != name for name in classes):
            raise ValueError("a class is not the name of a folder")  # evaluate would read elsewhere
        if type(description["handwriting"]) is not bool or len(classes) < 2:
            raise ValueError("it does not describe a network")
        if type(description["trained_on"]) is not str:
            raise ValueError("it does not say what the network was trained on")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: missing or damaged ({error}); --mode train makes it") from None
    return description
