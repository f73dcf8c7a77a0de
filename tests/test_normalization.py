"""A network whose first layer gives the pixels a mean of 0."""

import keras
import numpy as np
import pytest

from classifier.normalization import MNIST_STD, normalized


@pytest.mark.parametrize("functional", [False, True])
def test_pixels_have_a_mean_of_0_and_mnist_s_standard_deviation(functional):
    image = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()
    model = keras.Model(image, flat(image)) if functional else keras.Sequential([image, flat])
    pixels = np.random.default_rng(0).normal(0.8, 0.1, (50, 8, 8, 3)).astype("f4")
    outputs = normalized(model, 0.8, 0.1)(pixels).numpy()
    assert outputs.mean() == pytest.approx(0, abs=0.02)
    assert outputs.std() == pytest.approx(MNIST_STD, rel=0.05)
