"""Checks of the network that build_model returns; what it lacks is said in one line."""

import re
import sys
import traceback
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from classifier.console import InputError

# Of the random input. So large that the outputs of an untrained network without a softmax don't sum
# to about 1.
NOISE_STD = 10.0
# bfloat16 rounds probabilities to a 256th of themselves.
ROUNDING = 0.01


# From a Setting to the network.
BuildFn = Callable[[Any], keras.Model]


def choose_build_fn(build_fn: BuildFn | None, build_model: BuildFn) -> BuildFn:
    """build_fn; by default build_model.

    Raises:
        InputError: a notebook has defined a build_model of its own, and not passed it.
    """
    if (
        build_fn is None
        and getattr(sys.modules["__main__"], "build_model", build_model) != build_model
    ):
        raise InputError(
            "build_model is defined anew, but was not passed; train, evaluate, predict and export "
            "take it as build_fn=build_model"
        )
    return build_fn or build_model


def build_checked(build_model: BuildFn, setting: Any) -> keras.Model:
    """The network that build_model makes of a Setting, checked.

    Raises:
        InputError: build_model fails; or what it returns is no Sequential or functional model from
            input_shape to label_nums probabilities, or can't be saved or trained.
    """
    try:
        model = build_model(setting)
    except (InputError, MemoryError):
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)[1:2]  # build_model's, if it was reached
        place = "".join(f", line {frame.lineno}" for frame in frames)
        raise InputError(f"build_model{place}: {reason(error)}") from error
    if type(model) is keras.Sequential and not model.built:
        raise InputError("build_model: its Sequential must begin with Input(setting.input_shape)")
    if not isinstance(model, keras.Model) or not hasattr(model, "inputs"):
        raise InputError(
            f"build_model: it returned {type(model).__name__}; only the layers of a Sequential or "
            "of a keras.Model(inputs, outputs) can be saved and known again"
        )
    for what, shape, wanted, name in (
        ("takes", model.input_shape, (None, *setting.input_shape), "setting.input_shape"),
        ("answers with", model.output_shape, (None, setting.label_nums), "setting.label_nums"),
    ):
        if shape != wanted:
            raise InputError(f"build_model: the network {what} {shape}, not {wanted}; see {name}")
    check_layers(model)
    check_probabilities(model)
    return model


def reason(error: Exception) -> str:
    """The first line of Keras's message, without colors; of other errors, with their type."""
    lines = [line for line in re.sub(r"\x1b\[\d*m", "", str(error)).splitlines() if line]
    first = " ".join(lines[: 2 if str(error).startswith("Exception encountered") else 1])
    return first if first and type(error) is ValueError else f"{type(error).__name__}: {first}"


def check_layers(model: keras.Model) -> None:
    """Raise InputError if a layer has no config, or can't be trained here."""
    try:
        model.to_json()
    except Exception as error:  # of a layer's own get_config, or Keras's that there should be one
        message = " ".join(str(error).strip().partition("\n\n")[0].split())
        raise InputError(f"build_model: a layer can't be described: {message}") from error
    for weights in model.trainable_variables:
        if weights.dtype != "float32":
            raise InputError(
                f"build_model: the weights {weights.path} are {weights.dtype}; only those in "
                "float32 are trained"
            )
    for layer in model.layers:
        # Keras 3.15 adds it to the float32 loss without a cast, which TensorFlow refuses.
        if layer.activity_regularizer is not None and layer.compute_dtype != "float32":
            raise InputError(
                f"build_model: layer {layer.name} regularizes its activity in "
                f'{layer.compute_dtype}, which Keras can\'t; it needs dtype="float32"'
            )


def check_probabilities(model: keras.Model) -> None:
    """Raise InputError if the outputs are not probabilities, which the loss needs."""
    last = model.layers[-1]
    activation = getattr(last, "activation", None)
    if activation is keras.activations.softmax:  # nothing has to be computed
        return
    noise = np.random.default_rng(0).normal(scale=NOISE_STD, size=(4, *model.input_shape[1:]))
    outputs = np.asarray(model(noise, training=False), np.float32)
    if not (outputs.min() >= 0 and np.allclose(outputs.sum(axis=1), 1, atol=ROUNDING)):
        has = f"the activation {activation.__name__}" if activation else "no activation"
        raise InputError(
            f"build_model: the outputs of its last layer, {type(last).__name__} with {has}, are "
            'no probabilities, each 0 or more and together 1; activation="softmax" makes them'
        )
