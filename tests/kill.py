"""Kill parse, train and predict at random moments, and look at what is left.

    python -m tests.kill --moments 30

Each moment a command is started on a few drawn digits, in a data_dir where an earlier run is, and
ended by SIGKILL, SIGTERM or SIGINT. Afterwards every file in place must be whole, the best
checkpoint must load, no epoch but the one under way may be lost, and the run that is continued
must end with the curve and the weights of one that was never stopped. On the way, going on in ways
in which it can't (another size, a class more, a class less) must touch nothing, and a copy must go
on without a picture that was removed.
"""

import argparse
import contextlib
import csv
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

import mnist_keras
import mnist_parser
from classifier import files, idx, metadata, run_folder, trained_run, weights
from classifier.console import InputError
from digits.drawn import draw
from setting import Setting
from tests.fuzz import digests

EPOCHS = 4
# What a command does, after the seconds of TensorFlow's import, which no one needs killed.
CHILD = """
import sys, setting
from classifier import console, run_folder
console.set_signal_handlers(console.exit_by_exception)
import mnist_keras, mnist_parser
class Checkpoint(run_folder.BestCheckpoint):
    def on_epoch_begin(self, epoch, logs=None):
        print("finished", epoch, flush=True)
        super().on_epoch_begin(epoch, logs)
run_folder.BestCheckpoint = Checkpoint
print("ready", flush=True)
{}
print("done", flush=True)
"""
TRAIN = "mnist_keras.train(setting.Setting({}))"
PREDICT = "mnist_keras.predict(setting.Setting({}))"
PARSE = "mnist_parser.parse({!r}, {!r}, overwrite=True)"


def settings_of(data_dir: Path) -> dict:
    return {
        "data_dir": str(data_dir),
        "train_dir": str(data_dir.parent / "train"),
        "imp_dir": str(data_dir.parent / "train" / "3"),
        "epochs": EPOCHS,
        "batch_size": 32,
        "precision": "float32",
    }


def write_digits(folder: Path, count: int) -> None:
    """Drawn digits as folders of pictures, and as the IDX files that parse makes some from."""
    images, labels = draw(count, seed=1)
    mnist_parser.write_pngs(images, labels, folder / "train", "drawing")
    for prefix in idx.PREFIXES.values():
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            files.write_file(folder / f"{prefix}-{kind}-ubyte", idx.encode_idx(array))


def outcome(data_dir: Path) -> tuple[list[str], str]:
    """The validation accuracies of the run and the hash of its last weights."""
    with open(data_dir / "report" / "history.csv", encoding="utf-8") as file:
        curve = [f"{float(row['val_acc']):.5f}" for row in csv.DictReader(file)]
    with h5py.File(data_dir / "model_weight" / run_folder.LAST_EPOCH) as file:
        return curve, file.attrs["sha256"]


def start(command: str) -> subprocess.Popen:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    while child.stdout.readline() != "ready\n":
        assert child.poll() is None, child.stderr.read()
    return child


def broken_files(data_dir: Path) -> list[str]:
    """The files in place that are not whole."""
    broken = []
    for path in data_dir.rglob("[!.]*"):
        if any(part.startswith(".") for part in path.relative_to(data_dir).parts):
            continue  # beside their places: no command reads them
        try:
            if path.name.endswith(".weights.h5"):
                with h5py.File(path) as file:
                    assert file.attrs["sha256"] == weights.weights_digest(file)
            elif path.name == "model.json":
                metadata.read_metadata(path.parent)
            elif path.name == "split.json":
                metadata.read_split(path.parent)
            elif path.suffix == ".csv":
                assert path.read_bytes().endswith(b"\r\n")
            elif path.suffix == ".png":
                with Image.open(path) as image:
                    image.load()
        except Exception as error:
            broken.append(f"{path}: {error!r}")
    return broken


def look_at(data_dir: Path, said: str, reference: tuple[list[str], str]) -> list[str]:
    """What is wrong after a training was ended that said how many epochs it had finished."""
    wrong = broken_files(data_dir)
    setting = Setting(**settings_of(data_dir))
    folder = Path(setting.checkpoint_path)
    best = run_folder.checkpoints(folder)
    if (
        best
        and mnist_keras.load_network(trained_run.find_run(setting), grayscale=True)[1] != best[0]
    ):
        wrong.append("the best checkpoint can't be used")
    finished = [int(line.split()[1]) for line in said.splitlines() if line.startswith("finished")]
    if finished and finished[-1] > 0:
        with h5py.File(folder / run_folder.LAST_EPOCH) as file:
            if file.attrs["epoch"] < finished[-1]:
                wrong.append(f"epoch {finished[-1]} was finished, and is lost")
    if (folder / "model.json").exists():  # else the training was ended before it had begun
        wrong += look_at_refusals(data_dir) + look_at_a_gap(data_dir)
        setting = hint(data_dir)
    mnist_keras.train(setting.replace(is_restore=True))
    if outcome(data_dir) != reference:
        wrong.append(f"continued, it ends otherwise: {outcome(data_dir)}")
    return wrong


def hint(data_dir: Path, **values) -> Setting:
    """The settings that the line which ends a training says to go on with, and no others."""
    return Setting(data_dir=str(data_dir), train_dir=str(data_dir.parent / "train"), **values)


