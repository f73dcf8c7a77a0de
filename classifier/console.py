"""What a command does in a terminal: one-line errors, signals, the command line."""

import _thread
import argparse
import builtins
import contextlib
import difflib
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

# What a run can be asked to do, and how `--help` puts it.
MODES = {
    "train": "learn",
    "evaluate": "measure on the test pictures",
    "predict": "read the pictures in IMP_DIR",
    "draw": "open a page to draw on",
    "export": "write the network for other programs to DATA_DIR/export",
}
SCRIPT = "mnist_keras.py"
# Signals that have asked the process to end; and after how many seconds it's asked again if the
# exception of the first was lost: what it unwinds takes less.
received_signals: list[int] = []
RESEND_AFTER = 3.0


class InputError(ValueError):
    """Input that can't be used; the message is one line that names it and says what to do."""


def printable(text: str) -> str:
    """The text with each character that could steer a terminal, or can't be written, escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def warn(message: str) -> None:
    """One line on stderr, above the progress bar if there is one."""
    text = printable(message) + "\n"  # in one piece, since threads may warn at once
    # It isn't imported here: that takes as long as `--help`. An interrupted bar isn't drawn again.
    if "tqdm" in sys.modules and not received_signals:
        sys.modules["tqdm"].tqdm.write(text, file=sys.stderr, end="")
    else:
        print(text, file=sys.stderr, end="", flush=True)


# ---------------------------------------------------------------- signals and errors


def setup_terminal() -> None:
    """Make the process end as a command does: Ctrl-C and SIGTERM exit with status 130 and 143.

    Any text can be printed afterwards, also where the encoding lacks it or the stream is closed. A
    package that is missing is named in one line.
    """
    set_signal_handlers(exit_at_once)
    sys.excepthook = report_missing_package
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us, or pythonw.exe
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        if hasattr(getattr(sys, name), "reconfigure"):  # a notebook's and IDLE's take any text
            getattr(sys, name).reconfigure(encoding="utf-8", errors="backslashreplace")


def report_missing_package(kind: type, error: BaseException, traceback: Any) -> None:
    """A sys.excepthook: one line for a package that isn't installed, Python's own for the rest."""
    if kind is ModuleNotFoundError:
        script = Path(sys.argv[0])
        needed = script.resolve().parent / "requirements.txt"
        warn(f"{script.name}: the package {error.name} is missing; pip install -r {needed}")
    else:
        sys.__excepthook__(kind, error, traceback)


def set_signal_handlers(handler: Callable) -> None:
    """Have a handler called when the user or another program asks the process to end."""
    if hasattr(builtins, "get_ipython"):  # an interrupt must not end a notebook's kernel or IPython
        return
    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)
    if sys.platform == "win32":
        signal.signal(signal.SIGBREAK, handler)  # Ctrl-Break, and how other programs ask for it


def exit_at_once(number: int, frame: Any) -> None:
    """A handler that ends the process at once, where there is nothing to save.

    As while TensorFlow is imported: its C++ makes an exception an abort.
    """
    os._exit(128 + number)


def exit_by_exception(number: int, frame: Any) -> None:
    """A handler that ends the process as sys.exit does, so that the training can be saved.

    An exception may be lost: in a `__del__`, or in TensorFlow while it builds a graph. Unless
    exit_if_signaled sees it soon, it is raised again.
    """
    if not received_signals and sys.stderr.isatty():
        os.write(2, b"\n")  # after the bar and the terminal's ^C; print isn't safe in a handler
    received_signals.append(number)
    while frame and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    later = threading.Timer(0.01 if frame else RESEND_AFTER, resend_signal, [number])
    later.daemon = True
    later.start()
    if not frame:
        sys.exit(128 + number)


def resend_signal(number: int) -> None:
    """Send the main thread a signal, which also wakes it; Windows can't do that."""
    if sys.platform == "win32":
        _thread.interrupt_main(number)
    else:
        signal.pthread_kill(threading.main_thread().ident, number)


