"""What a Setting promises: its defaults, what follows what, and which values it refuses."""

from pathlib import Path

import numpy as np
import pytest

from setting import Setting


def test_defaults_are_the_articles():
    setting = Setting()
    assert (setting.data_dir, setting.img_width, setting.img_height) == ("mnist_data/", 28, 28)
    assert (setting.label_nums, setting.epochs, setting.save_epochs) == (10, 20, 1)
    assert (setting.initial_epoch, setting.is_restore, setting.restore_model) == (0, False, None)


@pytest.mark.parametrize("data_dir", ["data", "data/", Path("data")])
def test_folders_follow_data_dir_with_or_without_a_slash(data_dir):
    setting = Setting(data_dir=data_dir)
    assert Path(setting.train_dir) == Path("data/train")
    assert Path(setting.test_dir) == Path("data/test")
    assert Path(setting.imp_dir) == Path("data/tmp")
    assert Path(setting.checkpoint_path) == Path("data/model_weight")
    assert Path(setting.report_dir) == Path("data/report")


def test_folders_follow_a_data_dir_that_is_set_later_unless_they_are_given():
    setting = Setting(test_dir="elsewhere")
    setting.data_dir = "data"
    assert Path(setting.train_dir) == Path("data/train")
    assert setting.test_dir == "elsewhere"


@pytest.mark.parametrize("name", ["train_dir", "restore_model"])
def test_none_gives_a_default_back(name):
    setting = Setting(**{name: "elsewhere"})
    setattr(setting, name, None)
    assert setting == Setting()


@pytest.mark.parametrize(("name", "value"), [("img_width", 28), ("epochs", 20), ("train_dir", "a")])
def test_what_was_given_is_known_even_if_it_is_the_default(name, value):
    assert not Setting().is_set(name)
    assert Setting(**{name: value}).is_set(name)


@pytest.mark.parametrize(
    ("article", "ours"),
    [("lebel_nums", "label_nums"), ("epoches", "epochs"), ("save_epoches", "save_epochs")],
)
def test_the_articles_spellings_read_and_write(article, ours):
    setting = Setting()
    assert getattr(setting, article) == getattr(setting, ours) > 0
    setattr(setting, article, 7)
    assert getattr(setting, article) == getattr(setting, ours) == 7
    assert setting.is_set(article)
    assert setting == Setting(**{article: 7}) == Setting(**{ours: 7})


def test_a_misspelled_name_is_an_error():
    setting = Setting()
    with pytest.raises(AttributeError, match="epochen"):
        setting.epochen = 3
    with pytest.raises(AttributeError, match="epochen"):
        _ = setting.epochen
    with pytest.raises(AttributeError, match="epochen"):
        setting.is_set("epochen")
    with pytest.raises(AttributeError, match="epochen"):
        Setting(epochen=3)


def test_the_articles_recipe_has_its_batch_size():
    assert Setting().batch_size == 128
    assert Setting(recipe="article").batch_size == 32
    assert Setting(recipe="article", batch_size=8).batch_size == 8


def test_a_copy_with_other_values_keeps_the_defaults_that_follow_them():
    setting = Setting(epochs=3)
    copy = setting.replace(data_dir="flowers", recipe="article")
    assert (Path(copy.train_dir), copy.batch_size) == (Path("flowers/train"), 32)
    assert copy.epochs == 3
    assert setting == Setting(epochs=3)


def test_settings_are_equal_if_the_same_was_given():
    assert Setting(epochs=3, seed=1) == Setting(seed=1, epochs=3)
    assert Setting(epochs=3) != Setting(epochs=4)
    assert Setting() != "a setting"


def test_a_setting_is_shown_by_what_was_given():
    assert repr(Setting(epochs=3, data_dir=Path("d"))) == "Setting(epochs=3, data_dir='d')"


def test_input_shape_is_height_before_width_and_channels_where_keras_wants_them(monkeypatch):
    keras = pytest.importorskip("keras")
    setting = Setting(img_width=32, img_height=20)
    monkeypatch.setattr(keras.backend, "image_data_format", lambda: "channels_last")
    assert setting.input_shape == (20, 32, 3)
    monkeypatch.setattr(keras.backend, "image_data_format", lambda: "channels_first")
    assert setting.input_shape == (3, 20, 32)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("img_width", 0),
        ("img_height", -1),
        ("label_nums", 0),
        ("epochs", 0),
        ("save_epochs", 0),
        ("batch_size", 0),
        ("initial_epoch", -1),
        ("seed", -1),
        ("seed", 2**31),
        ("cache_limit", -1),
        ("learning_rate", 0),
        ("learning_rate", float("nan")),
        ("epochs", "5"),
        ("epochs", True),
        ("save_epochs", None),
        ("is_restore", "False"),
        ("data_dir", ""),
        ("data_dir", None),
        ("imp_dir", np.zeros((300, 28))),
        ("recipe", "soup"),
        ("recipe", "to\nmato"),
        ("precision", "float8"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_when_it_is_set(name, value):
    with pytest.raises(ValueError, match=rf"\A{name} .{{,80}}\Z"):
        Setting(**{name: value})
    setting = Setting()
    with pytest.raises(ValueError, match=rf"\A{name} .{{,80}}\Z"):
        setattr(setting, name, value)
    assert setting == Setting()


def test_a_value_of_another_type_is_answered_with_the_name_of_the_type():
    with pytest.raises(ValueError, match=r"\Aimp_dir takes str, not ndarray\Z"):
        Setting(imp_dir=np.zeros((300, 28)))


def test_for_a_name_that_is_no_field_a_similar_one_is_named():
    with pytest.raises(AttributeError, match="no field 'epoch'; did you mean 'epochs'"):
        Setting(epoch=3)
