"""Two devices, and what tests/test_hardware.py has done on them where no GPU is seen.

python -m tests.devices FOLDER    # has pictures in train/; gets devices.json, and a run each

One process for all of it: to start TensorFlow takes longer than what is done then.
"""

import json
import sys
import warnings
from pathlib import Path

import mnist_keras  # before TensorFlow, since it keeps its log off stderr

# isort: split
import pytest
import tensorflow as tf

from classifier import batches, faster, hardware
from setting import Setting
from tests.networks import DATA, narrow

# What is trained on, by its name: (GPUs, devices). The second device stands for a GPU.
RUNS = {
    "one": ([], ["/device:CPU:0"]),
    "gpu": (["a GPU"], ["/device:CPU:1"]),
    "two": ([], ["/device:CPU:0", "/device:CPU:1"]),
}


def learned(folder: Path, name: str) -> dict:
    """What that training leaves, where it kept its pixels and where batches wait."""
    gpus, devices = RUNS[name]
    setting = Setting(
        data_dir=str(folder / name),
        train_dir=str(folder / "train"),
        epochs=2,
        batch_size=75,
        precision="float32",
    )
    kept, constant = [], tf.constant

    def noted(value, *given, **options):
        kept.append(constant(value, *given, **options))
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hardware, "gpus", lambda: gpus)
        patch.setattr(hardware, "device_names", lambda: devices)
        patch.setattr(faster, "runs_on_cpu", lambda: True)
        patch.setattr(tf, "constant", noted)
        if gpus:
            patch.setattr(hardware, "make_strategy", tf.distribute.get_strategy)
        with tf.device(devices[0] if len(devices) == 1 else None):
            history = mnist_keras.train(setting).history
        waiting = next(iter(batches.map_and_prefetch(tf.data.Dataset.range(1), tf.identity)))
    pixels = {tensor.device[-5:] for tensor in kept if len(tensor.shape) == 4}
    return {"history": history, "pixels": [*pixels], "batch": waiting.device[-5:]}


def main() -> None:
    """Train, evaluate and predict with other settings each time, as in a notebook."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    warnings.filterwarnings("error", "Your input ran out of data")
    for name in ("training", "evaluation", "prediction"):  # charts take longer than all else here
        setattr(mnist_keras.report, f"write_{name}_report", lambda *given: None)
    faster.SPLITS = 1  # as on GPUs, of which a machine may have several
    folder, article = Path(sys.argv[1]), mnist_keras.build_model
    shipped, samples = str(DATA / "shipped"), str(DATA / "tmp")
    known = Setting(data_dir=str(folder), checkpoint_path=shipped, imp_dir=samples)
    own = Setting(data_dir=str(folder), test_dir=str(folder / "train"), epochs=1)

    labels = [[row.label for row in mnist_keras.predict(known)]]
    mnist_keras.build_model = narrow
    said = {"two": learned(folder, "two")}
    half = mnist_keras.train(own.replace(precision="mixed_bfloat16", batch_size=40))
    _, acc = mnist_keras.evaluate(own)
    float32 = mnist_keras.train(own.replace(recipe="article"))
    mnist_keras.build_model = article
    labels.append([row.label for row in mnist_keras.predict(known)])
    mnist_keras.build_model = narrow
    said |= {name: learned(folder, name) for name in ("one", "gpu")}

    said |= {"labels": labels, "epochs": [half.epoch, float32.epoch], "acc": acc}
    (folder / "devices.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
