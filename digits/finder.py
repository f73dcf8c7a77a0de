"""The finder: a network that marks the digits on a picture, and which ink belongs to which.

It is fully convolutional and gives heat maps of the middles of digits (CenterNet: Zhou, Wang and
Krähenbühl 2019, https://arxiv.org/abs/1904.07850); every pixel of ink says where its digit's
middle lies, and so belongs to the one that is nearest (Panoptic-DeepLab: Cheng et al. 2020,
https://arxiv.org/abs/1911.10194). Which digit it is says the network that reads; what the finder
takes it for only raises doubt. It has learned from drawn pages alone (drawn_pages.py):

  python -m digits.train_finder --mnist ../shared/mnist     makes mnist_data/shipped/finder.npz
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from classifier.files import atomic_file

SHIPPED = Path(__file__).parent.parent / "mnist_data" / "shipped" / "finder.npz"
STRIDE, INK_STRIDE = 4, 2  # pixels of the picture to one of `places`, of `ink`
MULTIPLE = 32  # height and width of what the network sees are multiples of it
OFFSET = 8.0  # pixels are the unit of `offsets`: so they are about as large as the other outputs


class Maps(NamedTuple):
    """What the finder says of a picture of h x w pixels, float32."""

    places: np.ndarray  # [h / 4, w / 4, 2]: how likely a digit's, or a sign's, middle is there
    labels: np.ndarray  # [h / 4, w / 4, 10]: how likely it is which digit's, if a digit's
    ink: np.ndarray  # [h / 2, w / 2]: how likely it is ink of a digit or sign
    offsets: np.ndarray  # [h / 2, w / 2, 2]: how far its middle is, to the right and down, in px


class Finder(NamedTuple):
    """The trained finder."""

    maps: Callable[[np.ndarray], Maps]  # of uint8 [h, w, 3], both multiples of 32
    # Of a logistic regression of what a mark is, a digit, a sign or nothing: float32 [3, 4], for
    # finding.features.
    weights: np.ndarray


def build_finder():
    """The network, 1.3 million weights, float32 [n, h, w, 3] in -0.5..0.5 to three outputs.

    `places` as logits; `labels` [n, h/4, w/4, 10], logits of the digit whose middle is there,
    from which it learns to tell digits from other things; and `ink` [n, h/2, w/2, 3], the logit
    of ink and the offsets in units of OFFSET.
    """
    from keras import Input, Model, initializers, layers

    def convolution(x, filters, kernel=3, strides=1, activation="relu"):
        x = layers.Conv2D(filters, kernel, strides, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.97)(x)
        return layers.Activation(activation)(x)

    def residual(x, filters):
        y = convolution(convolution(x, filters), filters, activation="linear")
        return layers.ReLU()(layers.Add()([x, y]))

    def joined(x, skip):
        x = layers.UpSampling2D(2)(convolution(x, skip.shape[-1], 1))
        return layers.Add()([x, skip])

    image = Input((None, None, 3))
    quarter = residual(convolution(image, 32, 7, STRIDE), 32)
    eighth = residual(convolution(quarter, 64, strides=2), 64)
    sixteenth = residual(residual(convolution(eighth, 112, strides=2), 112), 112)
    x = residual(convolution(sixteenth, 144, strides=2), 144)
    x = convolution(joined(x, sixteenth), 112)
    x = convolution(joined(x, eighth), 64)
    x = convolution(joined(x, quarter), 64)
    rare = initializers.Constant(-4.0)
    places = layers.Conv2D(2, 1, dtype="float32", bias_initializer=rare, name="places")(x)
    labels = layers.Conv2D(10, 1, dtype="float32", name="labels")(x)
    ink = layers.Conv2DTranspose(3, 2, 2, dtype="float32", name="ink")(x)
    return Model(image, [places, labels, ink])


@functools.cache  # a notebook predicts more than once
def load_finder(path: str | os.PathLike = SHIPPED) -> Finder:
    """The trained finder.

    Raises:
        OSError, ValueError: the file is missing or is not the finder's.
    """
    import keras

    policy = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("float32")  # whatever the network that reads has
    network = build_finder()
    keras.mixed_precision.set_dtype_policy(policy)
    with np.load(path) as file:
        *layers, last = (file[name].astype(np.float32) for name in sorted(file.files))
    network.set_weights(layers)
    return Finder(maps_of(network), last)


def save_finder(network, weights: np.ndarray, path: Path) -> None:
    """Write what load_finder reads, in float16: the network's weights, then Finder.weights."""
    arrays = (array.astype(np.float16) for array in (*network.get_weights(), weights))
    with atomic_file(path) as partial:
        np.savez(partial, **{f"{number:03}": array for number, array in enumerate(arrays)})


def maps_of(network) -> Callable[[np.ndarray], Maps]:
    """What the network says of one picture, as Finder.maps."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])
    def maps(images):
        places, labels, ink = network(tf.cast(images, tf.float32) / 255 - 0.5, training=False)
        likely = tf.sigmoid(places), tf.nn.softmax(labels), tf.sigmoid(ink[..., 0])
        return *likely, ink[..., 1:] * OFFSET

    return lambda image: Maps(*(output.numpy()[0] for output in maps(tf.constant(image[None]))))
