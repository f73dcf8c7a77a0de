"""The same network in less time: some layers are replaced by ones that compute the same faster.

A layer is replaced only if its type and all its options are known; so a Sequential of any layers
may be passed, and what isn't known stays Keras's own.

What to replace was read off profiles (tf.profiler) of training steps of 128 images in bfloat16 on
two cores (Zen 5). A step of the article's network takes three fifths of its time.
"""

import contextlib
import itertools
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from classifier.hardware import runs_on_cpu
from classifier.machine import cpu_count

# Up to this side of the output the filter gradient is faster as one matrix product than oneDNN's:
# at 3×3 it takes a third of the time, at 7×7 more.
MAX_MATMUL_SIDE = 4
# Parts of a batch, computed in parallel: cores wait for each other once a step, not in each layer.
SPLITS = min(2, cpu_count())

# Layers that treat each image of a batch on its own, which BatchNormalization doesn't.
PER_IMAGE = (
    *(layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D, layers.Dense),
    *(layers.MaxPooling2D, layers.AveragePooling2D, layers.ZeroPadding2D, layers.Cropping2D),
    *(layers.GlobalMaxPooling2D, layers.GlobalAveragePooling2D, layers.Flatten, layers.Dropout),
    *(layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU, layers.PReLU, layers.Softmax),
    *(layers.Rescaling, layers.LayerNormalization, layers.GroupNormalization),
)
# Layers whose output at a pixel depends on that pixel alone.
PER_PIXEL = (
    *(layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Rescaling),
    layers.Dropout,
)
# Of a layer's kernel and of its bias.
WEIGHT_OPTIONS = ("initializer", "regularizer", "constraint")
# Layers whose output at a pixel depends on a window of the input.
WINDOWED = (layers.Conv2D, layers.MaxPooling2D, layers.AveragePooling2D)


def faster(model: keras.Model, grayscale: bool) -> keras.Model:
    """A model that computes the same in less time; files of weights fit both.

    Args:
        model: built; the result may share its layers. Only a Sequential is changed.
        grayscale: red, green and blue will be the same in all images.
    """
    if type(model) is not keras.Sequential or keras.backend.image_data_format() != "channels_last":
        return model
    chain = replace_layers(model.layers, grayscale) if runs_on_cpu() else model.layers
    can_split = runs_on_cpu() and all(map(is_per_image, model.layers))
    return SplitSequential(
        [keras.Input(model.input_shape[1:]), *chain],
        splits=SPLITS if can_split else 1,
        used_size=used_size(model),
        name=model.name,
    )


def replace_layers(chain: list[layers.Layer], grayscale: bool) -> list[layers.Layer]:
    """The layers of a Sequential, some of them replaced by faster ones with the same weights."""
    result = []
    relu_is_due = False
    for layer, next_layer in itertools.zip_longest(chain, chain[1:]):
        kind = type(layer)
        if kind is layers.Conv2D and can_be_copied(layer):
            relu_is_due = is_relu(layer) and type(next_layer) is layers.MaxPooling2D
            changes = {"activation": "linear"} if relu_is_due else {}
            changes |= {"grayscale": grayscale, "plain": is_plain_convolution(layer)}
            layer = copy_layer(Conv2D, layer, **changes)
        elif kind is layers.MaxPooling2D and relu_is_due:
            layer, relu_is_due = copy_layer(MaxPooling2D, layer), False
        elif kind is layers.Dropout and drops_half(layer):
            layer = copy_layer(Dropout, layer)
        result.append(layer)
        grayscale &= kind is layers.Rescaling and scale_rank(layer) == 0
    return result


def copy_layer(kind: type[layers.Layer], layer: layers.Layer, **changes: Any) -> layers.Layer:
    """A layer of another class with the same config, but for the changes, and the same weights."""
    new = kind.from_config(layer.get_config() | changes)
    new.build(layer.input.shape)
    new.set_weights(layer.get_weights())
    return new


def is_per_image(layer: layers.Layer) -> bool:
    """Whether the layer is known to treat each image of a batch on its own."""
    if getattr(layer, "is_per_image", False):
        return True
    rank = len(layer.input.shape)
    axes = np.atleast_1d(getattr(layer, "axis", -1))  # of a normalization, or of Softmax
    return (
        type(layer) in PER_IMAGE
        and has_plain_options(layer)
        and all(axis % rank != 0 for axis in axes)
        and scale_rank(layer) < rank
    )


