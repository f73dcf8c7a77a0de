"""Probabilities that are as high as answers are often right: temperature scaling.

A network that learned from smoothed labels says 90% where 99.6 of 100 answers are right. The logits
divided by one number, the temperature, give calibrated probabilities and the same answers (Guo,
Pleiss, Sun and Weinberger 2017, On Calibration of Modern Neural Networks).
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np
import tensorflow as tf


@contextlib.contextmanager
def calibrated(model: keras.Model, batches: Callable[[], Iterable] | None) -> Iterator[None]:
    """Divide the last layer's weights by the temperature while the body runs.

    A model whose last layer isn't a Dense with softmax is left as it is.

    Args:
        model: images to probabilities, float32 [n, k].
        batches: called for pairs of validation images and one-hot labels [n, k], on which the
            temperature is fitted; None to leave the model as it is.
    """
    layer = model
    while isinstance(layer, keras.Model):
        layer = layer.outputs[0]._keras_history.operation
    is_dense = type(layer) is keras.layers.Dense
    if not batches or not is_dense or layer.activation is not keras.activations.softmax:
        yield
        return
    # model.predict would wait for the other machines of a training.
    pairs = [(model(images), np.argmax(labels, axis=1)) for images, labels in batches()]
    probabilities, labels = map(np.concatenate, zip(*pairs, strict=True))
    temperature = fit_temperature(probabilities, labels)
    weights = layer.get_weights()
    layer.set_weights([values / temperature for values in weights])
    try:
        yield
    finally:
        layer.set_weights(weights)


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature by which the labels are likeliest, as if one more answer had been wrong.

    Without that one, where all answers are right, none would be low enough (Platt 1999).

    Args:
        probabilities: float [n, k], of a softmax.
        labels: int [n], the true classes.

    Returns:
        From 0.05 to 20: below 1 if the probabilities are too low.
    """
    count, classes = probabilities.shape
    logits = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny), dtype=np.float32)
    targets = np.full(logits.shape, 1 / (count + 1) / max(1, classes - 1))
    targets[np.arange(count), labels] = count / (count + 1)
    low, high = 0.05, 20.0
    for _ in range(20):  # bisection, to five digits
        temperature = (low * high) ** 0.5
        scaled = tf.nn.softmax(logits / temperature).numpy()
        # the loss's derivative by 1 / temperature
        if ((scaled - targets) * logits).sum() > 0:
            low = temperature
        else:
            high = temperature
    return temperature
