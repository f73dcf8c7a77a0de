"""A trained network as a file for other programs: from pixels, uint8, to probabilities.

Keras writes every format (model.save, model.export). Here the scaling of the pixels becomes part of
the network, input and output get names, the file is read back and its outputs are compared, and a
README.txt says how to use it.
"""

import importlib
import importlib.util
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from classifier.batches import rescale, to_model_input
from classifier.console import InputError, printable
from classifier.files import atomic_folder

# Most difference of a probability from the network's: another order of sums makes 5e-7, bfloat16
# 3e-3, red and blue exchanged 0.3. With weights in float16 the shipped network's differ by 5e-4.
TOLERANCE, HALF_TOLERANCE = 1e-4, 1e-2
# A few seconds' work at 224×224.
IMAGES_COMPARED = 16
# What Python, TensorFlow and OpenVINO raise if a file can't be written.
DISK_ERRORS = (OSError, tf.errors.OpError, RuntimeError)


class Format(NamedTuple):
    """A format: what writes it, what reads it, and the lines of Python that use it."""

    name: str  # Keras's
    file: str  # or folder
    needs: tuple[str, ...]  # the packages that write it, besides the program's own
    checked_with: str  # the package that reads it back
    runtime: str  # the package that README.txt recommends; then the lines of code
    module: str
    loads: str
    answers: str  # float32 [classes] to pixels, uint8 [1, height, width, 3]
    remark: str = ""


FORMATS = {
    "keras": Format(
        name="keras",
        file="network.keras",
        needs=(),
        checked_with="tensorflow",
        runtime="tensorflow",
        module="import keras",
        loads='keras.saving.load_model("network.keras")',
        answers='network(pixels)["chances"].numpy()[0]',
    ),
    "saved_model": Format(
        name="tf_saved_model",
        file="network",
        needs=(),
        checked_with="tensorflow",
        runtime="tensorflow",
        module="import tensorflow as tf",
        loads='tf.saved_model.load("network")',
        answers='network.serve(pixels)["chances"].numpy()[0]',
    ),
    "litert": Format(
        name="litert",
        file="network.tflite",
        needs=(),
        checked_with="tensorflow",
        runtime="ai-edge-litert",
        module="from ai_edge_litert.interpreter import Interpreter",
        loads='Interpreter("network.tflite").get_signature_runner()',
        answers='network(picture=pixels)["chances"][0]',
        remark="The file's n is 1. A signature runner, as below, sets it to that of its pictures; "
        "elsewhere resize the input tensor first.",
    ),
    "onnx": Format(
        name="onnx",
        file="network.onnx",
        needs=("tf2onnx", "onnx"),
        checked_with="onnxruntime",
        runtime="onnxruntime",
        module="import onnxruntime",
        loads='onnxruntime.InferenceSession("network.onnx")',
        answers='network.run(["chances"], {"picture": pixels})[0][0]',
    ),
    "openvino": Format(
        name="openvino",
        file="network.xml",
        needs=("openvino",),
        checked_with="openvino",
        runtime="openvino",
        module="import openvino",
        loads='openvino.compile_model("network.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})',
        answers='network(pixels)["chances"][0]',
        remark="Without the hint below OpenVINO computes in bfloat16 where the processor can, and "
        "chances are off by some thousandths. The weights are in network.bin: it must lie beside "
        "network.xml.",
    ),
}

README = """\
{file}: a network that tells {count} classes of pictures apart.

In:   picture, uint8 [n, {height}, {width}, 3]: the rows of pixels from the top, each pixel red,
      green and blue from 0 to 255 as they are, since scaling is inside (of 16 bits a colour,
      the upper 8). {resizing}
Out:  chances, float32 [n, {count}]: how likely each class is, in the order of the lines of
      classes.txt; together 1.
{notes}
In Python (pip install {runtime} pillow), in this folder:

    import numpy as np
    from PIL import {pillow}
    {module}

{opening}
    network = {loads}
    chances = {answers}
    print(open("classes.txt", encoding="utf-8").read().splitlines()[chances.argmax()])
"""


