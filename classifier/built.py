"""The network that a person has written in build_model, refused in one line if it can't serve."""

import re
import traceback
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from classifier.console import InputError

# Larger numbers than pictures have, so that the answers of a network without a softmax are far
# from 1 together, also before it has learned anything.
NOISE = 10.0
# Chances in bfloat16 are rounded to a 256th of themselves.
ROUNDING = 0.01


def built(build_model: Callable[[Any], keras.Model], setting: Any) -> keras.Model:
    """The network that build_model makes of a Setting, from its input_shape to label_nums chances.

    Raises:
        InputError: Keras refuses its layers; it is no Sequential and no keras.Model(inputs,
            outputs); or what goes in or comes out is not what the program gives and reads.
    """
    try:
        model = build_model(setting)
    except InputError:
        raise
    except ValueError as error:
        line = traceback.extract_tb(error.__traceback__)[1].lineno  # of build_model
        raise InputError(f"build_model, line {line}: {reason(error)}") from error
    if type(model) is keras.Sequential and not model.built:
        raise InputError("build_model: its Sequential must begin with Input(setting.input_shape)")
    if not isinstance(model, keras.Model) or not hasattr(model, "inputs"):
        raise InputError(
            f"build_model: returns a {type(model).__name__}; only the layers of a Sequential or of "
            "a keras.Model(inputs, outputs) can be saved and known again"
        )
    for what, shape, wanted, name in (
        ("takes", model.input_shape, (None, *setting.input_shape), "setting.input_shape"),
        ("answers with", model.output_shape, (None, setting.label_nums), "setting.label_nums"),
    ):
        if shape != wanted:
            raise InputError(f"build_model: the network {what} {shape}, not {wanted}; see {name}")
    check_chances(model)
    return model


def reason(error: ValueError) -> str:
    """What Keras says is wrong, without colours, and without what it tells of the call."""
    lines = [line for line in re.sub(r"\x1b\[\d*m", "", str(error)).splitlines() if line]
    return " ".join(lines[: 2 if lines[0].startswith("Exception encountered") else 1])


def check_chances(model: keras.Model) -> None:
    """Raise InputError if the network's answers are no chances, which the loss takes them for."""
    last = model.layers[-1]
    activation = getattr(last, "activation", None)
    if activation is keras.activations.softmax:  # most networks, and nothing has to be computed
        return
    noise = np.random.default_rng(0).normal(scale=NOISE, size=(4, *model.input_shape[1:]))
    answers = np.asarray(model(noise, training=False), np.float32)
    if not (answers.min() >= 0 and np.allclose(answers.sum(axis=1), 1, atol=ROUNDING)):
        has = f"the activation {activation.__name__}" if activation else "no activation"
        raise InputError(
            f"build_model: what its last layer, {type(last).__name__} with {has}, answers are no "
            'chances, each 0 or more and together 1; activation="softmax" makes them'
        )
