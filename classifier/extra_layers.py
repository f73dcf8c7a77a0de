"""Layers that images unlike MNIST's need: normalization, and more pooling for large ones.

Dark lines on white paper are images of nearly all ones. A network with small random weights learns
nothing from them: four shapes drawn so had a test accuracy of 0.25 after 20 epochs.
"""

import math
from typing import Any

import keras
from keras import layers

# Of MNIST's pixels, for which the learning rates were chosen; 1 is too large for small sets.
MNIST_STD = 0.31
# The third convolution's output for 64×64 images. A larger one is pooled to this size, or the first
# dense layer would have a hundred times the weights of all others (177 million at 224×224).
MAX_FLATTENED_SIDE = 12


def normalization(setting: Any) -> list[layers.Layer]:
    """A layer from images in 0..1 to a mean of 0 and MNIST's standard deviation.

    Args:
        setting: its mean_std is that of the training images' pixels; with None there is no layer.
    """
    if not setting.mean_std:
        return []
    mean, std = setting.mean_std
    scale = MNIST_STD / std
    return [layers.Rescaling(scale, offset=-mean * scale)]


def normalized(model: keras.Model, setting: Any) -> keras.Model:
    """The model behind that layer, as earlier programs had it.

    There build_model didn't normalize; it was done before whatever network it returned.

    Args:
        model: a Sequential or a functional model.
        setting: its ground is the mean and the standard deviation; with None the model is returned.
    """
    if not setting.ground:
        return model
    image = keras.Input(model.input_shape[1:])
    chain = normalization(setting.replace(mean_std=setting.ground))
    if type(model) is keras.Sequential:
        return keras.Sequential([image, *chain, *model.layers], name=model.name)
    return keras.Model(image, model(chain[0](image)), name=model.name)


def extra_pooling(height: int, width: int) -> list[layers.Layer]:
    """For images above 64×64 one more pooling, of the third convolution's output."""
    sides = [((side - 2) // 2 - 2) // 2 - 2 for side in (height, width)]
    pool_size = math.ceil(max(sides) / MAX_FLATTENED_SIDE)
    return [layers.MaxPooling2D([min(pool_size, n) for n in sides])] if pool_size > 1 else []
