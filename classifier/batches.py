"""Images become batches: shuffled and augmented for training, in order for all else."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import tensorflow as tf

from classifier import hardware, workers
from classifier.console import InputError
from classifier.machine import cpu_count
from classifier.opener import DECODE_ERRORS, error_reason
from classifier.pictures import ROTATION_EPOCHS, ImageSet

INFERENCE_PIXELS = 512 * 28 * 28  # in a batch without gradients; larger ones are no faster
# Each makes a batch, and as many wait: with 64 cores they took 10 GB at 224×224.
MAX_PARALLEL_CALLS = 8
BATCHES_ON_GPU = 2  # while one is computed on, the next is there and one more on its way
# As far as handwriting varies; more makes a 6 a 0, and a 1 a 7 (docs/figures.md).
ROTATION = np.radians(8)  # most rotation either way
SHEAR = 0.1
ZOOM = 0.07  # width and height, independently
SHIFT = 0.05  # of the width and height: 1.4 of 28 pixels
# One image in so many is shifted by whole pixels only: interpolation blurs, and digits that are to
# be read are not blurred (docs/figures.md).
SHARP_EVERY = 2
STROKE_CHANGE = 0.5  # of the way to strokes a pixel wider, or narrower, on every side
# The share of certainty given to all classes alike, in training only (Szegedy et al. 2016).
LABEL_SMOOTHING = 0.1


def training_batches(
    pictures: ImageSet,
    classes: int,
    batch: int,
    steps: int,
    epochs: range,
    seed: int,
    flip: bool = False,
    strokes: bool = False,
) -> tf.data.Dataset:
    """Shuffled, augmented batches of `steps` steps for each of the epochs.

    What is in a batch follows from the seed, the epoch and the step alone: a run that goes on has
    the batches that it would have had without the interruption.

    Args:
        pictures: to learn from.
        classes: how many there are.
        batch: pictures in a batch.
        steps: batches in an epoch; the pictures left over are others in every epoch.
        epochs: their numbers, from 0.
        seed: of all that is random.
        flip: mirror every other picture.
        strokes: the pictures are of bright ink on a dark background; if they are grayscale, vary
            the width of the strokes, and leave some pictures sharp.

    Returns:
        Batches of (float32 [batch, height, width, 3] in 0..1, float32 smoothed labels [batch, k]).
    """
    count, read = len(pictures.labels), image_reader(pictures)

    def shuffled(epoch: tf.Tensor) -> tf.data.Dataset:
        every = tf.range(count, dtype=tf.int64)
        is_due = (every < count - pictures.rotating) | (
            every % ROTATION_EPOCHS == epoch % ROTATION_EPOCHS
        )
        order = tf.random.experimental.stateless_shuffle(
            tf.boolean_mask(every, is_due), seed=tf.stack([seed, epoch])
        )
        indices = tf.reshape(order[: steps * batch], [steps, batch])
        return tf.data.Dataset.from_tensor_slices(
            (epoch * steps + tf.range(steps, dtype=tf.int64), indices)
        )

    def make_batch(step: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, step_seed = read(indices), tf.stack([seed, step])
        vary_strokes = strokes and images.shape[-1] == 1
        if vary_strokes:
            images = vary_stroke_width(images, step_seed + 1)  # other numbers than augment's
        images = augment(images, step_seed, flip, sharp=vary_strokes)
        labels = tf.one_hot(tf.gather(pictures.labels, indices), classes)
        return to_model_input(images), labels * (1 - LABEL_SMOOTHING) + LABEL_SMOOTHING / classes

    dataset = tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(shuffled)
    return map_and_prefetch(dataset, make_batch)


def evaluation_batches(
    pictures: ImageSet, classes: int, batches: int | None = None
) -> tf.data.Dataset:
    """All images once, in order and not augmented, with one-hot labels; otherwise as above.

    Args:
        pictures: to validate or evaluate on.
        classes: how many there are.
        batches: how many batches; None for as few as are fast.
    """
    count, read = len(pictures.labels), image_reader(pictures)

    def make_batch(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        labels = tf.one_hot(tf.gather(pictures.labels, indices), classes)
        return to_model_input(read(indices)), labels

    if batches is None:
        dataset = tf.data.Dataset.range(count).batch(inference_batch_size(pictures.size))
    else:
        bounds = np.arange(batches + 1) * count // batches
        dataset = tf.data.Dataset.from_tensor_slices((bounds[:-1], bounds[1:])).map(tf.range)
    return map_and_prefetch(dataset, make_batch)


def inference_batch_size(size: tuple[int, int]) -> int:
    """How many pictures of (height, width) to put through the network when nothing is learned."""
    return max(1, INFERENCE_PIXELS // (size[0] * size[1]))


def map_and_prefetch(dataset: tf.data.Dataset, make_batch: Callable) -> tf.data.Dataset:
    """The dataset's batches, made in parallel and ahead of time, on the GPU if there is one."""
    options = tf.data.Options()
    # TensorFlow 2.21 waits for its tuner when a dataset ends, for up to a minute.
    options.autotune.enabled = False
    calls = min(cpu_count(), MAX_PARALLEL_CALLS)
    dataset = dataset.map(make_batch, calls).prefetch(calls).with_options(options)
    # For several GPUs Keras's strategy does that; device_names() also names other machines'.
    if len(hardware.gpus()) != 1 or workers.strategy:
        return dataset
    (gpu,) = hardware.device_names()
    on_gpu = dataset.apply(tf.data.experimental.prefetch_to_device(gpu, BATCHES_ON_GPU))
    on_gpu.cardinality = dataset.cardinality  # without it, Keras warns of too few batches
    return on_gpu


