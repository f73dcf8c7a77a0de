"""Images are normalized by a layer in build_model; in earlier programs it was done before it."""

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import save
from keras import layers

import mnist_keras
from classifier.extra_layers import MNIST_STD, normalization
from setting import Setting

# What commit 2a8710f left behind after two epochs with `network` and `write_pictures`.
EARLIER = Path(__file__).parent / "earlier_run"


def network(setting: Setting) -> keras.Model:
    image = keras.Input(setting.input_shape)
    edges = layers.Conv2D(2, 3, activation="relu")(image)
    probabilities = layers.Dense(2, activation="softmax", dtype="float32")
    return keras.Model(image, probabilities(layers.Flatten()(edges)))


def write_pictures(folder: Path) -> None:
    """Two classes, dark lines on white: down, and across."""
    for part, count in (("train", 20), ("test", 10)):
        for index in range(count):
            down = np.full((8, 8), 250, np.uint8)
            down[:, index % 8] = 10 * index
            save(folder / part / "down", f"{index}.png", down)
            save(folder / part / "across", f"{index}.png", down.T)


@pytest.fixture
def earlier(tmp_path) -> Setting:
    """Of a data_dir with those pictures and that run."""
    write_pictures(tmp_path)
    shutil.copytree(EARLIER, tmp_path / "model_weight")
    return Setting(data_dir=str(tmp_path), img_width=8, img_height=8)


def test_pixels_have_a_mean_of_0_and_mnist_s_standard_deviation():
    setting = Setting(img_width=20, img_height=20, mean_std=(0.8, 0.1))
    pixels = np.random.default_rng(0).normal(0.8, 0.1, (50, 20, 20, 3)).astype("f4")
    (layer,) = normalization(setting)
    outputs = layer(pixels).numpy()
    assert outputs.mean() == pytest.approx(0, abs=0.02)
    assert outputs.std() == pytest.approx(MNIST_STD, rel=0.05)
    first, *_ = mnist_keras.build_model(setting).layers
    np.testing.assert_array_equal(first(pixels), outputs)


def test_a_network_of_one_s_own_gets_pixels_of_0_to_1_whatever_the_pictures(tmp_path):
    write_pictures(tmp_path)
    setting = Setting(data_dir=str(tmp_path), img_width=8, img_height=8, epochs=1)
    setting.precision = "float32"
    mnist_keras.train(setting, network)
    picture = tmp_path / "test" / "down" / "9.png"
    (row,) = mnist_keras.predict(setting, [str(picture)], network)
    model = network(setting.replace(label_nums=2))
    model.load_weights(next((tmp_path / "model_weight").glob("weights-*")))
    probabilities = model(keras.utils.img_to_array(keras.utils.load_img(picture))[None] / 255)
    assert row.confidence == pytest.approx(float(np.max(probabilities)), abs=1e-5)


def test_a_run_of_an_earlier_program_answers_the_same_and_goes_on(earlier):
    last = str(EARLIER / "last-epoch.weights.h5")
    loss, _ = mnist_keras.evaluate(earlier.replace(restore_model=last), network)
    assert loss == pytest.approx(0.711675, rel=1e-5)
    for _ in range(2):  # what goes on once can do so again
        mnist_keras.train(earlier.replace(is_restore=True, epochs=3), network)
    history = Path(earlier.report_dir, "history.csv").read_text().splitlines()
    assert float(history[-1].split(",")[3]) == pytest.approx(0.677397, rel=1e-5)
