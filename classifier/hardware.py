"""The article's network, computed in less time on a processor: same weights, same results.

What to change was read off profiles (tf.profiler) of training steps with 128 pictures in bfloat16
on two cores (Zen 5). With all of it, a step takes three fifths of its time.
"""

import functools
import itertools
import os
import re
from pathlib import Path

import keras
import tensorflow as tf
from keras import layers

from setting import Setting


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


# Up to so many outputs a side the filter gradient is faster as one matrix product: for 3×3 of
# 256 channels it takes a third of oneDNN's time in bfloat16, for 7×7 more in float32.
MOST_SIDE_MULTIPLIED = 4
# A batch is computed in as many parts at the same time, one a core: the cores then wait for each
# other once a step, not in every layer.
PARTS = min(2, os.cpu_count())


def use_threads() -> None:
    """Have each part of a batch computed by its own share of the cores.

    Can be said only before TensorFlow's first computation.
    """
    tf.config.threading.set_intra_op_parallelism_threads(max(1, os.cpu_count() // PARTS))


def speed_up(model: keras.Sequential, grey: bool) -> int:
    """Have a network of mnist_keras.build_model compute the same in less time on a processor.

    Args:
        model: channels last; Dropout rates of 0.5.
        grey: all pictures that it will be given are grey: red, green and blue are the same.

    Returns:
        The number of parts in which it computes a batch; Dropout draws once for each.
    """
    convolutions = [layer for layer in model.layers if isinstance(layer, layers.Conv2D)]
    if grey:
        convolutions[0].convolution_op = convolve_grey
    for layer in convolutions:
        if max(layer.output.shape[1:3]) <= MOST_SIDE_MULTIPLIED:
            layer.convolution_op = convolve_to_few
    for layer, following in itertools.pairwise(model.layers):
        if isinstance(layer, layers.Conv2D) and isinstance(following, layers.MaxPooling2D):
            # The maximum of four ReLUs is the ReLU of their maximum, a quarter of the work.
            layer.activation = keras.activations.linear
            following.call = functools.partial(relu_of, following.call)
        if isinstance(layer, layers.Dropout):
            layer.call = functools.partial(toss_coins, layer)
    model.call = functools.partial(in_parts, model.call)
    return PARTS


def in_parts(call, images: tf.Tensor, training: bool | None = None, mask=None) -> tf.Tensor:
    count = tf.shape(images)[0]
    starts = [count * part // PARTS for part in range(PARTS + 1)]
    outputs = []
    for start, end in itertools.pairwise(starts):
        # No part is empty, which TensorFlow's fused convolution would refuse.
        output = call(images[start : tf.maximum(end, start + 1)], training=training)
        outputs.append(output[: end - start])
    return tf.concat(outputs, 0)


def convolve_grey(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolve one channel with the sum of the kernel's: the same if all channels are the same."""
    return tf.nn.conv2d(images[..., :1], tf.reduce_sum(kernel, 2, keepdims=True), 1, "VALID")


@tf.custom_gradient
def convolve_to_few(images: tf.Tensor, kernel: tf.Tensor):
    """tf.nn.conv2d without padding, its filter gradient one product of all patches."""
    rows, columns, channels, filters = kernel.shape

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        height, width = upstream.shape[1:3]
        patches = [
            images[:, y : y + height, x : x + width] for y in range(rows) for x in range(columns)
        ]
        patches = tf.reshape(tf.concat(patches, -1), [-1, rows * columns * channels])
        product = tf.matmul(patches, tf.reshape(upstream, [-1, filters]), transpose_a=True)
        to_images = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(images),
            filter=kernel,
            out_backprop=upstream,
            strides=[1, 1, 1, 1],
            padding="VALID",
        )
        return to_images, tf.reshape(product, kernel.shape)

    return tf.nn.conv2d(images, kernel, 1, "VALID"), gradient


def relu_of(pool, images: tf.Tensor) -> tf.Tensor:
    return tf.nn.relu(pool(images))


def toss_coins(layer: layers.Dropout, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
    """Dropout at a rate of 0.5, which needs one random bit a value; Keras draws 32."""
    if not training:
        return inputs
    values = inputs.shape[-1]
    shape = [tf.shape(inputs)[0], -(-values // 32)]
    words = tf.random.stateless_uniform(shape, layer.seed_generator.next(), None, None, tf.int32)
    bits = tf.bitwise.bitwise_and(words[..., None], tf.bitwise.left_shift(1, tf.range(32)))
    kept = tf.reshape(bits != 0, [-1, 32 * shape[1]])[:, :values]
    return tf.where(kept, 2 * inputs, 0)
