"""Networks that begin with weights which have learned from other pictures."""

import hashlib
import http.server
import re
import textwrap
import threading
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from helpers import save
from keras import layers
from keras.src.applications import efficientnet_v2, mobilenet_v3
from keras.src.legacy.saving import legacy_h5_format

import mnist_keras
from classifier import pretrained
from classifier.console import InputError
from setting import Setting

SIDE = 32
NAME = "MobileNetV3Small"


@pytest.fixture(scope="module")
def colours(tmp_path_factory) -> Path:
    """A data_dir of red and of blue pictures, 32×32."""
    folder, draw = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 5)):
        for channel, name in ((0, "red"), (2, "blue")):
            for index in range(count):
                pixels = draw.integers(0, 100, (SIDE, SIDE, 3), dtype=np.uint8)
                pixels[..., channel] += 120
                save(folder / part / name, f"{index}.png", pixels)
    return folder


@pytest.fixture
def setting(colours, tmp_path, link) -> Setting:
    """Of a run on those pictures."""
    for part in ("train", "test"):
        link(tmp_path / part, colours / part)
    size = {"img_width": SIDE, "img_height": SIDE}
    return Setting(data_dir=str(tmp_path), epochs=1, precision="float32", **size)


def small(input_shape, include_top=True, weights="imagenet", pooling=None) -> keras.Model:
    """A body as keras.applications makes them, but small."""
    image = keras.Input(input_shape)
    edges = layers.Conv2D(8, 3, strides=2)(layers.Rescaling(1 / 255)(image))
    edges = layers.ReLU()(layers.BatchNormalization()(edges))
    return keras.Model(image, layers.GlobalAveragePooling2D()(edges), name=NAME)


@pytest.fixture
def learned(monkeypatch) -> keras.Model:
    """A small body of that name; its weights are what those of ImageNet are elsewhere."""
    keras.utils.set_random_seed(7)
    monkeypatch.setattr(keras.applications, NAME, small)
    return with_other_weights(small((SIDE, SIDE, 3)))


def with_other_weights(body: keras.Model) -> keras.Model:
    draw = np.random.default_rng(7)
    body.set_weights([w + draw.uniform(0, 0.1, w.shape) for w in body.get_weights()])
    return body


def save_as_keras_has_them(body: keras.Model, path: Path) -> None:
    """In the format of Keras's own files."""
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, body)


@pytest.fixture
def server(learned, tmp_path, monkeypatch):
    """127.0.0.1, from where Keras downloads the file into an empty cache; `asked` for what."""
    path = tmp_path / "body.h5"
    save_as_keras_has_them(learned, path)
    content = path.read_bytes()

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802, http.server's name
            self.server.asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.asked = []
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/small_no_top.h5"
    weights = pretrained.Weights(url, hashlib.md5(content).hexdigest())
    monkeypatch.setitem(pretrained.BODIES, NAME, weights)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    server.server_close()


def body_after(setting: Setting) -> keras.Model:
    """The body of the network that the setting's run has saved."""
    model = mnist_keras.build_model(setting.replace(pretrained=NAME, label_nums=2))
    model.load_weights(next(Path(setting.checkpoint_path).glob("weights-*")))
    return model.layers[1]


# --pretrained


def test_weights_are_fetched_once_by_train_and_by_nothing_else(server, setting, learned, capfd):
    first = setting.replace(pretrained=NAME, learning_rate=1e-7)
    mnist_keras.train(first)
    assert server.asked == ["/small_no_top.h5"]
    for then, now in zip(learned.get_weights(), body_after(setting).get_weights(), strict=True):
        np.testing.assert_allclose(then, now, atol=1e-4)
    (cached,) = (Path(setting.data_dir) / "cache" / "models").iterdir()
    cached.unlink()
    server.shutdown()
    _, acc = mnist_keras.evaluate(setting)
    assert acc == 1  # by the dense layer, which has learned before the first epoch
    mnist_keras.train(first.replace(is_restore=True, epochs=2))
    mnist_keras.export(setting.replace(format="keras"))
    assert len(server.asked) == 1


def test_without_a_connection_it_is_said_which_file_belongs_where(server, setting):
    server.shutdown()
    server.server_close()
    place = Path(setting.data_dir, "cache", "models")
    with pytest.raises(
        InputError, match=rf"small_no_top.h5 can't be .*refused.*; put it into {place}"
    ):
        mnist_keras.train(setting.replace(pretrained=NAME))


