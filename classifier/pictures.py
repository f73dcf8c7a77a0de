"""Folders of pictures: listed, decoded, checked, held in memory."""

import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from classifier import decoding, opener
from classifier.console import InputError, warn
from classifier.disk_cache import DiskCache
from classifier.machine import cpu_count, free_memory
from classifier.opener import PICTURE_EXTENSIONS, Decoder, decode, try_decode
from classifier.progress import progress

if TYPE_CHECKING:
    from tensorflow.keras.preprocessing.image import DirectoryIterator

# Pictures that a thread decodes at a time: photos take a tenth of a second each, and Ctrl-C waits.
CHUNK_SIZE = 16
# Bytes of pixels in memory, of which TensorFlow makes copies: four times those of MNIST.
MAX_CACHE_BYTES = 600_000_000
SMALL_FILE = 10_000  # bytes; smaller files are opened faster by one thread (docs/figures.md)
SAMPLE_SIZE = 200  # images give the mean of a set to a few hundredths
# Photographs have 0.01 and 31 (docs/figures.md); drawings and scans are flatter, paper is paler.
MAX_FLAT, MIN_COLOUR = 0.2, 15
ROTATION_EPOCHS = 3  # a rotating image may be in one epoch of three: so more of them take part
VALIDATION_SPLIT = 0.2  # the article's
IMBALANCE_RATIO = 10  # always answering the larger of two such classes has an accuracy of 0.91
LAYOUT = "one folder a class, as in train/cat/1.png and train/dog/2.png"


# ---------------------------------------------------------------- found


def class_folders(folder: str, minimum: int = 2) -> list[str]:
    """The names of the folders that hold pictures, sorted: they are the classes.

    Raises:
        InputError: the folder is missing, or has pictures of fewer classes than the minimum.
    """
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder; what is expected is {LAYOUT}")
    files = {path.name: files_below(path) for path in visible_entries(folder) if path.is_dir()}
    classes = [name for name, paths in files.items() if any(map(is_picture, paths))]
    if len(classes) < minimum:
        found = f"pictures of {classes[0]} only" if classes else "no pictures in folders of classes"
        raise InputError(f"{folder}: {found}; two classes are needed, {LAYOUT}")
    return classes


def visible_entries(folder: str | os.PathLike) -> list[Path]:
    """The files and folders in the folder, sorted, but for hidden ones."""
    entries = [path for path in Path(folder).iterdir() if not path.name.startswith(".")]
    return sorted(entries, key=lambda path: path.name)


