"""What a person sees while something takes long: on a terminal, in a log, in a notebook."""

import builtins
import os
import re
import subprocess
import sys
import time
import types
from pathlib import Path

import keras
import numpy as np
import pytest

from classifier import progress as progress_module
from classifier.progress import progress
from classifier.progress_bar import ProgressBar

ROOT = Path(__file__).parents[1]
LOOP = """
import time
from classifier.console import one_line_errors, warn
from classifier.progress import progress
bar = progress(total=40, desc="reading")
with one_line_errors():
    try:
        for number in range(40):
            time.sleep(0.02)
            bar.update()
            if number == 20:
                warn("a.png: left out")
        bar.close()
    except SystemExit:
        warn("interrupted; nothing is lost")
        raise
print("done")
"""


def on_terminal(code, columns, typed=b""):
    """What a terminal of so many columns is sent; something is typed when the bar is there."""
    import fcntl  # here, since Windows has neither
    import termios

    screen, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, np.array([24, columns, 0, 0], np.uint16).tobytes())
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)),
    )
    os.close(terminal)
    sent = b""
    while True:
        try:
            sent += os.read(screen, 1 << 16)
        except OSError:  # the child has ended
            break
        if typed and b"5/40" in sent:
            os.write(screen, typed)
            typed = b""
    os.close(screen)
    child.wait()
    return sent.decode().replace("\r\n", "\n")


needs_terminal = pytest.mark.skipif(os.name == "nt", reason="Windows has no such terminals")


@needs_terminal
@pytest.mark.parametrize("columns", [80, 40])
def test_a_terminal_sees_one_bar_with_rate_and_time_left_that_vanishes(columns):
    sent = on_terminal(LOOP, columns)
    states = [state for line in sent.split("\n") for state in line.split("\r")]
    assert all(len(state) <= columns for state in states)
    assert any(re.search(r"reading: \d+/40 .* \d\d:\d\d left, +\d\d\.", state) for state in states)
    lines = [line.rpartition("\r")[2] for line in sent.split("\n")]
    assert lines == ["a.png: left out", "done", ""]


@needs_terminal
def test_what_is_said_after_ctrl_c_begins_on_a_line_of_its_own():
    sent = on_terminal(LOOP, 80, typed=b"\x03")
    lines = [line.rpartition("\r")[2] for line in sent.split("\n")]
    assert lines[0].startswith("reading: ") and lines[0].endswith("^C")
    assert lines[-2:] == ["interrupted; nothing is lost", ""]


def test_a_log_sees_a_line_now_and_then_and_a_short_task_none(monkeypatch, capsys):
    assert list(progress("ab", total=2, desc="reading")) == ["a", "b"]
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(progress_module, "LOG_INTERVAL", 0.2)
    for _ in progress(range(12), total=12, desc="reading"):
        time.sleep(0.05)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"(reading: \d+/12, 00:00 left, +[\d.]+picture/s\n){2,3}", err)


class AtEpochEnd(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        print("best val_acc yet")


def fit_and_predict():
    """Two epochs, and a prediction, of the smallest network there is."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.ones((8, 1))
    model.fit(x, x, 4, epochs=2, validation_data=(x, x), callbacks=[ProgressBar(), AtEpochEnd()])
    model.predict(x, verbose=0, callbacks=[ProgressBar()])


def test_an_epoch_is_one_line_of_keras_s_above_what_callbacks_print(capsys):
    fit_and_predict()
    epoch = r"2/2 - \d+s - \d+\w+/step - loss: \S+ - val_loss: \S+\nbest val_acc yet\n"
    assert re.fullmatch(f"Epoch 1/2\n{epoch}Epoch 2/2\n{epoch}", capsys.readouterr().out)


def test_a_log_sees_something_of_a_long_epoch(monkeypatch, capsys):
    monkeypatch.setattr(progress_module, "LOG_INTERVAL", 0)
    fit_and_predict()
    err = capsys.readouterr().err
    assert re.search(r"^epoch 1: 1/2, \d\d:\d\d left, .*step.*, loss=", err, re.MULTILINE)
    assert re.search(r"^predicting: 1/1, ", err, re.MULTILINE)


def test_a_notebook_has_keras_s_own_bar_once_an_epoch(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    monkeypatch.setattr(builtins, "get_ipython", lambda: None, raising=False)
    fit_and_predict()
    out, err = capsys.readouterr()
    assert out.count("━\x1b[0m") and err == ""
    assert out.count("val_loss") == 2 and out.count("best val_acc yet") == 2
