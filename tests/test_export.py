"""That an exported network answers raw pixels as the network does, in every format.

Formats whose runtime isn't installed are skipped; README says how to have them all.
"""

import importlib.util
import json
import os
import runpy
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import mnist_keras
from classifier import export, metadata, opener
from classifier.console import InputError, parse_command_line
from classifier.export import FORMATS, export_network
from digits import handwriting
from setting import Setting
from tests.networks import narrow

DIGITS = list("0123456789")
SCRIPT = Path(mnist_keras.__file__)
SHIPPED = SCRIPT.parent / "mnist_data" / "shipped"


def need(*packages: str) -> None:
    for package in packages:
        pytest.importorskip(package.replace("-", "_"), reason=f"pip install {package}")


@pytest.fixture(params=FORMATS)
def format(request) -> str:
    need(*FORMATS[request.param].needs)
    return request.param


@pytest.fixture(autouse=True)
def float32(processor):
    """Keras's own state, whatever a test before this one left; files are read on the processor."""
    keras.mixed_precision.set_global_policy("float32")
    yield
    keras.mixed_precision.set_global_policy("float32")
    keras.config.set_image_data_format("channels_last")


def network(height: int = 28, width: int = 28, classes: int = 10) -> keras.Sequential:
    """A small one with layers like the program's, untrained, whose answers vary."""
    keras.utils.set_random_seed(0)
    channels_first = keras.config.image_data_format() == "channels_first"
    model = keras.Sequential(
        [
            keras.Input((3, height, width) if channels_first else (height, width, 3)),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(classes, activation="softmax", dtype="float32"),
        ]
    )
    model.set_weights([np.random.normal(weights, 0.03) for weights in model.get_weights()])
    return model


def noise(count: int, height: int = 28, width: int = 28) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def chances_of(model: keras.Sequential, pictures: np.ndarray) -> np.ndarray:
    return model.predict(pictures.astype(np.float32) / 255, verbose=0)


def read_keras(path: Path, pictures: np.ndarray) -> np.ndarray:
    model = keras.saving.load_model(path)
    assert [(i.name, i.dtype) for i in model.inputs] == [("picture", "uint8")]
    return model.predict(pictures, verbose=0)["chances"]


def read_saved_model(path: Path, pictures: np.ndarray) -> np.ndarray:
    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures["serving_default"]
    assert serve.structured_input_signature[1]["picture"].dtype == tf.uint8
    return serve(picture=tf.constant(pictures))["chances"].numpy()


def read_litert(path: Path, pictures: np.ndarray) -> np.ndarray:
    with pytest.warns(UserWarning, match="ai_edge_litert"):
        interpreter = tf.lite.Interpreter(str(path))
    signatures = interpreter.get_signature_list()
    assert signatures == {"serving_default": {"inputs": ["picture"], "outputs": ["chances"]}}
    given, taken = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    assert given["dtype"] is np.uint8 and taken["dtype"] is np.float32
    # As an app does it that has no signature runner.
    interpreter.resize_tensor_input(given["index"], pictures.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], pictures)
    interpreter.invoke()
    return interpreter.get_tensor(taken["index"])


def read_onnx(path: Path, pictures: np.ndarray) -> np.ndarray:
    need("onnxruntime")
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    assert [(i.name, i.type) for i in session.get_inputs()] == [("picture", "tensor(uint8)")]
    assert [(o.name, o.type) for o in session.get_outputs()] == [("chances", "tensor(float)")]
    return session.run(None, {"picture": pictures})[0]


def read_openvino(path: Path, pictures: np.ndarray) -> np.ndarray:
    import openvino

    model = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert model.input("picture").element_type == openvino.Type.u8
    return model({"picture": pictures})["chances"]


READERS = {
    "keras": read_keras,
    "saved_model": read_saved_model,
    "litert": read_litert,
    "onnx": read_onnx,
    "openvino": read_openvino,
}


