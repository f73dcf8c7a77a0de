"""What was trained is found, checked against what is asked for, and loaded."""

import json
import shutil
from pathlib import Path

import keras
import pytest
from keras import layers

import mnist_keras
from classifier import run_folder
from classifier.console import InputError
from classifier.trained_run import find_run, find_weights_folder
from setting import Setting

SHIPPED = Path(mnist_keras.__file__).parent / "mnist_data" / "shipped"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A data_dir as a training in float32 leaves it, with the weights that ship."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(SHIPPED, folder / "model_weight")
    path = folder / "model_weight" / "model.json"
    said = json.loads(path.read_text("utf-8")) | {"precision": "float32"}
    path.write_text(json.dumps(said), "utf-8")
    return folder


def load(setting):
    """The network that the setting means and the file of its weights."""
    return mnist_keras.load_network(find_run(setting), grayscale=True)


def test_without_weights_it_is_said_what_makes_them(tmp_path):
    setting = Setting(data_dir=str(tmp_path))
    assert find_weights_folder(setting) is None
    with pytest.raises(InputError, match="model_weight: no weights here; --mode train makes them"):
        find_run(setting)


def test_a_run_s_own_weights_come_before_those_that_ship_and_restore_model_before_both(copy):
    setting = Setting(data_dir=str(copy))
    shutil.copytree(copy / "model_weight", copy / "other")
    (copy / "model_weight").rename(copy / "shipped")
    assert find_weights_folder(setting) == copy / "shipped"
    shutil.copytree(copy / "shipped", copy / "model_weight")
    assert find_weights_folder(setting) == copy / "model_weight"
    best = run_folder.checkpoints(copy / "other")[0]
    assert load(setting.replace(restore_model=str(best)))[1] == best


def test_the_weights_that_ship_are_found_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_weights_folder(Setting()) == SHIPPED
    assert find_weights_folder(Setting(data_dir="flowers")) is None


def test_weights_of_an_earlier_training_are_named_where_there_are_no_others(
    trained, tmp_path, capsys
):
    earlier = tmp_path / "model_weight" / "previous" / "2026-01-01-000000"
    shutil.copytree(trained / "model_weight", earlier)
    with pytest.raises(InputError, match=f"an earlier training's are {earlier}/weights"):
        find_run(Setting(data_dir=str(tmp_path)))
    shutil.copytree(SHIPPED, tmp_path / "shipped")
    assert find_run(Setting(data_dir=str(tmp_path))).weights[0].parent == tmp_path / "shipped"
    assert f"no weights here; an earlier training's are {earlier}" in capsys.readouterr().err


def test_size_classes_and_recipe_follow_the_run_and_so_does_float32(trained):
    known = find_run(Setting(data_dir=str(trained)))
    assert known.setting.label_nums == 10 and known.setting.recipe == "tuned"
    assert known.setting.precision == "float32"  # so that val_acc is what evaluate finds
    asked = Setting(data_dir=str(trained), precision="mixed_bfloat16")
    assert find_run(asked).setting.precision == "mixed_bfloat16"
    assert known.weights == run_folder.checkpoints(trained / "model_weight")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"img_width": 32}, "--img_width 32, but the network in .* has 28"),
        ({"label_nums": 3}, "--label_nums 3, but the network in .* has 10"),
        ({"recipe": "article"}, "--recipe article, but the network in .* has tuned"),
    ],
)
def test_a_setting_that_contradicts_the_network_is_an_error_that_names_both(trained, given, said):
    with pytest.raises(InputError, match=said):
        find_run(Setting(data_dir=str(trained), **given))


def test_damaged_weights_are_named_and_the_next_best_are_taken(copy, capsys):
    best = run_folder.checkpoints(copy / "model_weight")[0]
    bad = best.with_name("weights-improvement-99-1.00000.weights.h5")
    bad.write_bytes(best.read_bytes()[:-5000])
    assert load(Setting(data_dir=str(copy)))[1] == best
    assert f"{bad}: damaged" in capsys.readouterr().err
    for path in run_folder.checkpoints(copy / "model_weight"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="none of the weights here can be used; --mode train"):
        load(Setting(data_dir=str(copy)))


@pytest.mark.parametrize(
    ("place", "change", "said"),
    [
        (0, {"activation": "tanh"}, "Conv2D, had activation 'relu', now 'tanh'"),
        (6, {"rate": 0.2}, "Dropout, had rate 0.5, now 0.2"),
        (4, {"padding": "same", "strides": 2}, "Conv2D, had (padding 'valid'|strides)"),
    ],
)
def test_a_network_that_was_changed_since_is_refused_and_the_change_is_named(
    trained, monkeypatch, place, change, said
):
    """Its weights may fit all the same, and would then say something else."""
    build = mnist_keras.build_model

    def changed(setting):
        chain = build(setting).layers
        chain[place] = type(chain[place]).from_config(chain[place].get_config() | change)
        return keras.Sequential([keras.Input(setting.input_shape), *chain])

    monkeypatch.setattr(mnist_keras, "build_model", changed)
    with pytest.raises(
        InputError, match=rf"not trained .*build_model makes now \(layer \d, {said}"
    ) as refused:
        load(Setting(data_dir=str(trained)))
    assert refused.match("train that one, or change build_model back")


def test_of_a_run_that_did_not_say_its_network_weights_that_do_not_fit_are_named(
    copy, monkeypatch, capsys
):
    path = copy / "model_weight" / "model.json"
    said = json.loads(path.read_text("utf-8"))
    del said["network"]
    path.write_text(json.dumps(said), "utf-8")
    assert load(Setting(data_dir=str(copy)))[1] == run_folder.checkpoints(copy / "model_weight")[0]

    def smaller(setting):
        chain = [layers.Flatten(), layers.Dense(setting.label_nums, activation="softmax")]
        return keras.Sequential([keras.Input(setting.input_shape), *chain])

    monkeypatch.setattr(mnist_keras, "build_model", smaller)
    with pytest.raises(InputError, match="none of the weights here can be used"):
        load(Setting(data_dir=str(copy)))
    errors = capsys.readouterr().err
    assert "not the weights of this network, whose layer" in errors
    assert "damaged" not in errors


def test_a_pretrained_body_that_the_network_lacks_is_refused(copy):
    with pytest.raises(
        InputError, match="--pretrained MobileNetV3Small, but the network in .* has"
    ):
        find_run(Setting(data_dir=str(copy), pretrained="MobileNetV3Small"))
