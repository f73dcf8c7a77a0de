"""Networks that begin with weights which have learned from other pictures."""

from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import save
from keras import layers

import mnist_keras
from setting import Setting

SIDE = 32


@pytest.fixture(scope="module")
def colours(tmp_path_factory) -> Path:
    """A data_dir of red and of blue pictures, 32×32."""
    folder, draw = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 5)):
        for channel, name in ((0, "red"), (2, "blue")):
            for index in range(count):
                pixels = draw.integers(0, 100, (SIDE, SIDE, 3), dtype=np.uint8)
                pixels[..., channel] += 120
                save(folder / part / name, f"{index}.png", pixels)
    return folder


@pytest.fixture
def setting(colours, tmp_path, link) -> Setting:
    """Of a run on those pictures."""
    for part in ("train", "test"):
        link(tmp_path / part, colours / part)
    size = {"img_width": SIDE, "img_height": SIDE}
    return Setting(data_dir=str(tmp_path), epochs=1, precision="float32", **size)


# In a build_model of one's own


def test_a_frozen_base_keeps_its_weights(setting, tmp_path):
    def base() -> keras.Model:
        image = keras.Input((SIDE, SIDE, 3))
        edges = layers.BatchNormalization()(layers.Conv2D(4, 3, strides=2)(image))
        return keras.Model(image, layers.GlobalAveragePooling2D()(edges), name="base")

    def on_a_frozen_base(setting: Setting) -> keras.Model:
        frozen = base()
        frozen.load_weights(tmp_path / "base.weights.h5")
        frozen.trainable = False
        dense = layers.Dense(setting.label_nums, activation="softmax", dtype="float32")
        return keras.Sequential([keras.Input(setting.input_shape), frozen, dense])

    learned = base()
    learned.save_weights(tmp_path / "base.weights.h5")
    mnist_keras.train(setting.replace(learning_rate=1e-2), on_a_frozen_base)
    trained = on_a_frozen_base(setting.replace(label_nums=2))
    before = trained.layers[-1].get_weights()
    trained.load_weights(next((tmp_path / "model_weight").glob("weights-*")))
    for then, now in zip(learned.get_weights(), trained.layers[0].get_weights(), strict=True):
        np.testing.assert_array_equal(then, now)
    assert np.abs(before[0] - trained.layers[-1].get_weights()[0]).max() > 1e-3