def test_the_file_answers_raw_pixels_as_the_network_does(format, tmp_path):
    height, width = 40, 64
    model = network(height, width, classes=2)
    path = export_network(model, format, tmp_path, ["cat", "dog"])
    for count in (1, 5):
        pictures = noise(count, height, width)
        answers = READERS[format](path, pictures)
        assert answers.dtype == np.float32
        np.testing.assert_allclose(answers, chances_of(model, pictures), atol=1e-5)


def test_the_readme_s_lines_of_code_give_the_network_s_answer(
    format, tmp_path, monkeypatch, capsys
):
    need(FORMATS[format].runtime)
    names = [f"c{index}" for index in range(10)]
    model = network()
    path = export_network(model, format, tmp_path, names)
    text = (path.parent / "README.txt").read_text()
    code = textwrap.dedent(text[text.index("    import") :])
    (path.parent / "use.py").write_text(code.replace("picture.jpg", "picture.png"))
    monkeypatch.chdir(path.parent)
    pictures = noise(3) // np.uint8([[[[1]]], [[[3]]], [[[9]]]])
    capsys.readouterr()
    for picture in pictures:
        Image.fromarray(picture).save("picture.png")
        runpy.run_path("use.py")
    printed = capsys.readouterr().out.splitlines()
    assert printed == [names[best] for best in chances_of(model, pictures).argmax(axis=1)]
    assert len(set(printed)) > 1


@pytest.mark.parametrize("as_article", [False, True])
def test_the_readme_opens_a_picture_as_the_network_s_training_did(
    as_article, tmp_path, monkeypatch
):
    path = export_network(network(), "keras", tmp_path, DIGITS, as_article=as_article)
    text = (path.parent / "README.txt").read_text()
    code = textwrap.dedent(text[text.index("    import") : text.index("    network =")])
    monkeypatch.chdir(tmp_path)
    Image.fromarray(noise(1, 61, 47)[0]).save("picture.png")
    (tmp_path / "open.py").write_text(code.replace("picture.jpg", "picture.png"))
    pixels = runpy.run_path("open.py")["pixels"][0]
    assert np.array_equal(
        pixels, opener.decoder("article" if as_article else "tuned")("picture.png", (28, 28))
    )


def test_what_lies_beside_the_file_and_what_is_said(tmp_path, capsys):
    path = export_network(network(), "keras", tmp_path, DIGITS, note="White on black.")
    assert path == tmp_path / "keras" / "network.keras"
    names = {file.name for file in path.parent.iterdir()}
    assert names == {"network.keras", "classes.txt", "README.txt"}
    assert (path.parent / "classes.txt").read_bytes() == b"0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n"
    text = (path.parent / "README.txt").read_text()
    assert "uint8 [n, 28, 28, 3]" in text and "float32 [n, 10]" in text
    assert "\nWhite on black.\n" in text
    printed = capsys.readouterr().out
    assert (
        str(path) in printed
        and "White on black." in printed
        and "chances differ by at most" in printed
    )
    assert [p.name for p in tmp_path.iterdir()] == ["keras"]  # nothing half done beside it


def test_half_takes_two_bytes_a_weight_and_little_from_the_answers(tmp_path):
    model = network()
    path = export_network(model, "litert", tmp_path, DIGITS, half=True)
    assert path == tmp_path / "litert-half" / "network.tflite"
    assert path.stat().st_size < 2 * model.count_params() + 10_000  # for all that is no weight
    np.testing.assert_allclose(read_litert(path, noise(5)), chances_of(model, noise(5)), atol=1e-2)


def test_half_of_another_format_is_refused(tmp_path):
    with pytest.raises(InputError, match="--half goes with --format litert"):
        export_network(network(), "keras", tmp_path, DIGITS, half=True)
    assert not any(tmp_path.iterdir())


def test_a_thousand_classes(tmp_path):
    names = [f"class {index}" for index in range(1000)]
    path = export_network(network(classes=1000), "litert", tmp_path, names)
    assert (path.parent / "classes.txt").read_text().splitlines() == names
    assert read_litert(path, noise(1)).shape == (1, 1000)