def is_per_pixel(layer: layers.Layer) -> bool:
    """Whether the layer is known to treat each pixel on its own, and all of them alike."""
    # A scale with one axis is one of the channels.
    return type(layer) in PER_PIXEL and has_plain_options(layer) and scale_rank(layer) <= 1


def has_plain_options(layer: layers.Layer) -> bool:
    """Whether the layer has no option that could make a pixel or an image depend on others."""
    return (
        is_keras_activation(getattr(layer, "activation", None))
        and not layer.activity_regularizer  # a mean over the whole batch
        and getattr(layer, "noise_shape", None) is None
    )


def scale_rank(layer: layers.Layer) -> int:
    """The rank of the array that a Rescaling or ELU scales with; 0 for a number."""
    names = {layers.Rescaling: ("scale", "offset"), layers.ELU: ("alpha",)}.get(type(layer), ())
    return max((np.ndim(getattr(layer, name)) for name in names), default=0)


def is_keras_activation(function: Any) -> bool:
    """Whether it is None or one of keras.activations, all of which treat each pixel alone."""
    name = getattr(function, "__name__", "")
    return function is None or getattr(keras.activations, name, None) is function


def can_be_copied(layer: layers.Conv2D) -> bool:
    """Whether the layer is fully described by its config: no function is the user's own."""
    names = [f"{a}_{b}" for a in ("kernel", "bias") for b in WEIGHT_OPTIONS]
    options = [getattr(layer, name) for name in names]
    own = [option for option in options if option and not option.__module__.startswith("keras.")]
    return is_keras_activation(layer.activation) and not own


def is_relu(layer: layers.Conv2D) -> bool:
    # An activity regularizer has to see the ReLU's output.
    return layer.activation is keras.activations.relu and not layer.activity_regularizer


def is_plain_convolution(layer: layers.Conv2D) -> bool:
    """Whether strides, dilation and groups are 1, and nothing is padded."""
    ones = (layer.strides, layer.dilation_rate, layer.groups) == ((1, 1), (1, 1), 1)
    return ones and layer.padding == "valid" and layer.data_format == "channels_last"


def drops_half(layer: layers.Dropout) -> bool:
    return layer.rate == 0.5 and layer.noise_shape is None and len(layer.output.shape) == 2


def used_size(model: keras.Sequential) -> tuple[int, int]:
    """The first rows and columns of the input that can change the output.

    Of 28×28 pixels the article's network uses 26×26, since its second pooling drops the last row
    and column of 11×11; cropping them saves a sixth of the arithmetic. An unknown layer or option
    is taken to use everything.
    """
    used = None  # of the layer's output; None is all
    for layer in reversed(model.layers):
        if len(layer.input.shape) != 4 or len(layer.output.shape) != 4:
            used = None
        elif is_unpadded_window(layer):
            window = getattr(layer, "kernel_size", None) or layer.pool_size
            dilation = getattr(layer, "dilation_rate", (1, 1))
            used = tuple(
                (output - 1) * stride + (side - 1) * rate + 1
                for output, stride, side, rate in zip(
                    used or layer.output.shape[1:3], layer.strides, window, dilation, strict=True
                )
            )
        elif not is_per_pixel(layer):
            return model.input_shape[1:3]
    return used or model.input_shape[1:3]


def is_unpadded_window(layer: layers.Layer) -> bool:
    """Whether an output is known to depend on a window of the input alone, without padding."""
    return (
        type(layer) in WINDOWED
        and has_plain_options(layer)
        and layer.padding == "valid"
        and layer.data_format == "channels_last"
    )


