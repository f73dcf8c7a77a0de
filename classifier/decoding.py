"""Pictures decoded by worker processes that don't import TensorFlow.

Threads that open small files wait for each other; processes don't. They also run while this process
imports TensorFlow, which takes seconds and one core.
"""

import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from classifier.console import InputError
from classifier.machine import cpu_count

# Pictures that a worker returns at a time, so many that returning them is little of its work.
CHUNK_SIZE = 64
# Each takes 60 MB.
MAX_PROCESSES = 16
# Each takes a third of a second to start, too; two take 4.0 s for 48,000 pictures of MNIST, where a
# thread takes 5.1. Fewer than MIN_FILES are done sooner without them; fewer than
# MIN_FILES_AHEAD even if this process does something else meanwhile.
MIN_FILES, MIN_FILES_AHEAD = 12_000, 6_000

# The decoder that start_ahead has made, if any.
started_ahead: list["BackgroundDecoder"] = []

# Not the current folder, which a notebook has as "": a downloaded one may hold a signal.py.
IMPORT_PATH = [str(Path(__file__).parents[1]), *filter(None, sys.path)]
# Not multiprocessing, which would import this process's script, and TensorFlow with it.
# Ctrl-C is for the process that reads; when it has gone, so do those that it started.
PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
import pickle, sys
sys.path[:], *task = pickle.load(sys.stdin.buffer)
from classifier import decoding, opener
decoding.run_worker(opener.try_decode, *task)
"""


class BackgroundDecoder:
    """Decodes pictures in worker processes from now on; results() waits for them.

    Args:
        paths: of the pictures.
        size: (height, width) that they are decoded to.
        processes: how many decode them, at most.
    """

    def __init__(self, paths: Sequence[str], size: tuple[int, int], processes: int):
        self.size, self.remaining, self.folders = size, set(paths), last_changed(paths)
        self.chunks = [
            paths[start : start + CHUNK_SIZE] for start in range(0, len(paths), CHUNK_SIZE)
        ]
        processes = min(processes, len(self.chunks))
        # All begin at once: each takes a tenth of a second until it reads what it is to do.
        self.workers = [start_worker() for _ in range(processes)]
        for first, worker in enumerate(self.workers):
            with worker.stdin:
                pickle.dump((IMPORT_PATH, self.chunks[first::processes], size), worker.stdin)
        self.chunks_read = 0  # of the chunks
        self.decoded: dict[str, Any] = {}

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

    def read_chunk(self) -> None:
        worker, chunk = (
            self.workers[self.chunks_read % len(self.workers)],
            self.chunks[self.chunks_read],
        )
        self.chunks_read += 1
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
        if self.chunks_read > len(self.chunks) - len(self.workers):  # it was this worker's last
            worker.stdout.close()
            worker.wait()


def start_ahead(paths: Sequence[str], size: tuple[int, int]) -> None:
    """Have pictures decoded while this process does something else, if they are many.

    Fewer of the pictures, or none, may be asked for later.
    """
    if len(paths) >= MIN_FILES_AHEAD and cpu_count() > 1:
        started_ahead[:] = [BackgroundDecoder(paths, size, min(cpu_count(), MAX_PROCESSES))]


def decoder_for(paths: Sequence[str], size: tuple[int, int]) -> BackgroundDecoder | None:
    """A decoder of these pictures: the one started ahead, or a new one; None if it wouldn't pay."""
    for begun in started_ahead:
        same = last_changed(paths).items() <= begun.folders.items()
        if same and begun.size == size and begun.remaining.issuperset(paths):
            return begun
    if len(paths) >= MIN_FILES and cpu_count() > 1:
        return BackgroundDecoder(paths, size, min(cpu_count(), MAX_PROCESSES))
    return None


def last_changed(paths: Sequence[str]) -> dict[str, int]:
    """When a file came to, or went from, each of the folders that the pictures are in."""
    folders = {os.path.dirname(path) for path in paths}
    return {folder: os.stat(folder).st_mtime_ns for folder in folders}


def start_worker() -> subprocess.Popen:
    """A worker process: it reads a pickled task from stdin and writes pickled results to stdout."""
    # Without -P, Python would import from the current folder first.
    command = [sys.executable, "-P", "-c", PROGRAM]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def run_worker(decode: Callable, chunks: list[Sequence[str]], size: tuple[int, int]) -> None:
    """The worker's program: decode, without waiting for the results to be read.

    Args:
        decode: from a path and (height, width) to the result for that picture.
        chunks: of paths.
        size: (height, width).
    """
    results_queue = queue.SimpleQueue()

    def write_results() -> None:
        try:
            for results in iter(results_queue.get, None):
                sys.stdout.buffer.write(results)
            sys.stdout.buffer.flush()
        except OSError:  # who would have read it has gone
            os._exit(1)

    writer = threading.Thread(target=write_results)
    writer.start()
    for chunk in chunks:
        try:
            results = [decode(path, size) for path in chunk]
        except Exception as error:  # such as no memory; it is raised where the pictures are wanted
            results = error
        results_queue.put(pickle.dumps(results))
    results_queue.put(None)
    writer.join()
