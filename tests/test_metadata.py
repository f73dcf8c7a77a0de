"""model.json and split.json: what a network is and was trained on, for later runs."""

import json
import os
import re
import shutil
import sys

import keras
import numpy as np
import pytest
from helpers import save, write_digits
from keras import layers
from tensorflow.keras.preprocessing.image import ImageDataGenerator

import mnist_keras
from classifier import metadata
from classifier.console import InputError
from classifier.pictures import file_names
from setting import Setting

NO_NETWORK = {"config": {"layers": []}}


@pytest.fixture
def data(tmp_path):
    """A data_dir with 100 drawn digits to train on."""
    write_digits(tmp_path / "train", 100, seed=1)
    return tmp_path


def described(data, **given) -> Setting:
    """What a training with that setting writes of itself."""
    setting = Setting(data_dir=str(data), checkpoint_path=str(data), **given)
    iterators = mnist_keras.data_generator(setting)
    metadata.write_metadata(setting, NO_NETWORK, "MNIST", True, *iterators)
    return setting


def changed(data, **changes) -> None:
    path = data / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


# Written and read


def test_what_is_written_is_read(data):
    described(data, epochs=7, precision="float32", recipe="tuned", img_width=30, seed=3)
    said = metadata.read_metadata(data)
    assert said["classes"] == list("0123456789") and said["label_nums"] == 10
    assert (said["img_width"], said["img_height"], said["epochs"]) == (30, 28, 7)
    assert (said["precision"], said["recipe"], said["seed"]) == ("float32", "tuned", 3)
    assert (said["handwriting"], said["trained_on"], said["images"]) == (True, "MNIST", 80)
    assert said["batch_size"] is None  # as many as suit the set
    assert said["network"] == NO_NETWORK and said["keras"] == keras.__version__
    described(data, batch_size=128)
    assert metadata.read_metadata(data)["batch_size"] == 128


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "damaged"),
        ("{}", "damaged"),
        ("[]", "damaged"),
        ('{"classes": 3}', "not a list of names"),
        ('{"classes": ["a"], "img_width": -1}', "not a number of pixels"),
        ("\xff", "damaged"),
    ],
)
def test_a_damaged_description_is_one_clear_error(tmp_path, content, said):
    (tmp_path / "model.json").write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=f"model.json: .*{said}"):
        metadata.read_metadata(tmp_path)


@pytest.mark.parametrize("name", ["..", ".", "/", "../cat", "a/b"])
def test_a_class_that_is_no_folder_s_name_is_refused(data, name):
    described(data)
    changed(data, classes=["cat", name])
    with pytest.raises(InputError, match="model.json: .*not the name of a folder"):
        metadata.read_metadata(data)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trained_on": None}, "trained on"),
        ({"img_height": True}, "not a number of pixels"),
        ({"handwriting": 1}, "does not describe a network"),
        ({"classes": ["cat"]}, "does not describe a network"),
    ],
)
def test_a_description_that_can_not_be_true_is_refused(data, changes, said):
    described(data)
    changed(data, **changes)
    with pytest.raises(InputError, match=f"model.json: .*{said}"):
        metadata.read_metadata(data)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no names that are no text")
def test_names_that_are_no_text_survive(tmp_path):
    name = os.fsdecode(b"\xff\n\x1b[2J")
    for cls in ("cat", name):
        for index in range(5):
            save(tmp_path / "train" / cls, f"{index}.png", np.zeros((9, 9), "u1"))
    described(tmp_path)
    assert metadata.read_metadata(tmp_path)["classes"] == ["cat", name]
    held_out = metadata.read_split(tmp_path)["validation"]
    assert held_out == ["cat/0.png", f"{name}/0.png"]


# A run that goes on, an evaluation and a prediction follow the run