@keras.saving.register_keras_serializable("classifier")
class SplitSequential(keras.Sequential):
    """A Sequential that computes a batch in parts, side by side, and crops the images.

    Args:
        splits: the number of parts; it doesn't change the result if all layers are PER_IMAGE.
        used_size: the rows and columns that are kept, from the first on; None for all.
    """

    def __init__(self, *args, splits: int = 1, used_size: tuple[int, int] | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.splits, self.used_size = splits, used_size

    def call(self, images: tf.Tensor, training: bool | None = None, mask=None) -> tf.Tensor:
        count = tf.shape(images)[0]
        rows, columns = self.used_size or images.shape[1:3]
        starts = [count * index // self.splits for index in range(self.splits + 1)]
        outputs = []
        for start, end in itertools.pairwise(starts):
            # No part is empty, which TensorFlow's fused convolution would refuse.
            part = images[start : tf.maximum(end, start + 1)]
            cropped = part[
                :, :rows, :columns
            ]  # in a slice of its own, which keeps the shape static
            outputs.append(super().call(cropped, training=training)[: end - start])
        return tf.concat(outputs, 0)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"splits": self.splits, "used_size": self.used_size}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects=None) -> "SplitSequential":
        model = super().from_config(config, custom_objects)
        model.splits, model.used_size = config["splits"], config["used_size"]
        return model


# The classes below have Keras's names, after which Keras names the weights in its files.


@keras.saving.register_keras_serializable("classifier")
class Conv2D(layers.Conv2D):
    """Keras's, with a faster convolution if it is plain.

    Args:
        plain: as is_plain_convolution says; else the convolution is Keras's.
        grayscale: the input's channels are all the same.
    """

    def __init__(self, *args, plain: bool, grayscale: bool, **kwargs):
        super().__init__(*args, **kwargs)
        self.plain, self.grayscale = plain, grayscale

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        if not self.plain:
            return super().convolution_op(inputs, kernel)
        sides = (n - side + 1 for n, side in zip(inputs.shape[1:3], kernel.shape[:2], strict=True))
        if max(sides) <= MAX_MATMUL_SIDE:
            return conv2d_with_matmul_gradient(inputs, tf.convert_to_tensor(kernel))
        if self.grayscale:  # one channel, with the sum of the kernel's channels
            inputs, kernel = inputs[..., :1], tf.reduce_sum(kernel, 2, keepdims=True)
        return tf.nn.conv2d(inputs, kernel, 1, "VALID")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"plain": self.plain, "grayscale": self.grayscale}


@tf.custom_gradient
def conv2d_with_matmul_gradient(images: tf.Tensor, kernel: tf.Tensor):
    """tf.nn.conv2d without padding, whose filter gradient is one product of all patches."""
    rows, columns, channels, filters = kernel.shape

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        height, width = upstream.shape[1:3]
        patches = [
            images[:, y : y + height, x : x + width] for y in range(rows) for x in range(columns)
        ]
        patches = tf.reshape(tf.concat(patches, -1), [-1, rows * columns * channels])
        kernel_gradient = tf.matmul(patches, tf.reshape(upstream, [-1, filters]), transpose_a=True)
        image_gradient = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(images),
            filter=kernel,
            out_backprop=upstream,
            strides=[1, 1, 1, 1],
            padding="VALID",
        )
        return image_gradient, tf.reshape(kernel_gradient, kernel.shape)

    return tf.nn.conv2d(images, kernel, 1, "VALID"), gradient


@keras.saving.register_keras_serializable("classifier")
class MaxPooling2D(layers.MaxPooling2D):
    """Keras's, followed by the ReLU of the convolution before it."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(super().call(inputs))


@keras.saving.register_keras_serializable("classifier")
class Dropout(layers.Dropout):
    """Keras's at a rate of 0.5, with one random bit a value; Keras draws 32."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training:
            return inputs
        values = inputs.shape[-1]
        shape = [tf.shape(inputs)[0], -(-values // 32)]
        seed = self.seed_generator.next()
        words = tf.random.stateless_uniform(shape, seed, None, None, tf.int32)
        bits = tf.bitwise.bitwise_and(words[..., None], tf.bitwise.left_shift(1, tf.range(32)))
        mask = tf.reshape(bits != 0, [-1, 32 * shape[1]])[:, :values]
        return tf.where(mask, 2 * inputs, 0)


def limit_threads() -> None:
    """Limit TensorFlow's threads so that each part of a batch has its own share of the cores.

    Has an effect only before TensorFlow's first computation.
    """
    with contextlib.suppress(RuntimeError):  # in a notebook TensorFlow may have computed before
        tf.config.threading.set_intra_op_parallelism_threads(max(1, cpu_count() // SPLITS))
