"""Checkpoints give calibrated probabilities and the same answers."""

import keras
import numpy as np
import pytest
from keras import layers
from pytest import approx

from classifier.calibration import calibrated, fit_temperature
from classifier.run_folder import LAST_EPOCH, BestCheckpoint, checkpoints
from classifier.weights import load_weights, without_optimizer

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(2000, 8)).astype("f4")


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def network(*last):
    return keras.Sequential([keras.Input([8]), *last])


def batches(model):
    """Batches of images with labels, of which the model could be surer: a temperature of 0.4."""
    labels = np.eye(3)[drawn(softmax(np.log(model(IMAGES)) / 0.4))]
    return lambda: [(IMAGES[:1500], labels[:1500]), (IMAGES[1500:], labels[1500:])]


def drawn(probabilities):
    return np.array([RNG.choice(len(row), p=row / row.sum()) for row in probabilities])


@pytest.fixture
def model():
    return network(layers.Dense(3, activation="softmax"))


@pytest.mark.parametrize("temperature", [0.4, 1, 3])
def test_the_temperature_is_found_that_the_labels_were_drawn_by(temperature):
    logits = RNG.normal(size=(20_000, 5)) * 3
    probabilities = softmax(logits * temperature).astype("f4")
    assert fit_temperature(probabilities, drawn(softmax(logits))) == approx(temperature, rel=0.05)


def test_where_all_answers_are_right_some_doubt_is_left():
    labels = np.arange(100) % 2
    temperature = fit_temperature(np.eye(2, dtype="f4")[labels] * 0.8 + 0.1, labels)
    sure = 1 / (1 + (0.1 / 0.9) ** (1 / temperature))
    assert sure == approx(100 / 101, abs=0.001)


def test_probabilities_are_calibrated_answers_stay_and_the_weights_come_back_to_the_bit(model):
    weights, before = model.get_weights(), model(IMAGES).numpy()
    with pytest.raises(ZeroDivisionError), calibrated(model, batches(model)):
        after = model(IMAGES).numpy()
        raise ZeroDivisionError
    assert after == approx(softmax(np.log(before) / 0.4), abs=0.05)
    assert np.array_equal(after.argmax(axis=1), before.argmax(axis=1))
    assert all(map(np.array_equal, weights, model.get_weights()))


def test_the_last_layer_may_be_in_a_model_in_the_model(model):
    image = keras.Input([8])
    outer = keras.Model(image, model(image))
    before = model.get_weights()[0]
    with calibrated(outer, batches(outer)):
        assert model.get_weights()[0] == approx(before / 0.4, rel=0.2)


@pytest.mark.parametrize(
    "last",
    [
        [layers.Dense(3), layers.Softmax()],
        [layers.Dense(3, activation="sigmoid")],
        [layers.Reshape([8, 1]), layers.Conv1D(3, 8, activation="softmax"), layers.Flatten()],
    ],
)
def test_a_network_with_another_last_layer_is_left_alone(last):
    model = network(*last)
    before = model.get_weights()
    with calibrated(model, batches(model)):
        assert all(map(np.array_equal, before, model.get_weights()))


def test_checkpoints_are_calibrated_and_the_state_to_go_on_from_is_not(model, tmp_path):
    callback = BestCheckpoint(tmp_path, tmp_path, 1, 1, batches(model))
    callback.set_model(model)
    callback.on_epoch_begin(0)
    callback.on_epoch_end(0, {"loss": 1.0, "acc": 0.9, "val_loss": 1.0, "val_acc": 0.9})
    weights = model.get_weights()
    (best,) = checkpoints(tmp_path)
    load_weights(without_optimizer(model), best)
    kernel, bias = model.get_weights()
    ratio = kernel / weights[0]
    assert ratio.std() < 1e-6 and abs(ratio.mean() - 1) > 0.1
    load_weights(model, tmp_path / LAST_EPOCH)
    assert all(map(np.array_equal, weights, model.get_weights()))
