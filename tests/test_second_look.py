"""Where the network is unsure of a digit it looks again, from a pixel further to each side."""

import keras
import numpy as np
import pytest
from keras import layers

from classifier.faster import InParts, faster
from digits.second_look import MOVES, SURE, SecondLook
from mnist_keras import build_model, network
from setting import Setting


def networks() -> tuple[keras.Model, keras.Model]:
    """A network that looks once, and one with the same weights that looks again."""
    keras.utils.set_random_seed(0)
    plain = keras.Sequential(
        [
            keras.Input((20, 20, 3)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(3, activation="softmax", kernel_initializer="random_normal"),
        ]
    )
    weights = plain.get_weights()
    weights[2] *= 8  # of some pictures it is sure, then
    plain.set_weights(weights)
    return plain, faster(keras.models.clone_model(plain), grey=False, kind=SecondLook)


@pytest.fixture(scope="module")
def both():
    plain, again = networks()
    again.set_weights(plain.get_weights())
    return plain, again


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(1).random((count, 20, 20, 3), np.float32)


def test_an_unsure_answer_is_the_mean_of_five_looks_and_a_sure_one_stays(both):
    plain, again = both
    images = pictures(60)
    once = plain(images).numpy()
    moved = [plain(np.roll(images, move, (1, 2))).numpy() for move in MOVES]
    unsure = once.max(axis=1) < SURE
    assert 10 < unsure.sum() < 50
    expected = np.where(unsure[:, None], np.mean([once, *moved], axis=0), once)
    np.testing.assert_allclose(again.predict(images, verbose=0), expected, atol=1e-5)
    assert np.abs(expected - once).max() > 0.01


@pytest.mark.parametrize("wanted", [True, False], ids=["only unsure", "only sure"])
def test_all_pictures_of_a_batch_may_be_unsure_or_none(both, wanted):
    plain, again = both
    images = pictures(60)
    images = images[(plain(images).numpy().max(axis=1) < SURE) == wanted]
    answers = again.predict(images, verbose=0)
    assert np.allclose(answers, plain(images), atol=1e-5) is not wanted


def test_in_training_it_looks_once(both):
    plain, again = both
    images = pictures(60)
    np.testing.assert_allclose(again(images, training=True), plain(images), atol=1e-5)


def test_it_can_be_written_by_keras_and_read_again(both, tmp_path):
    _, again = both
    again.save(tmp_path / "a.keras")
    copy = keras.saving.load_model(tmp_path / "a.keras")
    assert type(copy) is SecondLook
    np.testing.assert_array_equal(copy(pictures(9)), again(pictures(9)))


def test_files_of_weights_fit_the_network_of_build_model(tmp_path):
    model = network(Setting(), grey=True)
    model.save_weights(tmp_path / "a.weights.h5")
    other = build_model(Setting(seed=1))
    other.load_weights(tmp_path / "a.weights.h5")
    for one, same in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)


def test_digits_are_looked_at_again_and_no_other_pictures_nor_what_is_exported():
    assert type(network(Setting(), grey=True)) is SecondLook
    assert type(network(Setting(), grey=True, ground=(0.5, 0.2))) is InParts
    assert type(network(Setting(recipe="article"), grey=True)) is keras.Sequential
    assert type(network(Setting(), grey=True, plain=True)) is keras.Sequential
