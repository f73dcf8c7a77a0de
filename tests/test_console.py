"""What the command line and a command's ending promise."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from classifier.console import (
    MODES,
    ArgumentParser,
    InputError,
    next_command,
    parse_command_line,
    printable,
    quiet_stderr,
    setup_terminal,
)
from setting import Setting

ROOT = Path(__file__).parents[1]
# SIGBREAK is Windows's Ctrl-Break.
STOPS = [s for s in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, s)]


@pytest.fixture(autouse=True)
def own_signal_handlers():
    """A command takes over the signals, which are pytest's here."""
    before = {name: signal.getsignal(getattr(signal, name)) for name in STOPS}
    yield
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)


def refused(capsys, *arguments):
    """The line on stderr with which the command line refuses the arguments."""
    with pytest.raises(SystemExit) as ending:
        parse_command_line("", Setting, list(arguments))
    assert ending.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def run(*arguments, **options):
    """What Python did with the arguments."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        **options,
    )


def test_each_field_is_a_flag_with_its_help_and_default(capsys):
    with pytest.raises(SystemExit) as ending:
        parse_command_line("What it does.", Setting, ["--help"])
    assert ending.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "What it does." in shown
    assert "learn, measure on the test pictures, read the pictures in IMP_DIR, open a" in shown
    assert "page to draw on, or write" in shown
    assert "--img_width IMG_WIDTH width of the network's input, in pixels (default: 28" in shown
    assert "--train_dir TRAIN_DIR training pictures, one folder a class (default: DATA_DIR" in shown
    for field in filter(lambda field: field.help, Setting.fields()):
        assert f"--{field.name} " in shown
        assert f"{field.help} (default: {field.default_text})" in shown


def test_flags_set_the_fields():
    flags = "--mode train --epochs 3 --img_width 32 --data_dir d --recipe article"
    mode, setting = parse_command_line("", Setting, flags.split())
    assert mode == "train"
    assert setting == Setting(epochs=3, img_width=32, data_dir="d", recipe="article")


def test_flags_are_read_from_the_words_behind_the_scripts_name(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mnist_keras.py", "--mode", "predict", "--seed", "7"])
    assert parse_command_line("", Setting) == ("predict", Setting(seed=7))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", False),
        ("--is_restore", True),
        ("--is_restore true", True),
        ("--is_restore True", True),
        ("--is_restore false", False),
        ("--is_restore False", False),
    ],
)
def test_is_restore_means_what_it_says(words, expected):
    arguments = ["--mode", "train", *words.split()]
    assert parse_command_line("", Setting, arguments)[1].is_restore is expected


def test_for_a_flag_that_does_not_exist_a_similar_one_is_named(capsys):
    with pytest.raises(SystemExit):
        parse_command_line("", Setting, ["--mode", "train", "--epoches", "3"])
    assert "did you mean --epochs?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("", "--mode"),
        ("--mode fly", "fly"),
        ("--mode train --wings 2", "--wings"),
        ("--mode train --epoch 2", "--epoch"),
        ("--mode train --epochs many", "--epochs"),
        ("--mode train --epochs 0", "--epochs"),
        ("--mode train --batch_size -3", "--batch_size"),
        ("--mode train --seed 99999999999", "--seed"),
        ("--mode train --recipe soup", "--recipe"),
        ("--mode train --is_restore perhaps", "--is_restore"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_that_names_the_flag(capsys, words, named):
    assert named in refused(capsys, *words.split())


@pytest.mark.parametrize("mode", MODES)
def test_what_is_no_folder_is_no_data_dir_in_any_mode(capsys, tmp_path, mode):
    (tmp_path / "1.png").touch()
    for path in (tmp_path / "1.png", os.devnull):
        said = f"--data_dir {path}: not a folder; name the one that holds train/"
        assert said in refused(capsys, "--mode", mode, "--data_dir", str(path))
    for path in (tmp_path, tmp_path / "to be made"):
        assert parse_command_line("", Setting, ["--mode", mode, "--data_dir", str(path)])[0] == mode


def test_what_the_user_typed_cannot_steer_the_terminal(capsys):
    assert "\x1b" not in refused(capsys, "--mode", "train", "\x1b[2Jgone\nforged line")


def test_flags_cannot_be_shortened(capsys):
    parser = ArgumentParser(prog="x")
    parser.add_argument("--source")
    with pytest.raises(SystemExit):
        parser.parse_args(["--sour", "a"])
    assert "--sour" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        ([], 2),
        (["--mode", "fly"], 2),
        (["--mode", "train", "--wings", "2"], 2),
        (["--mode", "train", "--epochs", "0"], 2),
    ],
)
def test_help_and_mistakes_are_answered_before_the_slow_imports(arguments, status):
    done = run("-X", "importtime", "mnist_keras.py", *arguments)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert re.search(r"\| +setting\n", done.stderr)
    assert not re.search(r"\| +(numpy|PIL|tensorflow|keras)\n", done.stderr)


def test_the_console_needs_no_other_file_of_the_program():
    done = run(
        "-c",
        "import sys; before = set(sys.modules); import classifier.console\n"
        f"print(*(name for name in set(sys.modules) - before"
        f" if {str(ROOT)!r} in (getattr(sys.modules[name], '__file__', None) or '')))",
    )
    assert sorted(done.stdout.split()) == ["classifier", "classifier.console"]


def test_printable_leaves_text_alone_and_escapes_the_rest():
    assert printable("预测结果为：8 é") == "预测结果为：8 é"
    assert printable("a\x1b[31m\r\n\udc80\u202e") == r"a\x1b[31m\r\n\udc80\u202e"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("InputError('a.png: no picture')", "-c: a.png: no picture\n"),
        ("OSError(28, 'No space left', 'a.png')", "-c: a.png: No space left\n"),
        ("MemoryError('800 MB wanted')", "-c: not enough memory. 800 MB wanted\n"),
    ],
)
def test_a_mistake_ends_a_command_with_one_line_and_status_1(error, line):
    done = run("-c", f"from classifier.console import *\nwith one_line_errors():\n raise {error}")
    assert (done.returncode, done.stderr) == (1, line)


@pytest.mark.parametrize("command", ["mnist_keras.py --mode train", "mnist_parser.py"])
def test_a_package_that_is_missing_is_named_in_one_line(command):
    done = run("-S", *command.split())  # -S: without the folder of installed packages
    line = r"mnist_\w+\.py: the package \w+ is missing; pip install -r .*requirements.txt\n"
    assert done.returncode == 1
    assert re.fullmatch(line, done.stderr)


def test_a_bug_is_not_hidden():
    code = "from classifier.console import *\nwith one_line_errors():\n raise KeyError('x')"
    assert "Traceback" in run("-c", code).stderr


def test_an_input_error_is_a_value_error_for_programs():
    assert issubclass(InputError, ValueError)


@pytest.mark.parametrize("name", STOPS)
@pytest.mark.parametrize(
    "body",
    [
        "with one_line_errors(): stop()",
        # as while TensorFlow is imported
        "parse_command_line('', Setting, ['--mode', 'train']); stop()",
        "parse_command_line('', Setting, ['--mode', 'train'])\nwith quiet_stderr('UNSET'): stop()",
    ],
)
def test_a_command_that_is_stopped_ends_without_a_traceback(name, body):
    number = int(getattr(signal, name))
    done = run(
        "-c",
        "import signal, time\nfrom classifier.console import *\nfrom setting import Setting\n"
        f"def stop(): signal.raise_signal({number}); time.sleep(30)\n{body}",
    )
    assert done.returncode == 128 + number
    assert done.stderr == ""


@pytest.mark.parametrize("name", STOPS[:2])
def test_a_stop_in_the_midst_of_a_del_is_not_lost(name):
    program = f"""
