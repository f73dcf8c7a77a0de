"""Every setting of a run, its default and the reason for it.

setting = Setting(epochs=5)          # in a program
python mnist_keras.py --epochs 5 …   # on the command line: one flag a field
"""

import difflib
import math
import os
import typing
from pathlib import Path
from typing import Any


class Field:
    """One value of a Setting: what it is for, its default, and what it may be.

    The default is a value, or a function of the setting, which is asked as long as nobody sets
    the field. The annotation behind the field's name says which type it takes. A field without a
    help is no flag: the program finds its value itself.
    """

    def __init__(
        self,
        default: Any,
        help: str | None,
        *,
        default_text: Any = None,  # how `--help` puts the default, if not as it is
        minimum: float = -math.inf,
        maximum: float = math.inf,
        choices: tuple[str, ...] | None = None,
    ):
        self.default, self.help, self.default_text = default, help, default_text or default
        self.minimum, self.maximum, self.choices = minimum, maximum, choices

    def __set_name__(self, owner, name):
        if name in owner.__annotations__:  # else it is the article's spelling of one
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
        """The value, if the field takes it; else ValueError with a message of one line."""
        if self.kind is str and isinstance(value, os.PathLike):
            value = os.fspath(value)
        if self.kind is float and type(value) is int:
            value = float(value)
        if type(value) is not self.kind:
            raise ValueError(f"{self.name} takes {self.kind.__name__}, not {type(value).__name__}")
        if self.kind is str and not value:
            raise ValueError(f"{self.name} is empty")
        if self.kind in (int, float) and not self.minimum <= value <= self.maximum:
            upwards = self.maximum == math.inf
            limits = (
                f"at least {self.minimum}" if upwards else f"from {self.minimum} to {self.maximum}"
            )
            raise ValueError(f"{self.name} must be {limits}, not {value}")
        if self.choices and value not in self.choices:
            raise ValueError(f"{self.name} must be {' or '.join(self.choices)}, not {value!r}")
        return value


def folder_field(name: str, help: str) -> Field:
    """A field for a folder that lies in data_dir unless it is put elsewhere."""
    return Field(
        lambda setting: str(Path(setting.data_dir, name)), help, default_text=f"DATA_DIR/{name}"
    )


def side_field(side: str) -> Field:
    """A field for the width or the height of the network's input."""
    return Field(
        # MNIST's own size: nothing is resized.
        lambda setting: 160 if setting.pretrained else 28,
        f"{side} of the network's input, in pixels",
        default_text="28; 160 with --pretrained",
        minimum=1,
        maximum=10_000,  # squared, the 100 megapixels of the largest picture that is opened
    )


