"""One of the machines in tests/test_workers.py: trains a tiny network as told, beside the others.

python -m tests.worker JOBS.json, a list of {"setting": …, "kill": epoch, "dropout": …, "kept": …,
"gpu": whether each machine has one}
"""

import functools
import json
import os
import signal
import sys
from pathlib import Path

import mnist_keras  # before Keras, since it keeps TensorFlow's log off stderr

# isort: split
import keras
import pytest
import tensorflow as tf
from keras import layers

from classifier import batches, console, hardware, workers
from classifier.weights import seed_generator_states

JOB = {}


def build_model(setting):
    return keras.Sequential(
        [
            keras.Input(setting.input_shape),
            layers.AveragePooling2D(4),
            layers.Flatten(),
            layers.Dropout(JOB.get("dropout", 0.0), seed=setting.seed),
            layers.Dense(setting.label_nums, activation="softmax", dtype="float32"),
        ]
    )


class Told(keras.callbacks.Callback):
    """Ends this machine as it is told, and keeps what it has learned and from what it drew."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == JOB.get("kill"):
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_end(self, logs=None):
        if "kept" in JOB:
            states = [state.numpy().tolist() for state in seed_generator_states(self.model)]
            weights = [weight.tolist() for weight in self.model.get_weights()]
            Path(JOB["kept"]).write_text(json.dumps({"weights": weights, "states": states}))


def do(jobs: list[dict], setting) -> None:
    """Train as each of the jobs says; setting has the folders."""
    for job in jobs:
        JOB.clear()
        JOB.update(job)
        with pytest.MonkeyPatch.context() as patch:
            if JOB.get("gpu"):
                have_gpu(patch)
            try:
                mnist_keras.train(setting.replace(**job["setting"]))
            except console.InputError as error:
                print(error, file=sys.stderr)


def have_gpu(patch) -> None:
    """Have this machine see one GPU, and all GPUs among the devices, as TensorFlow says it.

    What it computes it computes on the processor.
    """

    def too_late(gpu, enable):
        raise RuntimeError("Physical devices cannot be modified after being initialized")

    everyones = [device.name for device in tf.config.list_logical_devices("CPU")]
    patch.setattr(hardware, "gpus", lambda: ["a GPU"])
    patch.setattr(hardware, "device_names", lambda: everyones)
    patch.setattr(tf.config.experimental, "set_memory_growth", too_late)
    patch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"device_name": "GPU"})


def augment(images, seed, flip=False, sharp=False):
    return images  # so that machines with half a batch each see what one with a whole one sees


def get_ready(put=setattr) -> None:
    """Have mnist_keras train this network; put(object, name, value) sets what is to be another."""
    callbacks = mnist_keras.checkpoint_callbacks
    put(mnist_keras, "build_model", build_model)
    put(mnist_keras, "checkpoint_callbacks", lambda *given: [*callbacks(*given), Told()])
    put(
        mnist_keras.report, "write_training_report", lambda *given: None
    )  # charts take longer than all else
    put(batches, "augment", augment)


if __name__ == "__main__":
    get_ready()
    jobs = json.loads(Path(sys.argv[1]).read_text())
    setting = mnist_keras.Setting(**json.loads(sys.argv[2]))
    with console.one_line_errors(), hardware.one_line_errors():
        workers.run_on_workers(functools.partial(do, jobs), setting)
