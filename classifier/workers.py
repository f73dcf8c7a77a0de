"""Training on several machines: what differs from training on one.

The machines are named by TF_CONFIG, and TensorFlow's MultiWorkerMirroredStrategy joins them: each
has a share of the pictures and of every batch, and all have the same weights. Only the first writes
files. On one machine each function here returns what it was given.
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

# What may differ between the machines of a training.
MACHINE_FIELDS = ("data_dir", "train_dir", "test_dir", "imp_dir", "checkpoint_path", "cache_limit")
SEED_STEP = 1000  # between two machines' seeds; each uses its seed and the next one
# What TensorFlow raises on the other machines if one is lost, depending on what they were doing.
LOST_ERRORS = (
    *(tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError),
    *(tf.errors.DeadlineExceededError, tf.errors.InternalError),
)


class Strategy(tf.distribute.MultiWorkerMirroredStrategy):
    """TensorFlow's, as Keras 3.15 can use it (keras#20585)."""

    def reduce(self, reduce_op, value, axis):
        return super().reduce(
            reduce_op, value, axis=None
        )  # Keras's axis is 0, which a number lacks

    def experimental_distribute_dataset(self, dataset, options=None):
        # It is this machine's share already, for its one device. TensorFlow's own iterator waits
        # for its tuner when it ends, up to a minute.
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
    flags = {name: value for name, value in vars(setting).items() if name not in MACHINE_FIELDS}
    cluster.wait_for_workers(worker, flags)
    connect()
    try:
        if worker.index == 0:
            return train(setting)
        with without_outputs(setting) as setting:
            return train(setting)
    except LOST_ERRORS as error:
        reason = re.search("Collective ops is aborted by: (.*)", error.message)
        if lost := lost_workers(error.message):
            what = f"{' and '.join(map(worker.name, lost))} is lost, and may say why itself"
        elif reason:
            what = f"the machines have lost each other ({reason[1]})"
        else:
            raise
        raise InputError(
            f"{what}; the epochs that were finished are saved on the first machine, and the "
            "same command with --is_restore on all machines goes on from there"
        ) from None


def connect() -> None:
    """Make the strategy, now that all machines are there."""
    global strategy
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # only before the GPU is used
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    strategy = Strategy()
    for number, handler in handlers.items():  # TensorFlow has replaced them
        signal.signal(number, handler)


@contextlib.contextmanager
def without_outputs(setting: Any) -> Iterator[Any]:
    """The Setting of a machine that writes to a temporary folder only, and prints nothing."""
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
    """Whether TensorFlow on a machine greets whoever connects, as it does unless it is frozen."""
    address = worker.host_and_port(index)
    try:
        with socket.create_connection(address, cluster.RESPONSE_TIMEOUT) as connection:
            return connection.recv(1) != b""
    except OSError:
        return False


# ---------------------------------------------------------------- agreeing


def all_gather(value: Any) -> list[Any]:
    """The value, in terms of JSON, of each machine, in their order; all of them must call this."""
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
    paths = [folder / name for name in names if worker.index == 0 and (folder / name).exists()]
    texts = all_gather({path.name: path.read_text(encoding="utf-8") for path in paths})[0]
    if worker.index > 0:
        for name, text in texts.items():
            write_file(folder / name, text.encode())


def shard(iterator: "DirectoryIterator") -> "DirectoryIterator":
    """An iterator over this machine's share of the files: every n-th, so some of each class.

    Raises:
        InputError: the machines have different files, or too few.
    """
    if strategy is None:
        return iterator
    names, machines = file_names(iterator), len(worker.addresses)
    digest = hashlib.sha256("\n".join(names).encode("utf-8", "backslashreplace")).hexdigest()
    count = f"{len(names)} pictures of {len(iterator.class_indices)} classes"
    first, *others = all_gather([count, digest])
    for index, other in enumerate(others, start=1):
        if other != first:
            has = "as many by other names" if other[0] == first[0] else other[0]
            raise InputError(
                f"{iterator.directory}: {worker.name(0)} has {first[0]} here, {worker.name(index)} "
                f"{has}; all machines need the same ones"
            )
    if len(names) < machines:
        raise InputError(f"{iterator.directory}: too few pictures for {machines} machines")
    part = copy.copy(iterator)
    select_files(part, names[worker.index :: machines])
    return part


def worker_seed(seed: int) -> int:
    """Another seed for each machine; for the first one the training's."""
    return seed if strategy is None else (seed + SEED_STEP * worker.index) % 2**31


def broadcast_state(model: keras.Model, done: int) -> int:
    """Give the model and its optimizer the first machine's values, and its layers other seeds.

    Args:
        model: compiled; its optimizer is built.
        done: how many epochs it was trained.

    Returns:
        How many the first machine's was.
    """
    if strategy is None:
        return done
    for variable in [*model.weights, *model.optimizer.variables]:
        value = variable.numpy()
        # A sum, to which the others add 0; of bits, since -0.0 + 0.0 is 0.0.
        bits = np.atleast_1d(value).view(np.int32) * (worker.index == 0)
        bits = strategy.reduce("SUM", tf.constant(bits), axis=None).numpy()
        if worker.index > 0:
            variable.assign(bits.view(value.dtype).reshape(value.shape))
    states = seed_generator_states(model)
    done, values = all_gather([done, [state.numpy().tolist() for state in states]])[0]
    for state, (seed, count) in zip(states, values, strict=True):
        state.assign([worker_seed(seed), count])
    return done