def files_below(folder: str | os.PathLike) -> Iterator[str]:
    """The paths of all files in the folder and below it, but for hidden files and folders."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(parent, name) for name in names if not name.startswith("."))


def is_picture(path: str | os.PathLike) -> bool:
    """Whether the file's name ends as a picture's does."""
    return os.fspath(path).lower().endswith(PICTURE_EXTENSIONS)


def warn_ignored(folder: str) -> None:
    """Warn of what is ignored in the folder of the classes, and why."""
    entries = visible_entries(folder)
    loose = [path.name for path in entries if not path.is_dir() and is_picture(path)]
    if loose:
        examples = loose[0] + ", …" * (len(loose) > 1)
        warn(f"NOTE: {folder}: pictures in no class's folder, left out: {len(loose)} ({examples})")
    files = {path.name: list(files_below(path)) for path in entries if path.is_dir()}
    empty = [name for name, paths in files.items() if not any(map(is_picture, paths))]
    if empty:
        warn(f"{folder}: left out, since there are no pictures in them: {', '.join(empty)}")
    others = other_endings(itertools.chain.from_iterable(files.values()))
    if others:
        counts = ", ".join(f"{n} {ending or 'without one'}" for ending, n in others.items())
        hint = "; pip install pillow-heif and .heic is read, too" if ".heic" in others else ""
        warn(f"{folder}: left out, since files with these endings aren't read: {counts}{hint}")


def other_endings(paths: Iterable[str | os.PathLike]) -> Counter[str]:
    """How many files there are of each ending that isn't a picture's."""
    return Counter(Path(path).suffix.lower() for path in paths if not is_picture(path))


def check_classes(folder: str, classes: list[str]) -> None:
    """Warn if the classes in the folder are not those of the network."""
    found = set(class_folders(folder, minimum=1))
    for what, names in (("not taught", found - set(classes)), ("not here", set(classes) - found)):
        if names:
            warn(f"{folder}: classes that are {what}: {', '.join(sorted(names))}")


def list_pictures(folder: str) -> list[str]:
    """The pictures in the folder by their endings, hidden ones left out, 2.png before 10.png.

    Args:
        folder: of pictures; or a single one.

    Raises:
        InputError: the folder is missing, or there is no picture in it.
    """
    if Path(folder).is_file():
        return [folder]
    if not Path(folder).is_dir():
        raise InputError(
            f"{Path(folder).absolute()}: no such file or folder; put the pictures to predict "
            "there, or name others with --imp_dir"
        )
    files = [path for path in visible_entries(folder) if not path.is_dir()]
    if heic := other_endings(files)[".heic"]:
        warn(f"{folder}: {heic} .heic can't be read; pip install pillow-heif")
    names = [path.name for path in files if is_picture(path)]
    if not names:
        raise InputError(f"{folder}: no pictures in it ({', '.join(PICTURE_EXTENSIONS)})")

    def natural(name: str) -> list[str | int]:
        # Text and numbers alternate, so that like is compared with like.
        return [int(part) if i % 2 else part for i, part in enumerate(re.split("([0-9]+)", name))]

    return [os.path.join(folder, name) for name in sorted(names, key=natural)]


# ---------------------------------------------------------------- in memory


class ImageSet(NamedTuple):
    """Images that can be decoded: files, labels and, if they fit into memory, pixels."""

    paths: np.ndarray  # of str [n], dtype object: one long path would make all of them long
    labels: np.ndarray  # int32 [n]
    pixels: np.ndarray | None  # uint8 [n, height, width, 3], or 1 channel if grayscale
    size: tuple[int, int]  # height, width
    decode: Decoder
    grayscale: bool  # red, green and blue are the same in all of them
    rotating: int = 0  # so many, at the end, of which an epoch has at most one in ROTATION_EPOCHS

    @property
    def epoch_size(self) -> int:
        """How many an epoch has: rotating ones take the places of some, each time of others."""
        return len(self.labels) - self.rotating

    def load_image(self, index: int) -> np.ndarray:
        """One of them, from its file: uint8 [height, width, 3]."""
        return self.decode(self.paths[index], self.size)


def mean_and_std(pictures: ImageSet) -> tuple[float, float]:
    """The mean and the standard deviation of all pixels, 0..1, of up to SAMPLE_SIZE images."""
    moments = []
    for image in sample(pictures):
        values = image.astype(np.float64)
        moments.append((values.mean(), (values**2).mean()))
    mean, square = np.mean(moments, axis=0)
    # Pixels that are all the same are divided by one grey level of 255.
    std = max(math.sqrt(max(square - mean**2, 0)), 1.0)
    return round(mean / 255, 4), round(std / 255, 4)


def sample(pictures: ImageSet) -> Iterator[np.ndarray]:
    """Up to SAMPLE_SIZE of the images, uint8 [height, width, channels], from all over the set."""
    count = len(pictures.labels)
    for index in np.linspace(0, count - 1, min(count, SAMPLE_SIZE)).astype(int):
        yield pictures.load_image(index) if pictures.pixels is None else pictures.pixels[index]


def looks_like_photographs(pictures: ImageSet) -> bool:
    """Whether the images have the colours and the many tones of photographs.

    Of most drawings and scanned texts half of the pixels are as their right neighbour is, of most
    photographs few; pencil on photographed paper has tones, but hardly any colour.
    """
    if pictures.grayscale:
        return False
    flat, colour = [], []
    for image in sample(pictures):
        flat.append((image[:, 1:] == image[:, :-1]).all(axis=-1).mean())
        colour.append(np.ptp(image, axis=-1).mean())
    return bool(np.median(flat) < MAX_FLAT and np.median(colour) > MIN_COLOUR)


def load(
    iterator: "DirectoryIterator",
    cache_limit: int | None,
    decode: Decoder = decode,
    cache_file: Path | None = None,
) -> ImageSet:
    """Decode every picture of an ImageDataGenerator's iterator once.

    Files that can't be decoded are named on stderr and left out, of the iterator, too.

    Args:
        iterator: where the files are, their labels, and the size that they are scaled to.
        cache_limit: the most memory, in MB, that pictures may take; None for a sixth of what is
            free, MAX_CACHE_BYTES at most.
        decode: how a file becomes pixels.
        cache_file: holds pictures that don't fit into memory, as they were decoded; None to decode
            them again in every epoch.

    Raises:
        InputError: no picture can be read.
    """
    count, size = iterator.samples, iterator.target_size
    limit, needed = memory_limit(cache_limit), count * math.prod(size) * 3
    pixels = np.empty((count, *size, 3), np.uint8) if needed <= limit else None
    on_disk = pixels is None and cache_file is not None and DiskCache.fits(cache_file, count, size)
    if pixels is None:
        what = f"kept in {cache_file}" if on_disk else "decoded every epoch"
        print(
            f"{count} pictures take {needed / 1e6:.0f} MB, more than the {limit / 1e6:.0f} MB of "
            f"memory for them: they are {what}"
        )
    if on_disk:
        decode = DiskCache(cache_file, iterator.filepaths, size, decode)
    grayscale = drop_unreadable(iterator, decode, pixels)
    if not iterator.samples:
        raise InputError(f"{iterator.directory}: no picture in it can be read")
    if on_disk:
        decode.complete()
    if pixels is not None:
        pixels = pixels[: iterator.samples]
        if grayscale := is_grayscale(pixels):  # at once, which is 9 times as fast
            pixels = np.ascontiguousarray(pixels[..., :1])
    paths = np.array(iterator.filepaths, dtype=object)
    return ImageSet(paths, iterator.classes, pixels, size, decode, grayscale)


def drop_unreadable(
    iterator: "DirectoryIterator", decode: Decoder, pixels: np.ndarray | None = None
) -> bool:
    """Decode all pictures; those that can't be are named on stderr and dropped from the iterator.

    Args:
        iterator: where the files are.
        decode: how a file becomes pixels.
        pixels: where the others go, uint8 [n, height, width, 3]; None to check only.

    Returns:
        Where pixels is None, whether all of the others are grayscale.
    """
    paths, names = iterator.filepaths, file_names(iterator)
    readable, grayscale = [], True
    results = decode_all(paths, iterator.target_size, decode)
    results = progress(results, total=len(paths), desc="reading")
    for path, name, result in zip(paths, names, results, strict=True):
        if isinstance(result, str):
            warn(f"{path}: left out, {result}")
            continue
        if pixels is None:
            grayscale = grayscale and is_grayscale(result)
        else:
            pixels[len(readable)] = result
        readable.append(name)
    select_files(iterator, readable)
    return grayscale


def is_grayscale(pixels: np.ndarray) -> bool:
    """Whether red, green and blue are the same in uint8 [..., 3]."""
    return all(np.array_equal(pixels[..., 0], pixels[..., channel]) for channel in (1, 2))


def decode_all(
    paths: list[str], size: tuple[int, int], decode: Decoder = decode
) -> Iterator[np.ndarray | str]:
    """What try_decode gives for each of the pictures, in order."""
    if decode is opener.decode and (decoder := decoding.decoder_for(paths, size)):
        yield from decoder.results(paths)
        return

    def decode_chunk(start: int) -> list[np.ndarray | str]:
        return [try_decode(path, size, decode) for path in paths[start : start + CHUNK_SIZE]]

    sample = filter(os.path.exists, paths[:: 1 + len(paths) // 100])
    large = any(os.path.getsize(path) > SMALL_FILE for path in sample)
    pool = ThreadPoolExecutor(cpu_count() if large else 1)
    try:
        for results in pool.map(decode_chunk, range(0, len(paths), CHUNK_SIZE)):
            yield from results
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C the rest isn't decoded


def decode_ahead(setting: Any) -> None:
    """Have the pictures of a training decoded while TensorFlow is imported, if they are many."""
    if setting.recipe == "article" or setting.is_restore:  # Keras decodes; the size isn't known yet
        return
    size = (setting.img_height, setting.img_width)
    paths = list(filter(is_picture, files_below(setting.train_dir)))
    if len(paths) * math.prod(size) * 3 <= memory_limit(setting.cache_limit):
        decoding.start_ahead(paths, size)


def memory_limit(cache_limit: int | None) -> float:
    """The most bytes that pictures may take; cache_limit is in MB, None for what is usual."""
    # TensorFlow makes two copies of its own: with them the pictures take half of what is free.
    return min(free_memory() / 6, MAX_CACHE_BYTES) if cache_limit is None else cache_limit * 1e6


def file_names(iterator: "DirectoryIterator") -> list[str]:
    """The iterator's files as "<class>/<file>", on every system."""
    return [name.replace(os.sep, "/") for name in iterator.filenames]