def test_odd_names_keep_their_line(tmp_path):
    names = [
        "向日葵",
        "می‌خواهم",
        "猫　狗",
        " ",
        "{file}",
        "two\nlines",
        "end\r",
        "\u2028",
        "\udcff",
    ]
    path = export_network(network(classes=len(names)), "keras", tmp_path, names)
    with open(path.parent / "classes.txt", encoding="utf-8") as file:
        lines = file.read().splitlines()
    assert lines == [*names[:5], r"two\nlines", r"end\r", r"\u2028", r"\udcff"]


def test_channels_first_networks_take_the_same_pictures(format, tmp_path):
    keras.config.set_image_data_format("channels_first")
    model = network(20, 30)
    try:
        model(np.zeros((1, 3, 20, 30), np.float32))
    except tf.errors.UnimplementedError:
        pytest.skip("TensorFlow computes no channels_first convolution on this processor")
    path = export_network(model, format, tmp_path, DIGITS)
    pictures = noise(3, 20, 30)
    answers = READERS[format](path, pictures)
    np.testing.assert_allclose(
        answers, chances_of(model, pictures.transpose(0, 3, 1, 2)), atol=1e-5
    )


# Precision


def test_the_file_is_float32_whatever_keras_is_set_to(format, tmp_path):
    model = network()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    path = export_network(model, format, tmp_path, DIGITS)
    np.testing.assert_allclose(
        READERS[format](path, noise(3)), chances_of(model, noise(3)), atol=1e-5
    )


def test_a_bfloat16_network_is_refused(tmp_path):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    with pytest.raises(InputError, match="bfloat16; export needs float32"):
        export_network(network(), "litert", tmp_path, DIGITS)
    assert not any(tmp_path.iterdir())


# What goes wrong


def test_a_file_that_answers_otherwise_does_not_stay(tmp_path):
    model = network()
    kept = export_network(model, "keras", tmp_path, DIGITS).read_bytes()
    # A change of this kind, as speed_up makes them, does not get into a .keras file.
    model.layers[3].call = lambda values, training: 2 * values
    with pytest.raises(InputError, match="--format keras: .* differ by up to"):
        export_network(model, "keras", tmp_path, DIGITS)
    assert (tmp_path / "keras" / "network.keras").read_bytes() == kept
    assert [path.name for path in tmp_path.iterdir()] == ["keras"]


def test_chances_that_are_no_numbers_are_an_error(tmp_path):
    model = network()
    model.set_weights([np.full_like(weights, np.nan) for weights in model.get_weights()])
    with pytest.raises(InputError, match="nan"):
        export_network(model, "keras", tmp_path, DIGITS)
    assert not any(tmp_path.iterdir())


def test_a_file_that_its_runtime_refuses_does_not_stay(tmp_path, monkeypatch):
    write = export.write_network

    def damaged(network, path, *arguments):
        write(network, path, *arguments)
        path.write_bytes(path.read_bytes()[:1000])

    monkeypatch.setattr(export, "write_network", damaged)
    with pytest.raises(InputError, match="tensorflow can't read"):
        export_network(network(), "keras", tmp_path, DIGITS)
    assert not any(tmp_path.iterdir())


class Magic(keras.layers.Layer):
    """What only Python can compute."""

    def call(self, values):
        return tf.ensure_shape(tf.numpy_function(np.square, [values], tf.float32), values.shape)


def test_a_network_that_the_format_cannot_hold_is_one_line(tmp_path):
    model = keras.Sequential([*network().layers, Magic()])
    model.build((None, 28, 28, 3))
    with pytest.raises(InputError, match="can't be written as litert: .+") as caught:
        export_network(model, "litert", tmp_path, DIGITS)
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_a_lambda_layer_that_keras_would_not_read_is_named_and_other_formats_take_it(
    tmp_path,
):
    doubled = keras.layers.Lambda(lambda values: values * 2)
    inside = keras.Sequential([keras.Input((28, 28, 3)), doubled])
    for layer in (doubled, inside):
        model = keras.Sequential([keras.Input((28, 28, 3)), layer, *network().layers])
        with pytest.raises(InputError, match="^--format keras: Keras reads no Lambda layer .*save"):
            export_network(model, "keras", tmp_path, DIGITS)
        assert not any(tmp_path.iterdir())
    assert export_network(model, "saved_model", tmp_path, DIGITS).exists()


