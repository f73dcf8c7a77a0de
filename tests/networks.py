"""Networks for tests and measurements: the one that ships, as a function; one that is narrow."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras import layers

import mnist_keras
from classifier import trained_run
from classifier.batches import rescale, to_model_input
from setting import Setting

DATA = Path(__file__).resolve().parents[1] / "mnist_data"
BATCH = 500

Network = Callable[[np.ndarray], np.ndarray]


def shipped_model(weights: str | None = None) -> keras.Model:
    """The network that reads, as predict loads it.

    Args:
        weights: others than those that ship.
    """
    setting = Setting(
        data_dir=str(DATA), checkpoint_path=str(DATA / "shipped"), restore_model=weights
    )
    return mnist_keras.load_network(trained_run.find_run(setting), grayscale=True)[0]


def as_function(model: keras.Model) -> Network:
    """The network that reads, uint8 [n, 28, 28] to float32 [n, 10]."""

    def probabilities(images: np.ndarray) -> np.ndarray:
        colors = np.repeat(images[..., None], 3, axis=-1)
        starts = range(0, len(images), BATCH)
        batches = (to_model_input(rescale(colors[start : start + BATCH])) for start in starts)
        return np.concatenate([model.predict_on_batch(batch) for batch in batches])

    return probabilities


def narrow(setting: Setting) -> keras.Model:
    """A build_model with few channels, for what a training does besides learning well."""
    return keras.Sequential(
        [
            keras.Input(setting.input_shape),
            layers.Conv2D(12, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dropout(0.5, seed=setting.seed),
            layers.Dense(setting.label_nums, activation="softmax", dtype="float32"),
        ]
    )
