"""What several test files do: write pictures into folders, and run the script as a user does."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from digits.drawn import draw

SCRIPT = Path(__file__).parents[1] / "mnist_keras.py"


def save(folder: Path, name: str, array: np.ndarray, **options) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(folder / name, **options)


def write_digits(folder: Path, count: int, seed: int) -> None:
    images, labels = draw(count, seed)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        save(folder / str(label), f"{index}.png", image)


def run(*arguments) -> subprocess.CompletedProcess:
    """The script as a user runs it."""
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", env=environment
    )


@contextlib.contextmanager
def on_the_processor() -> Iterator[None]:
    """For what holds only there, also on a machine with a GPU.

    There the same seed gives the same weights to the bit, and layers are exchanged for faster ones.
    """
    import tensorflow as tf  # here, since it takes seconds that few files need

    from classifier import hardware

    cpus = tf.config.list_physical_devices("CPU")
    with tf.device("CPU"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(hardware, "gpus", list)
        # Keras compiles what it runs where it sees a GPU, whichever device is to run it.
        patch.setattr(
            tf.config, "list_physical_devices", lambda kind="CPU": cpus if kind == "CPU" else []
        )
        yield
