"""The program in a notebook: `%run` and `from mnist_keras import *` leave the kernel as it was."""

import importlib.util
import re
from pathlib import Path

import pytest
from helpers import write_digits

nbclient = pytest.importorskip("nbclient", reason="pip install nbclient ipykernel runs it")
nbformat = pytest.importorskip("nbformat")
if importlib.util.find_spec("ipykernel") is None:  # not imported: it would make this a notebook
    pytest.skip("pip install nbclient ipykernel runs it", allow_module_level=True)

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    write_digits(folder / "train", 400, seed=1)
    return folder


@pytest.fixture(scope="module")
def run_cell(data_dir):
    """A function that runs the text of a cell in the one kernel, and returns all its output."""
    notebook = nbformat.v4.new_notebook()
    client = nbclient.NotebookClient(
        notebook, timeout=120, allow_errors=True, resources={"metadata": {"path": str(ROOT)}}
    )

    def run(source: str) -> str:
        cell = nbformat.v4.new_code_cell(source.replace("DATA_DIR", repr(str(data_dir))))
        notebook.cells.append(cell)
        client.execute_cell(cell, len(notebook.cells) - 1)
        return "\n".join(
            output.get("text") or "\n".join([output.ename, output.evalue, *output.traceback])
            for output in cell.outputs
            if output.output_type in ("stream", "error")
        )

    with client.setup_kernel():
        run("import tensorflow as tf\ntf.constant(1) + 1\ntreasure = 42")
        yield run


def test_train_runs_where_tensorflow_has_computed_before(run_cell):
    output = run_cell("%run mnist_keras.py --mode train --epochs 1 --data_dir DATA_DIR")
    assert re.search("best epoch 01, val_acc", output), output


def test_what_the_notebook_starts_afterwards_logs_as_ever(run_cell):
    assert "None" in run_cell("import os\nprint(os.environ.get('TF_CPP_MIN_LOG_LEVEL'))")


def test_an_interrupt_ends_the_training_and_not_the_kernel(run_cell):
    output = run_cell(
        "import os, signal, threading, time\n"
        "before = os.stat(DATA_DIR + '/model_weight/model.json').st_mtime_ns\n"
        "def interrupt():\n"
        "    while os.stat(DATA_DIR + '/model_weight/model.json').st_mtime_ns == before:\n"
        "        time.sleep(0.1)\n"
        "    time.sleep(1)\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "threading.Thread(target=interrupt, daemon=True).start()\n"
        "%run mnist_keras.py --mode train --is_restore --epochs 100000 --data_dir DATA_DIR"
    )
    assert "interrupted; finished epochs are saved" in output
    assert "42" in run_cell("print(treasure)")


def test_a_network_of_ones_own_is_trained_if_it_is_passed_and_refused_if_it_is_not(
    run_cell, data_dir
):
    run_cell(
        "from mnist_keras import *\n"
        "def build_model(setting):\n"
        "    return keras.Sequential([\n"
        "        keras.Input(setting.input_shape),\n"
        "        layers.Flatten(),\n"
        "        layers.Dense(setting.label_nums, activation='softmax', dtype='float32'),\n"
        "    ])\n"
        "setting = Setting(data_dir=DATA_DIR, epochs=1)"
    )
    assert "build_model is defined anew, but was not passed" in run_cell("train(setting)")
    run_cell("train(setting, build_model)")
    assert "Conv2D" not in (data_dir / "model_weight/model.json").read_text(encoding="utf-8")