def look_at_refusals(data_dir: Path) -> list[str]:
    """What is wrong when it is to go on in ways in which it can't: it is to touch nothing."""
    wrong, train_dir = [], data_dir.parent / "train"

    def refused(what: str, **values) -> None:
        before = digests(data_dir)
        try:
            mnist_keras.train(hint(data_dir, is_restore=True, **values))
            wrong.append(f"it went on with {what}")
        except InputError as error:
            if "\n" in str(error):
                wrong.append(f"{what}: {error}")
        if digests(data_dir) != before:
            wrong.append(f"{what} was refused, but files were changed")

    refused("another size", img_width=40)
    shutil.copytree(train_dir / "1", train_dir / "ten")
    refused("a class more")
    shutil.rmtree(train_dir / "ten")
    (train_dir / "1").rename(data_dir.parent / "1")
    refused("a class less")
    (data_dir.parent / "1").rename(train_dir / "1")
    return wrong


def look_at_a_gap(data_dir: Path) -> list[str]:
    """What is wrong when a copy of the run goes on after a picture was removed."""
    copy = data_dir.with_name("with a gap")
    shutil.copytree(data_dir, copy)
    split = metadata.read_split(copy / "model_weight")
    gone = data_dir.parent / "train" / split["training"][0]
    gone.rename(data_dir.parent / "gone.png")
    mnist_keras.train(hint(copy, is_restore=True))
    wrong = broken_files(copy)
    if metadata.read_split(copy / "model_weight")["validation"] != split["validation"]:
        wrong.append("a picture was removed, and others are held out now")
    if len(outcome(copy)[0]) != EPOCHS:
        wrong.append("a picture was removed, and epochs are missing")
    (data_dir.parent / "gone.png").rename(gone)
    shutil.rmtree(copy)
    return wrong


def end(child: subprocess.Popen, number: int) -> tuple[str, list[str]]:
    """Send the signal; returns what the child had said, and what was wrong with its end."""
    child.send_signal(number)
    said, complaint = child.communicate()
    # Python's own end, after all work, leaves signals to the system: a shell sees no difference.
    expected = (0, -number) if number == signal.SIGKILL or "done" in said else (128 + number,)
    wrong = [] if child.returncode in expected else [f"exit status {child.returncode}"]
    if number != signal.SIGKILL and "Traceback" in complaint:
        wrong.append(complaint[-500:])
    return said, wrong


def kill_training(folder: Path, reference, moment: float, number: int) -> tuple[str, list[str]]:
    data_dir = folder / "train killed"
    shutil.copytree(folder / "undisturbed", data_dir)
    child = start(TRAIN.format(f"**{settings_of(data_dir)!r}"))
    time.sleep(moment)
    said, wrong = end(child, number)
    with contextlib.redirect_stdout(io.StringIO()):
        wrong += look_at(data_dir, said, reference)
    shutil.rmtree(data_dir)
    return said.strip().splitlines()[-1] if "finished" in said else "before the first epoch", wrong


def kill_predicting(folder: Path, moment: float, number: int) -> tuple[str, list[str]]:
    data_dir = folder / "undisturbed"
    child = start(PREDICT.format(f"**{settings_of(data_dir)!r}"))
    time.sleep(moment)
    said, wrong = end(child, number)
    return f"{said.count('预测结果')} answers", wrong + broken_files(data_dir)


def kill_parsing(folder: Path, moment: float, number: int) -> tuple[str, list[str]]:
    data_dir = folder / "parsed"
    child = start(PARSE.format(str(data_dir), str(folder)))
    time.sleep(moment)
    said, wrong = end(child, number)
    there = [part for part in idx.PREFIXES if (data_dir / part).exists()]
    images, _ = idx.decode_part(folder, "train")
    for part in there:
        if sum(path.is_file() for path in (data_dir / part).rglob("*.png")) != len(images):
            wrong.append(f"{part} is in place, and not whole")
    return f"{', '.join(there) or 'nothing'} in place", wrong


def undisturbed(folder: Path) -> tuple[list[str], str]:
    """Train without a disturbance; what comes out."""
    mnist_keras.train(Setting(**settings_of(folder / "undisturbed")))
    return outcome(folder / "undisturbed")


def longest(command: str) -> float:
    """The seconds a command takes."""
    child, begin = start(command), time.monotonic()
    child.communicate()
    return time.monotonic() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--moments", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if sys.platform == "win32":
        sys.exit("tests.kill ends its commands by signals, and Windows has none")
    os.environ["TF_DETERMINISTIC_OPS"] = "1"  # else a GPU gives other weights every time
    draw, failed = np.random.default_rng(arguments.seed), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_digits(folder, 300)
        with contextlib.redirect_stdout(io.StringIO()):
            reference = undisturbed(folder)
        print("undisturbed curve:", *reference[0], flush=True)
        data_dir = folder / "train killed"
        kinds = {  # two in three moments for training, which has most to lose
            "train": TRAIN.format(f"**{settings_of(data_dir)!r}"),
            "predict": PREDICT.format(f"**{settings_of(folder / 'undisturbed')!r}"),
            "parse": PARSE.format(str(folder / "parsed"), str(folder)),
        }
        takes = {kind: longest(command) for kind, command in kinds.items()}
        shutil.rmtree(data_dir)
        for turn in range(arguments.moments):
            kind = ("train", "train", "predict", "train", "train", "parse")[turn % 6]
            number = (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT)[turn // 6 % 4]
            moment = draw.uniform(0, takes[kind])
            if kind == "train":
                found, wrong = kill_training(folder, reference, moment, number)
            elif kind == "predict":
                found, wrong = kill_predicting(folder, moment, number)
            else:
                found, wrong = kill_parsing(folder, moment, number)
            verdict = (
                "; ".join(wrong)
                or "whole; continued, the same curve and weights" * (kind == "train")
                or "whole"
            )
            print(
                f"{turn + 1:2} {kind} {signal.Signals(number).name} after {moment:.2f} s "
                f"({found}): {verdict}",
                flush=True,
            )
            failed += bool(wrong)
    print(f"{arguments.moments} moments, {failed} failures")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