def select_files(iterator: "DirectoryIterator", names: Sequence[str]) -> None:
    """Have the iterator load these files of its folder, as file_names gives them, in this order."""
    iterator.filenames = list(names)
    iterator._filepaths = [os.path.join(iterator.directory, name) for name in names]
    classes = [iterator.class_indices[name.split("/")[0]] for name in names]
    iterator.classes = np.array(classes, np.int32)
    iterator.n = iterator.samples = len(names)


def is_visible(name: str) -> bool:
    """Whether neither the file "<class>/<file>" nor a folder that it is in is hidden.

    Keras takes hidden ones for pictures: Jupyter keeps copies in .ipynb_checkpoints/, and macOS
    writes ._1.png beside 1.png.
    """
    return "/." not in name


def drop_hidden(iterator: "DirectoryIterator") -> None:
    """Have the iterator load no hidden files."""
    select_files(iterator, list(filter(is_visible, file_names(iterator))))


def split_visible(training: "DirectoryIterator", validation: "DirectoryIterator") -> None:
    """Drop hidden files, and split the others anew: Keras has split each class with them in it."""
    by_class = {name: [] for name in training.class_indices}
    for name in filter(is_visible, [*file_names(validation), *file_names(training)]):
        by_class[name.split("/")[0]].append(name)
    parts = [], []
    for names in by_class.values():
        held_out = int(VALIDATION_SPLIT * len(names))
        parts[0].extend(names[held_out:])
        parts[1].extend(names[:held_out])
    select_files(training, parts[0])
    select_files(validation, parts[1])


def check_balance(training: "DirectoryIterator", validation: "DirectoryIterator") -> None:
    """Warn if some classes have far fewer pictures than others.

    Raises:
        InputError: there are too few for any to be held out for validation.
    """
    folder = training.directory
    if not validation.samples:
        raise InputError(
            f"{folder}: too few pictures; a fifth of each class is held out for validation, so at "
            "least one class must have five"
        )
    names = list(training.class_indices)
    counts = np.bincount([*training.classes, *validation.classes], minlength=len(names))
    few, many = counts.argmin(), counts.argmax()
    if counts[many] >= IMBALANCE_RATIO * counts[few]:
        warn(
            f"{folder}: very uneven, pictures: {counts[few]} of {names[few]}, {counts[many]} of "
            f"{names[many]}; expect the small classes to be read badly"
        )
