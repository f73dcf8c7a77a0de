"""A weights file: written atomically, and checked before Keras reads it."""

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
from classifier.files import write_file


class InMemory(io.BytesIO):
    """A file in memory that Keras takes for a weights file, by the ending of its str()."""

    def __str__(self):
        return "in memory.weights.h5"


def save_weights(model: keras.Model, path: Path, epoch: int) -> None:
    """Save the weights atomically, with their SHA-256, epoch and random generators' counts.

    Args:
        model: if it has an optimizer, its state is saved, too.
        path: ends in .weights.h5.
        epoch: the number of epochs done.
    """
    # Not by HDF5 itself: on a full disk it crashes when the program ends.
    memory = InMemory()
    model.save_weights(memory)
    with h5py.File(memory, "r+") as file:
        file.attrs["epoch"] = epoch
        # How often layers have drawn random numbers, which Keras doesn't save.
        file.attrs["drawn"] = [int(state[1]) for state in seed_generator_states(model)]
        file.attrs["sha256"] = weights_digest(file)
    write_file(path, memory.getbuffer())


def without_optimizer(model: keras.Model) -> keras.Model:
    """The same layers; the file of their weights is a third as large as with AdamW's state."""
    return keras.Model(model.inputs, model.outputs)


def load_weights(model: keras.Model, path: str | os.PathLike) -> int:
    """Load weights that save_weights or Keras saved; returns the number of epochs done.

    Raises:
        InputError: the file is missing or damaged, or holds the weights of another network.
    """
    try:
        with h5py.File(path) as file:
            check_datasets(file, os.path.getsize(path))
            if file.attrs.get("sha256") not in (None, weights_digest(file)):
                raise ValueError("its SHA-256 does not match")
            epoch = int(file.attrs.get("epoch", 0))
            if not 0 <= epoch < 1_000_000:  # it is multiplied with the steps of an epoch
                raise ValueError(f"no run has done {epoch} epochs")
            drawn = [int(count) for count in file.attrs.get("drawn", [])]
            misfit = shape_difference(layer_shapes(file), layer_shapes_of(model))
        if not misfit:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", "Skipping variable loading for optimizer")
                model.load_weights(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # h5py and Keras raise of every kind for a damaged file
        if not os.fspath(path).endswith(".weights.h5"):  # Keras goes by the name
            raise InputError(
                f"{path}: the name of a weights file must end in .weights.h5"
            ) from error
        first_line = str(error).strip().split("\n")[0]
        if (
            "objects could not be loaded" in first_line
        ):  # Keras's, of an optimizer without its state
            raise InputError(
                f"{path}: without the state of this optimizer; an earlier version saved it"
            ) from error
        raise InputError(f"{path}: damaged ({first_line})") from error
    if misfit:
        raise InputError(
            f"{path}: not the weights of this network, {misfit}; was build_model changed since?"
        )
    states = seed_generator_states(model)
    if 0 < len(drawn) < len(states):  # earlier versions saved some only; no number is drawn twice
        drawn = [max(drawn)] * len(states)
    for state, count in zip(states, drawn, strict=False):
        state.assign([int(state[0]), count])
    return epoch


def seed_generator_states(model: keras.Model) -> list[keras.Variable]:
    """The variables, int [2], of seed and count, from which the model's layers draw.

    Those of nested models and of layers in other layers are among them.
    """
    return [v for v in model.variables if v.path.endswith("seed_generator_state")]


def layer_shapes(file: h5py.File) -> dict[str, list[tuple[int, ...]]]:
    """The shapes of each layer's arrays, by the layer's place in the file."""
    shapes = {}

    def add(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset) and name.startswith("layers/"):
            shapes.setdefault(name.split("/")[1], []).append(item.shape)

    file.visititems(add)
    return shapes


def layer_shapes_of(model: keras.Model) -> dict[str, list[tuple[int, ...]]]:
    """The shapes that a file of the model's weights has."""
    memory = InMemory()
    without_optimizer(model).save_weights(memory)
    with h5py.File(memory) as file:
        return layer_shapes(file)


def shape_difference(saved: dict[str, list], expected: dict[str, list]) -> str | None:
    """The first layer whose shapes differ between the file and the network, in words."""

    def words(shapes: list | None) -> str:
        return " and ".join(map(str, shapes)) if shapes else "nothing"

    for layer in [*expected, *saved]:
        if saved.get(layer) != expected.get(layer):
            return (
                f"whose layer {layer} has {words(expected.get(layer))} where the file has "
                f"{words(saved.get(layer))}"
            )
    return None


def check_datasets(file: h5py.File, size: int) -> None:
    """Raise ValueError unless all arrays are finite numbers, stored in the file itself.

    Soft and external links are not followed here; Keras refuses them.

    Args:
        file: opened.
        size: of the file, in bytes.
    """
    total = 0

    def check(name: str, item: h5py.Dataset | h5py.Group) -> None:
        nonlocal total
        if not isinstance(item, h5py.Dataset):
            return
        if item.external or item.is_virtual:
            raise ValueError(f"{name} lies in another file")
        if item.dtype.kind not in "fiub":  # text and references can unfold to any size
            raise ValueError(f"{name} holds no numbers")
        # A damaged header can give any size, which would be allocated. Keras doesn't compress.
        total += max(item.size, math.prod(item.chunks or ())) * item.dtype.itemsize
        if total > size:
            raise ValueError(f"its arrays promise {total} bytes, the file has {size}")
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
