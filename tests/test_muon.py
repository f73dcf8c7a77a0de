"""The optimizer: AdamW, with orthogonal steps for the kernels of convolutions."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from classifier.muon import MOMENTUM, Muon, orthogonalize


def step(layer: layers.Layer, optimizer: keras.optimizers.Optimizer, seed: int = 0) -> dict:
    """What one step with random gradients does to the layer's weights, by name."""
    draw = np.random.default_rng(seed)
    optimizer.build(layer.trainable_variables)
    before = {v.name: v.numpy() for v in layer.trainable_variables}
    optimizer.apply([draw.normal(size=v.shape).astype("f4") for v in layer.trainable_variables])
    return {v.name: v.numpy() - before[v.name] for v in layer.trainable_variables}


def built(layer: layers.Layer, *shape: int) -> layers.Layer:
    keras.utils.set_random_seed(0)
    layer.build((None, *shape))
    return layer


@pytest.mark.parametrize("shape", [(8, 50), (50, 8), (12, 12)])
def test_a_matrix_keeps_its_directions_and_goes_about_as_far_in_each(shape):
    matrix = np.random.default_rng(0).normal(size=shape).astype("f4")
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    along = left.T @ orthogonalize(matrix).numpy() @ right.T
    assert np.diag(along).min() > 0.5 and np.diag(along).max() < 1.3
    assert np.abs(along - np.diag(np.diag(along))).max() < 0.01


def test_float32_is_multiplied_as_float32_also_on_a_gpu():
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


def test_no_direction_is_gone_too_far_in_if_a_few_are_much_stronger_than_the_others():
    draw = np.random.default_rng(0)
    left, right = (np.linalg.qr(draw.normal(size=(n, 256)))[0] for n in (256, 1152))
    matrix = (left / np.arange(1, 257) @ right.T).astype("f4")
    # 1.2 in float32, 2.3 with ten bits, 350 with the seven of bfloat16
    assert np.linalg.svd(orthogonalize(matrix), compute_uv=False).max() < 1.3


def test_what_is_nothing_stays_nothing():
    matrix = np.random.default_rng(0).normal(size=(9, 64)).astype("f4")
    repeated = np.repeat(matrix, 3, axis=0)  # grey pictures: the gradients of three channels
    assert not orthogonalize(np.zeros((27, 64), "f4")).numpy().any()
    found = np.linalg.svd(orthogonalize(repeated), compute_uv=False)
    assert found[8] > 0.5 and found[9] < 0.01


@pytest.mark.parametrize("length", [0.2, 0.4])
def test_a_convolution_s_kernel_goes_equally_far_in_all_directions(length):
    optimizer = Muon(0.01, length=length)
    change = step(built(layers.Conv2D(16, 3), 8, 8, 4), optimizer)["kernel"]
    lengths = np.linalg.svd(change.reshape(36, 16), compute_uv=False) / (0.01 * length * 6)
    assert lengths.min() > 0.5 and lengths.max() < 1.3


def test_a_convolution_s_kernel_does_not_decay():
    layer, optimizer = (
        built(layers.Conv2D(16, 3), 8, 8, 4),
        Muon(0.01, length=0.2, weight_decay=0.5),
    )
    optimizer.build(layer.trainable_variables)
    before = layer.get_weights()
    optimizer.apply([np.zeros(v.shape, "f4") for v in layer.trainable_variables])
    kernel, _ = zip(before, layer.get_weights(), strict=True)
    assert np.array_equal(*kernel)


@pytest.mark.parametrize(
    "layer", [layers.Dense(3), layers.DepthwiseConv2D(3), layers.BatchNormalization()]
)
def test_all_else_is_adamw_s(layer):
    layer = built(layer, 8, 8, 4)
    at_first = layer.get_weights()
    ours = step(layer, Muon(0.01, length=0.2))
    layer.set_weights(at_first)
    adamw = step(layer, keras.optimizers.AdamW(0.01))
    assert all(np.array_equal(ours[name], adamw[name]) for name in adamw)


def test_the_second_step_goes_on_in_the_direction_of_the_first():
    layer, optimizer = built(layers.Conv2D(16, 3), 8, 8, 4), Muon(0.01, length=0.2)
    first = step(layer, optimizer)["kernel"].ravel()
    second = step(layer, optimizer, seed=1)["kernel"].ravel()
    assert first @ second > 0.3 * (first @ first)


def test_a_step_looks_ahead_as_nesterov_s():
    """The second gradient counts as (1 - m)(1 + m), the first as (1 - m)m²."""
    layer, draw = built(layers.Conv2D(16, 3), 8, 8, 4), np.random.default_rng(0)
    gradients = [draw.normal(size=(3, 3, 4, 16)).astype("f4") for _ in range(2)]
    optimizer = Muon(0.01, length=0.2)
    optimizer.build([layer.kernel])
    for gradient in gradients:
        before = layer.kernel.numpy()
        optimizer.apply([gradient])
    ahead = MOMENTUM**2 * gradients[0] + (1 + MOMENTUM) * gradients[1]
    expected = -0.01 * 0.2 * 6 * orthogonalize(ahead.reshape(36, 16)).numpy()
    change = (layer.kernel.numpy() - before).reshape(36, 16)
    np.testing.assert_allclose(change, expected, atol=2e-5)