def test_what_was_not_asked_for_follows_the_run(data):
    described(data, epochs=7, img_width=30, recipe="article", seed=3, horizontal_flip=True)
    setting = Setting(data_dir=str(data), checkpoint_path=str(data))
    setting = metadata.resumed_setting(setting, data, list("0123456789"))
    assert (setting.epochs, setting.img_width, setting.recipe, setting.seed) == (
        7,
        30,
        "article",
        3,
    )
    assert setting.horizontal_flip is True and setting.label_nums == 10
    assert not setting.is_set("batch_size")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"img_width": 32}, "--img_width 32, but the network in .* has 28"),
        ({"seed": 4}, "--seed 4, but the network in .* has 3"),
        ({"batch_size": 4}, "--batch_size 4, but the network in .* has the default .128, fewer"),
        ({"epochs": 5}, "--epochs 5, but the network in .* has 7"),
        ({"horizontal_flip": True}, "--horizontal_flip True, but the network in .* has False"),
    ],
)
def test_a_setting_that_contradicts_the_run_is_an_error_that_names_both(data, given, said):
    described(data, epochs=7, seed=3)
    with pytest.raises(InputError, match=said):
        metadata.resumed_setting(Setting(**given), data, list("0123456789"))


def test_a_run_can_go_on_for_more_epochs_and_that_is_said_when_it_does(data, capsys):
    described(data, epochs=7)
    assert metadata.resumed_setting(Setting(epochs=9), data, list("0123456789")).epochs == 9
    assert "instead of" not in capsys.readouterr().out  # it may yet be refused
    for epochs, said in ((7, False), (9, True), (9, False)):
        described(data, epochs=epochs, is_restore=True)
        line = f"{epochs} epochs instead of 7: the learning rate goes on as in"
        assert (line in capsys.readouterr().out) is said
    described(data, epochs=99)  # another run
    assert "instead of" not in capsys.readouterr().out


def test_what_an_older_program_did_not_write_is_taken_from_the_setting(data):
    described(data)
    said = json.loads((data / "model.json").read_text("utf-8"))
    for name in ("epochs", "batch_size", "seed", "horizontal_flip", "recipe", "precision"):
        del said[name]
    (data / "model.json").write_text(json.dumps(said), "utf-8")
    setting = metadata.resumed_setting(Setting(epochs=5, seed=8), data, list("0123456789"))
    assert (setting.epochs, setting.seed, setting.recipe) == (5, 8, "tuned")


@pytest.mark.parametrize(
    ("classes", "said"), [("0123456789x", "new.*: x"), ("012345678", "gone.*: 9")]
)
def test_a_run_goes_on_only_with_its_classes(data, classes, said):
    described(data)
    with pytest.raises(InputError, match=f"classes that are {said}; it can go on only with"):
        metadata.resumed_setting(Setting(), data, list(classes))


# Which pictures were held out


def test_a_run_that_goes_on_holds_out_the_pictures_that_it_had(data, capsys):
    setting = described(data)
    before = [file_names(iterator) for iterator in mnist_keras.data_generator(setting)]
    gone = [before[0].pop(7), before[1].pop(3)]
    for name in gone:
        (data / "train" / name).unlink()
    for label in "35":  # what comes first in its class would be held out
        save(data / "train" / label, "!new.png", np.zeros((28, 28), "u1"))
    iterators = mnist_keras.data_generator(setting)
    assert file_names(iterators[1]) != before[1]
    metadata.restore_split(data, NO_NETWORK, "MNIST", *iterators)
    assert [file_names(iterator) for iterator in iterators] == before
    errors = capsys.readouterr().err
    assert "not in this run, as they are new or could not be read: 2\n" in errors
    assert f"pictures that are gone: 2 ({', '.join(sorted(gone))})\n" in errors


def test_files_stay_in_the_order_that_the_run_has_them_in(data):
    """Batches are drawn by index: another order would be another training."""
    setting = described(data)
    path = data / "split.json"
    split = {part: names[::-1] for part, names in json.loads(path.read_text("utf-8")).items()}
    path.write_text(json.dumps(split), "utf-8")
    iterators = mnist_keras.data_generator(setting)
    metadata.restore_split(data, NO_NETWORK, "MNIST", *iterators)
    assert [file_names(part) for part in iterators] == [split["training"], split["validation"]]


