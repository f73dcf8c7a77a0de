"""What the settings, the command line and a command's ending promise."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from classifier.console import ArgumentParser, InputError, command_line, printable, quiet_stderr
from setting import Setting

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def own_signal_handlers():
    """command_line takes over the signals, which are pytest's here."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def refused(capsys, *arguments):
    """The line on stderr with which the command line refuses the arguments."""
    with pytest.raises(SystemExit) as ending:
        command_line("", list(arguments))
    assert ending.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def run(code, **options):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


def test_defaults_are_the_articles():
    setting = Setting()
    assert (setting.data_dir, setting.img_width, setting.img_height) == ("mnist_data/", 28, 28)
    assert (setting.label_nums, setting.epochs, setting.save_epochs) == (10, 20, 1)
    assert (setting.initial_epoch, setting.is_restore, setting.restore_model) == (0, False, None)


@pytest.mark.parametrize("data_dir", ["data", "data/", Path("data")])
def test_folders_follow_data_dir_with_or_without_a_slash(data_dir):
    setting = Setting(data_dir=data_dir)
    assert Path(setting.train_dir) == Path("data/train")
    assert Path(setting.test_dir) == Path("data/test")
    assert Path(setting.imp_dir) == Path("data/tmp")
    assert Path(setting.checkpoint_path) == Path("data/model_weight")


def test_folders_follow_a_data_dir_that_is_set_later_unless_given():
    setting = Setting(test_dir="elsewhere")
    setting.data_dir = "data"
    assert Path(setting.train_dir) == Path("data/train")
    assert setting.test_dir == "elsewhere"
    assert setting.is_given("test_dir")
    assert not setting.is_given("train_dir")


@pytest.mark.parametrize(
    ("article", "ours"),
    [("lebel_nums", "label_nums"), ("epoches", "epochs"), ("save_epoches", "save_epochs")],
)
def test_the_articles_spellings_read_and_write(article, ours):
    setting = Setting()
    assert getattr(setting, article) == getattr(setting, ours)
    setattr(setting, article, 7)
    assert getattr(setting, article) == getattr(setting, ours) == 7


def test_a_misspelled_name_is_an_error():
    with pytest.raises(AttributeError, match="epochen"):
        Setting().epochen = 3
    with pytest.raises(AttributeError, match="epochen"):
        _ = Setting().epochen


def test_the_articles_recipe_has_its_batch_size():
    assert Setting(recipe="article").batch_size == 32
    assert Setting(recipe="article", batch_size=8).batch_size == 8


def test_restore_model_alone_implies_is_restore():
    assert Setting(restore_model="a.weights.h5").is_restore


def test_input_shape_is_height_before_width_and_channels_where_keras_wants_them(monkeypatch):
    keras = pytest.importorskip("keras")
    setting = Setting(img_width=32, img_height=20)
    monkeypatch.setattr(keras.backend, "image_data_format", lambda: "channels_last")
    assert setting.input_shape == (20, 32, 3)
    monkeypatch.setattr(keras.backend, "image_data_format", lambda: "channels_first")
    assert setting.input_shape == (3, 20, 32)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("img_width", 0),
        ("img_height", -1),
        ("label_nums", 0),
        ("epochs", 0),
        ("save_epochs", 0),
        ("batch_size", 0),
        ("initial_epoch", -1),
        ("seed", -1),
        ("seed", 2**31),
        ("cache_limit", -1),
        ("epochs", "5"),
        ("epochs", True),
        ("epochs", None),
        ("is_restore", "False"),
        ("data_dir", ""),
        ("data_dir", None),
        ("recipe", "soup"),
        ("precision", "float8"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_when_it_is_set(name, value):
    with pytest.raises(ValueError, match=f"^{name} [^\n]*$"):
        Setting(**{name: value})
    with pytest.raises(ValueError, match=f"^{name} [^\n]*$"):
        setattr(Setting(), name, value)


def test_each_field_is_a_flag_with_its_help_and_default(capsys):
    with pytest.raises(SystemExit) as ending:
        command_line("What it does.", ["--help"])
    assert ending.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "What it does." in shown
    for field in fields(Setting):
        assert f"--{field.name} " in shown
        assert f"{field.metadata['help']} (default: {field.metadata['shown']})" in shown


def test_flags_set_the_fields():
    flags = "--mode train --epochs 3 --img_width 32 --data_dir d --recipe article"
    mode, setting = command_line("", flags.split())
    assert mode == "train"
    assert setting == Setting(epochs=3, img_width=32, data_dir="d", recipe="article")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", False),
        ("--is_restore", True),
        ("--is_restore true", True),
        ("--is_restore True", True),
        ("--is_restore false", False),
        ("--is_restore False", False),
        ("--restore_model a.weights.h5", True),
    ],
)
def test_is_restore_means_what_it_says(words, expected):
    assert command_line("", ["--mode", "train", *words.split()])[1].is_restore is expected


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


