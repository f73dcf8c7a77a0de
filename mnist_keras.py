"""Teach a convolutional network to recognise pictures: MNIST's digits, or your own folders.

After the article "keras 入门：卷积神经网络实现 MNIST 手写数字识别".

  --mode train      learn from DATA_DIR/train/<class>/ (MNIST is fetched if it isn't there)
  --mode evaluate   loss and accuracy on all pictures in DATA_DIR/test/<class>/
  --mode predict    say what the pictures in DATA_DIR/tmp show
"""

import csv
import datetime
import hashlib
import io
import json
import math
import os
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from setting import (
    InputError,
    Setting,
    command_line,
    one_line_errors,
    printable,
    quiet_stderr,
    warn,
)

if __name__ == "__main__":
    # Before the seconds that the imports below take: help and mistakes are answered at once.
    MODE, SETTING = command_line(__doc__)

import filelock
import h5py
import numpy as np
import psutil
from PIL import Image, UnidentifiedImageError

import drawn_digits
import handwriting
import mnist_parser
import report
from mnist_parser import whole_file

with quiet_stderr(unless="TF_CPP_MIN_LOG_LEVEL"):
    import keras
    import tensorflow as tf
from keras import layers
from tensorflow.keras.preprocessing.image import DirectoryIterator, ImageDataGenerator

import faster

# Three 3×3 convolutions and two poolings leave nothing of a smaller picture.
LEAST_SIZE = 18
# The third convolution's output for 64×64 pictures. Beyond it the first dense layer would outgrow
# the rest of the network a hundredfold (177 million weights at 224×224), so it is pooled to this.
MOST_SIDE_FLATTENED = 12
# Validation and prediction need no gradients; larger batches than this many pixels are no faster.
INFERENCE_PIXELS = 512 * 28 * 28


