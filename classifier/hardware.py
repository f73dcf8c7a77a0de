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

# Every network that is loaded is traced anew, as it must be. In a notebook TensorFlow takes the
# fifth of them for a fault in the program, and says so.
tf.get_logger().addFilter(lambda record: "tf.function retracing" not in record.getMessage())

# On an H200 XLA compiled for 4 s, and saved 5.5 ms a step of 128 pictures of 28×28; for 7 s, and
# saved 2.6 ms, with 16 of 224×224. So it pays from 800 steps on, or from 2,600.
STEPS_WORTH_COMPILING = 1_500
# To start an H100 and to compute on it for the first time took 8 s. In that time two cores read so
# many pictures of 224×224, the largest that are usual: 16 ms each in float32.
FEW_PICTURES = 500


def gpus() -> list[tf.config.PhysicalDevice]:
    """The GPUs that TensorFlow sees and that it may use in this process."""
    return tf.config.get_visible_devices("GPU")


def hide_gpus_for_few(pictures: str) -> None:
    """Leave the GPUs alone in this process if so few pictures are read before one has started.

    Can be said only before TensorFlow's first computation.

    Args:
        pictures: a folder of pictures, or a single one; of what isn't there nothing is known.
    """
    count = sum(len(names) for _, _, names in os.walk(pictures))
    if os.path.isfile(pictures) or 0 < count <= FEW_PICTURES:
        tf.config.set_visible_devices([], "GPU")


def runs_on_cpu() -> bool:
    """Whether the network runs on the processor; there TensorFlow wants the channels last."""
    return keras.backend.image_data_format() == "channels_last" and not gpus()


def choose_precision(asked: str, recipe: str) -> str:
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


def device_names() -> list[str]:
    """The names of the devices that share a batch, those of other machines too."""
    return [device.name for device in tf.config.list_logical_devices("GPU" if gpus() else "CPU")]


def make_strategy() -> tf.distribute.Strategy:
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
        count = cpu_count()
        print(f"running on the CPU, {count} core" + "s" * (count > 1))
    if workers.strategy:
        return workers.strategy
    if len(device_names()) > 1:
        return tf.distribute.MirroredStrategy(device_names())
    return tf.distribute.get_strategy()


def set_jit_compile(model: keras.Model, steps: int) -> None:
    """Have XLA compile the model's training step if that pays, and nothing else.

    Keras would compile whatever it runs on a GPU, for each size of a batch anew: validation twice,
    and a page of digits as often as it has another number of pieces. So val_acc is also computed
    as evaluate computes it.

    Args:
        model: has run nothing yet.
        steps: of the whole training, those of earlier runs too: a run that goes on then computes as
            it began. 0 if nothing is to be learned.
    """
    could = model.jit_compile  # Keras's own answer: never with several GPUs, nor deterministically
    model.jit_compile = False
    model.make_test_function()  # which keeps to that
    model.jit_compile = could and bool(gpus()) and steps >= STEPS_WORTH_COMPILING


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