import signal, time
from classifier.console import one_line_errors
class Dying:
    def __del__(self):
        signal.raise_signal(signal.{name})
with one_line_errors():
    Dying()
    time.sleep(20)
    print("not stopped")
"""
    ended = run("-c", program)
    assert (ended.returncode, ended.stdout, ended.stderr) == (128 + getattr(signal, name), "", "")


@pytest.mark.parametrize("name", STOPS[:2])
@pytest.mark.parametrize(
    "body",
    [
        "try: signal.raise_signal({0})\n    except SystemExit: pass",  # TensorFlow loses it
        "try: signal.raise_signal({0})\n    except SystemExit: raise SystemError('odd')",
        "threading.Thread(target=time.sleep, args=[30]).start(); signal.raise_signal({0})",
    ],
    ids=["lost", "another error", "a thread that goes on"],
)
def test_a_stop_ends_a_command_whatever_becomes_of_its_exception(name, body):
    number = int(getattr(signal, name))
    program = f"""
import signal, threading, time
from classifier import console
console.RESEND_AFTER = 0.2
with console.one_line_errors():
    {body.format(number)}
    time.sleep(20)
"""
    start = time.monotonic()
    ended = run("-c", program)
    assert (ended.returncode, ended.stdout, ended.stderr) == (128 + number, "", "")
    assert time.monotonic() - start < 15


def test_a_notebook_s_interrupt_is_an_exception_and_the_kernel_goes_on():
    code = (
        "import builtins, signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "builtins.get_ipython = None; from classifier.console import *\n"
        "try:\n with one_line_errors(): signal.raise_signal(signal.SIGINT)\n"
        "except KeyboardInterrupt: print('the variables are still there')"
    )
    done = run("-c", code)
    assert done.stdout == "the variables are still there\n" and done.returncode == 0


def test_a_stop_while_c_imports_is_no_exception():
    program = """
