"""CPU or GPU, and the precision that is fast there."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import keras
import tensorflow as tf

from classifier import workers
from classifier.console import InputError
from classifier.machine import cpu_count

# In a notebook TensorFlow warns when the fifth network is traced, as each must be.
tf.get_logger().addFilter(lambda record: "tf.function retracing" not in record.getMessage())

# XLA takes 4 to 7 s to compile and pays from 800 to 2,600 steps on (docs/figures.md).
STEPS_WORTH_COMPILING = 1_500
# In the 8 s that an H100 takes to start, two cores predict so many pictures of 224×224.
FEW_PICTURES = 500


def gpus() -> list[tf.config.PhysicalDevice]:
    """The GPUs that TensorFlow sees and that it may use in this process."""
    return tf.config.get_visible_devices("GPU")


def hide_gpus_for_few(pictures: str) -> None:
    """Don't use the GPUs in this process if there are at most FEW_PICTURES.

    To be called before TensorFlow's first computation.

    Args:
        pictures: a folder of pictures, or a single one; a missing one changes nothing.
    """
    count = sum(len(names) for _, _, names in os.walk(pictures))
    if os.path.isfile(pictures) or 0 < count <= FEW_PICTURES:
        hide_gpus()


def hide_gpus() -> None:
    """Leave the GPUs alone in this process, which can be said only before it computes anything."""
    tf.config.set_visible_devices([], "GPU")


def runs_on_cpu() -> bool:
    """Whether the network runs on the processor, where TensorFlow needs the channels last."""
    return keras.backend.image_data_format() == "channels_last" and not gpus()


def choose_precision(asked: str, recipe: str) -> str:
    """Keras's policy: the one asked for; for "auto" mixed_bfloat16 where it is fast, else float32.

    It is fast where every GPU, or else the processor, has instructions for it. The article's recipe
    is float32.
    """
    if asked != "auto":
        return asked
    if recipe == "article":
        return "float32"
    if gpus():
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus()]
        fast = all(detail.get("compute_capability", (0, 0)) >= (8, 0) for detail in details)
    else:
        info = Path("/proc/cpuinfo")
        fast = info.exists() and re.search("avx512_bf16|amx_bf16", info.read_text()) is not None
    return "mixed_bfloat16" if fast else "float32"


def device_names() -> list[str]:
    """The names of the devices that share a batch, those of other machines too."""
    return [device.name for device in tf.config.list_logical_devices("GPU" if gpus() else "CPU")]


def make_strategy() -> tf.distribute.Strategy:
    """Print what the network runs on; returns the strategy that uses all of it."""
    for gpu in gpus():
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:  # TensorFlow has computed, and taken its memory
            break
    if gpus():
        names = [tf.config.experimental.get_device_details(gpu)["device_name"] for gpu in gpus()]
        print(f"running on {len(names)} GPU: {', '.join(names)}")
    else:
        count = cpu_count()
        print(f"running on the CPU, {count} core" + "s" * (count > 1))
    if workers.strategy:
        return workers.strategy
    if len(device_names()) > 1:
        return tf.distribute.MirroredStrategy(device_names())
    return tf.distribute.get_strategy()


def set_jit_compile(model: keras.Model, steps: int) -> None:
    """Have XLA compile the model's training step if that pays, and nothing else.

    Keras would compile all that runs on a GPU, again for each batch size: validation twice, and
    prediction once for each number of digits on a page. So val_acc is also computed as in evaluate.

    Args:
        model: has run nothing yet.
        steps: of the whole training, before and after an interruption, so that both compute alike;
            0 if nothing is to be learned.
    """
    jit_compile = model.jit_compile  # False with several GPUs, and for deterministic computation
    model.jit_compile = False
    model.make_test_function()  # it keeps this value
    model.jit_compile = jit_compile and bool(gpus()) and steps >= STEPS_WORTH_COMPILING


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn an error of TensorFlow in the body into an InputError of one line.

    That line is the exception's in its middle, such as that a picture is gone, or else the first.
    """
    try:
        yield
    except tf.errors.OpError as error:
        found = re.search(r"\w+(?:Error|Exception): (.*)", error.message)
        raise InputError(found[1] if found else error.message.split("\n")[0]) from None