def hide(monkeypatch, *packages: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in packages else find(name)
    )


@pytest.mark.parametrize(
    ("name", "command"),
    [("onnx", "pip install tf2onnx onnx"), ("openvino", "pip install openvino")],
)
def test_missing_packages_are_named_with_their_command(name, command, tmp_path, monkeypatch):
    hide(monkeypatch, *FORMATS[name].needs)
    with pytest.raises(InputError, match=f"--format {name} needs more packages: {command}$"):
        export_network(network(), name, tmp_path, DIGITS)
    assert not any(tmp_path.iterdir())


def test_without_its_runtime_the_file_is_written_and_not_read_back(tmp_path, monkeypatch, capsys):
    need("tf2onnx", "onnx")
    hide(monkeypatch, "onnxruntime")
    assert export_network(network(), "onnx", tmp_path, DIGITS).exists()
    assert "not read back, since onnxruntime isn't here" in capsys.readouterr().out


def test_an_earlier_export_is_kept(tmp_path, capsys):
    first = export_network(network(), "keras", tmp_path, DIGITS).read_bytes()
    (tmp_path / "keras" / "mine.txt").write_text("notes")
    export_network(network(classes=2), "keras", tmp_path, DIGITS[:2])
    (previous,) = (tmp_path / "previous").glob("*/keras")
    assert (previous / "network.keras").read_bytes() == first
    assert (previous / "mine.txt").read_text() == "notes"
    assert (tmp_path / "keras" / "classes.txt").read_text() == "0\n1\n"
    assert f"is now in {previous.parent}" in capsys.readouterr().out


@pytest.fixture
def full_disk():
    """A limit on the size of files does to a write what a full disk does to it."""
    resource = pytest.importorskip("resource")  # Windows has no such limits
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_line_and_leaves_nothing(format, tmp_path, full_disk):
    with pytest.raises(
        InputError, match=rf"{format}: can't be written \(.*\); is the disk full\?$"
    ):
        export_network(network(), format, tmp_path, DIGITS)
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "export").write_text("a file of the user's")
    with pytest.raises(InputError, match="export: a file; a folder is wanted here"):
        export_network(network(), "keras", tmp_path / "export", DIGITS)
    assert (tmp_path / "export").read_text() == "a file of the user's"


def test_interrupted_it_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise SystemExit(130)

    monkeypatch.setattr(export, "compare_outputs", interrupted)
    with pytest.raises(SystemExit):
        export_network(network(), "saved_model", tmp_path, DIGITS)
    assert not any(tmp_path.iterdir())


# --mode export


@pytest.fixture
def fresh(tmp_path) -> Path:
    """A data_dir with the weights that ship, and nothing else."""
    shutil.copytree(SHIPPED, tmp_path / "shipped")
    return tmp_path


def weights(data_dir: Path, val_acc: str, side: int, bias: float = 0) -> Path:
    """Weights for square pictures of five classes, centred; the bias is that of the first class."""
    setting = Setting(img_width=side, img_height=side, label_nums=5)
    model = mnist_keras.build_model(setting)
    model.layers[-1].bias.assign([bias, 0, 0, 0, 0])
    folder = data_dir / "model_weight"
    folder.mkdir(exist_ok=True)
    said = json.loads((SHIPPED / "model.json").read_text("utf-8"))
    said |= {"classes": ["a", "b", "c", "d", "e"], "img_width": side, "img_height": side}
    said |= {"handwriting": False, "network": metadata.network_config(model), "ground": [0.7, 0.2]}
    (folder / "model.json").write_text(json.dumps(said), "utf-8")
    path = folder / f"weights-improvement-01-{val_acc}.weights.h5"
    model.save_weights(path)
    return path