import signal
from classifier.console import parse_command_line
from setting import Setting
parse_command_line("", Setting, ["--mode", "train"])
try:
    signal.raise_signal(signal.SIGTERM)
except SystemExit:
    print("an exception, which C++ makes an abort")
"""
    ended = run("-c", program)
    assert (ended.returncode, ended.stdout) == (128 + signal.SIGTERM, "")


def test_importing_leaves_a_programs_signal_handlers_alone():
    done = run(
        "-c",
        "import signal\nbefore = [signal.getsignal(n) for n in (2, 15)]\n"
        "import setting, mnist_parser\nsetting.Setting()\n"
        "print(before == [signal.getsignal(n) for n in (2, 15)])",
    )
    assert done.stdout == "True\n"


def test_a_command_prints_any_text_in_any_encoding():
    done = run(
        "-c",
        "from classifier.console import *\nwith one_line_errors(): print('预测 \\udc80')",
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.stdout == "预测 \\udc80\n"


def test_a_command_runs_where_the_output_is_a_notebooks(monkeypatch):
    notebook = io.StringIO()  # like a notebook's stream, it can't be reconfigured
    monkeypatch.setattr(sys, "stdout", notebook)
    monkeypatch.setattr(sys, "stderr", notebook)
    setup_terminal()
    print("预测")
    assert notebook.getvalue() == "预测\n"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGPIPE")
@pytest.mark.parametrize("body", ["print('lost')", "print('lost', flush=True)"])
def test_a_command_whose_output_nobody_reads_ends_quietly(body):
    code = f"from classifier.console import *\nwith one_line_errors(): {body}"
    reading, writing = os.pipe()
    os.close(reading)  # as `head` does when it has read enough
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.skipif(os.name == "nt", reason="the shell is another one on Windows")
@pytest.mark.parametrize("name", ["flowers", "my 'own'", "$5 für\\é", "向日葵"])
def test_a_printed_command_names_the_folder_that_was_given(name):
    typed = next_command("evaluate", Setting(data_dir=name))
    shell = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {typed}"], capture_output=True, check=True
    )
    words = shell.stdout.decode().splitlines()
    assert words[2:] == ["--mode", "evaluate", "--data_dir", name]


def test_a_folder_s_name_cannot_steer_the_terminal():
    assert next_command("train", Setting(data_dir="a\x1b[2J\nb")).isprintable()


@pytest.mark.skipif(os.name == "nt", reason="a shell on Windows can't close a program's output")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_command_runs_with_its_output_closed(tmp_path, closed):
    code = (
        "import sys; from classifier.console import *\n"
        "with one_line_errors():\n"
        " with quiet_stderr(unless='UNSET'): print('lost'); warn('lost')\n"
        f" open({str(tmp_path / 'done')!r}, 'w').write('kept')"
    )
    shell = subprocess.run(["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, code], cwd=ROOT)
    assert shell.returncode == 0
    assert (tmp_path / "done").read_text() == "kept"


def test_a_command_runs_without_streams_as_under_pythonw(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    setup_terminal()
    with sys.stdout, sys.stderr:
        print("预测")
        print("预测", file=sys.stderr)


def test_quiet_stderr_silences_the_descriptor_and_gives_it_back():
    done = run(
        "-c",
        "import os; from classifier.console import *\n"
        "with quiet_stderr(unless='LEVEL'): os.write(2, b'chatter'); print(os.environ['LEVEL'])\n"
        "os.write(2, b'heard'); print('LEVEL' in os.environ)",
        env={key: value for key, value in os.environ.items() if key != "LEVEL"},
    )
    assert done.stderr == "heard"
    assert done.stdout == "3\nFalse\n"  # a program that a notebook starts doesn't inherit it


def test_quiet_stderr_gives_the_descriptor_back_after_an_error():
    done = run(
        "-c",
        "from classifier.console import *\n"
        "with quiet_stderr(unless='UNSET'): import no_such_module",
    )
    assert "no_such_module" in done.stderr


def test_a_user_who_sets_the_log_level_hears_everything(monkeypatch, capfd):
    monkeypatch.setenv("LEVEL", "0")
    with quiet_stderr(unless="LEVEL"):
        os.write(2, b"chatter")
    assert capfd.readouterr().err == "chatter"
    assert os.environ["LEVEL"] == "0"