def image_reader(pictures: ImageSet) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from indices, int64 [n], to images, float32 [n, height, width, channels] 0..1."""
    if pictures.pixels is not None:
        with tf.device("CPU:0"):  # a GPU's memory is for the network
            pixels = tf.constant(pictures.pixels)
        return lambda indices: rescale(tf.gather(pixels, indices))

    pool = ThreadPoolExecutor(cpu_count())

    def read_one(index: int) -> np.ndarray:
        path = pictures.paths[index]
        try:
            return pictures.decode(path, pictures.size)
        except DECODE_ERRORS as error:  # it could be read when training began
            raise InputError(f"{path}: gone or changed, {error_reason(error)}") from None

    def read(indices: np.ndarray) -> np.ndarray:
        return np.stack(list(pool.map(read_one, indices)))

    def read_images(indices: tf.Tensor) -> tf.Tensor:
        pixels = tf.numpy_function(read, [indices], tf.uint8)
        channels = 1 if pictures.grayscale else 3
        return rescale(tf.ensure_shape(pixels, [None, *pictures.size, 3])[..., :channels])

    return read_images


def rescale(pixels: tf.Tensor) -> tf.Tensor:
    """Pixels 0..255 as float32 0..1."""
    return tf.cast(pixels, tf.float32) / 255


def to_model_input(images: tf.Tensor) -> tf.Tensor:
    """Images of 1 or 3 channels, channels last, in the three channels that the network takes."""
    images = tf.tile(images, [1, 1, 1, 3 // images.shape[-1]])
    if keras.backend.image_data_format() == "channels_first":
        return tf.transpose(images, [0, 3, 1, 2])
    return images


def vary_stroke_width(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Thicken or thin each image's strokes at random, as pens differ.

    Args:
        images: float32 [n, height, width, 1], bright ink on a dark background.
        seed: int [2].
    """
    change = tf.random.stateless_uniform(
        [tf.shape(images)[0], 1, 1, 1], seed, -STROKE_CHANGE, STROKE_CHANGE
    )
    images *= tf.sign(change)  # the maximum of the negated image makes its strokes thinner
    wider = tf.nn.max_pool2d(images, 3, 1, "SAME")
    return tf.sign(change) * (images + tf.abs(change) * (wider - images))


def augment(
    images: tf.Tensor, seed: tf.Tensor, flip: bool = False, sharp: bool = False
) -> tf.Tensor:
    """Shift, rotate, zoom and shear each image at random; beyond its edge the edge is repeated.

    In one interpolation, which blurs once; Keras's layers would interpolate four times.

    Args:
        images: float32 [n, height, width, channels].
        seed: int [2].
        flip: mirror every other image.
        sharp: shift one image in SHARP_EVERY by whole pixels, and at most mirror it.
    """
    count, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    ranges = [ROTATION, SHEAR, ZOOM, ZOOM, SHIFT * height, SHIFT * width]
    draws = tf.random.stateless_uniform([count, 6], seed, -1.0, 1.0) * ranges
    if sharp:
        # In pairs, so that as many are mirrored as of the others.
        is_sharp = (tf.range(count) // 2 % SHARP_EVERY == 0)[:, None]
        draws = tf.where(is_sharp, tf.round(draws * [0.0, 0, 0, 0, 1, 1]), draws)
    angle, shear, zoom_y, zoom_x, shift_y, shift_x = tf.unstack(draws, axis=1)
    if flip:
        zoom_x = tf.where(tf.range(count) % 2 == 0, zoom_x, -2 - zoom_x)
    # Where in the given image the new one's pixel (x, y) comes from: the matrix
    #   (xx xy)   (cos angle  shear - sin angle)   (1 + zoom_x      0     )
    #   (yx yy) = (sin angle      cos angle    ) · (    0       1 + zoom_y)
    # about the middle of the image, and a shift.
    xx, xy = tf.cos(angle) * (1 + zoom_x), (shear - tf.sin(angle)) * (1 + zoom_y)
    yx, yy = tf.sin(angle) * (1 + zoom_x), tf.cos(angle) * (1 + zoom_y)
    x, y = (width - 1) / 2, (height - 1) / 2
    to_x = x + shift_x - xx * x - xy * y
    to_y = y + shift_y - yx * x - yy * y
    zero = tf.zeros_like(angle)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([xx, xy, to_x, yx, yy, to_y, zero, zero], axis=1),
        output_shape=(height, width),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
