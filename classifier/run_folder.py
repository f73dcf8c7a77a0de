"""A run's folder: checkpoints, the state to resume from, history, and earlier runs.

model_weight/weights-improvement-{epoch:02d}-{val_acc:.5f}.weights.h5   the checkpoints
model_weight/model.json           what they are: network, classes, settings of the training
model_weight/split.json           which files were trained on, and which were held out
model_weight/last-epoch.weights.h5   the state, optimizer included, that --is_restore goes on from
model_weight/previous/<date-time>/   earlier trainings; never deleted
report/history.csv                a row an epoch
"""

import contextlib
import csv
import datetime
import importlib.util
import math
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import filelock
import keras

from classifier import console
from classifier.calibration import calibrated
from classifier.console import InputError, check_data_dir, printable, warn
from classifier.files import make_folder, remove_partial_files, try_write, write_csv
from classifier.weights import load_weights, save_weights, without_optimizer

CHECKPOINT_FORMAT = "weights-improvement-{epoch:02d}-{val_acc:.5f}.weights.h5"
CHECKPOINT_PATTERN = re.compile(r"weights-improvement-(\d+)-(\d+\.\d+)\.weights\.h5")
LAST_EPOCH = "last-epoch.weights.h5"
RUN_FILES = (LAST_EPOCH, "split.json", "model.json")
# What train, evaluate and predict write into report/.
REPORTS = (
    *("history.csv", "training_curves.png", "tensorboard"),
    *("classes.csv", "confusion.png", "mistakes.png"),
    *("predictions.csv", "predictions.png", "predictions-[0-9].png"),
    *("digits.csv", "pages.png", "pages-[0-9].png", "pages-[0-9][0-9].png"),
)
# The columns of history.csv between the epoch and its seconds.
METRICS = ("loss", "acc", "val_loss", "val_acc")


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in the folder, best val_acc first; of equals, the later epoch."""
    found = [
        (float(match[2]), int(match[1]), path)
        for path in folder.glob("*.weights.h5")
        if (match := CHECKPOINT_PATTERN.fullmatch(path.name))
    ]
    return [path for _, _, path in sorted(found, reverse=True)]


def best_epoch(folder: Path) -> str:
    """A line about the best checkpoint in the folder.

    Raises:
        InputError: there is none, though all epochs are done.
    """
    found = checkpoints(folder)
    if not found:
        raise InputError(
            f"{folder}: all epochs are done, but their checkpoints are gone; --is_restore with "
            "more --epochs saves the next one"
        )
    epoch, val_acc = CHECKPOINT_PATTERN.fullmatch(found[0].name).groups()
    return f"best epoch {epoch}, val_acc {val_acc}: {printable(str(found[0]))}"


def load_first_usable(model: keras.Model, paths: list[Path]) -> tuple[Path, int] | None:
    """Load the first of the weights files that can be used; those before it are named on stderr.

    Returns:
        The file and its epoch; None if none can be used.
    """
    for path in paths:
        try:
            return path, load_weights(model, path)
        except InputError as error:
            warn(f"{error}; passed over")
    return None


def checked_setting(setting: Any) -> Any:
    """The Setting of a training, checked; restore_model turns is_restore off, as in the article.

    Raises:
        InputError: data_dir, restore_model or initial_epoch can't be used.
    """
    check_data_dir(setting)
    if setting.restore_model and not Path(setting.restore_model).is_file():
        raise InputError(f"--restore_model {setting.restore_model}: no such file")
    if setting.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise InputError("--tensorboard: its package is missing; pip install tensorboard")
    if setting.initial_epoch >= setting.epochs:
        raise InputError(
            f"--initial_epoch {setting.initial_epoch} leaves nothing to do of --epochs "
            f"{setting.epochs}"
        )
    return setting.replace(is_restore=False) if setting.restore_model else setting


def load_initial_weights(setting: Any, model: keras.Model) -> int:
    """Load the weights that training starts from; returns the number of epochs already done."""
    if setting.restore_model:
        load_weights(without_optimizer(model), setting.restore_model)
        return setting.initial_epoch
    return load_last_epoch(model, Path(setting.checkpoint_path)) if setting.is_restore else 0


def load_last_epoch(model: keras.Model, folder: Path) -> int:
    """Load the state after the run's last epoch, else its best weights.

    Returns:
        The number of epochs that are done; 0 if the run has not finished one.

    Raises:
        InputError: there are weights, and none can be used.
    """
    last, best = list(folder.glob(LAST_EPOCH)), checkpoints(folder)
    if loaded := load_first_usable(model, last):
        return loaded[1]
    if loaded := load_first_usable(without_optimizer(model), best):
        path, epoch = loaded
        warn(
            f"{folder / LAST_EPOCH}: missing or unusable; going on from {path.name}, after epoch "
            f"{epoch}, without the state of the optimizer"
        )
        return epoch
    if last or best:
        raise InputError(
            f"{folder}: training can't go on from any weights here; without --is_restore a new "
            "training begins, and they are moved to previous/"
        )
    print(f"no finished epoch in {folder}: starting with the first")
    return 0


@contextlib.contextmanager
def training_lock(
    folder: Path, reports: Path, is_restore: bool, resume_command: str
) -> Iterator[None]:
    """Keep other trainings away while the body runs; if it is interrupted, say what is saved.

    If no epoch was finished, the run that was archived is restored.

    Args:
        folder: of the weights.
        reports: of the tables and charts.
        is_restore: the body resumes the run in the folder.
        resume_command: what to type to go on.

    Raises:
        InputError: another training is running here; a file stands where a folder is wanted; or
            the body met an error of the disk.
    """
    make_folder(folder)
    make_folder(reports)
    before = saved_weights(folder)

    def status() -> str:
        now = saved_weights(folder)
        if now and (is_restore or now != before):
            return f"finished epochs are saved in {folder}; to go on: {resume_command}"
        if now == before:
            return "no epoch was finished" + (
                f"; what was in {folder} is unharmed" if before else ""
            )
        return f"no epoch was finished; what was in {folder} is in {folder / 'previous'}"

    try:
        with (
            filelock.FileLock(folder / ".train.lock", timeout=0),
            filelock.FileLock(reports / ".train.lock", timeout=0),
        ):
            remove_partial_files(folder)
            archived = set(folder.glob("previous/*"))
            try:
                yield
            except BaseException:
                restore_archived(folder, reports, set(folder.glob("previous/*")) - archived)
                raise
    except filelock.Timeout as error:
        place = Path(error.lock_file).parent
        raise InputError(f"{place}: another training is at work here") from None
    except BaseException as error:
        # BrokenPipeError: stdout was closed, as by `| head`.
        if console.received_signals or isinstance(
            error, KeyboardInterrupt | SystemExit | BrokenPipeError
        ):
            warn(f"interrupted; {status()}")
            console.exit_if_signaled()
        elif isinstance(error, OSError):
            raise InputError(
                f"{error.filename or folder}: {error.strerror or error}; {status()}"
            ) from None
        raise


def saved_weights(folder: Path) -> set[tuple[str, int]]:
    """The names of the weights files in the folder, and when they were written."""
    files = [*checkpoints(folder), *folder.glob(LAST_EPOCH)]
    return {(path.name, path.stat().st_mtime_ns) for path in files}


def archive_previous_run(folder: Path, reports: Path) -> None:
    """Move the last run's files and reports to previous/<date-time>/ in its folder.

    Other files in the two folders are the user's, and stay.
    """
    run_files = [*checkpoints(folder), *(path for name in RUN_FILES for path in folder.glob(name))]
    if not run_files:
        return
    # model.json last: whatever checkpoints remain if this is interrupted can still be used.
    files = [*(path for name in REPORTS for path in reports.glob(name)), *run_files]
    timestamp = datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S-%f")
    previous = folder / "previous" / timestamp
    previous.mkdir(parents=True)
    for path in files:
        shutil.move(path, previous / path.name)  # checkpoint_path may be on another disk
    print(f"the last run's files are now in {previous}")


def restore_archived(folder: Path, reports: Path, archived: set[Path]) -> None:
    """Put an archived run back, unless the one that took its place has finished an epoch.

    Args:
        folder: of the weights.
        reports: of the tables and charts.
        archived: the one folder that archive_previous_run made, or none.
    """
    if saved_weights(folder):
        return
    for previous in archived:
        for name in RUN_FILES:  # of the run that has finished no epoch
            (folder / name).unlink(missing_ok=True)
        for path in sorted(previous.iterdir(), key=lambda path: path.name == "model.json"):
            is_report = any(path.match(name) for name in REPORTS)
            shutil.move(path, (reports if is_report else folder) / path.name)
        previous.rmdir()


def archived_weights(folder: Path) -> Path | None:
    """The best weights of the run that was archived last; None if there is none."""
    for previous in sorted(folder.glob("previous/*"), reverse=True):
        if best := checkpoints(previous):
            return best[0]
    return None


class BestCheckpoint(keras.callbacks.Callback):
    """After each epoch, keeps the weights if val_acc is the best yet, and the state to go on from.

    Args:
        folder: of the weights.
        reports: of history.csv.
        epochs: of the whole training; the last is looked at whatever save_epochs says.
        save_epochs: look for a better val_acc every so many epochs.
        calibration: called for validation batches that the weights are calibrated on, but not the
            state to go on from; None for no calibration.
    """

    def __init__(
        self,
        folder: Path,
        reports: Path,
        epochs: int,
        save_epochs: int,
        calibration: Callable[[], Iterable] | None = None,
    ):
        super().__init__()
        self.calibration = calibration
        self.folder, self.reports = folder, reports
        self.epochs, self.save_epochs = epochs, save_epochs
        self.rows: list[dict[str, float]] | None = None

    def on_epoch_begin(self, epoch, logs=None):
        if self.rows is None:  # the first epoch of this process: the earlier ones' rows are kept
            self.rows = read_history(self.reports, epoch)
            self.best = max((row["val_acc"] for row in self.rows), default=-1.0)
        self.start = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.monotonic() - self.start
        epoch += 1  # Keras counts from 0, file names and people from 1
        if not math.isfinite(logs["loss"]):  # the weights are nan, too
            raise InputError(
                f"epoch {epoch}: the loss is {logs['loss']}, and stays so; this epoch isn't saved. "
                "Does build_model's network divide by 0, or let numbers grow?"
            )
        due = epoch % self.save_epochs == 0 or epoch == self.epochs
        # Whatever the history says: a user may have deleted the checkpoints.
        if due and (logs["val_acc"] > self.best or not checkpoints(self.folder)):
            self.best = logs["val_acc"]
            path = self.folder / CHECKPOINT_FORMAT.format(epoch=epoch, val_acc=self.best)
            with calibrated(self.model, self.calibration):
                save_weights(without_optimizer(self.model), path, epoch)
            print(f"best val_acc yet: {printable(str(path))}")
        row = (
            {"epoch": epoch} | {name: float(logs[name]) for name in METRICS} | {"seconds": seconds}
        )
        self.rows.append(row)
        try_write(self.reports / "history.csv", lambda path: write_csv(path, self.rows))
        save_weights(self.model, self.folder / LAST_EPOCH, epoch)


def read_history(reports: Path, done: int) -> list[dict[str, float]]:
    """The rows of history.csv of the first epochs, as many as are done."""
    path = reports / "history.csv"
    if not done or not path.exists():
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
        for row in rows:
            if row.keys() != {"epoch", *METRICS, "seconds"} or not 0 <= row["val_acc"] <= 1:
                raise ValueError("a column is missing, or a val_acc is not from 0 to 1")
        return [row | {"epoch": int(row["epoch"])} for row in rows if row["epoch"] <= done]
    except (ValueError, TypeError, OverflowError, csv.Error) as error:
        warn(f"{path}: damaged ({error}); the history starts anew")
        return []
