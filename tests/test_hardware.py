"""What the network runs on, and in which arithmetic."""

import re
import subprocess
import sys

import pytest
import tensorflow as tf
from helpers import SCRIPT

from classifier import hardware, run_folder
from classifier.weights import load_weights
from setting import Setting
from tests.networks import narrow


def gpu(monkeypatch, *capabilities):
    """As many GPUs, each of that compute capability."""
    monkeypatch.setattr(hardware, "gpus", lambda: [{"compute_capability": c} for c in capabilities])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: device)


def test_what_was_asked_for_is_taken_and_the_article_s_recipe_is_float32(monkeypatch):
    gpu(monkeypatch, (9, 0))
    assert hardware.precision("float32", "tuned") == "float32"
    assert hardware.precision("mixed_bfloat16", "article") == "mixed_bfloat16"
    assert hardware.precision("auto", "article") == "float32"
    assert hardware.precision("auto", "tuned") == "mixed_bfloat16"


def test_bfloat16_is_taken_only_if_every_gpu_multiplies_it(monkeypatch):
    for capabilities, expected in (
        ([(8, 0)], "mixed_bfloat16"),
        ([(8, 6), (12, 0)], "mixed_bfloat16"),
        ([(7, 5)], "float32"),
        ([(9, 0), (7, 5)], "float32"),
    ):
        gpu(monkeypatch, *capabilities)
        assert hardware.precision("auto", "tuned") == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("avx512f avx512_bf16", "mixed_bfloat16"),
        ("amx_bf16", "mixed_bfloat16"),
        ("avx2", "float32"),
    ],
)
def test_without_a_gpu_bfloat16_is_taken_if_the_processor_multiplies_it(
    monkeypatch, tmp_path, flags, expected
):
    gpu(monkeypatch)
    (tmp_path / "cpuinfo").write_text(f"flags : fpu {flags} sse\n")
    monkeypatch.setattr(hardware, "Path", lambda path: tmp_path / "cpuinfo")
    assert hardware.precision("auto", "tuned") == expected
    (tmp_path / "cpuinfo").unlink()  # not Linux
    assert hardware.precision("auto", "tuned") == "float32"


def test_two_devices_train_as_one(digits, tmp_path):
    program = f"""
import tensorflow as tf
if {{devices}} == 2:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import mnist_keras
from tests.networks import narrow
mnist_keras.build_model = narrow
setting = mnist_keras.Setting(data_dir={{folder!r}}, train_dir={str(digits / "train")!r},
                              epochs=2, batch_size=75, precision="float32")
print("loss", mnist_keras.train(setting).history["loss"])
"""
    accuracies = []
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        done = subprocess.run(
            [sys.executable, "-c", program.format(devices=devices, folder=str(folder))],
            capture_output=True,
            text=True,
            cwd=SCRIPT.parent,
        )
        assert done.returncode == 0, done.stderr
        first, second = map(float, re.search(r"loss \[(\S+), (\S+)\]", done.stdout).groups())
        assert second < first
        best = run_folder.checkpoints(folder / "model_weight")[0]
        assert load_weights(narrow(Setting()), best) in (1, 2)
        accuracies.append(float(run_folder.CHECKPOINT_NAME.fullmatch(best.name)[2]))
    assert abs(accuracies[0] - accuracies[1]) < 0.1
