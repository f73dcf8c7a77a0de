"""What becomes of folders: which pictures are found, and which pixels are kept."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import save, write_digits
from PIL import Image
from tensorflow.keras.preprocessing.image import ImageDataGenerator

from classifier import pictures
from classifier.console import InputError
from classifier.opener import decode, decode_as_article
from classifier.pictures import (
    check_balance,
    check_classes,
    class_folders,
    file_names,
    list_pictures,
    load,
    looks_like_photographs,
    select_files,
    warn_ignored,
)
from mnist_keras import data_generator
from setting import Setting


def held_out(folder):
    """The iterator over a fifth of the digits in folder/train."""
    return data_generator(Setting(data_dir=str(folder)))[1]


# Found


def test_empty_classes_are_named_and_left_out(tmp_path, capsys):
    for name in ("cat", "dog", "empty", ".hidden"):
        (tmp_path / name).mkdir()
    save(tmp_path / "cat", "1.png", np.zeros((3, 3), np.uint8))
    save(tmp_path / "dog" / "deeper", "1.JPG", np.zeros((3, 3), np.uint8))
    save(tmp_path / ".hidden", "1.png", np.zeros((3, 3), np.uint8))
    (tmp_path / "empty" / "notes.txt").write_text("no picture")
    (tmp_path / "cat" / "song.mp3").touch()
    (tmp_path / "cat" / ".DS_Store").touch()
    assert class_folders(str(tmp_path)) == ["cat", "dog"]
    warn_ignored(str(tmp_path))
    empty, others = capsys.readouterr().err.splitlines()
    assert empty.endswith("no pictures in them: empty")
    assert others.endswith("these endings aren't read: 1 .mp3, 1 .txt")


def test_pictures_beside_the_classes_folders_are_counted_and_one_is_named(tmp_path, capsys):
    save(tmp_path / "cat", "1.png", np.zeros((3, 3), np.uint8))
    for name in (".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    warn_ignored(str(tmp_path))
    assert capsys.readouterr().err == ""
    said = f"NOTE: {tmp_path}: pictures in no class's folder, left out: "
    for name, named in (("b.png", "1 (b.png)"), ("a.JPG", "2 (a.JPG, …)")):
        (tmp_path / name).touch()
        warn_ignored(str(tmp_path))
        assert capsys.readouterr().err == f"{said}{named}\n"


def test_a_single_picture_may_be_named_in_place_of_a_folder(tmp_path):
    save(tmp_path, "1.png", np.zeros((3, 3), np.uint8))
    assert list_pictures(str(tmp_path / "1.png")) == [str(tmp_path / "1.png")]


def test_one_class_is_not_enough(tmp_path):
    save(tmp_path / "cat", "1.png", np.zeros((3, 3), np.uint8))
    with pytest.raises(InputError, match="pictures of cat only; two classes are needed, one"):
        class_folders(str(tmp_path))
    with pytest.raises(InputError, match="nowhere: no such folder; what is expected is one folder"):
        class_folders(str(tmp_path / "nowhere"))


def test_classes_that_differ_from_the_network_s_are_named(tmp_path, capsys):
    for name in ("cat", "dog", "ten"):
        save(tmp_path / name, "1.png", np.zeros((3, 3), np.uint8))
    check_classes(str(tmp_path), ["cat", "dog", "ten"])
    assert capsys.readouterr().err == ""
    check_classes(str(tmp_path), ["cat", "cow", "dog"])
    errors = capsys.readouterr().err
    assert "not taught: ten" in errors and "not here: cow" in errors


def test_pictures_are_listed_by_their_endings_and_in_natural_order(tmp_path):
    for name in ("10.png", "2.png", "a.WEBP", "b2c10.gif", "b2c9.gif", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    expected = ["2.png", "10.png", "a.WEBP", "b2c9.gif", "b2c10.gif"]
    assert list_pictures(str(tmp_path)) == [str(tmp_path / name) for name in expected]


def test_an_empty_or_missing_folder_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a relative name doesn't say where it was looked for
    with pytest.raises(InputError, match="no pictures in it"):
        list_pictures(str(tmp_path))
    said = f"^{re.escape(str(tmp_path / 'nowhere'))}: no such file or folder; put .*--imp_dir"
    with pytest.raises(InputError, match=said):
        list_pictures("nowhere")


def test_very_uneven_classes_are_named(digits, tmp_path, capsys):
    shutil.copytree(digits / "train", tmp_path / "train")
    setting = Setting(data_dir=str(tmp_path))
    check_balance(*data_generator(setting))
    assert capsys.readouterr().err == ""
    for path in list((tmp_path / "train" / "3").iterdir())[10:]:
        path.unlink()
    check_balance(*data_generator(setting))
    assert "very uneven, pictures: 10 of 3, 150 of 0" in capsys.readouterr().err


def test_too_few_pictures_to_validate_on_are_refused(tmp_path):
    write_digits(tmp_path / "train", 20, seed=1)
    with pytest.raises(InputError, match="at least one class must have five"):
        check_balance(*data_generator(Setting(data_dir=str(tmp_path))))


# Kept


def test_grey_pictures_take_a_third_of_the_memory_and_stay_exact(digits):
    kept = load(held_out(digits), None)
    assert kept.pixels.shape == (300, 28, 28, 1) and kept.grayscale
    with Image.open(kept.paths[7]) as image:
        np.testing.assert_array_equal(kept.pixels[7, ..., 0], np.asarray(image))


def test_one_coloured_pixel_keeps_the_colours_of_all(tmp_path):
    write_digits(tmp_path / "train", 60, seed=1)
    picture = np.zeros((28, 28, 3), np.uint8)
    picture[3, 4] = (1, 0, 0)
    save(tmp_path / "train" / "0", "coloured.png", picture)
    kept = load(
        ImageDataGenerator().flow_from_directory(tmp_path / "train", target_size=(28, 28)), None
    )
    assert kept.pixels.shape == (61, 28, 28, 3) and not kept.grayscale


@pytest.mark.parametrize(
    ("background", "noise", "expected"),
    [
        ((90, 140, 200), 20, True),
        ((90, 140, 200), 0, False),  # a drawing's
        ((120, 125, 130), 5, False),  # of photographed paper
    ],
)
def test_photographs_are_known_by_their_tones_and_colours(tmp_path, background, noise, expected):
    draw = np.random.default_rng(0)
    for name in ("a", "b"):
        for index in range(5):
            pixels = draw.normal(background, noise, (32, 32, 3)).clip(0, 255)
            pixels[8:20, index] = 0
            save(tmp_path / "train" / name, f"{index}.png", pixels.astype(np.uint8))
    iterator = data_generator(Setting(data_dir=str(tmp_path), img_width=32, img_height=32))[0]
    assert looks_like_photographs(load(iterator, None)) is expected


def test_pictures_beyond_the_memory_limit_are_read_from_disk_and_it_is_said(digits, capsys):
    needed = 300 * 28 * 28 * 3 / 1e6  # 0.7 MB
    assert load(held_out(digits), int(needed) + 1).pixels is not None
    kept = load(held_out(digits), 0)
    assert kept.pixels is None and len(kept.paths) == 300 and kept.grayscale
    said = capsys.readouterr().out
    assert "300 pictures take 1 MB, more than the 0 MB of memory for them: they are decoded" in said


def test_without_a_limit_a_sixth_of_the_free_memory_is_used(digits, monkeypatch):
    needed = 300 * 28 * 28 * 3
    monkeypatch.setattr(pictures, "free_memory", lambda: 6 * needed)
    assert load(held_out(digits), None).pixels is not None
    monkeypatch.setattr(pictures, "free_memory", lambda: 6 * needed - 6)
    assert load(held_out(digits), None).pixels is None


@pytest.mark.parametrize("how", [decode, decode_as_article])
@pytest.mark.parametrize("cache_limit", [None, 0])
def test_broken_pictures_are_named_and_left_out(tmp_path, how, cache_limit, capsys):
    write_digits(tmp_path / "train", 100, seed=1)
    broken = tmp_path / "train" / "3" / "broken.png"
    broken.write_bytes(b"no picture")
    cut = tmp_path / "train" / "4" / "cut.png"
    cut.write_bytes(next((tmp_path / "train" / "4").glob("*.png")).read_bytes()[:90])
    iterator = ImageDataGenerator().flow_from_directory(
        tmp_path / "train", target_size=(28, 28), shuffle=False
    )
    kept = load(iterator, cache_limit, how)
    assert len(kept.paths) == len(kept.labels) == iterator.samples == 100
    assert not {str(broken), str(cut)} & set(kept.paths)
    assert [Path(path).parts[-2] for path in kept.paths] == [str(label) for label in kept.labels]
    if cache_limit is None:
        for path, pixels in zip(kept.paths, kept.pixels, strict=True):
            np.testing.assert_array_equal(pixels[..., 0], how(path, (28, 28))[..., 0])
    errors = capsys.readouterr().err
    assert f"{broken}: left out, it is no picture\n" in errors
    assert f"{cut}: left out, " in errors


def test_a_folder_in_which_no_picture_can_be_read_is_an_error(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"no picture")
    iterator = ImageDataGenerator().flow_from_directory(tmp_path)
    with pytest.raises(InputError, match="no picture in it can be read"):
        load(iterator, None)


def test_hidden_files_are_no_pictures_in_training_or_test(tmp_path):
    for part in ("train", "test"):
        write_digits(tmp_path / part, 100, seed=1)
        for path in list((tmp_path / part / "3").iterdir()):
            copies = tmp_path / part / "3" / ".ipynb_checkpoints"
            copies.mkdir(exist_ok=True)
            shutil.copy(path, copies / f"{path.stem}-checkpoint.png")
            (tmp_path / part / "3" / f"._{path.name}").write_bytes(b"Mac OS X")
    shutil.copytree(tmp_path / "train", tmp_path / "clean", ignore=shutil.ignore_patterns(".*"))
    hidden, clean = (
        data_generator(Setting(train_dir=str(tmp_path / name))) for name in ("train", "clean")
    )
    for part, expected in zip(hidden, clean, strict=True):
        assert pictures.file_names(part) == pictures.file_names(expected)
        assert part.classes.tolist() == expected.classes.tolist()
    assert [part.samples for part in hidden] == [80, 20]
    test = ImageDataGenerator().flow_from_directory(tmp_path / "test", shuffle=False)
    pictures.drop_hidden(test)
    assert test.samples == 100


def test_an_iterator_loads_the_files_that_it_is_told_to(digits):
    iterator = held_out(digits)
    names = [file_names(iterator)[place] for place in (290, 3, 7)]
    select_files(iterator, names)
    iterator.shuffle = False
    images, labels = next(iterator)
    assert file_names(iterator) == names and iterator.samples == len(images) == 3
    assert [name[0] for name in names] == [str(label) for label in labels.argmax(axis=1)]


def test_test_pictures_may_be_of_one_class(tmp_path, capsys):
    save(tmp_path / "cat", "1.png", np.zeros((8, 8), np.uint8))
    pictures.check_classes(str(tmp_path), ["cat", "dog"])
    assert capsys.readouterr().err == f"{tmp_path}: classes that are not here: dog\n"