class Setting:
    """All settings of a run, under the article's names.

    A value is checked when it is set, in a program as on the command line; one that can't be
    meant raises ValueError with a message of one line, a name that isn't here AttributeError.
    A field whose default follows others, or is None, goes back to it when None is set.
    """

    data_dir: str = Field("mnist_data/", "holds train/, test/ and tmp/, and what a run makes")
    train_dir: str = folder_field("train", "training pictures, one folder a class")
    test_dir: str = folder_field("test", "test pictures, one folder a class")
    imp_dir: str = folder_field("tmp", "pictures to predict")
    checkpoint_path: str = folder_field("model_weight", "folder of the checkpoints")
    img_width: int = side_field("width")
    img_height: int = side_field("height")
    label_nums: int = Field(10, "number of classes; follows the folders that are found", minimum=1)
    # The article's number; MNIST has learned all that it will after 8 (recipe.py).
    epochs: int = Field(
        lambda setting: 5 if setting.pretrained else 20,
        "passes over the training pictures",
        default_text="20; 5 with --pretrained, else 8 of 40,000 pictures; 20 with --recipe article",
        minimum=1,
    )
    save_epochs: int = Field(1, "look for a better val_acc every so many epochs", minimum=1)
    # 32 is what the article gets from Keras; larger batches keep two cores busier.
    batch_size: int = Field(
        lambda setting: 32 if setting.recipe == "article" else 128,
        "pictures in a training step",
        default_text="128, fewer for small sets; 32 with --recipe article",
        minimum=1,
    )
    initial_epoch: int = Field(0, "number of epochs already done, with --restore_model", minimum=0)
    is_restore: bool = Field(
        False,
        "train: go on where the last run in checkpoint_path was interrupted",
        default_text="false",
    )
    restore_model: str | None = Field(
        None,
        "weights file to start from, to evaluate, to predict with or to export",
        default_text="the best one",
    )
    # Fixed, so that two people who type the same command read the same figures.
    # 32 bits, less one for the sign, are what every library takes.
    seed: int = Field(0, "seed of all that is drawn at random", minimum=0, maximum=2**31 - 1)
    recipe: str = Field(
        "tuned", "how to train: tuned, or the article to the letter", choices=("tuned", "article")
    )
    # classifier/pretrained.py has the names.
    pretrained: str | None = Field(
        None,
        "photographs: start from ImageNet's weights of MobileNetV3Small, which is small and good, "
        "MobileNetV3Large, EfficientNetV2B0 or EfficientNetV2S, or from a file of weights of one",
        default_text="random weights, build_model's own layers",
    )
    # What Muon makes of 0.003 would wreck weights that have learned: with a rate of one's own AdamW
    # trains all of them.
    learning_rate: float | None = Field(
        None,
        "peak of the learning rate, in AdamW; with --recipe article rmsprop's",
        default_text="0.003, in Muon; 0.001 with --recipe article; 0.0003 with --pretrained",
        minimum=1e-7,
        maximum=1.0,
    )
    precision: str = Field(
        "auto",
        "arithmetic of the network; auto takes mixed_bfloat16 where the hardware has it",
        choices=("auto", "float32", "mixed_bfloat16"),
    )
    # A mirrored 2 is no 2: off unless the pictures are known to bear it.
    horizontal_flip: bool = Field(
        False, "also train on mirror images: for flowers, never for text", default_text="false"
    )
    handwriting: bool | None = Field(
        None,
        "predict: clean up photos and drawings of digits first",
        default_text="if the network was trained on pictures like MNIST's",
    )
    cache_limit: int | None = Field(
        None,
        "most memory for decoded pictures, in MB; above it they are kept on disk",
        default_text="600, or a sixth of the memory that is free",
        minimum=0,
    )
    # What phones run, and it takes no package besides the program's own.
    format: str = Field(
        "litert",
        "export: what the network is written as",
        choices=("keras", "saved_model", "litert", "onnx", "openvino"),
    )
    tensorboard: bool = Field(
        False, "train: also write TensorBoard's files, to report/tensorboard", default_text="false"
    )
    half: bool = Field(
        False, "export: LiteRT's weights in float16, half the size", default_text="false"
    )
    # Nobody else can reach this address.
    host: str = Field("127.0.0.1", "draw: address of the page; 0.0.0.0 for all in your network")
    port: int = Field(
        8000, "draw: port of the page, or the next that is free", minimum=1, maximum=65_535
    )

    # Mean and standard deviation of the training images' pixels, which are 0..1. train measures
    # them, model.json keeps them. The second are those of a run by an older program
    # (classifier/extra_layers.py).
    mean_std: tuple | None = Field(None, None)
    ground: tuple | None = Field(None, None)
    # The file that --pretrained has named; model.json then has the body's name.
    pretrained_weights: str | None = Field(None, None)

    # How the article spells three of them; its own lines still run.
    lebel_nums, epoches, save_epoches = label_nums, epochs, save_epochs

    def __init__(self, **values):
        for name, value in values.items():
            setattr(self, name, value)

    def __setattr__(self, name, value):
        if not isinstance(getattr(Setting, name, None), Field):
            fields = [field.name for field in Setting.fields()]
            similar = difflib.get_close_matches(name, fields, n=1)
            hint = f"; did you mean {similar[0]!r}?" if similar else ""
            raise AttributeError(f"Setting has no field {name!r}{hint}")
        super().__setattr__(name, value)

    def __eq__(self, other):  # what is set tells two settings apart; all else follows from it
        return isinstance(other, Setting) and vars(self) == vars(other)

    def __repr__(self):
        return f"Setting({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    @staticmethod
    def fields() -> list[Field]:
        """All fields, in the order in which `--help` shows them."""
        return [getattr(Setting, name) for name in Setting.__annotations__]

    def is_set(self, name: str) -> bool:
        """Whether the field has been set, even if to its default."""
        return getattr(Setting, name).name in vars(self)

    def chosen(self, name: str) -> Any:
        """The field's value if it has been set, else None."""
        return vars(self).get(getattr(Setting, name).name)

    def replace(self, **values) -> "Setting":
        """A copy with other values; a default that follows other fields goes on doing so."""
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
