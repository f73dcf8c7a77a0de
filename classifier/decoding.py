"""Pictures decoded by worker processes that don't import TensorFlow.

Threads that open small files wait for each other; processes don't. They also run while this process
imports TensorFlow, which takes seconds and one core.
"""

import itertools
import os
import pickle
import queue
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock

from classifier import opener
from classifier.console import InputError
from classifier.machine import cpu_count

# Pictures that a worker returns at a time, so many that returning them is little of its work.
CHUNK_SIZE = 64
MAX_PROCESSES = 16  # each takes 60 MB
# A process takes a third of a second to start: fewer than MIN_FILES are done sooner by a thread,
# fewer than MIN_FILES_AHEAD even if this process does something else meanwhile (docs/figures.md).
MIN_FILES, MIN_FILES_AHEAD = 12_000, 6_000

# Not the current folder, which a notebook has as "": a downloaded one may hold a signal.py.
IMPORT_PATH = [str(Path(__file__).parents[1]), *filter(None, sys.path)]
# Not multiprocessing, which would import this process's script, and TensorFlow with it.
# Ctrl-C is for the process that reads; when that has ended, so do its workers.
PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
import pickle, sys
sys.path[:], *task = pickle.load(sys.stdin.buffer)
from classifier import decoding
decoding.run_worker(*task)
"""


class BackgroundDecoder:
    """Decodes pictures in worker processes from now on; results() waits for them.

    Args:
        paths: of the pictures.
        size: (height, width) that they are decoded to.
    """

    def __init__(self, paths: Sequence[str], size: tuple[int, int]):
        self.size, self.remaining = size, set(paths)
        self.decoded: dict[str, Any] = {}
        chunks = [paths[start : start + CHUNK_SIZE] for start in range(0, len(paths), CHUNK_SIZE)]
        # Without -P, Python would import from the current folder first.
        command = [sys.executable, "-P", "-c", PROGRAM]
        # All begin at once: each takes a tenth of a second until it reads what it is to do.
        self.workers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for _ in chunks[: min(cpu_count(), MAX_PROCESSES)]
        ]
        self.unread = zip(chunks, itertools.cycle(self.workers), strict=False)
        # The file is made when the first large picture is decoded.
        self.lock_file = Path(tempfile.gettempdir(), f"mnist_keras-{secrets.token_hex(8)}.lock")
        for first, worker in enumerate(self.workers):
            share = chunks[first :: len(self.workers)]
            with worker.stdin:
                pickle.dump((IMPORT_PATH, share, size, self.lock_file), worker.stdin)

    def results(self, paths: Sequence[str]) -> Iterator[Any]:
        """Each picture's pixels, uint8 [height, width, 3], or why there are none; once each.

        Raises:
            InputError: a process has ended before its work was done.
        """
        for path in paths:
            while path not in self.decoded:
                self.read_chunk()
            self.remaining.discard(path)
            yield self.decoded.pop(path)
        if not self.remaining:
            self.lock_file.unlink(missing_ok=True)
            for worker in self.workers:
                worker.stdout.close()
                worker.wait()

    def read_chunk(self) -> None:
        chunk, worker = next(self.unread)
        try:
            results = pickle.load(worker.stdout)
        except (EOFError, pickle.UnpicklingError):
            raise InputError(
                f"{chunk[0]}: the process that decodes it and the pictures beside it has ended "
                f"(status {worker.wait()}); is there enough memory?"
            ) from None
        if isinstance(results, Exception):
            raise results
        self.decoded.update(zip(chunk, results, strict=True))


ahead: BackgroundDecoder | None = None  # what start_ahead has begun


def start_ahead(paths: Sequence[str], size: tuple[int, int]) -> None:
    """Have pictures decoded while this process does something else, if they are many.

    Fewer of the pictures, or none, may be asked for later.
    """
    global ahead
    if len(paths) >= MIN_FILES_AHEAD and cpu_count() > 1:
        ahead = BackgroundDecoder(paths, size)


def decoder_for(paths: Sequence[str], size: tuple[int, int]) -> BackgroundDecoder | None:
    """A decoder of these pictures: the one started ahead, or a new one; None if it wouldn't pay."""
    if ahead and ahead.size == size and ahead.remaining.issuperset(paths):
        return ahead
    if len(paths) >= MIN_FILES and cpu_count() > 1:
        return BackgroundDecoder(paths, size)
    return None


def run_worker(chunks: list[Sequence[str]], size: tuple[int, int], lock_file: Path) -> None:
    """A worker's program: decode, without waiting for the results to be read.

    Args:
        chunks: of paths.
        size: (height, width).
        lock_file: held by the worker that decodes a large picture.
    """
    opener.large_picture_lock = filelock.FileLock(lock_file)
    results_queue = queue.SimpleQueue()

    def write_results() -> None:
        try:
            for results in iter(results_queue.get, None):
                sys.stdout.buffer.write(results)
            sys.stdout.buffer.flush()
        except OSError:  # the process that reads has ended
            os._exit(1)

    writer = threading.Thread(target=write_results)
    writer.start()
    for chunk in chunks:
        try:
            results = [opener.try_decode(path, size) for path in chunk]
        except Exception as error:  # such as no memory; it is raised where the pictures are wanted
            results = error
        results_queue.put(pickle.dumps(results))
    results_queue.put(None)
    writer.join()