# How a picture becomes the pixels that the network was trained on, by the recipe of its training.
TUNED = {
    "resizing": """White where a picture is transparent. What makes pictures smaller has to
      average pixels, as Pillow's BILINEAR does and that of other libraries doesn't.""",
    "pillow": "Image, ImageOps",
    "opening": """\
    picture = ImageOps.exif_transpose(Image.open("picture.jpg")).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    picture = Image.alpha_composite(white, picture).convert("RGB")
    pixels = np.array(picture.resize(({width}, {height}), Image.BILINEAR))[None]""",
}
ARTICLE = {
    "resizing": """Resized by the nearest pixel, as Keras's load_img does and the
      article's recipe with it: no EXIF tag turns the picture.""",
    "pillow": "Image",
    "opening": """\
    picture = Image.open("picture.jpg").convert("RGB")
    pixels = np.array(picture.resize(({width}, {height}), Image.NEAREST))[None]""",
}


def export_network(
    model: keras.Model,
    format: str,
    folder: Path,
    classes: Sequence[str],
    half: bool = False,
    note: str = "",
    as_article: bool = False,
) -> Path:
    """Write the network, classes.txt and README.txt to folder/<format>/, all of them or nothing.

    Args:
        model: float32 images in 0..1, in image_data_format, to probabilities [n, classes];
            it computes in float32.
        format: one of FORMATS.
        folder: what an earlier export wrote there is moved to previous/<date-time>/ in it.
        classes: their names, in order.
        half: weights in float16, half the size, to folder/litert-half/; only for litert.
        note: what else a picture must be like, in a few sentences for README.txt and the terminal.
        as_article: the network was trained on pictures as Keras's load_img opens them.

    Returns:
        What the network was written to: a file, for saved_model a folder.

    Raises:
        InputError: the network does not compute in float32, the format can't hold it, a package is
            missing, the disk does not take the files, or what was written does not answer as the
            network does.
    """
    form = FORMATS[format]
    if half and format != "litert":
        raise InputError(f"--half goes with --format litert, not with {format}")
    # Nested or wrapped, too. Keras writes them, and then refuses to read what could do anything.
    if format == "keras" and '"class_name": "Lambda"' in model.to_json():
        raise InputError(
            "--format keras: Keras reads no Lambda layer from a file; write it as another layer in "
            "build_model, or take --format saved_model"
        )
    missing = [package for package in form.needs if importlib.util.find_spec(package) is None]
    if missing:
        raise InputError(f"--format {format} needs more packages: pip install {' '.join(missing)}")
    place = folder / (f"{format}-half" if half else format)
    network = with_rescaling(model)
    way = ARTICLE if as_article else TUNED
    text = readme(form, way, *image_size(model), len(classes), note)
    with atomic_folder(place) as partial:
        try:
            write_network(network, partial / form.file, form.name, half)
            (partial / "classes.txt").write_bytes(class_lines(classes))
            (partial / "README.txt").write_text(text, encoding="utf-8")
        except DISK_ERRORS as error:
            # TensorFlow names one of its own files first.
            why = getattr(error, "strerror", None) or str(error).partition("\n")[0].split("; ")[-1]
            raise InputError(f"{place}: can't be written ({why}); is the disk full?") from error
        checked = compare_outputs(model, partial / form.file, format, half)
    print(f"{printable(str(place / form.file))}: {megabytes(place):.1f} MB, {checked}")
    print(f"how to use it: {printable(str(place / 'README.txt'))}")
    if note:
        print(note)
    return place / form.file


def with_rescaling(model: keras.Model) -> keras.Model:
    """The network for uint8 [n, height, width, 3] named picture, to {"chances": float32}.

    Raises:
        InputError: it does not compute in float32.
    """
    others = {layer.compute_dtype for layer in (model, *model.layers)} - {"float32"}
    if others:
        # LiteRT's, ONNX's and OpenVINO's files would be written without a complaint, and not run.
        raise InputError(f"the network computes in {', '.join(others)}; export needs float32")
    picture = keras.Input((*image_size(model), 3), dtype="uint8", name="picture")
    scaled = keras.layers.Rescaling(1 / 255, dtype="float32")(picture)
    if keras.config.image_data_format() == "channels_first":
        scaled = keras.layers.Permute((3, 1, 2), dtype="float32")(scaled)
    # training=False, or Keras's Random* layers would stay active in the file.
    return keras.Model(picture, {"chances": model(scaled, training=False)}, name="network")


def image_size(model: keras.Model) -> tuple[int, int]:
    """The height and width of the network's input."""
    _, *shape = model.input_shape
    first = keras.config.image_data_format() == "channels_first"
    return tuple(shape[1:] if first else shape[:2])


