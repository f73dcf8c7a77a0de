"""How to train: the article's way to the letter, and what the tuned way does instead."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from classifier import recipe
from classifier.muon import Muon
from classifier.opener import decode
from classifier.pictures import ImageSet
from digits.mnist_like import with_drawn_digits
from mnist_keras import data_generator
from setting import Setting


def pictures(count: int, channels: int = 1) -> ImageSet:
    pixels = np.zeros((count, 8, 8, channels), np.uint8)
    return ImageSet(
        np.array([""] * count), np.zeros(count, np.int32), pixels, (8, 8), decode, channels == 1
    )


def tuned(count: int = 100, epochs: int = 20, strokes: bool = False, **given) -> recipe.Recipe:
    setting = Setting(epochs=epochs, label_nums=2, **given)
    return recipe.tuned(setting, pictures(count), pictures(9), strokes)


# The article's recipe


def test_the_article_s_recipe_is_the_article_s(digits):
    setting = Setting(data_dir=str(digits), recipe="article")
    training, validation = data_generator(setting)
    plan = recipe.choose(setting, training, validation, True, True, with_drawn_digits)
    assert plan.training(3) is training and plan.validation is validation
    assert training.batch_size == 32 and plan.steps_per_epoch == len(training) == 38
    assert type(plan.optimizer()) is keras.optimizers.RMSprop
    assert float(plan.optimizer().learning_rate) == pytest.approx(1e-3)
    slower = recipe.article(training, validation, learning_rate=1e-4)
    assert float(slower.optimizer().learning_rate) == pytest.approx(1e-4)
    assert plan.shuffle and plan.steps_per_execution == 1
    assert plan.average_power is None and not plan.grayscale
    images, labels = next(training)
    assert images.max() <= 1 and set(np.unique(labels)) == {0, 1}


# The tuned one


@pytest.mark.parametrize(
    ("count", "batch_size", "batch", "steps", "a_call"),
    [
        (48_000, None, 128, 368, 8),  # of 375 whole batches, those in whole calls
        (1237, None, 19, 64, 8),  # 65 batches of 19, of which the last is no whole call
        (1237, 100, 100, 12, 1),
        (200, None, 16, 12, 1),
        (5, None, 5, 1, 1),
        (5, 100, 5, 1, 1),
    ],
)
def test_small_sets_are_trained_in_small_batches_unless_the_user_says_otherwise(
    count, batch_size, batch, steps, a_call
):
    plan = tuned(count, batch_size=batch_size)
    assert (plan.steps_per_epoch, plan.steps_per_execution) == (steps, a_call)
    assert len(next(iter(plan.training(0)))[0]) == batch


def test_a_training_that_goes_on_has_only_the_epochs_that_are_left():
    plan = tuned(40, epochs=5, batch_size=20)
    for done in (0, 3, 5):
        assert sum(1 for _ in plan.training(done)) == (5 - done) * plan.steps_per_epoch


@pytest.mark.parametrize("epochs", [1, 3, 20])
def test_the_learning_rate_rises_to_its_peak_and_falls_to_0(epochs):
    plan = tuned(1600, epochs)
    optimizer, steps = plan.optimizer(), epochs * plan.steps_per_epoch
    optimizer.build([keras.Variable([1.0])])

    def rate(share: float) -> float:
        optimizer.iterations.assign(round(share * steps))
        return float(optimizer.learning_rate)

    warm_up, peak = recipe.WARMUP, recipe.PEAK_LEARNING_RATE
    assert 0 < rate(0) < peak / 2
    assert rate(warm_up) == pytest.approx(peak, rel=0.05)
    assert rate(warm_up + (1 - warm_up) / 2) == pytest.approx(peak / 2, rel=0.05)
    assert rate(1) < peak / 50


def test_a_learning_rate_of_one_s_own_is_the_peak_of_adamw_s():
    optimizer = tuned(1600, learning_rate=1e-4).optimizer()
    assert type(optimizer) is keras.optimizers.AdamW
    optimizer.build([keras.Variable([1.0])])
    optimizer.iterations.assign(round(recipe.WARMUP * 20 * 96))
    assert float(optimizer.learning_rate) == pytest.approx(1e-4, rel=0.05)


def test_weights_that_learn_nothing_decay():
    optimizer, weight = tuned().optimizer(), keras.Variable([1.0])
    optimizer.build([weight])
    optimizer.iterations.assign(100)
    rate = float(optimizer.learning_rate)
    optimizer.apply([np.zeros(1, np.float32)])
    assert weight.numpy() == pytest.approx(1 - rate * recipe.WEIGHT_DECAY, rel=1e-6)
    assert weight.numpy() < 1


def test_convolutions_take_orthogonal_steps_longer_ones_if_they_are_few():
    for epochs in (1, 30):
        optimizer = tuned(200, epochs).optimizer()  # 12 steps an epoch
        assert type(optimizer) is Muon
        assert optimizer.length == (recipe.FEW_STEPS_LENGTH if epochs == 1 else recipe.LENGTH)


def test_short_runs_take_strokes_as_they_are_and_average_narrowly(monkeypatch):
    asked = []
    monkeypatch.setattr(recipe, "training_batches", lambda *given: asked.append(given[7]))
    for epochs in (recipe.SHORT_RUN_EPOCHS, recipe.SHORT_RUN_EPOCHS + 1):
        plan = tuned(epochs=epochs, strokes=True)
        plan.training(0)
        asked.append(plan.average_power)
    assert asked == [False, recipe.SHORT_RUN_POWER, True, recipe.AVERAGE_POWER]


def test_pictures_are_grey_only_if_those_held_out_are_too():
    for channels, held_out, grayscale in ((1, 1, True), (1, 3, False), (3, 1, False)):
        plan = recipe.tuned(Setting(), pictures(9, channels), pictures(9, held_out), False)
        assert plan.grayscale is grayscale


# The average of the weights


def test_later_weights_count_more_in_the_average_which_takes_their_place_in_validation():
    model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1, use_bias=False)])
    model.compile("adamw")
    model.optimizer.build(model.trainable_variables)
    average = recipe.WeightAverage(model, power=3)
    average.set_model(model)
    for step in range(1, 101):
        model.set_weights([np.full((1, 1), step)])
        average.on_train_batch_end(step)
    average.on_test_begin()
    assert 79 < model.get_weights()[0] < 81  # 4 / 5 of the way, if steps count as their cube
    average.on_epoch_end(0)
    assert model.get_weights()[0] == 100


def test_batch_normalization_has_the_average_s_own_statistics_in_validation(processor):
    inner = keras.Sequential([keras.Input([2]), keras.layers.BatchNormalization()])
    frozen = keras.layers.BatchNormalization(trainable=False)
    dense = keras.layers.Dense(2, use_bias=False)
    model = keras.Sequential([keras.Input([2]), dense, inner, frozen])
    model.compile("adamw")
    model.optimizer.build(model.trainable_variables)
    images = np.random.default_rng(0).normal(5, 2, (64, 2)).astype("f4")
    batches = tf.data.Dataset.from_tensors((images, images)).repeat(20)
    average = recipe.WeightAverage(model, power=3, training=lambda done: batches)
    average.set_model(model)
    for step in range(1, 11):
        dense.set_weights([np.eye(2) * step])
        average.on_train_batch_end(step)
    average.on_test_begin()
    outputs = images @ dense.get_weights()[0]
    layer = inner.layers[0]
    np.testing.assert_allclose(layer.moving_mean, outputs.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(layer.moving_variance, outputs.var(axis=0), rtol=1e-3)
    assert layer.momentum == 0.99 and not frozen.moving_mean.numpy().any()


# What is said if nothing is learned


@pytest.mark.parametrize(
    ("majority_share", "best", "said"),
    [
        (0.1, 0.105, True),
        (0.1, 0.12, False),
        (0.95, 0.95, True),
        (0.95, 0.99, False),  # of twenty mistakes sixteen are gone
        (1.0, 1.0, False),  # all that is held out is of one class
    ],
)
def test_a_network_no_better_than_chance_is_named_once(majority_share, best, said, capsys):
    callback = recipe.NothingLearnedWarning(majority_share)
    callback.set_model(keras.Sequential([keras.layers.Dense(1)]))
    callback.set_params({"epochs": 20})
    for epoch in range(20):
        callback.on_epoch_end(epoch, {"val_acc": best})
    assert capsys.readouterr().err.count("nothing is learned yet") == said


def test_for_a_frozen_network_the_layer_is_named_and_not_the_folders(capsys):
    callback = recipe.NothingLearnedWarning(0.5)
    base = keras.layers.Dense(1, trainable=False, name="base")
    callback.set_model(keras.Sequential([base, keras.layers.Dense(1)]))
    callback.set_params({"epochs": 1})
    callback.on_epoch_end(0, {"val_acc": 0.5})
    error = capsys.readouterr().err
    assert "base has trainable=False" in error and "folders" not in error
