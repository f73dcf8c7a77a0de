"""Files become pixels: found, opened, checked, resized, kept."""

import math
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import psutil
from PIL import Image, UnidentifiedImageError
from tensorflow.keras.preprocessing.image import DirectoryIterator

from classifier.console import InputError, warn
from setting import Setting


def class_folders(folder: str) -> list[str]:
    """The names of the folders that hold pictures, sorted: they are the classes.

    Raises:
        InputError: the folder or the pictures in it are missing.
    """
    layout = "one folder a class, as in train/cat/1.png and train/dog/2.png"
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder; what is expected is {layout}")
    names = sorted(p.name for p in Path(folder).iterdir() if p.is_dir() and p.name[0] != ".")
    empty = [name for name in names if not has_picture(Path(folder, name))]
    if empty:
        warn(f"{folder}: left out, since there are no pictures in them: {', '.join(empty)}")
    classes = [name for name in names if name not in empty]
    if len(classes) < 2:
        raise InputError(f"{folder}: pictures of {len(classes)} classes; two are needed, {layout}")
    return classes


def has_picture(folder: Path) -> bool:
    endings = tuple(f".{ending}" for ending in DirectoryIterator.white_list_formats)
    return any(name.lower().endswith(endings) for _, _, names in os.walk(folder) for name in names)


class Pictures(NamedTuple):
    """Pictures that can be decoded: their files, their labels and, if they fit, their pixels."""

    paths: np.ndarray  # of str [n]
    labels: np.ndarray  # int32 [n]
    pixels: np.ndarray | None  # uint8 [n, height, width, 3], or 1 channel if all are grey


def load_pictures(iterator: DirectoryIterator, setting: Setting) -> Pictures:
    """Decode every picture of an ImageDataGenerator's iterator once.

    Files that can't be decoded are named on stderr and left out. Pictures that would not fit
    into the memory that is free (setting.cache_limit) are checked, but not kept.
    """
    paths, labels = np.array(iterator.filepaths), np.array(iterator.classes, np.int32)
    shape = (setting.img_height, setting.img_width, 3)
    limit = setting.cache_limit
    # TensorFlow makes two copies of its own: with them the pictures take half of what is free.
    limit = psutil.virtual_memory().available / 6 if limit is None else limit * 1e6
    size = len(paths) * math.prod(shape)
    pixels = np.empty((len(paths), *shape), np.uint8) if size <= limit else None
    if pixels is None:
        print(
            f"{len(paths)} pictures take {size / 1e6:.0f} MB, more than the {limit / 1e6:.0f} MB "
            "for them: they are read from disk in every epoch"
        )
    broken = decode_all(paths, setting, pixels)
    if len(broken) == len(paths):
        raise InputError(f"{iterator.directory}: no picture in it can be read")
    if broken:
        paths, labels = np.delete(paths, broken), np.delete(labels, broken)
        pixels = None if pixels is None else np.delete(pixels, broken, axis=0)
    if pixels is not None and is_grey(pixels):
        pixels = np.ascontiguousarray(pixels[..., :1])
    return Pictures(paths, labels, pixels)


def decode_all(paths: Sequence[str], setting: Setting, pixels: np.ndarray | None) -> list[int]:
    """Decode pictures with several threads into pixels, if given, uint8 [n, height, width, 3].

    Returns:
        The indices of those that can't be decoded; each has been named on stderr.
    """

    def decode_some(indices: range) -> list[int]:
        broken = []
        for index in indices:
            try:
                picture = decode(paths[index], setting)
            except DECODE_ERRORS as error:
                broken.append(index)
                warn(f"{paths[index]}: left out, {reason(error)}")
                continue
            if pixels is not None:
                pixels[index] = picture
        return broken

    chunks = [range(start, len(paths), 64) for start in range(64)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [index for broken in pool.map(decode_some, chunks) for index in broken]


def leave_out_broken(iterator: DirectoryIterator, setting: Setting) -> None:
    """Take the pictures that can't be decoded from what the iterator will load."""
    broken = decode_all(iterator.filepaths, setting, None)
    iterator._filepaths = list(np.delete(iterator.filepaths, broken))
    iterator.classes = np.delete(iterator.classes, broken)
    iterator.n = iterator.samples = len(iterator.classes)


def reason(error: Exception) -> str:
    """Why a picture can't be read, in the user's words."""
    return "it is no picture" if isinstance(error, UnidentifiedImageError) else str(error)


# What decode and handwriting.to_mnist raise for a file that is no whole picture.
DECODE_ERRORS = (OSError, ValueError)


def decode(path: str, setting: Setting) -> np.ndarray:
    """The picture as Keras loads and resizes it: uint8 [height, width, 3].

    Raises:
        OSError, ValueError: it can't be read.
    """
    return resized(load_picture(path), setting)


def load_picture(path: str) -> Image.Image:
    """The picture as Keras loads it, in mode RGB. Raises OSError or ValueError if it can't."""
    try:
        return keras.utils.load_img(path)
    except DECODE_ERRORS:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a broken file trips them into
        raise ValueError(f"cannot be decoded: {error}") from error


def resized(picture: Image.Image, setting: Setting) -> np.ndarray:
    """The picture in the network's size, as Keras's load_img resizes: uint8 [height, width, 3]."""
    size = (setting.img_width, setting.img_height)
    return np.asarray(picture.resize(size, Image.Resampling.NEAREST))


def is_grey(pixels: np.ndarray) -> bool:
    """Whether red, green and blue are the same in all of uint8 [n, height, width, 3]."""
    return all(np.array_equal(pixels[..., 0], pixels[..., channel]) for channel in (1, 2))


def known_grey(pictures: Pictures) -> bool:
    """Whether the pictures are in memory, and there in one channel."""
    return pictures.pixels is not None and pictures.pixels.shape[-1] == 1


THUMBNAIL = 84  # pixels, as many as a cell of report's sheets has for it


PICTURE_ENDINGS = (
    ".png",
    ".jpg",
    ".jpeg",
    ".bmp",
    ".gif",
    ".webp",
    ".ppm",
    ".pgm",
    ".tif",
    ".tiff",
)


def list_pictures(folder: str) -> list[str]:
    """The pictures in the folder by their endings, hidden ones left out, 2.png before 10.png.

    Raises:
        InputError: the folder is missing, or there is no picture in it.
    """
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder; put the pictures to predict there")
    names = [path.name for path in Path(folder).iterdir() if not path.is_dir()]
    names = [n for n in names if n.lower().endswith(PICTURE_ENDINGS) and not n.startswith(".")]
    if not names:
        raise InputError(f"{folder}: no pictures in it ({', '.join(PICTURE_ENDINGS)})")
    names.sort(key=lambda n: ([int(p) if p.isdecimal() else p for p in re.split("([0-9]+)", n)], n))
    return [os.path.join(folder, name) for name in names]


def small(picture: Image.Image) -> np.ndarray:
    """The picture on white, no larger than the sheet shows it: uint8 [height, width, 3]."""
    picture = picture.copy()
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    if picture.mode == "RGBa":
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return np.asarray(picture.convert("RGB"))
