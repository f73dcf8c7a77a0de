"""What several test files do: write pictures into folders, and run the script as a user does."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
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
