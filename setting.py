"""Every knob of a run, its default and the reason for it, and the command line that sets it.

setting = Setting(epochs=5)          # in a program
python mnist_keras.py --epochs 5 …   # on the command line: one flag a field
"""

import argparse
import contextlib
import copy
import math
import os
import signal
import sys
import typing
from collections.abc import Callable, Iterator
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

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


class InputError(ValueError):
    """Input that can't be used; the message is one line that names it and says what to do."""


def printable(text: str) -> str:
    """The text with each character that could steer a terminal, or can't be written, escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def warn(message: str) -> None:
    """One line on stderr."""
    print(printable(message), file=sys.stderr, flush=True)


def act_as_command() -> None:
    """Make the process end as a command does: Ctrl-C and SIGTERM exit with status 130 and 143.

    What is done then, from `finally` to a message, is done as for sys.exit. Any text can be
    printed afterwards, also where the encoding lacks it or the stream is closed.
    """

    def stop(number, frame):
        sys.exit(128 + number)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        getattr(sys, name).reconfigure(encoding="utf-8", errors="backslashreplace")


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """For the body of a command: a mistake ends it with one line on stderr and status 1."""
    act_as_command()
    try:
        yield
        return
    except InputError as error:
        message = str(error)
    except MemoryError as error:
        message = f"not enough memory. {error}"
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        message = f"{name}{error.strerror or error}"
    warn(f"{Path(sys.argv[0]).name}: {message}")
    sys.exit(1)


@contextlib.contextmanager
def quiet_stderr(unless: str) -> Iterator[None]:
    """Keep TensorFlow's log off stderr while the body imports it, and its chatter afterwards.

    Its C++ writes lines at import that no level holds back, so file descriptor 2 leads nowhere.

    Args:
        unless: the environment variable that sets the log level; if it is set, all stays as it is.
    """
    if unless in os.environ:
        yield
        return
    os.environ[unless] = "3"  # fatal errors only
    try:
        kept = os.dup(2)
    except OSError:  # stderr is closed, and quiet
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


class ArgumentParser(argparse.ArgumentParser):
    """Argparse, but a mistake is answered in one line, and flags can't be shortened."""

    def __init__(self, **arguments):
        arguments.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **arguments)

    def error(self, message: str) -> NoReturn:
        self.exit(2, printable(f"{self.prog}: {message} (see {self.prog} --help)") + "\n")


def true_or_false(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"takes nothing, true or false, not {text!r}")
    return text.lower() == "true"


def command_line(description: str, arguments: list[str] | None = None) -> tuple[str, Setting]:
    """The mode and the setting that the user of a command asked for.

    Args:
        description: what `--help` prints above the flags.
        arguments: the words after the script's name; sys.argv's by default.

    Raises:
        SystemExit: with status 2 and one line on stderr if a flag or a value is wrong.
    """
    act_as_command()  # here, since the import of TensorFlow comes before the command's body
    parser = ArgumentParser(description=description)
    parser.add_argument(
        "--mode",
        required=True,
        choices=("train", "evaluate", "predict"),
        help="what to do: learn, measure on the test pictures, or read the pictures in IMP_DIR",
    )
    for knob in fields(Setting):
        kind = value_type(knob)
        if kind is bool:
            takes = {"type": true_or_false, "nargs": "?", "const": True, "metavar": "true|false"}
        else:
            takes = {"type": kind, "choices": knob.metadata["choices"]}
        parser.add_argument(
            f"--{knob.name}",
            default=argparse.SUPPRESS,
            help=f"{knob.metadata['help']} (default: {knob.metadata['shown']})",
            **takes,
        )
    given = vars(parser.parse_args(arguments))
    mode = given.pop("mode")
    try:
        return mode, Setting(**given)
    except ValueError as error:
        parser.error(f"--{error}")