def write_network(network: keras.Model, path: Path, name: str, half: bool) -> None:
    """Have Keras write the network in the format that it calls by that name.

    Raises:
        InputError: the format has no such layers.
        OSError, tf.errors.OpError, RuntimeError: the file can't be written.
    """
    if name == "keras":
        network.save(path)
        return
    network(np.zeros((1, *network.input_shape[1:]), np.uint8))  # Keras wants that before ONNX
    options = {}
    if half:
        options["optimizations"] = [tf.lite.Optimize.DEFAULT]
        options["target_spec"] = {"supported_types": [tf.float16]}
    try:
        with warnings.catch_warnings(action="ignore"):  # of Keras's, about old numpy
            network.export(str(path), format=name, verbose=False, **options)
    except DISK_ERRORS:
        raise
    except Exception as error:  # each converter has its own
        first_line = str(error).partition("\n")[0]
        raise InputError(f"this network can't be written as {name}: {first_line}") from error


def class_lines(classes: Sequence[str]) -> bytes:
    """The names as UTF-8, one a line; line breaks and bytes that are no text are escaped."""
    lines = [
        name if len(f"{name}.".splitlines()) == 1 else printable(name)  # "." for a break at the end
        for name in classes
    ]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")


def readme(
    form: Format, way: dict[str, str], height: int, width: int, count: int, note: str
) -> str:
    notes = "".join(f"\n{textwrap.fill(text, 96)}\n" for text in (form.remark, note) if text)
    size = {"height": height, "width": width}
    way = way | {"opening": way["opening"].format(**size)}
    return README.format(**form._asdict(), **way, **size, count=count, notes=notes)


def compare_outputs(model: keras.Model, path: Path, format: str, half: bool) -> str:
    """Read the file back and compare its outputs with the model's; returns the result in words.

    Raises:
        InputError: it can't be read, or the outputs differ by more than TOLERANCE.
    """
    package = FORMATS[format].checked_with
    if importlib.util.find_spec(package) is None:
        return f"not read back, since {package} isn't here (pip install {package})"
    pictures = sample_images(model)
    # On a GPU TensorFlow may multiply float32 with the ten bits of TF32.
    with tf.device("CPU"):
        expected = np.asarray(model(to_model_input(rescale(pictures)), training=False))
        try:
            answered = np.asarray(run_exported(path, format, pictures))
        except Exception as error:  # each runtime has its own
            first_line = str(error).partition("\n")[0]
            raise InputError(
                f"{package} can't read the file, which was removed: {first_line}"
            ) from error
    difference = np.abs(answered - expected).max()
    if not difference <= (HALF_TOLERANCE if half else TOLERANCE):  # so that NaN is one too
        raise InputError(
            f"--format {format}: in {package} the chances differ by up to {difference:.1g} from "
            "the network's; the file was removed"
        )
    version = importlib.import_module(package).__version__.partition("-")[0]
    return f"read back by {package} {version}: chances differ by at most {difference:.0e}"


def sample_images(model: keras.Model) -> np.ndarray:
    """Images to compare outputs on: uint8 [n, height, width, 3].

    Of coloured squares, light and dark; for plain noise MNIST's network always says 8.
    """
    height, width = image_size(model)
    random = np.random.default_rng(0)
    squares = random.integers(0, 256, (IMAGES_COMPARED, 4, 4, 3))
    squares = squares * random.random((IMAGES_COMPARED, 1, 1, 1))
    large = squares.repeat(-(-height // 4), axis=1).repeat(-(-width // 4), axis=2)
    return large[:, :height, :width].astype(np.uint8)


def megabytes(path: Path) -> float:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files) / 1e6


def run_exported(path: Path, format: str, pictures: np.ndarray) -> np.ndarray:
    """The probabilities [n, classes] that the format's runtime computes for uint8 pictures."""
    if format == "keras":
        return keras.saving.load_model(path)(pictures)["chances"]
    if format == "saved_model":
        network = tf.saved_model.load(str(path))  # it keeps the variables that serve reads
        return network.serve(pictures)["chances"]
    if format == "litert":
        with warnings.catch_warnings(action="ignore"):  # that it will be a package of its own
            interpreter = tf.lite.Interpreter(
                str(path),
                # The default delegate announces itself on stderr.
                experimental_op_resolver_type=(
                    tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
                ),
            )
        return interpreter.get_signature_runner()(picture=pictures)["chances"]
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return session.run(["chances"], {"picture": pictures})[0]
    import openvino

    network = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return network(pictures)["chances"]
