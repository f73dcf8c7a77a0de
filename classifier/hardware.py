"""What the network runs on: processor or GPU, and which arithmetic is fast there."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import keras
import tensorflow as tf

from classifier.console import InputError
from classifier.machine import cores

# Every network that is loaded is traced anew, as it must be. In a notebook TensorFlow takes the
# fifth of them for a fault in the program, and says so.
tf.get_logger().addFilter(lambda record: "tf.function retracing" not in record.getMessage())


def gpus() -> list[tf.config.PhysicalDevice]:
    """The GPUs that TensorFlow sees."""
    return tf.config.list_physical_devices("GPU")


def on_processor() -> bool:
    """Whether the network runs on the processor; there TensorFlow wants the channels last."""
    return keras.backend.image_data_format() == "channels_last" and not gpus()


def precision(asked: str, recipe: str) -> str:
    """The arithmetic asked for; for "auto" mixed_bfloat16 where it is fast, else float32.

    It is fast where every GPU, or else the processor, multiplies it; elsewhere a processor
    emulates it. The article's recipe is float32.
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


def devices() -> list[str]:
    """The names of the devices that share a batch."""
    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return [device.name for device in found]


def use_devices() -> tf.distribute.Strategy:
    """Say what the network runs on, and have it use all of it."""
    for gpu in gpus():
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:  # TensorFlow is at work in this process: it has the memory it wants
            break
    if gpus():
        names = [tf.config.experimental.get_device_details(gpu)["device_name"] for gpu in gpus()]
        print(f"running on {len(names)} GPU: {', '.join(names)}")
    else:
        print(f"running on the CPU, {cores()} cores")
    if len(devices()) > 1:
        return tf.distribute.MirroredStrategy(devices())
    return tf.distribute.get_strategy()


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn an error of TensorFlow in the body into an InputError of one line.

    Among its many lines one says what happened, such as that a picture is gone.
    """
    try:
        yield
    except tf.errors.OpError as error:
        said = re.search(r"\w+(?:Error|Exception): (.*)", error.message)
        raise InputError(said[1] if said else error.message.split("\n")[0]) from None