def test_a_run_goes_on_only_with_its_own_pictures(data):
    """Drawn digits that MNIST has replaced have some of MNIST's file names."""
    described(data)
    setting = Setting(data_dir=str(data))
    with pytest.raises(InputError, match="not the pictures of the training .*, which were MNIST"):
        drawn = mnist_keras.data_generator(setting)
        metadata.restore_split(data, NO_NETWORK, "drawn digits, not MNIST", *drawn)
    for label in range(6):
        shutil.rmtree(data / "train" / str(label))
    with pytest.raises(InputError, match=r"\(60 of 100 are missing\).*without --is_restore"):
        metadata.restore_split(data, NO_NETWORK, "MNIST", *mnist_keras.data_generator(setting))


def test_a_user_s_own_pictures_may_have_been_moved(data, tmp_path):
    described(data)
    changed(data, trained_on="elsewhere/train")
    iterators = mnist_keras.data_generator(Setting(data_dir=str(data)))
    metadata.restore_split(data, NO_NETWORK, str(data / "train"), *iterators)
    assert [iterator.samples for iterator in iterators] == [80, 20]


@pytest.mark.parametrize("recipe", ["tuned", "article"])
def test_only_the_tuned_recipe_s_learning_rate_follows_the_epochs(data, recipe, capsys):
    described(data, epochs=2, recipe=recipe)
    described(data, epochs=3, recipe=recipe, is_restore=True)
    printed = capsys.readouterr().out
    assert "3 epochs instead of 2" in printed
    assert ("learning rate" in printed) == (recipe == "tuned")


def test_whatever_size_was_trained_is_read(data):
    described(data, img_width=4100)
    assert metadata.read_metadata(data)["img_width"] == 4100


def test_a_model_json_that_was_not_copied_with_the_weights_is_asked_for(tmp_path):
    with pytest.raises(InputError, match="model.json: no such file; .* must be copied with them"):
        metadata.read_metadata(tmp_path)


def test_of_many_pictures_that_are_gone_some_are_named(data, capsys):
    setting = described(data)
    for path in sorted((data / "train").glob("[0-4]/*.png"))[:25]:
        path.unlink()
    metadata.restore_split(data, NO_NETWORK, "MNIST", *mnist_keras.data_generator(setting))
    error = capsys.readouterr().err
    assert "that are gone: 25 (" in error and error.count(".png") == 20 and error.endswith(", …)\n")


def test_only_the_pictures_held_out_are_measured_on(data, capsys):
    setting = described(data)
    held_out = file_names(mnist_keras.data_generator(setting)[1])
    iterator = ImageDataGenerator().flow_from_directory(setting.train_dir, shuffle=False)
    metadata.select_held_out(iterator, data)
    assert file_names(iterator) == held_out and len(held_out) == 20
    (data / "train" / held_out[0]).unlink()
    iterator = ImageDataGenerator().flow_from_directory(setting.train_dir, shuffle=False)
    metadata.select_held_out(iterator, data)
    assert file_names(iterator) == held_out[1:]
    assert "pictures held out in training that are gone: 1\n" in capsys.readouterr().err


def test_what_was_held_out_must_be_known_and_there(data):
    setting = described(data)
    for name in file_names(mnist_keras.data_generator(setting)[1]):
        (data / "train" / name).unlink()
    iterator = ImageDataGenerator().flow_from_directory(setting.train_dir)
    with pytest.raises(InputError, match="none of the pictures held out in training is here"):
        metadata.select_held_out(iterator, data)
    (data / "split.json").unlink()
    assert metadata.read_split(data) is None
    with pytest.raises(InputError, match="not known which pictures were held out; make a test"):
        metadata.select_held_out(iterator, data)
    before = file_names(iterator)
    metadata.restore_split(
        data, NO_NETWORK, "MNIST", iterator, iterator
    )  # an older program ran it: as Keras splits
    assert file_names(iterator) == before


@pytest.mark.parametrize("content", ["", "[]", '{"training": []}', '{"training": ["x"]}'])
def test_a_damaged_split_is_one_clear_error(tmp_path, content):
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(InputError, match="split.json: damaged .*which pictures were held out"):
        metadata.read_split(tmp_path)


# The network


