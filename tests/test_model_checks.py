"""A network written in build_model that can't serve is refused in one line that says why."""

from pathlib import Path

import keras
import pytest
from keras import layers

import mnist_keras
from classifier.console import InputError
from classifier.model_checks import build_checked
from setting import Setting

SETTING = Setting(img_width=18, img_height=20, label_nums=3)


def chain(*own, shape=SETTING.input_shape):
    return lambda setting: keras.Sequential([keras.Input(shape), *own])


def dense(count=3, **options):
    return layers.Dense(count, **options)


class Subclassed(keras.Model):
    def call(self, pictures):
        return pictures


def two_answers(setting):
    given = keras.Input(setting.input_shape)
    probabilities = dense(activation="softmax")(layers.Flatten()(given))
    return keras.Model(given, [probabilities, probabilities])


@pytest.mark.parametrize(
    ("build_model", "said"),
    [
        (lambda setting: Subclassed(), "it returned Subclassed; only the layers of a Sequential"),
        (lambda setting: None, "it returned NoneType; only"),
        (
            lambda setting: keras.Sequential([layers.Flatten(), dense(activation="softmax")]),
            r"its Sequential must begin with Input\(setting.input_shape\)",
        ),
        (
            chain(layers.Flatten(), dense(activation="softmax"), shape=(20, 18, 1)),
            r"takes \(None, 20, 18, 1\), not \(None, 20, 18, 3\); see setting.input_shape",
        ),
        (
            chain(layers.Flatten(), dense(10, activation="softmax")),
            r"answers with \(None, 10\), not \(None, 3\); see setting.label_nums",
        ),
        (chain(dense(activation="softmax")), r"answers with \(None, 20, 18, 3\), not \(None, 3\)"),
        (two_answers, r"answers with \[\(None, 3\), \(None, 3\)\], not"),
        (chain(layers.Flatten(), dense()), "last layer, Dense with the activation linear, are"),
        (chain(layers.Flatten(), dense(activation="sigmoid")), "the activation sigmoid, .*softmax"),
        (
            chain(layers.Flatten(), dense(activation="softmax"), layers.Rescaling(2.0)),
            "Rescaling with no activation, .*softmax",
        ),
    ],
)
def test_a_network_that_can_not_serve_is_one_line_that_says_what_to_change(build_model, said):
    with pytest.raises(InputError, match=f"^build_model: .*{said}") as refused:
        build_checked(build_model, SETTING)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (lambda: layers.Conv2D(8, 30), "Computed output size would be zero or negative"),
        (lambda: dense(activation="relux"), "Could not interpret .*: relux"),
        (lambda: layers.Reshape((7, 7)), r"Reshape.call\(\). The total size of the tensor must be"),
    ],
)
def test_what_keras_refuses_is_one_line_with_that_of_build_model(layer, said):
    def build_model(setting):
        return keras.Sequential([keras.Input(setting.input_shape), layer()])

    line = build_model.__code__.co_firstlineno + 1
    with pytest.raises(InputError, match=f"^build_model, line {line}: .*{said}") as refused:
        build_checked(build_model, SETTING)
    assert refused.match(r"^[^\n\x1b]*$")


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (lambda: layers.Conv2d(8, 3), "AttributeError: .* has no attribute 'Conv2d'"),
        (lambda: layers.Conv2D(8), "TypeError: .*missing .*'kernel_size'"),
        (lambda: undefined, "NameError: name 'undefined' is not defined"),  # noqa: F821
        (lambda: int(""), "invalid literal for int"),
    ],
)
def test_so_is_any_other_mistake_with_its_kind(mistake, said):
    def build_model(setting):
        return keras.Sequential([keras.Input(setting.input_shape), mistake()])

    line = build_model.__code__.co_firstlineno + 1
    with pytest.raises(InputError, match=f"^build_model, line {line}: {said}"):
        build_checked(build_model, SETTING)


def test_an_error_that_says_nothing_or_comes_before_the_first_line_is_one_line_too():
    def fail(setting):
        raise ValueError

    with pytest.raises(InputError, match="^build_model, line .*: ValueError: $"):
        build_checked(fail, SETTING)
    with pytest.raises(InputError, match="^build_model: TypeError: .*takes 0 positional"):
        build_checked(lambda: None, SETTING)


class Doubled(layers.Layer):
    def __init__(self, *numbers):
        super().__init__()

    def call(self, pictures):
        return pictures * 2


def test_layers_that_can_not_be_described_or_trained_are_named():
    def ended(first):
        return chain(first, layers.Flatten(), dense(activation="softmax"))

    with pytest.raises(InputError, match="described: .*Doubled was created .*get_config"):
        build_checked(ended(Doubled(1)), SETTING)
    with pytest.raises(InputError, match="odd/kernel are float64; only"):
        build_checked(ended(layers.Conv2D(2, 3, name="odd", dtype="float64")), SETTING)
    with pytest.raises(InputError, match='odd regularizes .* bfloat16, .*dtype="float32"'):
        odd = layers.ActivityRegularization(0.1, name="odd", dtype="mixed_bfloat16")
        build_checked(ended(odd), SETTING)


def test_pictures_too_small_for_the_article_s_network_are_still_named():
    with pytest.raises(InputError, match="^img_width 17"):
        build_checked(mnist_keras.build_model, Setting(img_width=17))


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "end",
    [
        lambda: [dense(activation="softmax")],
        lambda: [dense(), layers.Softmax()],
        lambda: [dense(), layers.Activation("softmax")],
    ],
)
def test_chances_may_be_made_in_any_way(end, precision):
    keras.mixed_precision.set_global_policy(precision)
    try:
        assert build_checked(chain(layers.Flatten(), *end()), SETTING).output_shape == (None, 3)
    finally:
        keras.mixed_precision.set_global_policy("float32")


def test_train_and_evaluate_refuse_it(data_dir, monkeypatch):
    monkeypatch.setattr(mnist_keras, "build_model", lambda setting: Subclassed())
    with pytest.raises(InputError, match="^build_model: "):
        mnist_keras.train(Setting(data_dir=str(data_dir)))
    shipped = Path(mnist_keras.__file__).parent / "mnist_data" / "shipped"
    with pytest.raises(InputError, match="^build_model: "):
        mnist_keras.evaluate(Setting(data_dir=str(data_dir), checkpoint_path=str(shipped)))
