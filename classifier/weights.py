"""One weights file: written whole, read with suspicion."""

import hashlib
import io
import math
import os
import warnings
from pathlib import Path

import h5py
import keras
import numpy as np

from classifier.console import InputError
from classifier.files import save


class WeightsInMemory(io.BytesIO):
    """What Keras takes for the path of a weights file, since it looks at the ending only."""

    def __str__(self):
        return "in memory.weights.h5"


def save_weights(model: keras.Sequential, path: Path, epoch: int) -> None:
    """Save the weights, whole or not at all, with the SHA-256 by which load_weights knows them."""
    # HDF5 never writes to the disk: where that is full, it crashes when the program ends.
    memory = WeightsInMemory()
    model.save_weights(memory)
    with h5py.File(memory, "r+") as file:
        file.attrs["epoch"] = epoch
        file.attrs["sha256"] = weights_digest(file)
    save(path, memory.getbuffer())


def without_optimizer(model: keras.Sequential) -> keras.Sequential:
    """The same layers; a file of their weights is a third as large as with AdamW's state."""
    return keras.Sequential([keras.Input(model.input_shape[1:]), *model.layers])


def load_weights(model: keras.Sequential, path: str | os.PathLike) -> int:
    """Load the weights that save_weights or Keras saved; returns the epochs they have behind them.

    Raises:
        InputError: the file is damaged, or holds something else than this network's weights.
    """
    try:
        with h5py.File(path) as file:
            check_arrays(file, os.path.getsize(path))
            if file.attrs.get("sha256", digest := weights_digest(file)) != digest:
                raise ValueError("its SHA-256 does not match")
            epoch = int(file.attrs.get("epoch", 0))
            if not 0 <= epoch < 1_000_000:  # it is multiplied with the steps of an epoch
                raise ValueError(f"no run has {epoch} epochs behind it")
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Skipping variable loading for optimizer")
            model.load_weights(path)
    except Exception as error:  # h5py and Keras raise of every kind for a damaged file
        first_line = str(error).strip().split("\n")[0]
        raise InputError(
            f"{path}: damaged, or not this network's weights ({first_line})"
        ) from error
    return epoch


def check_arrays(file: h5py.File, size: int) -> None:
    """Raise ValueError unless all arrays lie in the file itself, of so many bytes, and are finite.

    Soft and external links are not followed here; Keras refuses them.
    """
    promised = 0

    def check(name: str, item: h5py.Dataset | h5py.Group) -> None:
        nonlocal promised
        if not isinstance(item, h5py.Dataset):
            return
        if item.external or item.is_virtual:
            raise ValueError(f"{name} lies in another file")
        # A header can promise any size, also of the chunks that an array is read in; Keras stores
        # weights as they are, not compressed.
        promised += max(item.size, math.prod(item.chunks or ())) * item.dtype.itemsize
        if promised > size:
            raise ValueError(f"its arrays promise {promised} bytes, the file has {size}")
        if item.dtype.kind == "f" and not np.isfinite(item[()]).all():
            raise ValueError(f"{name} is not finite")

    file.visititems(check)


def weights_digest(file: h5py.File) -> str:
    """The SHA-256 of all arrays in the file and their names."""
    digest = hashlib.sha256()

    def add(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            digest.update(name.encode() + item[()].tobytes())

    file.visititems(add)
    return digest.hexdigest()
