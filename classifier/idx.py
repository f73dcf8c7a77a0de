"""IDX files, in which MNIST and its kin are published: what a folder of them holds.

A set is four files, images and labels to train with and to test with. Each is an array of bytes
behind a short header; the format is described at http://yann.lecun.com/exdb/mnist/.
"""

import gzip
import math
import os
import string
import struct
import zlib
from pathlib import Path

import numpy as np

from classifier.console import InputError

# The largest set in this form, EMNIST's 697,932 training pictures, has 547 MB.
MAX_PIXELS = 700_000_000

# A set whose files have MNIST's names, which Fashion-MNIST and others have taken over, too.
MNIST_FORM = "mnist"
PREFIXES = {"train": "train", "test": "t10k"}

MERGED = string.digits + string.ascii_uppercase + "abdefghnqrt"
# The characters of EMNIST's labels (https://arxiv.org/abs/1702.05373). Two sets merge small letters
# that look like their capitals with these, one set all of them.
EMNIST = {
    "emnist-balanced": dict(enumerate(MERGED)),
    "emnist-bymerge": dict(enumerate(MERGED)),
    "emnist-byclass": dict(
        enumerate(string.digits + string.ascii_uppercase + string.ascii_lowercase)
    ),
    "emnist-letters": dict(enumerate(string.ascii_lowercase, start=1)),
    "emnist-digits": dict(enumerate(string.digits)),
    "emnist-mnist": dict(enumerate(string.digits)),
}


def decode_idx3_ubyte(path: str | os.PathLike) -> np.ndarray:
    """The images of an IDX file, raw or gzip.

    Returns:
        uint8 [n, rows, cols], 0 is paper and 255 ink.

    Raises:
        InputError: the file is not what its header promises.
    """
    return read_idx(path, magic=0x803, dimensions=3)


def decode_idx1_ubyte(path: str | os.PathLike) -> np.ndarray:
    """The labels of an IDX file, raw or gzip: uint8 [n]. Raises as decode_idx3_ubyte does."""
    return read_idx(path, magic=0x801, dimensions=1)


def read_idx(path: str | os.PathLike, magic: int, dimensions: int) -> np.ndarray:
    """The uint8 array of an IDX file; of a gzip, no more is unpacked than the header promises."""
    try:
        with open(path, "rb") as file:
            stream = gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == b"\x1f\x8b" else file
            header = stream.read(4 + 4 * dimensions)
            if len(header) < 4 + 4 * dimensions:
                raise ValueError("no IDX file: it ends within its header")
            found, *shape = struct.unpack(f">{1 + dimensions}I", header)
            if found != magic:
                raise ValueError(
                    f"no IDX file of {dimensions} dimensions: magic {found:#x}, not {magic:#x}"
                )
            promised = math.prod(shape)
            if promised > MAX_PIXELS:
                raise ValueError(f"the header promises {promised} bytes; {MAX_PIXELS} are the most")
            content = stream.read(promised)
            if len(content) < promised or stream.read(1):
                has = f"{len(content)}" if len(content) < promised else "more"
                raise ValueError(f"the header promises {promised} bytes, the file holds {has}")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: truncated or corrupt gzip, fetch it again ({error})") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    return np.frombuffer(content, np.uint8).reshape(shape)


def encode_idx(array: np.ndarray) -> bytes:
    """An IDX file's content: of the images, uint8 [n, rows, cols], or the labels, uint8 [n]."""
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def find_idx(folder: Path, name: str) -> Path | None:
    """The IDX file of that name in the folder: raw or .gz, with a dash or a dot in its name."""
    for stem in (name, name.replace("-idx", ".idx")):
        for suffix in ("", ".gz"):
            if (folder / (stem + suffix)).is_file():
                return folder / (stem + suffix)
    return None


def file_names(set_name: str, part: str) -> tuple[str, str]:
    """The raw files of images and labels of "train" or "test" in a set."""
    prefix = PREFIXES[part] if set_name == MNIST_FORM else f"{set_name}-{part}"
    return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"


def find_sets(folder: Path) -> list[str]:
    """The sets of which there are files in the folder: MNIST_FORM, or names of EMNIST's."""
    return [
        set_name
        for set_name in (MNIST_FORM, *EMNIST)
        if any(find_idx(folder, name) for part in PREFIXES for name in file_names(set_name, part))
    ]


def find_set(folder: Path) -> str:
    """The set in the folder, MNIST_FORM if there is none.

    Raises:
        InputError: there are several.
    """
    sets = find_sets(folder)
    if len(sets) > 1:
        raise InputError(
            f"{folder}: files of several sets ({', '.join(sets)}); put those of one set into a "
            "folder of their own, and name it with --source"
        )
    return sets[0] if sets else MNIST_FORM


def decode_part(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of "train" or "test" from the IDX files in the folder, checked.

    Returns:
        uint8 [n, rows, cols] and uint8 [n].

    Raises:
        InputError: files are missing, damaged, or don't belong together.
    """
    set_name, paths = find_set(folder), []
    for name in file_names(set_name, part):
        path = find_idx(folder, name)
        if path is None:
            raise InputError(f"{folder}: there is no {name} or {name}.gz here")
        paths.append(path)
    images, labels = decode_idx3_ubyte(paths[0]), decode_idx1_ubyte(paths[1])
    if len(images) != len(labels):
        raise InputError(
            f"{paths[0]}: {len(images)} images, but {len(labels)} labels in {paths[1]}"
        )
    if not images.size:
        raise InputError(f"{paths[0]}: no images in it")
    if set_name in EMNIST:  # stored column by column
        images = images.transpose(0, 2, 1)
    return images, labels


def class_names(folder: Path, labels: np.ndarray) -> np.ndarray:
    """The classes of labels in the folder's set, str [n]: EMNIST's characters, else the numbers.

    Where a set has both A and a, the second is called a_small: Windows and macOS would take A and a
    for the same folder.

    Raises:
        InputError: a label has no character.
    """
    set_name = find_set(folder)
    if set_name == MNIST_FORM:
        return labels.astype(str)
    characters = EMNIST[set_name]
    unknown = set(labels.tolist()) - characters.keys()
    if unknown:
        raise InputError(f"{folder}: label {min(unknown)}, for which {set_name} has no character")
    both = {c for c in characters.values() if c.islower() and c.upper() in characters.values()}
    names = {label: f"{c}_small" if c in both else c for label, c in characters.items()}
    return np.array([names.get(label, "") for label in range(256)])[labels]
