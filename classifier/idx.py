"""IDX files, in which MNIST and its kin are published: arrays of bytes behind a short header.

The format is described at http://yann.lecun.com/exdb/mnist/.
"""

import gzip
import os
import struct
import zlib
from typing import BinaryIO

import numpy as np

from classifier.console import InputError

# Deflate packs 1,032 bytes into one at best (zlib's technical notes).
MOST_DEFLATE_RATIO = 1032

# The largest set in this form, EMNIST's 697,932 training pictures, has 547 MB.
MOST_PIXELS = 700_000_000


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
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            room = os.path.getsize(path) * (MOST_DEFLATE_RATIO if packed else 1)
            return read_idx_stream(gzip.open(file) if packed else file, magic, dimensions, room)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: truncated or corrupt gzip, fetch it again ({error})") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None


def read_idx_stream(stream: BinaryIO, magic: int, dimensions: int, room: int) -> np.ndarray:
    header = stream.read(4 + 4 * dimensions)
    if len(header) < 4 + 4 * dimensions:
        raise ValueError("no IDX file: it ends within its header")
    found, *shape = struct.unpack(f">{1 + dimensions}I", header)
    if found != magic:
        raise ValueError(
            f"no IDX file of {dimensions} dimensions: magic {found:#x}, not {magic:#x}"
        )
    promised = int(np.prod(shape, dtype=object))
    if promised > room:
        raise ValueError(f"the header promises {promised} bytes, more than the file can hold")
    if promised > MOST_PIXELS:
        raise ValueError(f"the header promises {promised} bytes; {MOST_PIXELS} are the most")
    content = stream.read(promised)
    if len(content) < promised or stream.read(1):
        has = f"{len(content)}" if len(content) < promised else "more"
        raise ValueError(f"the header promises {promised} bytes, the file holds {has}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def encode_idx(array: np.ndarray) -> bytes:
    """The content of the IDX file with the images, uint8 [n, rows, cols], or the labels, uint8 [n].

    Raises:
        ValueError: the array is not of bytes.
    """
    if array.dtype != np.uint8:
        raise ValueError(f"an IDX file of bytes can't hold {array.dtype}")
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()