def network(*chain) -> dict:
    return metadata.network_config(keras.Sequential([keras.Input((20, 20, 3)), *chain]))


def test_the_same_network_is_the_same_whatever_was_built_before():
    one = network(layers.Conv2D(4, 3, activation="relu"), layers.Dropout(0.5, seed=1))
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        other = network(layers.Conv2D(4, 3, activation="relu"), layers.Dropout(0.5, seed=2))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert metadata.config_difference(one, other) is None
    assert json.loads(json.dumps(one)) == one


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (layers.Conv2D(4, 3, activation="tanh"), "Conv2D, had activation 'relu', now 'tanh'"),
        (layers.Conv2D(8, 3, activation="relu"), "Conv2D, had filters 4, now 8"),
        (layers.Conv2D(4, 3, 2, activation="relu"), r"Conv2D, had strides \[1, 1\], now \[2, 2\]"),
        (layers.MaxPooling2D(2), "Conv2D, is now MaxPooling2D"),
    ],
)
def test_a_changed_layer_is_named(layer, said):
    then, now = network(layers.Conv2D(4, 3, activation="relu")), network(layer)
    difference = metadata.config_difference(then, now)
    assert re.fullmatch(rf"layer 1, {said}", difference)


def test_a_layer_more_and_another_wiring_are_named():
    one, two = network(layers.Flatten()), network(layers.Flatten(), layers.Dropout(0.5))
    assert metadata.config_difference(one, two) == "it had 2 layers, now 3"

    def skipping(first: bool) -> dict:
        given = keras.Input((4,))
        here = layers.Dense(4)(given)
        there = layers.Dense(4)(here)
        end = layers.Add()([given if first else here, there])
        return metadata.network_config(keras.Model(given, end))

    assert metadata.config_difference(skipping(True), skipping(True)) is None
    difference = metadata.config_difference(skipping(True), skipping(False))
    assert difference == "layer 3, Add, had other inputs"


def test_a_network_in_a_network_is_compared_layer_by_layer_whatever_keras_calls_them():
    def nested(filters: int) -> dict:
        given = keras.Input((20, 20, 3))
        edges = layers.Activation("relu")(layers.Conv2D(filters, 3)(given))  # named "activation"
        base = keras.Model(given, layers.GlobalAveragePooling2D()(layers.Add()([edges, edges])))
        return network(base, layers.Activation("softmax"))

    keras.backend.clear_session()
    one, again, other = (nested(filters) for filters in (4, 4, 5))
    assert metadata.config_difference(one, again) is None
    difference = metadata.config_difference(one, other)
    assert difference == "layer 1, Functional, layer 1, Conv2D, had filters 4, now 5"


class Nameless(layers.Layer):
    """As people write them: __init__ takes no name, so that Keras's config has none either."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, pictures):
        return pictures * self.factor


def test_a_layer_class_of_one_s_own_is_described():
    two, again, three = (network(layers.Conv2D(2, 3), Nameless(n)) for n in (2, 2, 3))
    assert metadata.config_difference(two, again) is None
    assert metadata.config_difference(two, three) == "layer 2, Nameless, had factor 2, now 3"


# What a training takes by default


@pytest.mark.parametrize(
    ("pictures", "given", "epochs"),
    [
        (20, {}, 8),
        (21, {}, 20),
        (20, {"epochs": 20}, 20),
        (20, {"initial_epoch": 7}, 20),
        (20, {"recipe": "article"}, 20),
        (20, {"pretrained": "MobileNetV3Small"}, 5),
    ],
    ids=str,
)
def test_many_pictures_need_fewer_epochs(tmp_path, monkeypatch, capsys, pictures, given, epochs):
    monkeypatch.setattr(metadata, "LARGE_SET", pictures)
    for index in range(20):
        save(tmp_path / "train" / f"{index % 2}", f"{index}.png", np.zeros((9, 9), "u1"))
    (tmp_path / "train" / "0" / "notes.txt").touch()
    setting = metadata.resolved_setting(Setting(data_dir=str(tmp_path), **given))
    assert setting.epochs == epochs
    assert ("epochs is 8" in capsys.readouterr().out) is (epochs == 8)
