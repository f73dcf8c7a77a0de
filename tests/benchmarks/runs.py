"""Runs of the program's commands as a user starts them, with their time, memory and results."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from classifier.console import InputError
from mnist_parser import has_idx

REPO = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.02  # the error of a time stamp; a poll costs a few microseconds


class Run(NamedTuple):
    """A command that has ended."""

    seconds: float  # wall clock, process start and end included
    peak_memory: float  # MB, the largest resident set
    output: str  # stdout and stderr
    stamps: list[float]  # seconds from process start to each change of the watched file


def run(
    *command: object,
    watched: Path | None = None,
    enough: Callable[[], bool] = lambda: False,
    may_fail: bool = False,
) -> Run:
    """Run `python COMMAND...` in the repository's root and measure it.

    Args:
        command: the script and its arguments.
        watched: a file whose changes are stamped.
        enough: asked after each change; if true, the command is stopped by SIGTERM.
        may_fail: take status 1 for an answer, which predict gives if a picture can't be read.

    Raises:
        InputError: the command has failed.
    """
    words = [sys.executable, *map(str, command)]
    stamps, seen, stopped = [], None, False
    with tempfile.TemporaryFile() as output:
        start = time.monotonic()
        process = subprocess.Popen(words, cwd=REPO, stdout=output, stderr=subprocess.STDOUT)
        try:
            while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
                if watched and (change := changed_at(watched)) != seen:
                    seen = change
                    stamps.append(time.monotonic() - start)
                    if enough():
                        stopped = True
                        os.kill(process.pid, signal.SIGTERM)  # Popen's would reap it unseen
                time.sleep(POLL_SECONDS)
            seconds = time.monotonic() - start
            process.returncode = os.waitstatus_to_exitcode(ended[1])
        finally:
            if process.returncode is None:  # we are being stopped ourselves
                process.terminate()
                process.wait()
        output.seek(0)
        text = output.read().decode(errors="replace")
    if not (process.returncode == 0 or stopped or (may_fail and process.returncode == 1)):
        raise InputError(
            f"{' '.join(words[1:])} failed, status {process.returncode}: {last_lines(text)}"
        )
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    return Run(seconds, ended[2].ru_maxrss * unit / 1e6, text, stamps)


def last_lines(text: str) -> str:
    return " | ".join(text.strip().splitlines()[-3:])


def changed_at(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def idx_folder() -> Path:
    """Where MNIST's IDX files are: MNIST_DIR, else beside the repository, else as downloaded."""
    places = [REPO.parent / "shared" / "mnist", REPO / "mnist_data" / "raw"]
    if named := os.environ.get("MNIST_DIR"):
        places = [Path(named).resolve()]
    for place in places:
        if has_idx(place):
            return place
    raise InputError(
        f"no IDX files in {' or '.join(map(str, places))}; name their folder in MNIST_DIR"
    )


def parsed(work_dir: Path) -> Path:
    """The data_dir with train/ and test/ that all runs share; it is parsed once."""
    shared = work_dir / "parsed" / "mnist_data"
    run("mnist_parser.py", "--data_dir", shared, "--source", idx_folder())
    return shared


def fresh_data_dir(work_dir: Path, name: str) -> Path:
    """A data_dir of that name with the shared pictures and nothing of an earlier run in it."""
    shared = parsed(work_dir)
    data_dir = work_dir / name / "mnist_data"
    shutil.rmtree(data_dir, ignore_errors=True)
    data_dir.mkdir(parents=True)
    # With source.json the program knows the pictures for the parser's own, as a user's run does.
    for part in ("train", "test", "source.json"):
        (data_dir / part).symlink_to(shared / part)
    return data_dir


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def network(weights: str | None) -> list[str]:
    """The flags that make predict use these weights; by default the repository's own.

    Those are what it would use there itself: the last training's, else those that ship with it.
    """
    if weights:
        return ["--restore_model", os.path.abspath(weights)]
    for folder in (REPO / "mnist_data" / "model_weight", REPO / "mnist_data" / "shipped"):
        if list(folder.glob("weights-improvement-*.weights.h5")):
            return ["--checkpoint_path", str(folder)]
    raise InputError(f"no weights in {REPO / 'mnist_data'}: train first, or give --weights FILE")


def processor() -> str:
    """The processor's name, its number of cores and whether it multiplies bfloat16."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    name = re.search(r"model name\s*: (.*)", text)
    bfloat16 = "bf16 in hardware" if re.search("avx512_bf16|amx_bf16", text) else "no bf16"
    return f"{name[1] if name else sys.platform}, {os.cpu_count()} cores, {bfloat16}"
