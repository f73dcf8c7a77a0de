"""Every knob of a run, its default and the reason for it.

setting = Setting(epochs=5)          # in a program
python mnist_keras.py --epochs 5 …   # on the command line: one flag a knob
"""

import math
import os
import typing
from pathlib import Path
from typing import Any


class Knob:
    """One value of a Setting: what it is for, its default, and what it may be.

    The default is a value, or a function of the setting, which is asked as long as nobody sets
    the knob. The annotation behind the knob's name says which type it takes.
    """

    def __init__(
        self,
        default: Any,
        help: str,
        *,
        shown: Any = None,  # how `--help` puts the default, if not as it is
        least: float = -math.inf,
        most: float = math.inf,
        choices: tuple[str, ...] | None = None,
    ):
        self.default, self.help, self.shown = default, help, shown or default
        self.least, self.most, self.choices = least, most, choices

    def __set_name__(self, owner, name):
        if name in owner.__annotations__:  # else it is the article's spelling of a knob
            self.name, kind = name, owner.__annotations__[name]
            self.kind = (typing.get_args(kind) or (kind,))[0]  # int, also where it says int | None

    def __get__(self, setting, owner=None):
        if setting is None:
            return self
        if self.name in vars(setting):
            return vars(setting)[self.name]
        return self.default(setting) if callable(self.default) else self.default

    def __set__(self, setting, value):
        if value is None and (self.default is None or callable(self.default)):
            vars(setting).pop(self.name, None)
        else:
            vars(setting)[self.name] = self.checked(value)

    def checked(self, value):
        """The value, if the knob takes it; else ValueError with a message of one line."""
        if self.kind is str and isinstance(value, os.PathLike):
            value = os.fspath(value)
        if type(value) is not self.kind:
            raise ValueError(f"{self.name} takes {self.kind.__name__}, not {type(value).__name__}")
        if self.kind is str and not value:
            raise ValueError(f"{self.name} is empty")
        if self.kind is int and not self.least <= value <= self.most:
            upwards = self.most == math.inf
            limits = f"at least {self.least}" if upwards else f"from {self.least} to {self.most}"
            raise ValueError(f"{self.name} must be {limits}, not {value}")
        if self.choices and value not in self.choices:
            raise ValueError(f"{self.name} must be {' or '.join(self.choices)}, not {value!r}")
        return value


def folder(name: str, help: str) -> Knob:
    """A knob for a folder that lies in data_dir unless it is put elsewhere."""
    return Knob(lambda setting: str(Path(setting.data_dir, name)), help, shown=f"DATA_DIR/{name}")


class Setting:
    """Every knob of a run, under the article's names.

    A value is checked when it is set, in a program as on the command line; one that can't be
    meant raises ValueError with a message of one line, a name that isn't here AttributeError.
    A knob whose default follows others, or is None, goes back to it when None is set.
    """

    data_dir: str = Knob("mnist_data/", "holds train/, test/ and tmp/, and what a run makes")
    train_dir: str = folder("train", "training pictures, one folder a class")
    test_dir: str = folder("test", "test pictures, one folder a class")
    imp_dir: str = folder("tmp", "pictures to predict")
    checkpoint_path: str = folder("model_weight", "folder of the checkpoints")
    # MNIST's own size: nothing is resized.
    img_width: int = Knob(28, "width of the network's input, in pixels", least=1)
    img_height: int = Knob(28, "height of the network's input, in pixels", least=1)
    label_nums: int = Knob(10, "number of classes; follows the folders that are found", least=1)
    # The article's number; MNIST has learned all that it will after 8 (recipe.py).
    epochs: int = Knob(
        20,
        "passes over the training pictures",
        shown="20; 8 of 40,000 pictures or more, unless --recipe article",
        least=1,
    )
    save_epochs: int = Knob(1, "look for a better val_acc every so many epochs", least=1)
    # 32 is what the article gets from Keras; larger batches keep two cores busier.
    batch_size: int = Knob(
        lambda setting: 32 if setting.recipe == "article" else 128,
        "pictures in a training step",
        shown="128, fewer for small sets; 32 with --recipe article",
        least=1,
    )
    initial_epoch: int = Knob(0, "number of epochs already done, with --restore_model", least=0)
    is_restore: bool = Knob(
        False,
        "train: go on where the last run in checkpoint_path was interrupted",
        shown="false",
    )
    restore_model: str | None = Knob(
        None,
        "weights file to start from, to evaluate, to predict with or to export",
        shown="the best one",
    )
    # Fixed, so that two people who type the same command read the same figures.
    # 32 bits, less one for the sign, are what every library takes.
    seed: int = Knob(0, "seed of all that is drawn at random", least=0, most=2**31 - 1)
    recipe: str = Knob(
        "tuned", "how to train: tuned, or the article to the letter", choices=("tuned", "article")
    )
    precision: str = Knob(
        "auto",
        "arithmetic of the network; auto takes mixed_bfloat16 where the hardware has it",
        choices=("auto", "float32", "mixed_bfloat16"),
    )
    # A mirrored 2 is no 2: off unless the pictures are known to bear it.
    horizontal_flip: bool = Knob(
        False, "also train on mirror images: for flowers, never for text", shown="false"
    )
    handwriting: bool | None = Knob(
        None,
        "predict: clean up photos and drawings of digits first",
        shown="if the network was trained on pictures like MNIST's",
    )
    cache_limit: int | None = Knob(
        None,
        "most memory for decoded pictures, in MB; above it they are kept on disk",
        shown="600, or a sixth of the memory that is free",
        least=0,
    )
    # What phones run, and it takes no package besides the program's own.
    format: str = Knob(
        "litert",
        "export: what the network is written as",
        choices=("keras", "saved_model", "litert", "onnx", "openvino"),
    )
    half: bool = Knob(False, "export: LiteRT's weights in float16, half the size", shown="false")

    # How the article spells three of them; its own lines still run.
    lebel_nums, epoches, save_epoches = label_nums, epochs, save_epochs

    def __init__(self, **values):
        for name, value in values.items():
            setattr(self, name, value)

    def __setattr__(self, name, value):
        if not isinstance(getattr(Setting, name, None), Knob):
            raise AttributeError(f"Setting has no field {name!r}")
        super().__setattr__(name, value)

    def __eq__(self, other):  # what is set tells two settings apart; all else follows from it
        return isinstance(other, Setting) and vars(self) == vars(other)

    def __repr__(self):
        return f"Setting({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    @staticmethod
    def knobs() -> list[Knob]:
        """All knobs, in the order in which `--help` shows them."""
        return [getattr(Setting, name) for name in Setting.__annotations__]

    def is_given(self, name: str) -> bool:
        """Whether the knob has been set, even if to its default."""
        return getattr(Setting, name).name in vars(self)

    def replace(self, **values) -> "Setting":
        """A copy with other values; a default that follows other knobs goes on doing so."""
        return type(self)(**(vars(self) | values))

    @property
    def report_dir(self) -> str:
        """The folder of all tables and charts."""
        return str(Path(self.data_dir, "report"))

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The network's input: (height, width, 3), or (3, height, width) if Keras says so."""
        from keras import backend  # here, since importing Keras takes seconds

        if backend.image_data_format() == "channels_first":
            return (3, self.img_height, self.img_width)
        return (self.img_height, self.img_width, 3)
