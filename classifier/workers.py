"""Training on several machines: what differs from training on one.

The machines are named by TF_CONFIG, and TensorFlow's MultiWorkerMirroredStrategy joins them: each
has a share of the pictures and of every batch, and all have the same weights. The first machine
alone keeps what is learned. On one machine each function here gives back what it was given.
"""

import contextlib
import copy
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from classifier import cluster
from classifier.console import InputError, warn
from classifier.files import write_file
from classifier.pictures import file_names, select_files
from classifier.weights import seed_generator_states

if TYPE_CHECKING:
    from tensorflow.keras.preprocessing.image import DirectoryIterator

# What may differ between the machines of a training: where things are, and how much memory.
MACHINE_FIELDS = ("data_dir", "train_dir", "test_dir", "imp_dir", "checkpoint_path", "cache_limit")
# Between the seeds of two machines; a training itself uses its seed and the next one.
BETWEEN_SEEDS = 1000
# What TensorFlow raises on the machines that are left, depending on what they were at.
LOST = (
    *(tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError),
    *(tf.errors.DeadlineExceededError, tf.errors.InternalError),
)


class Strategy(tf.distribute.MultiWorkerMirroredStrategy):
    """TensorFlow's, as Keras 3.15 can use it (keras#20585)."""

    def reduce(self, reduce_op, value, axis):
        return super().reduce(reduce_op, value, axis=None)  # Keras's axis, 0, is none of a number's

    def experimental_distribute_dataset(self, dataset, options=None):
        # It is this machine's share already, for its one device. TensorFlow's own iterator over a
        # worker's devices waits for a tuner when it ends, for up to a minute.
        return dataset


worker: cluster.Worker | None = None  # of this machine, while it trains with others
strategy: Strategy | None = None  # by which they train


def run_on_workers(train: Callable[[Any], Any], setting: Any) -> Any:
    """train(setting); on all machines together, if TF_CONFIG names several.

    Raises:
        InputError: the others didn't come, or differ, or one of them was lost.
    """
    global worker
    worker = cluster.worker_from_tf_config()
    if worker is None:
        return train(setting)
    if worker.index > 0 and not Path(setting.train_dir).is_dir():
        raise InputError(f"{setting.train_dir}: no such folder; each machine needs the pictures")
    if len(tf.config.list_physical_devices("GPU")) > 1:
        raise InputError(
            "TF_CONFIG: a worker takes one GPU, and sees several here; start a worker for each, "
            "with CUDA_VISIBLE_DEVICES and a port of its own"
        )
    asked = {name: value for name, value in vars(setting).items() if name not in MACHINE_FIELDS}
    cluster.wait_for_workers(worker, asked)
    connect()
    try:
        if worker.index == 0:
            return train(setting)
        with without_outputs(setting) as setting:
            return train(setting)
    except LOST as error:
        parted = re.search("Collective ops is aborted by: (.*)", error.message)
        if gone := lost_workers(error.message):
            happened = f"{' and '.join(map(worker.name, gone))} is lost, and may say why itself"
        elif parted:
            happened = f"the machines have lost each other ({parted[1]})"
        else:
            raise
        raise InputError(
            f"{happened}; the epochs that were finished are saved on the first machine, and the "
            "same command with --is_restore on all machines goes on from there"
        ) from None


def connect() -> None:
    """Make the strategy, now that all machines are there."""
    global strategy
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # it can't be said later on
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    strategy = Strategy()
    for number, handler in handlers.items():  # TensorFlow has put its own in their place
        signal.signal(number, handler)


@contextlib.contextmanager
def without_outputs(setting: Any) -> Iterator[Any]:
    """The Setting of a machine that keeps nothing: what it writes goes to a folder that vanishes.

    What it would print is the first machine's to say.
    """
    scratch = tempfile.mkdtemp(prefix="mnist_keras-")

    def stop(number, frame):
        warn(f"interrupted; what was learned is with {worker.name(0)}")
        shutil.rmtree(scratch, ignore_errors=True)
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    print(f"training; {worker.name(0)} keeps what is learned, and says how it goes", flush=True)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield setting.replace(
                data_dir=scratch,
                train_dir=setting.train_dir,
                test_dir=setting.test_dir,
                checkpoint_path=os.path.join(scratch, "model_weight"),
                is_restore=setting.is_restore and not setting.restore_model,
                restore_model=None,
            )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def lost_workers(message: str) -> list[int]:
    """The other machines that TensorFlow's message names, else those that don't answer."""
    others = [index for index in range(len(worker.addresses)) if index != worker.index]
    tasks = re.findall(r"/job:(\w+)/replica:\d+/task:(\d+)", message)
    named = {int(index) + worker.chiefs * (job == "worker") for job, index in tasks}
    return [index for index in others if index in named] or [
        index for index in others if not responds(index)
    ]