def build_model(setting: Setting) -> keras.Sequential:
    """The article's network: pictures of setting.input_shape, float 0..1, to label_nums chances.

    Raises:
        InputError: the pictures are too small for it.
    """
    height, width = setting.img_height, setting.img_width
    if min(height, width) < LEAST_SIZE:
        raise InputError(
            f"img_width {width}, img_height {height}: the network needs {LEAST_SIZE} or more"
        )
    return keras.Sequential(
        [
            keras.Input(setting.input_shape),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(128, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(256, 3, activation="relu"),
            *pooled_above_64(height, width),
            layers.Flatten(),
            layers.Dropout(0.5, seed=setting.seed),
            layers.Dense(256, activation="relu"),
            layers.Dropout(0.5, seed=setting.seed + 1),
            layers.Dense(setting.label_nums, activation="softmax", dtype="float32"),
        ]
    )


def sizes_inside(size: int) -> tuple[int, int]:
    """What the network makes of a side of that many pixels: after the second and third convolution.

    The second is given without the row that the pooling behind it drops if the number is odd.
    """
    second = ((size - 2) // 2 - 2) // 2 * 2
    return second, second // 2 - 2


def pooled_above_64(height: int, width: int) -> list[layers.Layer]:
    side = max(sizes_inside(height)[1], sizes_inside(width)[1])
    pool = -(-side // MOST_SIDE_FLATTENED)
    pools = [min(pool, sizes_inside(size)[1]) for size in (height, width)]
    return [layers.MaxPooling2D(pools)] if pool > 1 else []


def data_generator(setting: Setting) -> tuple[DirectoryIterator, DirectoryIterator]:
    """The training pictures and the 20% held out for validation, as the article loads them.

    Batches are (float32 [n, height, width, 3] in 0..1, float32 one-hot [n, classes]). Classes
    without pictures are left out.

    Raises:
        InputError: there are no pictures to train on.
    """
    classes = class_folders(setting.train_dir)
    generator = ImageDataGenerator(rescale=1 / 255, validation_split=0.2)

    def flow(subset: str) -> DirectoryIterator:
        return generator.flow_from_directory(
            setting.train_dir,
            target_size=(setting.img_height, setting.img_width),
            batch_size=setting.batch_size,
            classes=classes,
            seed=setting.seed,
            subset=subset,
        )

    return flow("training"), flow("validation")


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


def visible(setting: Setting) -> Setting:
    """The setting of a network whose input lacks the rows and columns that the poolings drop.

    Of 28×28 pixels the article's network looks at the upper left 26×26: the second pooling drops
    the last row and column of 11×11. A network for 26×26 has the same weights and gives the same
    output, with a sixth of the arithmetic saved.
    """
    height, width = (
        2 * (sizes_inside(size)[0] + 2) + 2 for size in (setting.img_height, setting.img_width)
    )
    return setting.replace(img_height=height, img_width=width)


def known_grey(pictures: Pictures) -> bool:
    """Whether the pictures are in memory, and there in one channel."""
    return pictures.pixels is not None and pictures.pixels.shape[-1] == 1


# Drawn digits among the training pictures, one to 32 of them: they have what MNIST's writers
# hardly ever wrote but others do, flagged and footed 1s, crossed 7s, angular 6s and 9s.
DRAWN_SHARE = 1 / 32


def drawable(pictures: Pictures) -> bool:
    """Whether drawn digits can be put among the pictures: grey, in memory, and of their size."""
    return known_grey(pictures) and pictures.pixels.shape[1:3] == (28, 28)


def with_drawn_digits(pictures: Pictures, setting: Setting) -> Pictures:
    """The pictures, which are of MNIST's kind, and DRAWN_SHARE as many drawn by the program."""
    count = int(DRAWN_SHARE * len(pictures.labels))
    images, labels = drawn_digits.draw(count, setting.seed)
    return Pictures(
        np.append(pictures.paths, [""] * count),
        np.append(pictures.labels, labels.astype(np.int32)),
        np.append(pictures.pixels, images[..., None], axis=0),
    )


# Recipe "tuned". On MNIST a peak of 1e-3 was no better over ten epochs, 3e-3 worse after five.
PEAK_LEARNING_RATE = 2e-3
# So few epochs are better spent on larger steps, and on strokes as they are.
SHORT_RUN, SHORT_RUN_PEAK = 4, 3e-3
WARM_UP = 0.15  # of all steps
WEIGHT_DECAY = 0.05
# As far as handwriting varies: more, and a 6 may pass for a 0, a 1 for a 7.
TURN = np.radians(12)  # most rotation either way
SHEAR = 0.15
STRETCH = 0.1  # width and height, independently
SHIFT = 0.07  # of the width and height: 2 of 28 pixels
STROKE = 0.5  # of the way to strokes a pixel wider, or narrower, on every side
# The share of certainty given to all classes alike, in training only (Szegedy et al. 2016).
LABEL_SMOOTHING = 0.1
# Between two calls of TensorFlow Keras's loop takes up to a tenth of the time of a step.
STEPS_A_CALL = 8
# Fewer steps than these an epoch are too few to learn from: small sets get smaller batches.
LEAST_STEPS, LEAST_BATCH = 64, 16


def vary_stroke(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Thicken or thin each picture's strokes at random, as pens differ.

    Args:
        images: float32 [n, height, width, 1], bright ink on a dark ground.
        seed: int [2]; the same seed gives the same pictures.
    """
    change = tf.random.stateless_uniform([tf.shape(images)[0], 1, 1, 1], seed, -STROKE, STROKE)
    images *= tf.sign(change)  # what thickens the ground thins the ink
    wider = tf.nn.max_pool2d(images, 3, 1, "SAME")
    return tf.sign(change) * (images + tf.abs(change) * (wider - images))


def augment(images: tf.Tensor, seed: tf.Tensor, size: tuple[int, int], flip: bool) -> tf.Tensor:
    """Shift, turn, stretch and shear each picture at random; what comes in at the edge repeats it.

    Args:
        images: float32 [n, height, width, channels].
        seed: int [2]; the same seed gives the same pictures.
        size: rows and columns of the result: the upper left part of the picture.
        flip: mirror every other picture.
    """
    count, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    spread = [TURN, SHEAR, STRETCH, STRETCH, SHIFT * height, SHIFT * width]
    draws = tf.random.stateless_uniform([count, 6], seed, -1.0, 1.0) * spread
    turn, shear, stretch_y, stretch_x, shift_y, shift_x = tf.unstack(draws, axis=1)
    if flip:
        stretch_x = tf.where(tf.range(count) % 2 == 0, stretch_x, -2 - stretch_x)
    # Where in the given picture each pixel (x, y) of the new one comes from, about the middle.
    xx, xy = tf.cos(turn) * (1 + stretch_x), (shear - tf.sin(turn)) * (1 + stretch_y)
    yx, yy = tf.sin(turn) * (1 + stretch_x), tf.cos(turn) * (1 + stretch_y)
    x, y = (width - 1) / 2, (height - 1) / 2
    zero = tf.zeros_like(turn)
    transforms = tf.stack(
        [xx, xy, x + shift_x - xx * x - xy * y, yx, yy, y + shift_y - yx * x - yy * y, zero, zero],
        axis=1,
    )
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=size,
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )


def pixel_reader(pictures: Pictures, setting: Setting):
    """A function from indices, int64 [n], to those pictures, float32 [n, height, width, c] 0..1."""
    if pictures.pixels is not None:
        pixels = tf.constant(pictures.pixels)
        return lambda indices: tf.cast(tf.gather(pixels, indices), tf.float32) / 255

    pool = ThreadPoolExecutor(os.cpu_count())

    def read_one(index: int) -> np.ndarray:
        path = pictures.paths[index]
        try:
            return decode(path, setting)
        except DECODE_ERRORS as error:  # it could be read when training began
            raise InputError(f"{path}: gone or changed, {reason(error)}") from None

    def read(indices: np.ndarray) -> np.ndarray:
        return np.stack(list(pool.map(read_one, indices)))

    def read_pixels(indices: tf.Tensor) -> tf.Tensor:
        pixels = tf.ensure_shape(
            tf.numpy_function(read, [indices], tf.uint8),
            [None, setting.img_height, setting.img_width, 3],
        )
        return tf.cast(pixels, tf.float32) / 255

    return read_pixels


def as_input(images: tf.Tensor) -> tf.Tensor:
    """Pictures of 1 or 3 channels, channels last, in the three that the network takes."""
    images = tf.repeat(images, 3 // images.shape[-1], axis=-1)
    if keras.backend.image_data_format() == "channels_first":
        return tf.transpose(images, [0, 3, 1, 2])
    return images


def training_batches(
    pictures: Pictures,
    setting: Setting,
    batch: int,
    steps: int,
    size: tuple[int, int],
    first_epoch: int = 0,
    digits: bool = False,
) -> tf.data.Dataset:
    """Shuffled, augmented batches for all epochs from the first; of digits, other strokes too.

    What is in a batch depends on the seed, the epoch and the step alone, so that a run that was
    interrupted goes on with the batches that it would have had.
    """
    count = len(pictures.labels)
    pixels = pixel_reader(pictures, setting)
    labels = tf.one_hot(pictures.labels, setting.label_nums)
    labels = labels * (1 - LABEL_SMOOTHING) + LABEL_SMOOTHING / setting.label_nums

    def shuffled(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(
            tf.range(count, dtype=tf.int64), seed=tf.stack([setting.seed, epoch])
        )
        indices = tf.reshape(order[: steps * batch], [steps, batch])
        return tf.data.Dataset.from_tensor_slices(
            (epoch * steps + tf.range(steps, dtype=tf.int64), indices)
        )

    def make_batch(step: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, seed = pixels(indices), tf.stack([setting.seed, step])
        if digits and images.shape[-1] == 1 and setting.epochs > SHORT_RUN:
            images = vary_stroke(images, seed)
        images = augment(images, seed, size, setting.horizontal_flip)
        return as_input(images), tf.gather(labels, indices)

    dataset = tf.data.Dataset.range(first_epoch, setting.epochs).flat_map(shuffled)
    return prepared(dataset, make_batch)


def prepared(dataset: tf.data.Dataset, make_batch) -> tf.data.Dataset:
    """The dataset's batches, made in parallel and ahead of time."""
    options = tf.data.Options()
    # TensorFlow 2.21 waits for its tuner when a dataset ends: 1.2, 2.5, 5.1, at last 60 seconds.
    options.autotune.enabled = False
    dataset = dataset.map(make_batch, os.cpu_count()).prefetch(os.cpu_count())
    return dataset.with_options(options)


def inference_batch(setting: Setting) -> int:
    """How many pictures to put through the network at once when nothing is learned."""
    return max(1, INFERENCE_PIXELS // (setting.img_height * setting.img_width))


def plain_batches(pictures: Pictures, setting: Setting, size: tuple[int, int]) -> tf.data.Dataset:
    """The pictures in order, unchanged, with their labels: for validation and evaluation."""
    pixels = pixel_reader(pictures, setting)
    labels = tf.one_hot(pictures.labels, setting.label_nums)

    def make_batch(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = pixels(indices)[:, : size[0], : size[1]]
        return as_input(images), tf.gather(labels, indices)

    dataset = tf.data.Dataset.range(len(pictures.labels)).batch(inference_batch(setting))
    return prepared(dataset, make_batch)


def compile_model(model: keras.Sequential, setting: Setting, steps: int) -> None:
    """Give the model the recipe's optimizer; the learning rate's curve spans all epochs."""
    steps_a_call = 1
    if setting.recipe == "article":
        optimizer = "rmsprop"
    else:
        if steps % STEPS_A_CALL == 0:
            steps_a_call = STEPS_A_CALL
        total = setting.epochs * steps
        peak = SHORT_RUN_PEAK if setting.epochs <= SHORT_RUN else PEAK_LEARNING_RATE
        curve = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=peak / 25,
            warmup_target=peak,
            warmup_steps=max(1, int(WARM_UP * total)),
            decay_steps=max(1, int((1 - WARM_UP) * total)),
        )
        optimizer = keras.optimizers.AdamW(curve, weight_decay=WEIGHT_DECAY)
    model.compile(
        optimizer,
        loss="categorical_crossentropy",
        metrics=["acc"],
        steps_per_execution=steps_a_call,
    )


def use_precision(setting: Setting) -> None:
    """Set Keras's arithmetic: mixed_bfloat16 where the hardware multiplies it, else float32."""
    precision = setting.precision
    if precision == "auto":
        fast = setting.recipe != "article" and has_bfloat16()
        precision = "mixed_bfloat16" if fast else "float32"
    keras.mixed_precision.set_global_policy(precision)


def has_bfloat16() -> bool:
    """Whether every GPU, or else the processor, has bfloat16 in hardware; elsewhere it is slow."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        return all(detail.get("compute_capability", (0, 0)) >= (8, 0) for detail in details)
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and re.search("avx512_bf16|amx_bf16", cpuinfo.read_text()) is not None


def on_processor() -> bool:
    """Whether the network runs on the processor; there TensorFlow wants the channels last."""
    channels_last = keras.backend.image_data_format() == "channels_last"
    return channels_last and not tf.config.list_physical_devices("GPU")


def use_devices() -> tf.distribute.Strategy:
    """Say what the network runs on, and have it use all of it."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if gpus:
        names = [tf.config.experimental.get_device_details(gpu)["device_name"] for gpu in gpus]
        print(f"running on {len(gpus)} GPU: {', '.join(names)}")
    else:
        print(f"running on the CPU, {os.cpu_count()} cores")
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) > 1:
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


CHECKPOINT = "weights-improvement-{epoch:02d}-{val_acc:.5f}.weights.h5"
CHECKPOINT_NAME = re.compile(r"weights-improvement-(\d+)-(\d+\.\d+)\.weights\.h5")
# The state after the last finished epoch, optimizer included, from which --is_restore goes on.
LAST_EPOCH = "last-epoch.weights.h5"


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
    mnist_parser.save(path, memory.getbuffer())


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


def checkpoints(folder: str | os.PathLike) -> list[Path]:
    """The checkpoints in the folder, best val_acc first; of equals, the later epoch."""
    found = []
    for path in Path(folder).glob("*.weights.h5"):
        if match := CHECKPOINT_NAME.fullmatch(path.name):
            found.append((float(match[2]), int(match[1]), path))
    return [path for _, _, path in sorted(found, reverse=True)]


# The columns of history.csv between the epoch and its seconds.
CURVES = ("loss", "acc", "val_loss", "val_acc")


class Checkpoint(keras.callbacks.Callback):
    """After each epoch, keeps the weights if val_acc is the best yet, and the state to go on from.

    `rows` is the history of the run: a dict an epoch, as in history.csv.
    """

    def __init__(self, setting: Setting, rows: list[dict[str, float]]):
        super().__init__()
        self.setting, self.rows = setting, rows
        self.best = max((row["val_acc"] for row in rows), default=-1.0)

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.monotonic() - self.start
        epoch += 1  # Keras counts from 0, file names and people from 1
        folder, last = Path(self.setting.checkpoint_path), epoch == self.setting.epochs
        if logs["val_acc"] > self.best and (epoch % self.setting.save_epochs == 0 or last):
            self.best = logs["val_acc"]
            path = folder / CHECKPOINT.format(epoch=epoch, val_acc=self.best)
            save_weights(without_optimizer(self.model), path, epoch)
            print(f"\nbest val_acc yet: {printable(str(path))}")
        row = {"epoch": epoch} | {name: float(logs[name]) for name in CURVES} | {"seconds": seconds}
        self.rows.append(row)
        write_csv(Path(self.setting.data_dir, "report", "history.csv"), self.rows)
        save_weights(self.model, folder / LAST_EPOCH, epoch)


# The n-th weights count in the average as n to this power. Of 22,000 pictures of MNIST, held out
# and test, it gets a tenth fewer wrong in epochs 16 to 20 (2 seeds); with 6 or 12, 7% fewer. After
# one epoch, in which the weights change much, 3 gets 5% more wrong, 12 1% more (4 seeds).
AVERAGE_POWER, SHORT_RUN_POWER = 3, 12


class Average(keras.callbacks.Callback):
    """Has an average of the weights validated and saved, in which later ones count more.

    It wanders less from epoch to epoch than the weights themselves, so that the best val_acc says
    more (polynomial-decay averaging: Shamir and Zhang 2013). Its variables are the optimizer's, and
    are saved with them; from validation to the end of an epoch they change places with the weights.
    """

    def __init__(self, model: keras.Sequential, power: int):
        super().__init__()
        self.power = power
        add = model.optimizer.add_variable_from_reference
        self.pairs = [(weights, add(weights, "average")) for weights in model.trainable_variables]
        self.count = model.optimizer.add_variable((), name="averaged")

    @tf.function
    def add_weights(self) -> None:
        self.count.assign_add(1)
        share = (self.power + 1) / (self.count + self.power)
        for weights, average in self.pairs:
            average.assign_add(share * (weights - average))

    def swap(self) -> None:
        for weights, average in self.pairs:
            values = weights.numpy()
            weights.assign(average)
            average.assign(values)

    def on_train_begin(self, logs=None):
        if self.count.numpy():  # the state was saved when they had changed places
            self.swap()

    def on_train_batch_end(self, batch, logs=None):
        self.add_weights()

    def on_test_begin(self, logs=None):
        self.swap()

    def on_epoch_end(self, epoch, logs=None):
        self.swap()


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows, the keys of the first as the header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        whole_file(path) as partial,
        # A file's name may be bytes that are no text.
        open(partial, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def move_earlier_run(setting: Setting) -> None:
    """Move what the last run left to model_weight/previous/<date-time>/: nothing is lost."""
    folder, reports = Path(setting.checkpoint_path), Path(setting.data_dir, "report")
    # model.json last: whatever checkpoints remain if this is interrupted can still be used.
    left = [*checkpoints(folder), *reports.glob("[!.]*")]
    left += [path for path in (folder / LAST_EPOCH, folder / "model.json") if path.exists()]
    if left:
        now = datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S-%f")
        previous = folder / "previous" / now
        previous.mkdir(parents=True)
        for path in left:
            shutil.move(path, previous / path.name)  # checkpoint_path may be on another disk
        print(f"the last run's files are now in {previous}")


def set_steps(model: keras.Sequential, steps: int, parts: int) -> None:
    """Have the model go on as after so many training steps, each computed in so many parts."""
    model.optimizer.iterations.assign(steps)
    for layer in model.layers:
        if isinstance(layer, layers.Dropout):
            # How often it has drawn, once a part, is not in the weights files that Keras writes.
            state = layer.seed_generator.state
            state.assign([int(state[0]), steps * parts])


def start_from(model: keras.Sequential, setting: Setting) -> int:
    """Load the weights, and after an interruption the optimizer's state, that training starts from.

    Returns:
        The number of epochs already done.
    """
    if setting.restore_model:
        load_weights(without_optimizer(model), setting.restore_model)
        return setting.initial_epoch
    if not setting.is_restore:
        return 0
    folder = Path(setting.checkpoint_path)
    if (folder / LAST_EPOCH).exists():
        try:
            return load_weights(model, folder / LAST_EPOCH)
        except InputError as error:
            warn(f"{error}; going on from the best checkpoint instead")
    for path in checkpoints(folder):
        try:
            return load_weights(without_optimizer(model), path)
        except InputError as error:
            warn(f"{error}; passed over")
    print(f"no finished epoch in {folder}: starting with the first")
    return 0


def describe(setting: Setting, classes: list[str], handwriting: bool, images: int) -> None:
    """Write model.json: what evaluate and predict would otherwise have to guess."""
    description = {
        "classes": classes,
        "img_width": setting.img_width,
        "img_height": setting.img_height,
        "handwriting": handwriting,
        "recipe": setting.recipe,
        "epochs": setting.epochs,
        "seed": setting.seed,
        "trained_on": data_source(setting),
        "images": images,
        "keras": keras.__version__,
    }
    with whole_file(Path(setting.checkpoint_path, "model.json")) as partial:
        # A folder's name may be bytes that are no text: they are escaped, which JSON can undo.
        content = json.dumps(description, indent=2, ensure_ascii=False)
        partial.write_text(content, encoding="utf-8", errors="backslashreplace")


def read_history(setting: Setting, done: int) -> list[dict[str, float]]:
    """The rows of history.csv up to the epoch that is done."""
    path = Path(setting.data_dir, "report", "history.csv")
    if not done or not path.exists():
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
        for row in rows:
            if row.keys() != {"epoch", *CURVES, "seconds"} or not 0 <= row["val_acc"] <= 1:
                raise ValueError("a column is missing, or a val_acc is none")
        return [row | {"epoch": int(row["epoch"])} for row in rows if row["epoch"] <= done]
    except (ValueError, TypeError, OverflowError, csv.Error) as error:
        warn(f"{path}: damaged ({error}); the history starts anew")
        return []


def ensure_data(setting: Setting) -> None:
    """Have MNIST parsed if the training folder is missing.

    Raises:
        InputError: the missing folder is not MNIST's but the user's.
    """
    data_dir = Path(setting.data_dir)
    if (data_dir / mnist_parser.READY).exists():  # a parser was killed at its last step
        mnist_parser.parse(data_dir)
    if not Path(setting.train_dir).exists():
        own = Path(setting.train_dir) != data_dir / "train"
        if own or not (data_dir.resolve().name == "mnist_data" or (data_dir / "raw").is_dir()):
            raise InputError(
                f"{setting.train_dir}: no such folder; what is expected is one folder a class, as "
                f"in {setting.train_dir}/cat/1.png and {setting.train_dir}/dog/2.png (for MNIST: "
                f"python mnist_parser.py --data_dir {setting.data_dir})"
            )
        mnist_parser.parse(data_dir)


def data_source(setting: Setting) -> str:
    """What the pictures are: the name that mnist_parser gave them, or the folder of the user's."""
    if Path(setting.train_dir) == Path(setting.data_dir, "train"):
        source = mnist_parser.read_source(setting.data_dir)
        if source:
            return source["name"]
    return setting.train_dir


def remind_of_stand_in(source: str) -> None:
    if source == mnist_parser.DRAWN:
        warn(f"NOTE: the network knows {source}; python mnist_parser.py fetches the real ones")


def looks_like_mnist(paths: list[str], setting: Setting) -> bool:
    """Whether the pictures are what handwriting.to_mnist makes: MNIST's digits, not photographs.

    A hundred of them, evenly spread, are put through it; MNIST's come back as they were.
    """
    alike = 0
    for index in np.linspace(0, len(paths) - 1, 100).astype(int):
        try:
            picture = decode(paths[index], setting)
            clean = handwriting.to_mnist(Image.fromarray(picture), *picture.shape[:2])
        except (handwriting.NoInkError, *DECODE_ERRORS):
            continue
        # MNIST's differ by less than one grey level of 255 on average; clothes and cats by dozens.
        alike += np.abs(picture - clean[..., None].astype(float)).mean() < 4
    return bool(alike >= 90)


# Who always answers the larger of two such classes is right ten times in eleven.
UNEVEN = 10


def train(setting: Setting) -> keras.callbacks.History:
    """Train the network on setting.train_dir; the best checkpoint is left in checkpoint_path.

    Returns:
        Keras's history of the epochs that were run.

    Raises:
        InputError: there is nothing to train on, or another run is at work in checkpoint_path.
    """
    start = time.monotonic()
    ensure_data(setting)
    remind_of_stand_in(data_source(setting))
    use_precision(setting)
    keras.utils.set_random_seed(setting.seed)
    training, validation = data_generator(setting)
    check_balance(setting, training, validation)
    classes = list(training.class_indices)
    if len(classes) != setting.label_nums:
        print(f"label_nums is {len(classes)}: as many classes as there are in {setting.train_dir}")
        setting = setting.replace(label_nums=len(classes))
    folder, reports = Path(setting.checkpoint_path), Path(setting.data_dir, "report")
    folder.mkdir(parents=True, exist_ok=True)
    reports.mkdir(parents=True, exist_ok=True)
    try:
        with (
            filelock.FileLock(folder / ".train.lock", timeout=0),
            filelock.FileLock(reports / ".train.lock", timeout=0),
        ):
            for path in folder.glob(".partial-*"):  # a training that was killed left them
                path.unlink()
            history = fit(setting, training, validation)
    except filelock.Timeout as error:
        place = Path(error.lock_file).parent
        raise InputError(f"{place}: another training is at work here") from None
    except OSError as error:
        raise InputError(
            f"{error.filename or folder}: {error.strerror or error}; {what_is_saved(folder)}"
        ) from None
    except (KeyboardInterrupt, SystemExit):
        warn(f"interrupted; {what_is_saved(folder)}")
        raise
    rows = read_history(setting, setting.epochs)
    if rows:  # all epochs may have been done before, and their history be damaged
        with whole_file(Path(setting.data_dir, "report", "training_curves.png")) as partial:
            report.training_curves(rows, partial)
    if not checkpoints(folder):
        raise InputError(f"{folder}: all epochs are done, but their checkpoints are gone")
    best = checkpoints(folder)[0]
    epoch, val_acc = CHECKPOINT_NAME.fullmatch(best.name).groups()
    print(
        f"best epoch {epoch}, val_acc {val_acc}: {printable(str(best))}\n"
        f"trained in {time.monotonic() - start:.0f} s; what it is worth on the test pictures:\n"
        f"  python mnist_keras.py --mode evaluate{same_folder(setting)}"
    )
    return history


def what_is_saved(folder: Path) -> str:
    if (folder / LAST_EPOCH).exists() or checkpoints(folder):
        return f"finished epochs are saved in {folder}, --is_restore goes on from there"
    return "no epoch was finished"


def check_balance(
    setting: Setting, training: DirectoryIterator, validation: DirectoryIterator
) -> None:
    """Say so if some classes have far fewer pictures than others.

    Raises:
        InputError: there are too few for any to be held out for validation.
    """
    if not validation.samples:
        raise InputError(
            f"{setting.train_dir}: too few pictures; a fifth of each class is held out for "
            "validation, so at least one class must have five"
        )
    names = list(training.class_indices)
    counts = np.bincount([*training.classes, *validation.classes], minlength=len(names))
    few, many = counts.argmin(), counts.argmax()
    if counts[many] >= UNEVEN * counts[few]:
        warn(
            f"{setting.train_dir}: very uneven, {counts[few]} pictures of {names[few]}, "
            f"{counts[many]} of {names[many]}; expect the small classes to be read badly"
        )


def same_folder(setting: Setting) -> str:
    """The flag with which the next command finds this run."""
    different = setting.data_dir != Setting.data_dir
    return f" --data_dir {printable(setting.data_dir)}" if different else ""


def fit(
    setting: Setting, training: DirectoryIterator, validation: DirectoryIterator
) -> keras.callbacks.History:
    """Build the network, start it from where the setting says, and run the epochs."""
    strategy = use_devices()
    tuned = setting.recipe == "tuned"
    classes = list(training.class_indices)
    digits = looks_like_mnist(training.filepaths, setting)
    if tuned:
        pictures, held_out = load_pictures(training, setting), load_pictures(validation, setting)
        images = len(pictures.labels)
        if digits and classes == list("0123456789") and drawable(pictures):
            pictures = with_drawn_digits(pictures, setting)
        batch_size = min(setting.batch_size, len(pictures.labels))
        if not setting.is_given("batch_size"):
            batch_size = min(batch_size, max(LEAST_BATCH, len(pictures.labels) // LEAST_STEPS))
        steps = len(pictures.labels) // batch_size  # those left over are others in every epoch
        if steps >= LEAST_STEPS:
            steps -= steps % STEPS_A_CALL
    else:
        if data_source(setting) == setting.train_dir:  # the parser's own pictures are whole
            leave_out_broken(training, setting)
            leave_out_broken(validation, setting)
        images, steps = training.samples, len(training)
    with strategy.scope():
        model = build_model(visible(setting) if tuned else setting)
        compile_model(model, setting, steps)
        parts = 1
        if tuned and on_processor():
            parts = faster.speed_up(model, grey=known_grey(pictures) and known_grey(held_out))
        model.optimizer.build(model.trainable_variables)
        power = SHORT_RUN_POWER if setting.epochs <= SHORT_RUN else AVERAGE_POWER
        average = [Average(model, power)] if tuned else []
        done = start_from(model, setting)
        set_steps(model, done * steps, parts)
    if not setting.is_restore or setting.restore_model:
        move_earlier_run(setting)
    describe(setting, classes, digits, images)
    if tuned:
        size = model.input_shape[1:3]
        training = training_batches(pictures, setting, batch_size, steps, size, done, digits)
        validation = plain_batches(held_out, setting, size)
    return model.fit(
        training,
        validation_data=validation,
        steps_per_epoch=steps,
        initial_epoch=done,
        epochs=setting.epochs,
        callbacks=[Checkpoint(setting, read_history(setting, done)), *average],
        shuffle=not tuned,
        verbose=1 if sys.stdout.isatty() else 2,
    )


def evaluate(setting: Setting) -> tuple[float, float]:
    """Loss and accuracy on every picture in test_dir, printed and returned; pictures in report/.

    Without any weights a network is trained first.

    Raises:
        InputError: no picture to measure on, or weights that can't be used.
    """
    if not weights_folder(setting):
        print(f"no weights in {setting.checkpoint_path}: training first")
        train(setting)
    model, setting, description, weights = trained_network(setting)
    if not Path(setting.test_dir).is_dir():
        ensure_data(setting)
    remind_of_stand_in(data_source(setting))
    pictures = load_pictures(test_iterator(setting, description["classes"]), setting)
    chances = model.predict(
        plain_batches(pictures, setting, (setting.img_height, setting.img_width)), verbose=0
    )
    right = chances[np.arange(len(chances)), pictures.labels]
    loss = float(-np.log(np.maximum(right, 1e-7)).mean())  # Keras's own bound on the logarithm
    acc = float((chances.argmax(axis=1) == pictures.labels).mean())
    print(f"weights: {printable(str(weights))}")
    print(f"test_loss:{loss:.5f}, test_acc:{acc:.5f} ({len(chances)} images)")
    write_report(setting, description["classes"], pictures, chances)
    return loss, acc


def test_iterator(setting: Setting, classes: list[str]) -> DirectoryIterator:
    """The test pictures of these classes; without a test folder, those held out for validation."""
    if not Path(setting.test_dir).is_dir():
        print(f"{setting.test_dir}: no such folder; measuring on the pictures held out in training")
        return data_generator(setting)[1]
    here = set(class_folders(setting.test_dir))
    for what, names in (("not taught", here - set(classes)), ("not here", set(classes) - here)):
        if names:
            warn(f"{setting.test_dir}: classes that are {what}: {', '.join(sorted(names))}")
    return ImageDataGenerator().flow_from_directory(
        setting.test_dir,
        target_size=(setting.img_height, setting.img_width),
        classes=classes,
        shuffle=False,
    )


def weights_folder(setting: Setting) -> Path | None:
    """Where the weights are: the run's own, else those that ship with the program."""
    if setting.restore_model:
        return Path(setting.restore_model).parent
    for folder in (Path(setting.checkpoint_path), Path(setting.data_dir, "shipped")):
        if checkpoints(folder):
            return folder
    return None


def trained_network(setting: Setting) -> tuple[keras.Sequential, Setting, dict[str, Any], Path]:
    """The network that model.json describes, with restore_model's or the best checkpoint's weights.

    Returns:
        The network; the setting with its image size and number of classes; what model.json says;
        the weights file.

    Raises:
        InputError: there are none, none can be used, or the setting contradicts model.json.
    """
    folder = weights_folder(setting)
    if folder is None:
        raise InputError(f"{setting.checkpoint_path}: no weights here; --mode train makes them")
    description = read_description(folder / "model.json")
    trained = {name: description[name] for name in ("img_width", "img_height")}
    trained["label_nums"] = len(description["classes"])
    for name, value in trained.items():
        if setting.is_given(name) and getattr(setting, name) != value:
            raise InputError(
                f"--{name} {getattr(setting, name)}, but the network in {folder} has {value}"
            )
    setting = setting.replace(**trained)
    use_precision(setting)
    model = build_model(setting)
    paths = [Path(setting.restore_model)] if setting.restore_model else checkpoints(folder)
    for path in paths:
        try:
            load_weights(model, path)
            return model, setting, description, path
        except InputError as error:
            warn(f"{error}; passed over")
    raise InputError(f"{folder}: none of the weights here can be used; --mode train makes new ones")


def read_description(path: Path) -> dict[str, Any]:
    """What describe wrote, checked. Raises InputError if it is missing or damaged."""
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        classes = description["classes"]
        sizes = (description["img_width"], description["img_height"])
        if not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
            raise ValueError("its classes are not a list of names")
        if not all(type(size) is int and 0 < size < 10_000 for size in sizes):
            raise ValueError("its image size is not a number of pixels")
        if any(name in (".", "..") or Path(name).name != name for name in classes):
            raise ValueError("a class is not the name of a folder")  # evaluate would read elsewhere
        if type(description["handwriting"]) is not bool or len(classes) < 2:
            raise ValueError("it does not describe a network")
        if type(description["trained_on"]) is not str:
            raise ValueError("it does not say what the network was trained on")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: missing or damaged ({error}); --mode train makes it") from None
    return description


class Prediction(NamedTuple):
    """What the network says of a picture."""

    file: str
    label: str
    confidence: float


THUMBNAIL = 84  # pixels, as many as a cell of report's sheets has for it
# With few classes evaluate also prints the table; more lines than a screen has are no help.
MOST_CLASSES_PRINTED = 20
# Of MNIST's test images 83 are answered with less certainty; 20 of these answers are wrong.
UNSURE = 0.6


def predict(setting: Setting) -> list[Prediction]:
    """Say what each picture in imp_dir shows; report/ gets a table and sheets of the answers.

    Pictures that can't be read are named on stderr and are not in the list that is returned.

    Raises:
        InputError: there is no picture, or no network.
    """
    files = list_pictures(setting.imp_dir)
    model, setting, description, _ = trained_network(setting)
    remind_of_stand_in(description["trained_on"])
    rows, drawn = [], []
    batch = inference_batch(setting)
    for start in range(0, len(files), batch):
        answered = predict_batch(model, files[start : start + batch], setting, description)
        rows += answered
        # The sheets show the least sure; the pictures of others need not stay in memory.
        drawn = sorted(drawn + answered, key=lambda row: row["confidence"])
        for row in drawn[report.MOST_DRAWN :]:
            row["given"] = row["seen"] = None
        del drawn[report.MOST_DRAWN :]
    for row in rows:
        print(f"{printable(row['file'])}\n预测结果为：{printable(row['label'])}")
        if row["confidence"] < UNSURE:
            warn(
                f"{row['file']}: unsure, {row['label']} ({row['confidence']:.0%}) or "
                f"{row['second_guess']} ({row['second_confidence']:.0%})"
            )
    if rows:
        write_predictions(setting, rows)
    return [Prediction(row["file"], row["label"], row["confidence"]) for row in rows]


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


def see(file: str, setting: Setting, clean: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """The picture, small, and as the network sees it, cleaned up if it is to be.

    Both uint8 [height, width, 3]. None, and a line on stderr, if it can't be read.
    """
    try:
        if not clean:
            picture = load_picture(file)
            return small(picture), resized(picture, setting)
        picture = handwriting.open_picture(file)
        digit = handwriting.to_mnist(picture, setting.img_height, setting.img_width)
        return small(picture), np.repeat(digit[..., None], 3, axis=-1)
    except DECODE_ERRORS as error:
        warn(f"{file}: not predicted, {reason(error)}")
        return None


def predict_batch(
    model: keras.Sequential, files: list[str], setting: Setting, description: dict[str, Any]
) -> list[dict[str, Any]]:
    """A row for each picture that can be read: what predictions.csv says, "given" and "seen"."""
    clean = description["handwriting"] if setting.handwriting is None else setting.handwriting
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pictures = list(pool.map(lambda file: see(file, setting, clean), files))
    read = [(file, *both) for file, both in zip(files, pictures, strict=True) if both is not None]
    if not read:
        return []
    images = tf.cast(np.stack([seen for _, _, seen in read]), tf.float32) / 255
    rows = []
    answers = model.predict_on_batch(as_input(images))
    for (file, given, seen), chances in zip(read, answers, strict=True):
        first, second = np.argsort(chances)[:-3:-1]
        rows.append(
            {
                "file": file,
                "label": description["classes"][first],
                "confidence": float(chances[first]),
                "second_guess": description["classes"][second],
                "second_confidence": float(chances[second]),
                "given": given,
                "seen": small(Image.fromarray(seen)),
            }
        )
    return rows


def write_predictions(setting: Setting, rows: list[dict[str, Any]]) -> None:
    """Write predictions.csv, and predictions.png: what was given, seen and answered."""
    folder = Path(setting.data_dir, "report")
    columns = ("file", "label", "confidence", "second_guess", "second_confidence")
    write_csv(folder / "predictions.csv", [{name: row[name] for name in columns} for row in rows])
    rows = [report.PredictionRow(**row) for row in rows]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as beside:
        path = Path(beside, "predictions.png")
        sheets = report.prediction_sheets(rows, path, UNSURE)
        for sheet in folder.glob("predictions*.png"):  # there may have been more of them
            sheet.unlink(missing_ok=True)  # another predict may do the same
        for sheet in sheets:
            sheet.replace(folder / sheet.name)
    print(f"all answers: {folder / 'predictions.csv'}, with the pictures: {folder / path.name}")


def small(picture: Image.Image) -> np.ndarray:
    """The picture on white, no larger than the sheet shows it: uint8 [height, width, 3]."""
    picture = picture.copy()
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    if picture.mode == "RGBa":
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return np.asarray(picture.convert("RGB"))


def write_report(
    setting: Setting, classes: list[str], pictures: Pictures, chances: np.ndarray
) -> None:
    """Write what evaluate found: by class, the confusion matrix, and the worst mistakes."""
    folder = Path(setting.data_dir, "report")
    guesses = chances.argmax(axis=1)
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (pictures.labels, guesses), 1)
    table = report.class_table(counts, classes)
    write_csv(folder / "classes.csv", table)
    if len(classes) <= MOST_CLASSES_PRINTED:
        print(f"{'class':20} {'images':>7} {'accuracy':>9} {'precision':>9} {'recall':>9}")
        for row in table:
            figures = " ".join(f"{row[name]:9.4f}" for name in ("accuracy", "precision", "recall"))
            print(f"{printable(row['class'])[:20]:20} {row['images']:7} {figures}")
    with whole_file(folder / "confusion.png") as partial:
        report.confusion_matrix(counts, classes, partial)
    wrong = np.flatnonzero(guesses != pictures.labels)
    wrong = wrong[np.argsort(-chances[wrong, guesses[wrong]])][: report.MOST_MISTAKES]
    with whole_file(folder / "mistakes.png") as partial:
        report.mistakes(
            [decode(pictures.paths[index], setting) for index in wrong],
            [classes[pictures.labels[index]] for index in wrong],
            [classes[guesses[index]] for index in wrong],
            [float(chances[index, guesses[index]]) for index in wrong],
            partial,
        )


def main() -> None:
    with one_line_errors():
        try:
            if MODE == "train" and SETTING.recipe == "tuned" and on_processor():
                faster.use_threads()
            run(MODE, SETTING)
        except tf.errors.OpError as error:
            # Among TensorFlow's many lines one says what happened, such as a picture that is gone.
            said = re.search(r"\w+(?:Error|Exception): (.*)", error.message)
            raise InputError(said[1] if said else error.message.split("\n")[0]) from None


def run(mode: str, setting: Setting) -> None:
    if mode == "train":
        train(setting)
    elif mode == "evaluate":
        evaluate(setting)
    elif len(predict(setting)) < len(list_pictures(setting.imp_dir)):
        sys.exit(1)


if __name__ == "__main__":
    main()