def test_the_shipped_network_leaves_the_program_and_answers_as_predict_does(fresh, finder, capsys):
    samples = SHIPPED.parent / "tmp"
    setting = Setting(data_dir=fresh, imp_dir=samples, precision="mixed_bfloat16")
    path = mnist_keras.export(setting.replace(format="saved_model"))
    assert path == fresh / "export" / "saved_model" / "network"
    network = tf.saved_model.load(str(path))
    names = (path.parent / "classes.txt").read_text().splitlines()
    rows = mnist_keras.predict(setting.replace(precision="float32"))
    assert len(rows) == len(list(samples.iterdir()))
    for row in rows:
        probabilities = network.serve(row.network_input[None])["chances"].numpy()[0]
        assert row.label == names[probabilities.argmax()]
        assert row.confidence == pytest.approx(probabilities.max(), abs=1e-4)
        as_advised = handwriting.open_as_mnist(row.file, (28, 28), finder)[1][None]
        assert row.label == names[network.serve(as_advised)["chances"].numpy()[0].argmax()]
    for text in (capsys.readouterr().out, (path.parent / "README.txt").read_text("utf-8")):
        assert "white on black" in text and "digits/handwriting.py" in text


def test_the_best_weights_of_the_run_are_exported_unless_others_are_named(fresh, capsys):
    other, best = weights(fresh, "0.50000", 20, -9), weights(fresh, "0.60000", 20, 9)
    for restore_model, expected in ((None, best), (other, other)):
        setting = Setting(data_dir=fresh, format="keras", restore_model=restore_model)
        path = mnist_keras.export(setting)
        printed = capsys.readouterr().out
        assert f"weights: {expected}\n" in printed and "white on black" not in printed
        favoured = read_keras(path, noise(1, 20, 20))[0].argmax() == 0
        assert favoured == (expected == best)
    assert "digit" not in (path.parent / "README.txt").read_text("utf-8")


def test_a_network_that_centres_its_pictures_does_so_in_the_file(fresh, monkeypatch):
    monkeypatch.setattr(mnist_keras, "build_model", narrow)
    weights(fresh, "0.50000", 64)
    pictures = noise(3, 64, 64) // np.uint8([[[[1]]], [[[2]]], [[[9]]]])
    (fresh / "tmp").mkdir()
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(fresh / "tmp" / f"{index}.png")
    setting = Setting(data_dir=fresh, precision="float32", format="keras")
    probabilities = read_keras(mnist_keras.export(setting), pictures)
    rows = mnist_keras.predict(setting)
    assert [row.confidence for row in rows] == pytest.approx(
        list(probabilities.max(axis=1)), abs=1e-5
    )


def test_the_command_says_what_it_wrote_and_nothing_else(fresh):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--mode", "export", "--data_dir", fresh],
        capture_output=True,
        encoding="utf-8",
        env={name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"},
    )
    assert done.returncode == 0 and done.stderr == ""
    assert str(fresh / "export" / "litert" / "network.tflite") in done.stdout
    assert "read back by tensorflow" in done.stdout


def test_without_weights_it_is_said_what_makes_them(tmp_path):
    with pytest.raises(InputError, match="no weights here; --mode train makes them"):
        mnist_keras.export(Setting(data_dir=tmp_path))
    assert not any(tmp_path.iterdir())


def test_an_unknown_format_is_a_line_that_names_the_known_ones(capsys):
    with pytest.raises(SystemExit, match="2"):
        parse_command_line("", Setting, ["--mode", "export", "--format", "tflite"])
    (line,) = capsys.readouterr().err.splitlines()
    assert "--format: invalid choice: 'tflite'" in line
    assert all(name in line for name in FORMATS)


def test_the_command_line_has_the_formats_that_can_be_written():
    assert Setting.format.choices == tuple(FORMATS)


def test_layers_that_vary_pictures_in_training_do_not_in_the_file(format, tmp_path):
    model = network()
    varied = keras.Sequential(
        [keras.Input((28, 28, 3)), keras.layers.RandomRotation(0.2), *model.layers]
    )
    path = export_network(varied, format, tmp_path, DIGITS)  # which compares the answers
    assert path.exists()
