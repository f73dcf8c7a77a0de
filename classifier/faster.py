"""The same network in less time: layers exchanged for ones of ours that compute the same.

`faster(build_model(setting))` is the network that is trained, validated, evaluated and predicted
with. What is exchanged is decided by what each layer is: its type, activation, rate, strides and
so on. Whatever is not known to compute the same stays as Keras has it; so does a model that is no
`Sequential`.

What to exchange was read off profiles (tf.profiler) of training steps with 128 pictures in
bfloat16 on two cores (Zen 5). With all of it, a step of the article's network takes three fifths
of its time.
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

# Up to so many outputs a side the filter gradient is faster as one matrix product: for 3×3 of
# 256 channels it takes a third of oneDNN's time in bfloat16, for 7×7 more in float32.
MAX_SIDE_MULTIPLIED = 4
# A batch is computed in as many parts at the same time, one a core: the cores then wait for each
# other once a step, not in every layer.
SPLITS = min(2, cpu_count())

# Layers whose output for a picture depends on that picture alone, so that a batch can be split.
# BatchNormalization is not among them.
PER_PICTURE = (
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
# What a layer has for its kernel and for its bias.
WEIGHT_OPTIONS = ("initializer", "regularizer", "constraint")
# Layers whose output at a pixel depends on a window of the input.
WINDOWED = (layers.Conv2D, layers.MaxPooling2D, layers.AveragePooling2D)


def faster(model: keras.Model, grayscale: bool) -> keras.Model:
    """A network that computes what the model computes, from the same pictures, in less time.

    Its layers have the model's weights and names, so that files of weights fit both.

    Args:
        model: built, and not yet trained; its layers may go on as layers of the result.
        grayscale: all pictures that it will be given are grey: red, green and blue are the same.
    """
    if type(model) is not keras.Sequential or keras.backend.image_data_format() != "channels_last":
        return model
    chain = replace_layers(model.layers, grayscale) if runs_on_cpu() else model.layers
    can_split = runs_on_cpu() and all(map(is_per_picture, model.layers))
    return SplitSequential(
        [keras.Input(model.input_shape[1:]), *chain],
        parts=SPLITS if can_split else 1,
        seen=used_size(model),
        name=model.name,
    )


def replace_layers(chain: list[layers.Layer], grayscale: bool) -> list[layers.Layer]:
    """The layers of a Sequential, some of them exchanged for faster ones with the same weights."""
    result = []
    relu_is_due = False
    for layer, following in itertools.zip_longest(chain, chain[1:]):
        kind = type(layer)
        if kind is layers.Conv2D and can_be_copied(layer):
            relu_is_due = is_relu(layer) and type(following) is layers.MaxPooling2D
            changes = {"activation": "linear"} if relu_is_due else {}
            changes |= {"grayscale": grayscale, "plain": is_unpadded(layer)}
            layer = copy_layer(Conv2D, layer, **changes)
        elif kind is layers.MaxPooling2D and relu_is_due:
            layer, relu_is_due = copy_layer(MaxPooling2D, layer), False
        elif kind is layers.Dropout and drops_half(layer):
            layer = copy_layer(Dropout, layer)
        result.append(layer)
        grayscale &= kind is layers.Rescaling and scale_rank(layer) == 0
    return result


def copy_layer(kind: type[layers.Layer], layer: layers.Layer, **changes: Any) -> layers.Layer:
    """A layer of that kind that is otherwise as the given one, but for the changes."""
    new = kind.from_config(layer.get_config() | changes)
    new.build(layer.input.shape)
    new.set_weights(layer.get_weights())
    return new


def is_per_picture(layer: layers.Layer) -> bool:
    """Whether its output for a picture is known to depend on that picture alone."""
    rank = len(layer.input.shape)
    axes = np.atleast_1d(getattr(layer, "axis", -1))  # of a normalization, or of Softmax
    return (
        type(layer) in PER_PICTURE
        and has_plain_options(layer)
        and all(axis % rank != 0 for axis in axes)
        and scale_rank(layer) < rank
    )


def is_per_pixel(layer: layers.Layer) -> bool:
    """Whether its output at a pixel is known to depend on that pixel alone, wherever it is."""
    # A scale with one axis is one of the channels.
    return type(layer) in PER_PIXEL and has_plain_options(layer) and scale_rank(layer) <= 1


def has_plain_options(layer: layers.Layer) -> bool:
    """Whether the layer has no option that could make one pixel or picture depend on others."""
    return (
        is_keras_activation(getattr(layer, "activation", None))
        and not layer.activity_regularizer  # a mean over the batch, of all that comes out
        and getattr(layer, "noise_shape", None) is None
    )


def scale_rank(layer: layers.Layer) -> int:
    """How many axes the arrays have that the layer was given to scale with; 0 for numbers."""
    names = {layers.Rescaling: ("scale", "offset"), layers.ELU: ("alpha",)}.get(type(layer), ())
    return max((np.ndim(getattr(layer, name)) for name in names), default=0)


def is_keras_activation(function: Any) -> bool:
    """Whether it is None or one of keras.activations, all of which keep to a pixel."""
    name = getattr(function, "__name__", "")
    return function is None or getattr(keras.activations, name, None) is function


def can_be_copied(layer: layers.Conv2D) -> bool:
    """Whether the layer's config says all of it: no function in it is the user's own."""
    names = [f"{a}_{b}" for a in ("kernel", "bias") for b in WEIGHT_OPTIONS]
    options = [getattr(layer, name) for name in names]
    own = [option for option in options if option and not option.__module__.startswith("keras.")]
    return is_keras_activation(layer.activation) and not own


def is_relu(layer: layers.Conv2D) -> bool:
    # An activity regularizer would see what comes before the ReLU.
    return layer.activation is keras.activations.relu and not layer.activity_regularizer


def is_unpadded(layer: layers.Conv2D) -> bool:
    """Whether its window moves from pixel to pixel and nothing is added at the edges."""
    ones = (layer.strides, layer.dilation_rate, layer.groups) == ((1, 1), (1, 1), 1)
    return ones and layer.padding == "valid" and layer.data_format == "channels_last"


def drops_half(layer: layers.Dropout) -> bool:
    return layer.rate == 0.5 and layer.noise_shape is None and len(layer.output.shape) == 2


def used_size(model: keras.Sequential) -> tuple[int, int]:
    """The rows and columns, from the first on, that can change what the network computes.

    Of 28×28 pixels the article's network uses 26×26: its second pooling drops the last row and
    column of 11×11. Leaving them out saves a sixth of the arithmetic. A layer that isn't known
    here, or has an option that isn't, is taken to use everything.
    """
    used = None  # of the layer's output; None is all
    for layer in reversed(model.layers):
        if len(layer.input.shape) != 4 or len(layer.output.shape) != 4:
            used = None
        elif is_unpadded_window(layer):
            window = getattr(layer, "kernel_size", None) or layer.pool_size
            dilation = getattr(layer, "dilation_rate", (1, 1))
            used = tuple(
                (count - 1) * stride + (width - 1) * gap + 1
                for count, stride, width, gap in zip(
                    used or layer.output.shape[1:3], layer.strides, window, dilation, strict=True
                )
            )
        elif not is_per_pixel(layer):
            return model.input_shape[1:3]
    return used or model.input_shape[1:3]


def is_unpadded_window(layer: layers.Layer) -> bool:
    """Whether its output at a pixel is known to depend on a window of the input alone."""
    return (
        type(layer) in WINDOWED
        and has_plain_options(layer)
        and layer.padding == "valid"
        and layer.data_format == "channels_last"
    )


@keras.saving.register_keras_serializable("classifier")
class SplitSequential(keras.Sequential):
    """A Sequential that computes the parts of a batch side by side, of the pixels that it sees.

    Args:
        parts: how many; the result doesn't depend on it if each picture is treated on its own.
        seen: the first so many rows and columns are looked at; None for all.
    """

    def __init__(self, *arguments, parts: int = 1, seen: tuple[int, int] | None = None, **options):
        super().__init__(*arguments, **options)
        self.parts, self.seen = parts, seen

    def call(self, images: tf.Tensor, training: bool | None = None, mask=None) -> tf.Tensor:
        count = tf.shape(images)[0]
        rows, columns = self.seen or images.shape[1:3]
        starts = [count * part // self.parts for part in range(self.parts + 1)]
        outputs = []
        for start, end in itertools.pairwise(starts):
            # No part is empty, which TensorFlow's fused convolution would refuse.
            part = images[start : tf.maximum(end, start + 1)]
            seen = part[:, :rows, :columns]
            outputs.append(super().call(seen, training=training)[: end - start])
        return tf.concat(outputs, 0)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"parts": self.parts, "seen": self.seen}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects=None) -> "SplitSequential":
        model = super().from_config(config, custom_objects)
        model.parts, model.seen = config["parts"], tuple(config["seen"])
        return model


# The classes below have the names of Keras's: Keras names the weights in its files after them.


@keras.saving.register_keras_serializable("classifier")
class Conv2D(layers.Conv2D):
    """Keras's, with a faster convolution where there is one.

    Args:
        plain: is_unpadded holds; else the convolution is Keras's.
        grayscale: the input's channels are all the same.
    """

    def __init__(self, *arguments, plain: bool, grayscale: bool, **options):
        super().__init__(*arguments, **options)
        self.plain, self.grayscale = plain, grayscale

    def convolution_op(self, images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        if not self.plain:
            return super().convolution_op(images, kernel)
        outputs = (
            n - window + 1 for n, window in zip(images.shape[1:3], kernel.shape[:2], strict=True)
        )
        if max(outputs) <= MAX_SIDE_MULTIPLIED:
            return convolve_to_few(images, tf.convert_to_tensor(kernel))
        if self.grayscale:
            # One channel with the sum of the kernel's.
            images, kernel = images[..., :1], tf.reduce_sum(kernel, 2, keepdims=True)
        return tf.nn.conv2d(images, kernel, 1, "VALID")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"plain": self.plain, "grayscale": self.grayscale}


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


@keras.saving.register_keras_serializable("classifier")
class MaxPooling2D(layers.MaxPooling2D):
    """Keras's, and then the ReLU that the convolution before it has left to it."""

    def call(self, images: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(super().call(images))


@keras.saving.register_keras_serializable("classifier")
class Dropout(layers.Dropout):
    """Keras's at a rate of 0.5, which needs one random bit a value; Keras draws 32."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training:
            return inputs
        values = inputs.shape[-1]
        shape = [tf.shape(inputs)[0], -(-values // 32)]
        seed = self.seed_generator.next()
        words = tf.random.stateless_uniform(shape, seed, None, None, tf.int32)
        bits = tf.bitwise.bitwise_and(words[..., None], tf.bitwise.left_shift(1, tf.range(32)))
        kept = tf.reshape(bits != 0, [-1, 32 * shape[1]])[:, :values]
        return tf.where(kept, 2 * inputs, 0)


def limit_threads() -> None:
    """Have each part of a batch computed by its own share of the cores.

    Has an effect only before TensorFlow's first computation.
    """
    with contextlib.suppress(RuntimeError):  # in a notebook TensorFlow may have computed before
        tf.config.threading.set_intra_op_parallelism_threads(max(1, cpu_count() // SPLITS))
