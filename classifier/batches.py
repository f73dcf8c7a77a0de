"""Pixels become batches: shuffled and augmented for training, plain for all else."""

import os
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import tensorflow as tf

from classifier.console import InputError
from classifier.pictures import DECODE_ERRORS, Pictures, decode, reason
from classifier.recipe import SHORT_RUN
from setting import Setting

# Validation and prediction need no gradients; larger batches than this many pixels are no faster.
INFERENCE_PIXELS = 512 * 28 * 28
# As far as handwriting varies: more, and a 6 may pass for a 0, a 1 for a 7.
TURN = np.radians(12)  # most rotation either way
SHEAR = 0.15
STRETCH = 0.1  # width and height, independently
SHIFT = 0.07  # of the width and height: 2 of 28 pixels
STROKE = 0.5  # of the way to strokes a pixel wider, or narrower, on every side
# The share of certainty given to all classes alike, in training only (Szegedy et al. 2016).
LABEL_SMOOTHING = 0.1


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