def test_another_file_than_keras_s_is_refused(server, setting, monkeypatch):
    other = pretrained.BODIES[NAME]._replace(md5="0" * 32)
    monkeypatch.setitem(pretrained.BODIES, NAME, other)
    with pytest.raises(InputError, match="can't be downloaded .*hash"):
        mnist_keras.train(setting.replace(pretrained=NAME))


def test_a_file_of_weights_is_taken_and_not_needed_again(setting, learned, tmp_path):
    file = tmp_path / "mine.weights.h5"
    learned.save_weights(file)
    mnist_keras.train(setting.replace(pretrained=str(file), learning_rate=1e-7))
    for then, now in zip(learned.get_weights(), body_after(setting).get_weights(), strict=True):
        np.testing.assert_allclose(then, now, atol=1e-4)
    file.unlink()
    again = {"pretrained": str(file), "learning_rate": 1e-7, "is_restore": True, "epochs": 2}
    mnist_keras.train(setting.replace(**again))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"pretrained": "MobileNet"}, "no such file, and none of MobileNetV3Small"),
        ({"pretrained": __file__}, "not the weights of any of MobileNetV3Small "),
        ({"pretrained": NAME, "recipe": "article"}, "leave out --recipe article"),
    ],
)
def test_what_cannot_be_started_from_is_refused(setting, values, said, monkeypatch):
    monkeypatch.setattr(pretrained, "BODIES", {NAME: pretrained.BODIES[NAME]})  # others: slow
    with pytest.raises(InputError, match=said):
        mnist_keras.train(setting.replace(**values))


def test_a_body_takes_keras_s_file_and_keeps_its_statistics(tmp_path):
    setting = Setting(pretrained=NAME, img_width=SIDE, img_height=SIDE)
    options = {"include_top": False, "weights": None, "pooling": "avg"}
    shape = setting.input_shape
    body = with_other_weights(keras.applications.MobileNetV3Small(input_shape=shape, **options))
    save_as_keras_has_them(body, tmp_path / "keras.h5")
    rescaling, ours = pretrained.pretrained_body(setting)
    pretrained.load_weights(ours, tmp_path / "keras.h5")
    images = np.random.default_rng(0).random((2, *shape)).astype("f4")
    expected = body(images * 255, training=False)
    for training in (True, False):
        outputs = ours(rescaling(images), training=training)
        np.testing.assert_allclose(outputs, expected, rtol=1e-3, atol=1e-5)


def test_a_size_too_small_for_the_body_is_refused():
    with pytest.raises(InputError, match="img_width 31, .*needs 32 or more"):
        mnist_keras.build_model(Setting(pretrained=NAME, img_width=31))


def test_the_files_are_those_that_keras_itself_would_fetch():
    hashes = {
        "MobileNetV3Small": mobilenet_v3.WEIGHTS_HASHES["small_224_1.0_float"][1],
        "MobileNetV3Large": mobilenet_v3.WEIGHTS_HASHES["large_224_1.0_float"][1],
        "EfficientNetV2B0": efficientnet_v2.WEIGHTS_HASHES["b0"][1],
        "EfficientNetV2S": efficientnet_v2.WEIGHTS_HASHES["-s"][1],
    }
    assert {name: weights.md5 for name, weights in pretrained.BODIES.items()} == hashes
    folders = (mobilenet_v3.BASE_WEIGHT_PATH, efficientnet_v2.BASE_WEIGHTS_PATH)
    assert all(weights.url.startswith(folders) for weights in pretrained.BODIES.values())


# In a build_model of one's own


def test_the_readme_s_base_is_frozen_and_its_dense_layer_learns(setting, learned, monkeypatch):
    monkeypatch.setattr(keras.applications, NAME, lambda *arguments, **options: learned)
    readme = Path(__file__).parents[1].joinpath("README.md").read_text("utf-8")
    (code,) = re.findall(r"^    def build_model.*?\n\n", readme, re.DOTALL | re.MULTILINE)
    names = {"keras": keras, "layers": layers}
    exec(textwrap.dedent(code), names)
    before = learned.get_weights()
    mnist_keras.train(setting.replace(learning_rate=0.1, epochs=5), names["build_model"])
    for then, now in zip(before, learned.get_weights(), strict=True):
        np.testing.assert_array_equal(then, now)
    _, acc = mnist_keras.evaluate(setting, names["build_model"])
    assert acc == 1
