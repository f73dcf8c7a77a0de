"""What the network runs on, and in which arithmetic."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import SCRIPT, write_digits
from keras import layers
from tensorflow.python.framework import config as framework

import mnist_keras
from classifier import hardware, run_folder
from classifier.trained_run import find_run
from classifier.weights import load_weights
from setting import Setting
from tests.networks import narrow

SHIPPED = SCRIPT.parent / "mnist_data" / "shipped"


def gpu(monkeypatch, *capabilities):
    """As many GPUs, each of that compute capability."""
    monkeypatch.setattr(hardware, "gpus", lambda: [{"compute_capability": c} for c in capabilities])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: device)


def test_what_was_asked_for_is_taken_and_the_article_s_recipe_is_float32(monkeypatch):
    gpu(monkeypatch, (9, 0))
    assert hardware.choose_precision("float32", "tuned") == "float32"
    assert hardware.choose_precision("mixed_bfloat16", "article") == "mixed_bfloat16"
    assert hardware.choose_precision("auto", "article") == "float32"
    assert hardware.choose_precision("auto", "tuned") == "mixed_bfloat16"


def test_bfloat16_is_taken_only_if_every_gpu_multiplies_it(monkeypatch):
    for capabilities, expected in (
        ([(8, 0)], "mixed_bfloat16"),
        ([(8, 6), (12, 0)], "mixed_bfloat16"),
        ([(7, 5)], "float32"),
        ([(9, 0), (7, 5)], "float32"),
    ):
        gpu(monkeypatch, *capabilities)
        assert hardware.choose_precision("auto", "tuned") == expected


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
    assert hardware.choose_precision("auto", "tuned") == expected
    (tmp_path / "cpuinfo").unlink()  # not Linux
    assert hardware.choose_precision("auto", "tuned") == "float32"


# Devices


@pytest.fixture(scope="module")
def on_two_devices(tmp_path_factory) -> tuple[Path, dict]:
    """The folder in which tests/devices.py has been at work, and what it says of it."""
    folder = tmp_path_factory.mktemp("devices")
    write_digits(folder / "train", 750, seed=1)
    done = subprocess.run(
        [sys.executable, "-m", "tests.devices", folder],
        capture_output=True,
        text=True,
        cwd=SCRIPT.parent,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads((folder / "devices.json").read_text())


def test_two_devices_train_as_one(on_two_devices):
    folder, said = on_two_devices
    accuracies = []
    for name in ("one", "two"):
        first, second = said[name]["history"]["loss"]
        assert second < first
        best = run_folder.checkpoints(folder / name / "model_weight")[0]
        assert load_weights(narrow(Setting()), best) in (1, 2)
        accuracies.append(float(run_folder.CHECKPOINT_PATTERN.fullmatch(best.name)[2]))
    assert abs(accuracies[0] - accuracies[1]) < 0.1


def test_train_evaluate_and_predict_follow_each_other_in_one_process_with_other_settings(
    on_two_devices,
):
    """As in a notebook, in which TensorFlow has looked at its devices long ago."""
    _, said = on_two_devices
    before, after = said["labels"]
    assert before == after == list("0123456789")
    assert said["epochs"] == [[0], [0]] and said["acc"] > 0.1


def test_memory_is_asked_for_as_it_is_needed_unless_tensorflow_is_at_work_already(
    monkeypatch, capsys
):
    gpu(monkeypatch, (9, 0), (9, 0))
    details = {"device_name": "H100"}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: details)
    monkeypatch.setattr(hardware, "device_names", lambda: ["/device:CPU:0"])
    grown = []

    def grow(device, enable):
        grown.append(enable)

    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", grow)
    hardware.make_strategy()
    assert grown == [True, True]

    def too_late(device, enable):
        raise RuntimeError("Physical devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", too_late)
    hardware.make_strategy()
    assert capsys.readouterr() == ("running on 2 GPU: H100, H100\n" * 2, "")


def test_a_gpu_that_is_hidden_from_the_process_is_none(monkeypatch):
    seen = [tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: seen)
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: [])
    assert hardware.gpus() == [] and hardware.runs_on_cpu()


@pytest.mark.parametrize(("count", "spared"), [(1, True), (500, True), (501, False), (0, False)])
def test_gpus_are_left_alone_for_few_pictures(tmp_path, monkeypatch, count, spared):
    hidden = []
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *given: hidden.append(given))
    for index in range(count):
        (tmp_path / f"{index % 2}").mkdir(exist_ok=True)
        (tmp_path / f"{index % 2}" / f"{index}.png").touch()
    hardware.hide_gpus_for_few(str(tmp_path))
    assert hidden == [([], "GPU")] * spared
    hardware.hide_gpus_for_few(str(tmp_path / "gone"))
    assert len(hidden) == spared
    if count:
        hardware.hide_gpus_for_few(str(tmp_path / "0" / "0.png"))
        assert len(hidden) == spared + 1


def test_pixels_stay_in_the_host_s_memory_and_batches_wait_on_a_gpu_and_teach_the_same(
    on_two_devices,
):
    one, gpu = (on_two_devices[1][name] for name in ("one", "gpu"))
    assert (one["batch"], gpu["batch"]) == ("CPU:0", "CPU:1")
    assert one["pixels"] == gpu["pixels"] == ["CPU:0"]
    for name in ("loss", "val_loss"):
        assert one["history"][name] == gpu["history"][name]


# What is compiled


@pytest.fixture
def model() -> keras.Model:
    model = keras.Sequential([keras.Input([4]), layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


@pytest.fixture
def compiled(monkeypatch) -> list[bool]:
    """For each function that Keras makes, whether XLA compiles it."""
    seen, function = [], tf.function

    def noted(*given, **options):
        if {"jit_compile", "reduce_retracing"} <= options.keys():  # Keras's steps, not its layers
            seen.append(options["jit_compile"])
        return function(*given, **options)

    monkeypatch.setattr(tf, "function", noted)
    return seen


@pytest.fixture
def gpu_in_keras_s_eyes(monkeypatch):
    """One that Keras would compile for; what it compiles runs on the processor."""
    seen = tf.config.list_physical_devices("CPU") + [tf.config.PhysicalDevice("a GPU", "GPU")]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: seen)
    monkeypatch.setattr(hardware, "gpus", lambda: seen[-1:])
    with tf.device("CPU"):
        yield


ENOUGH = hardware.STEPS_WORTH_COMPILING


@pytest.mark.parametrize(("steps", "expected"), [(ENOUGH - 1, False), (ENOUGH, True)])
def test_on_a_gpu_training_is_compiled_if_its_steps_pay_for_it_and_validation_never(
    gpu_in_keras_s_eyes, model, compiled, steps, expected
):
    assert model.jit_compile  # as Keras would have it
    hardware.set_jit_compile(model, steps)
    images, values = np.ones((6, 4), np.float32), np.ones((6, 1), np.float32)
    model.fit(images, values, validation_data=(images[:5], values[:5]), batch_size=3, verbose=0)
    assert compiled == [False, expected]


def test_a_network_that_only_predicts_is_not_compiled(gpu_in_keras_s_eyes, compiled):
    setting = Setting(checkpoint_path=str(SHIPPED), precision="float32")
    network, _ = mnist_keras.load_network(find_run(setting), grayscale=True)
    network.predict(np.zeros((2, 28, 28, 3), np.float32), verbose=0)
    assert True not in compiled


def test_nothing_is_compiled_for_a_processor_nor_where_the_same_seed_must_give_the_same_weights(
    monkeypatch, gpu_in_keras_s_eyes, model, recwarn
):
    with monkeypatch.context() as patch:
        patch.setattr(hardware, "gpus", list)
        hardware.set_jit_compile(model, ENOUGH)
        assert model.jit_compile is False
    monkeypatch.setattr(framework, "is_op_determinism_enabled", lambda: True)
    model.compile("sgd", "mse")
    hardware.set_jit_compile(model, ENOUGH)
    assert model.jit_compile is False and not recwarn.list
