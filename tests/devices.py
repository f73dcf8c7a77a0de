"""Two devices, and what tests/test_hardware.py has done on them where no GPU is seen.

python -m tests.devices FOLDER    # has pictures in train/; gets devices.json, and a run each

One process for all of it: to start TensorFlow takes longer than what is done then.
"""

import json
import sys
from pathlib import Path

import mnist_keras  # before TensorFlow, since it keeps its log off stderr

# isort: split
import tensorflow as tf

from classifier import batches, faster, hardware
from setting import Setting
from tests.networks import DATA, narrow

# (name, GPUs, devices): either device alone, of which the second stands for a GPU, and both.
RUNS = (
    ("one", [], ["/device:CPU:0"]),
    ("gpu", ["a GPU"], ["/device:CPU:1"]),
    ("two", [], ["/device:CPU:0", "/device:CPU:1"]),
)


def one_after_the_other(folder: Path) -> dict:
    """Train, evaluate and predict with other settings each time, as in a notebook."""
    known = Setting(
        data_dir=str(folder), checkpoint_path=str(DATA / "shipped"), imp_dir=str(DATA / "tmp")
    )
    own = known.replace(checkpoint_path=None, test_dir=str(folder / "train"), epochs=1)
    labels = [[row.label for row in mnist_keras.predict(known)]]
    article, mnist_keras.build_model = mnist_keras.build_model, narrow
    done = [
        mnist_keras.train(own.replace(precision="float32")).epoch,
        mnist_keras.train(own.replace(precision="mixed_bfloat16", batch_size=40)).epoch,
    ]
    _, acc = mnist_keras.evaluate(own)
    done.append(mnist_keras.train(own.replace(recipe="article")).epoch)
    mnist_keras.build_model = article
    labels.append([row.label for row in mnist_keras.predict(known)])
    return {"labels": labels, "epochs": done, "acc": acc}


def learned(folder: Path, name: str, gpus: list[str], devices: list[str]) -> dict:
    """What a training leaves on these devices, where it kept its pixels and where batches wait."""
    hardware.gpus, hardware.devices = lambda: gpus, lambda: devices
    if gpus:
        hardware.use_devices = tf.distribute.get_strategy
    kept, constant = [], tf.constant

    def noted(value, *given, **options):
        kept.append(constant(value, *given, **options))
        return kept[-1]

    tf.constant = noted
    setting = Setting(
        data_dir=str(folder / name),
        train_dir=str(folder / "train"),
        epochs=2,
        batch_size=75,
        precision="float32",
    )
    with tf.device(devices[0] if len(devices) == 1 else None):
        history = mnist_keras.train(setting).history
    tf.constant = constant
    waiting = next(iter(batches.prepared(tf.data.Dataset.range(1), tf.identity)))
    pixels = {tensor.device[-5:] for tensor in kept if len(tensor.shape) == 4}
    return {"history": history, "pixels": [*pixels], "batch": waiting.device[-5:]}


def main() -> None:
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    for name in ("training", "evaluation", "predictions"):  # charts take longer than all else here
        setattr(mnist_keras.report, name, lambda *given: None)
    faster.PARTS = 1  # as on GPUs, of which a machine may have several
    folder = Path(sys.argv[1])
    said = one_after_the_other(folder)
    mnist_keras.build_model, faster.on_processor = narrow, lambda: True
    use_devices = hardware.use_devices
    for name, gpus, devices in RUNS:
        said[name] = learned(folder, name, gpus, devices)
        hardware.use_devices = use_devices
    (folder / "devices.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