def responds(index: int) -> bool:
    """Whether TensorFlow on a machine says something to whoever calls, as it does unless frozen."""
    try:
        with socket.create_connection(
            worker.host_and_port(index), cluster.RESPONSE_TIMEOUT
        ) as line:
            return line.recv(1) != b""
    except OSError:
        return False


# ---------------------------------------------------------------- agreeing


def all_gather(value: Any) -> list[Any]:
    """The value, in terms of JSON, that each machine has, in their order; on one machine [value].

    All machines must come here, or all wait.
    """
    if strategy is None:
        return [value]
    text = json.dumps(value).encode()
    words = np.frombuffer(text + b" " * (-len(text) % 4), np.int32)
    lengths = strategy.gather(tf.constant([len(words)]), axis=0).numpy()
    joined = strategy.gather(tf.constant(words), axis=0).numpy()
    return [json.loads(part.tobytes()) for part in np.split(joined, np.cumsum(lengths)[:-1])]


def broadcast_files(folder: Path, names: Sequence[str]) -> None:
    """Write the first machine's files of these names, if it has them, into the others' folder."""
    if strategy is None:
        return
    there = [path for path in (folder / name for name in names) if path.exists()]
    mine = {path.name: path.read_text(encoding="utf-8") for path in there}
    firsts = all_gather(mine if worker.index == 0 else {})[0]
    if worker.index > 0:
        for name, text in firsts.items():
            write_file(folder / name, text.encode())


def shard(iterator: "DirectoryIterator") -> "DirectoryIterator":
    """An iterator over this machine's share of the files: every n-th, so that classes keep theirs.

    Raises:
        InputError: the machines have different files, or too few.
    """
    if strategy is None:
        return iterator
    names, machines = file_names(iterator), len(worker.addresses)
    digest = hashlib.sha256("\n".join(names).encode("utf-8", "backslashreplace")).hexdigest()
    has = f"{len(names)} pictures of {len(iterator.class_indices)} classes"
    first, *others = all_gather([has, digest])
    for index, other in enumerate(others, start=1):
        if other != first:
            but = "as many by other names" if other[0] == first[0] else other[0]
            raise InputError(
                f"{iterator.directory}: {worker.name(0)} has {first[0]} here, {worker.name(index)} "
                f"{but}; all machines need the same ones"
            )
    if len(names) < machines:
        raise InputError(f"{iterator.directory}: too few pictures for {machines} machines")
    part = copy.copy(iterator)
    select_files(part, names[worker.index :: machines])
    return part


def worker_seed(seed: int) -> int:
    """A seed of this machine's own; the first one has the training's."""
    return seed if strategy is None else (seed + BETWEEN_SEEDS * worker.index) % 2**31


def broadcast_state(model: keras.Model, done: int) -> int:
    """Give the model and its optimizer the first machine's values, and its layers own seeds.

    Args:
        model: compiled; its optimizer is built.
        done: the epochs that are behind it.

    Returns:
        The epochs that are behind the first machine's.
    """
    if strategy is None:
        return done
    for variable in [*model.weights, *model.optimizer.variables]:
        bits = np.atleast_1d(variable.numpy()).view(np.int32)  # a sum of -0.0 and 0.0 is 0.0
        mine = bits if worker.index == 0 else np.zeros_like(bits)
        firsts = strategy.reduce("SUM", tf.constant(mine), axis=None).numpy()
        if worker.index > 0:
            value = firsts.view(variable.numpy().dtype)
            variable.assign(value.reshape(variable.shape))
    states = seed_generator_states(model)
    drawn = [[int(number) for number in state.numpy()] for state in states]
    done, drawn = all_gather([done, drawn])[0]
    for state, (seed, count) in zip(states, drawn, strict=True):
        state.assign([worker_seed(seed), count])
    return done