def test_what_the_user_typed_cannot_steer_the_terminal(capsys):
    assert "\x1b" not in refused(capsys, "--mode", "train", "\x1b[2Jgone\nforged line")


def test_printable_leaves_text_alone_and_escapes_the_rest():
    assert printable("预测结果为：8 é") == "预测结果为：8 é"
    assert printable("a\x1b[31m\r\n\udc80\u202e") == r"a\x1b[31m\r\n\udc80\u202e"


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
def test_help_and_mistakes_are_answered_before_tensorflow_is_imported(arguments, status):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "mnist_keras.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert " setting\n" in done.stderr
    assert not re.search(r"\| +(tensorflow|keras)\n", done.stderr)


@pytest.mark.parametrize(
    "error", ["InputError('x')", "OSError(28, 'full', 'x')", "MemoryError('x')"]
)
def test_a_mistake_ends_a_command_with_one_line_and_status_1(error):
    done = run(f"from classifier.console import *\nwith one_line_errors():\n raise {error}")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "x" in done.stderr


def test_a_bug_is_not_hidden():
    done = run("from classifier.console import *\nwith one_line_errors():\n raise KeyError('x')")
    assert "Traceback" in done.stderr


def test_an_input_error_is_a_value_error_for_programs():
    assert issubclass(InputError, ValueError)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    "body",
    [
        "with one_line_errors(): stop()",
        "command_line('', ['--mode', 'train']); stop()",  # as while TensorFlow is imported
        "command_line('', ['--mode', 'train'])\nwith quiet_stderr(unless='UNSET'): stop()",
    ],
)
def test_a_command_that_is_stopped_ends_without_a_traceback(number, status, body):
    stop = f"def stop(): os.kill(os.getpid(), {number}); time.sleep(30)"
    done = run(f"import os, time\nfrom classifier.console import *\n{stop}\n{body}")
    assert done.returncode == status
    assert done.stderr == ""


def test_importing_leaves_a_programs_signal_handlers_alone():
    done = run(
        "import signal\nbefore = [signal.getsignal(n) for n in (2, 15)]\n"
        "import setting, mnist_parser\nsetting.Setting()\n"
        "print(before == [signal.getsignal(n) for n in (2, 15)])"
    )
    assert done.stdout == "True\n"


def test_a_command_prints_any_text_in_any_encoding():
    done = run(
        "from classifier.console import *\nwith one_line_errors(): print('预测 \\udc80')",
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        encoding="utf-8",
    )
    assert done.stdout == "预测 \\udc80\n"


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


def test_quiet_stderr_silences_the_descriptor_and_gives_it_back():
    done = run(
        "import os; from classifier.console import *\n"
        "with quiet_stderr(unless='LEVEL'): os.write(2, b'chatter'); print(os.environ['LEVEL'])\n"
        "os.write(2, b'heard')",
        env={key: value for key, value in os.environ.items() if key != "LEVEL"},
    )
    assert done.stderr == "heard"
    assert done.stdout == "3\n"


def test_quiet_stderr_gives_the_descriptor_back_after_an_error():
    done = run(
        "from classifier.console import *\nwith quiet_stderr(unless='UNSET'): import no_such_module"
    )
    assert "no_such_module" in done.stderr


def test_a_user_who_sets_the_log_level_hears_everything(monkeypatch, capfd):
    monkeypatch.setenv("LEVEL", "0")
    with quiet_stderr(unless="LEVEL"):
        os.write(2, b"chatter")
    assert capfd.readouterr().err == "chatter"
    assert os.environ["LEVEL"] == "0"


def test_flags_cannot_be_shortened(capsys):
    parser = ArgumentParser(prog="x")
    parser.add_argument("--source")
    with pytest.raises(SystemExit):
        parser.parse_args(["--sour", "a"])
    assert "--sour" in capsys.readouterr().err


def test_a_copy_with_other_values_keeps_the_defaults_that_follow_them():
    setting = Setting().replace(data_dir="flowers", recipe="article")
    assert Path(setting.train_dir) == Path("flowers/train") and setting.batch_size == 32
    assert not setting.is_given("batch_size") and Setting().recipe == "tuned"
