"""Every knob of a run, its default and the reason for it, and the command line that sets it.

setting = Setting(epochs=5)          # in a program
python mnist_keras.py --epochs 5 …   # on the command line: one flag a field
"""

import copy
import math
import os
import typing
from collections.abc import Callable
from dataclasses import Field, dataclass, field
from pathlib import Path
from typing import Any

# How the article spells three of its settings; its own lines still run.
ARTICLE_SPELLINGS = {
    "lebel_nums": "label_nums",
    "epoches": "epochs",
    "save_epoches": "save_epochs",
}


class Derived:
    """A default that follows other fields until a value of its own is given."""

    def __init__(self, rule: Callable[["Setting"], Any]):
        self.rule = rule

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, setting, owner=None):
        if setting is None:
            return self
        value = vars(setting).get(self.name)
        return self.rule(setting) if value is None else value

    def __set__(self, setting, value):
        vars(setting)[self.name] = None if value is self else value


def under(name: str) -> Derived:
    return Derived(lambda setting: str(Path(setting.data_dir, name)))


def always(value) -> Derived:
    """A fixed default for which `is_given` can tell whether the user chose it."""
    return Derived(lambda setting: value)


def knob(default, help, *, shown=None, least=None, most=math.inf, choices=None):
    """A field, with its help text, the default that the help shows, and its limits."""
    limits = {"least": least, "most": most, "choices": choices}
    return field(default=default, metadata={"help": help, "shown": shown or default, **limits})


@dataclass
class Setting:
    """Every knob of a run, under the article's names.

    A value is checked when it is set, in a program as on the command line; one that can't be
    meant raises ValueError with a message of one line, a name that isn't here AttributeError.
    """

    data_dir: str = knob("mnist_data/", "holds train/, test/ and tmp/, and what a run makes")
    train_dir: str = knob(
        under("train"), "training pictures, one folder a class", shown="DATA_DIR/train"
    )
    test_dir: str = knob(under("test"), "test pictures, one folder a class", shown="DATA_DIR/test")
    imp_dir: str = knob(under("tmp"), "pictures to predict", shown="DATA_DIR/tmp")
    checkpoint_path: str = knob(
        under("model_weight"), "folder of the checkpoints", shown="DATA_DIR/model_weight"
    )
    # MNIST's own size: nothing is resized.
    img_width: int = knob(always(28), "width of the network's input, in pixels", shown=28, least=1)
    img_height: int = knob(
        always(28), "height of the network's input, in pixels", shown=28, least=1
    )
    label_nums: int = knob(
        always(10), "number of classes; follows the folders that are found", shown=10, least=1
    )
    # The article's number; its recipe has long stopped improving then, the tuned one just has.
    epochs: int = knob(20, "passes over the training pictures", least=1)
    save_epochs: int = knob(1, "look for a better val_acc every so many epochs", least=1)
    # 32 is what the article gets from Keras; larger batches keep two cores busier.
    batch_size: int = knob(
        Derived(lambda setting: 32 if setting.recipe == "article" else 128),
        "pictures in a training step",
        shown="128, fewer for small sets; 32 with --recipe article",
        least=1,
    )
    initial_epoch: int = knob(0, "number of epochs already done, with --restore_model", least=0)
    is_restore: bool = knob(
        Derived(lambda setting: setting.restore_model is not None),
        "train: go on where the last run in checkpoint_path was interrupted",
        shown="false",
    )
    restore_model: str | None = knob(
        None, "weights file to start from, to evaluate or to predict with", shown="the best one"
    )
    # Fixed, so that two people who type the same command read the same figures.
    # 32 bits, less one for the sign, are what every library takes.
    seed: int = knob(0, "seed of all that is drawn at random", least=0, most=2**31 - 1)
    recipe: str = knob(
        "tuned", "how to train: tuned, or the article to the letter", choices=("tuned", "article")
    )
    precision: str = knob(
        "auto",
        "arithmetic of the network; auto takes mixed_bfloat16 where the hardware has it",
        choices=("auto", "float32", "mixed_bfloat16"),
    )
    # A mirrored 2 is no 2: off unless the pictures are known to bear it.
    horizontal_flip: bool = knob(
        False, "also train on mirror images: for flowers, never for text", shown="false"
    )
    handwriting: bool | None = knob(
        None,
        "predict: clean up photos and drawings of digits first",
        shown="if the network was trained on pictures like MNIST's",
    )
    cache_limit: int | None = knob(
        None,
        "most memory for decoded pictures, in MB; above it they are read from disk every epoch",
        shown="a sixth of the memory that is free",
        least=0,
    )

    def __setattr__(self, name, value):
        name = ARTICLE_SPELLINGS.get(name, name)
        if name not in self.__dataclass_fields__:
            raise AttributeError(f"Setting has no field {name!r}")
        super().__setattr__(name, checked(self.__dataclass_fields__[name], value))

    def __getattr__(self, name):
        if name not in ARTICLE_SPELLINGS:
            raise AttributeError(f"Setting has no field {name!r}")
        return getattr(self, ARTICLE_SPELLINGS[name])

    def is_given(self, name: str) -> bool:
        """Whether the field has a value of its own, not the default that follows other fields."""
        return vars(self)[name] is not None

    def replace(self, **values) -> "Setting":
        """A copy with other values; a default that follows other fields goes on doing so."""
        setting = copy.copy(self)
        for name, value in values.items():
            setattr(setting, name, value)
        return setting

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The network's input: (height, width, 3), or (3, height, width) if Keras says so."""
        from keras import backend  # here, since importing Keras takes seconds

        if backend.image_data_format() == "channels_first":
            return (3, self.img_height, self.img_width)
        return (self.img_height, self.img_width, 3)


def value_type(knob: Field) -> type:
    """The type of a field's values: int for `int` and for `int | None`."""
    options = typing.get_args(knob.type) or (knob.type,)
    return next(option for option in options if option is not type(None))


def checked(knob: Field, value):
    """The value, if the field can take it; else ValueError with a message of one line."""
    may_be_none = knob.default is None or isinstance(knob.default, Derived)
    if isinstance(value, Derived) or (value is None and may_be_none):
        return value
    kind, choices = value_type(knob), knob.metadata["choices"]
    least, most = knob.metadata["least"], knob.metadata["most"]
    if kind is str and isinstance(value, os.PathLike):
        value = os.fspath(value)
    if type(value) is not kind:
        raise ValueError(f"{knob.name} takes a value of type {kind.__name__}, not {value!r}")
    if kind is str and not value:
        raise ValueError(f"{knob.name} is empty")
    if kind is int and not least <= value <= most:
        limits = f"at least {least}" if most == math.inf else f"from {least} to {most}"
        raise ValueError(f"{knob.name} must be {limits}, not {value}")
    if choices and value not in choices:
        raise ValueError(f"{knob.name} must be {' or '.join(choices)}, not {value!r}")
    return value
