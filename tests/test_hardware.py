"""That hardware.speed_up changes how long the network takes, and nothing else."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from classifier import hardware
from classifier.batches import prepared
from mnist_keras import build_model
from setting import Setting

# Of MNIST, of the smallest pictures, of CIFAR-10, and with more outputs than one product pays for.
SIZES = [(26, 26), (18, 18), (32, 32), (44, 30)]


def networks(height: int, width: int, grey: bool) -> tuple[keras.Sequential, keras.Sequential]:
    """The article's network, and the same, sped up, with the same weights."""
    keras.mixed_precision.set_global_policy("float32")  # bfloat16 would hide small differences
    keras.utils.set_random_seed(0)
    setting = Setting(img_height=height, img_width=width)
    plain, fast = build_model(setting), build_model(setting)
    # Biases other than 0, else the order of adding them, pooling and ReLU would not show.
    weights = [np.random.normal(w, 0.05) for w in plain.get_weights()]
    plain.set_weights(weights)
    fast.set_weights(weights)
    assert hardware.speed_up(fast, grey) == hardware.PARTS
    return plain, fast


def pictures(count: int, height: int, width: int, grey: bool) -> np.ndarray:
    images = np.random.default_rng(0).random((count, height, width, 1 if grey else 3), np.float32)
    return np.repeat(images, 3, -1) if grey else images


@pytest.mark.parametrize("grey", [True, False], ids=["grey", "colour"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_output_and_gradients_are_the_article_network_s(height, width, grey):
    images = tf.constant(pictures(5, height, width, grey))
    labels = tf.one_hot([3, 1, 4, 1, 5], 10)

    @tf.function(reduce_retracing=True)
    def step(network: keras.Sequential) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            chances = network(images, training=False)
            loss = keras.losses.categorical_crossentropy(labels, chances)
        return chances, tape.gradient(loss, network.trainable_variables)

    plain, fast = networks(height, width, grey)
    (output, gradients), (fast_output, fast_gradients) = step(plain), step(fast)
    np.testing.assert_allclose(fast_output, output, atol=1e-5)
    for expected, gradient in zip(gradients, fast_gradients, strict=True):
        np.testing.assert_allclose(gradient, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_batch_may_have_fewer_pictures_than_parts(count):
    plain, fast = networks(26, 26, grey=True)
    images = pictures(count, 26, 26, grey=True)
    np.testing.assert_allclose(fast.predict(images, verbose=0), plain(images), atol=1e-5)


def test_dropout_keeps_half_of_the_values_and_doubles_them():
    dropout = keras.layers.Dropout(0.5, seed=0)
    ones = tf.ones([1000, 40])
    first, second = (hardware.toss_coins(dropout, ones, training=True).numpy() for _ in range(2))
    assert set(np.unique(first)) == {0, 2}
    # 40,000 coins: within four standard deviations of half, and the columns like the rows.
    assert abs((first == 2).mean() - 0.5) < 0.01
    assert np.ptp((first == 2).mean(axis=0)) < 0.13
    assert abs((first == second).mean() - 0.5) < 0.01
    assert np.array_equal(hardware.toss_coins(dropout, ones), ones)


def test_dropout_lets_the_gradient_through_where_it_kept_the_value():
    dropout = keras.layers.Dropout(0.5, seed=0)
    ones = tf.ones([10, 40])
    with tf.GradientTape() as tape:
        tape.watch(ones)
        kept = hardware.toss_coins(dropout, ones, training=True)
    assert np.array_equal(tape.gradient(kept, ones), kept)


def test_batches_are_made_without_the_tuner_that_delays_the_end_of_an_epoch():
    dataset = prepared(tf.data.Dataset.range(3), lambda number: number + 1)
    assert list(dataset.as_numpy_iterator()) == [1, 2, 3]
    assert not dataset.options().autotune.enabled