def exit_if_signaled() -> None:
    """End the process if it was asked to, whatever exception has come of that.

    Without Python's own end, which may wait for TensorFlow's threads forever.
    """
    if received_signals:
        with contextlib.suppress(OSError):  # whoever read it may have gone
            sys.stdout.flush()
        os._exit(128 + received_signals[0])


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """For the body of a command: a mistake ends it with one line on stderr and status 1."""
    setup_terminal()
    set_signal_handlers(exit_by_exception)
    try:
        try:
            yield
            sys.stdout.flush()
        except BaseException:
            exit_if_signaled()
            raise
        set_signal_handlers(exit_at_once)
        return
    except InputError as error:
        message = str(error)
    except MemoryError as error:
        message = f"not enough memory. {error}"
    except BrokenPipeError:  # what read the output, as `head` does, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else Python complains at the end
        sys.exit(128 + 13)  # SIGPIPE's number; the signal itself would come of a server, too
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
    try:
        stderr = None if unless in os.environ else os.dup(2)
    except OSError:  # it is closed
        stderr = None
    if stderr is None:
        yield
        return
    os.environ[unless] = "3"  # fatal errors only; TensorFlow reads it once
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        del os.environ[unless]  # what a notebook starts afterwards is not to inherit it


# ---------------------------------------------------------------- the command line


class ArgumentParser(argparse.ArgumentParser):
    """Argparse, but a mistake is answered in one line, and flags can't be shortened."""

    def __init__(self, **arguments):
        arguments.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **arguments)

    def error(self, message: str) -> NoReturn:
        for word in re.findall("--[a-z_]+", message.partition("unrecognized arguments: ")[2]):
            if similar := difflib.get_close_matches(word, self._option_string_actions, n=1):
                message += f"; did you mean {similar[0]}?"
        self.exit(2, printable(f"{self.prog}: {message} (see {self.prog} --help)") + "\n")


def next_command(mode: str, setting: Any, *flags: str) -> str:
    """What to type to go on in the same folders, complete and quoted for the system's shell."""
    started = Path(sys.argv[0])  # perhaps from another folder, or not as a script at all
    script = str(started) if started.name == SCRIPT else SCRIPT
    words = ["python", script, "--mode", mode, *flags]
    for name in ("data_dir", "train_dir", "test_dir", "checkpoint_path"):
        if setting.is_set(name):
            words += [f"--{name}", getattr(setting, name)]
    return printable((subprocess.list2cmdline if os.name == "nt" else shlex.join)(words))


def true_or_false(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"takes nothing, true or false, not {text!r}")
    return text.lower() == "true"


def parse_command_line(
    description: str, setting_class: type, arguments: list[str] | None = None
) -> tuple[str, Any]:
    """The mode, one of MODES, and the setting that the user of a command asked for.

    Args:
        description: what `--help` prints above the flags.
        setting_class: its fields() that have a help are the flags; called with those that the user
            gave, it makes the setting, or raises ValueError with one line that begins with a
            flag's name.
        arguments: the words after the script's name; sys.argv's by default.

    Raises:
        SystemExit: with status 2 and one line on stderr if a flag or a value is wrong.
    """
    setup_terminal()  # since the import of TensorFlow comes before the command's body
    parser = ArgumentParser(description=description)
    *first, last = MODES.values()
    help = f"what to do: {', '.join(first)}, or {last}"
    parser.add_argument("--mode", required=True, choices=tuple(MODES), help=help)
    for field in setting_class.fields():
        if field.help is None:
            continue
        takes = {"type": field.kind, "choices": field.choices}
        if field.kind is bool:
            takes = {"type": true_or_false, "nargs": "?", "const": True, "metavar": "true|false"}
        help = f"{field.help} (default: {field.default_text})"
        parser.add_argument(f"--{field.name}", default=argparse.SUPPRESS, help=help, **takes)
    given = vars(parser.parse_args(arguments))
    mode = given.pop("mode")
    try:
        setting = setting_class(**given)
        check_data_dir(setting)
    except ValueError as error:
        parser.error(f"--{error}")
    return mode, setting


def check_data_dir(setting: Any) -> None:
    """Raise InputError if the Setting's data_dir is there, and no folder: a file, or /dev/null."""
    if os.path.exists(setting.data_dir) and not os.path.isdir(setting.data_dir):
        raise InputError(
            f"data_dir {setting.data_dir}: not a folder; name the one that holds train/, test/ and "
            "tmp/, or is to hold them"
        )
