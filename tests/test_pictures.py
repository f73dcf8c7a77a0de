"""What becomes of files: which are found, how they are opened, and which pixels are kept."""

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
from classifier.pictures import (
    check_balance,
    check_classes,
    class_folders,
    decode,
    decode_as_article,
    endings,
    file_names,
    list_pictures,
    load,
    load_only,
    name_left_out,
    on_white,
    open_picture,
    small,
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
    name_left_out(str(tmp_path), endings("tuned"))
    empty, others = capsys.readouterr().err.splitlines()
    assert empty.endswith("no pictures in them: empty")
    assert others.endswith("these endings aren't read: 1 .mp3, 1 .txt")


def test_the_article_s_recipe_takes_fewer_formats_and_says_so(tmp_path, capsys):
    save(tmp_path / "cat", "1.webp", np.zeros((3, 3), np.uint8))
    name_left_out(str(tmp_path), endings("tuned"))
    assert capsys.readouterr().err == ""
    name_left_out(str(tmp_path), endings("article"))
    assert capsys.readouterr().err.endswith("aren't read: 1 .webp\n")


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


# Opened


def test_a_picture_is_seen_as_a_person_sees_it(tmp_path):
    """Turned as the camera says, on white paper, 16 bits scaled to 8: not as Keras loads it."""
    ramp = np.arange(24 * 28).reshape(24, 28) / (24 * 28 - 1)
    deep = (ramp * 65535).astype(np.uint16)
    save(tmp_path, "deep.png", deep)
    np.testing.assert_allclose(decode(tmp_path / "deep.png", (24, 28))[..., 0], 255 * ramp, atol=1)

    ink = np.zeros((24, 28, 4), np.uint8)
    ink[4:20, 12:16, 3] = 255  # black on what is transparent, and black beneath
    save(tmp_path, "clear.png", ink)
    expected = 255 - ink[..., 3]
    np.testing.assert_array_equal(decode(tmp_path / "clear.png", (24, 28))[..., 0], expected)

    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    picture = np.random.default_rng(0).integers(0, 256, (28, 24, 3), np.uint8)
    save(tmp_path, "turned.png", picture, exif=exif)
    upright = np.rot90(picture, -1)
    np.testing.assert_array_equal(decode(tmp_path / "turned.png", (24, 28)), upright)


def test_a_picture_is_cut_down_to_a_thumbnail_on_white(tmp_path):
    pixels = np.zeros((90, 200, 4), np.uint8)
    pixels[20:70, 20:100] = (200, 0, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path, "1.png", pixels, exif=exif)
    given = small(open_picture(tmp_path / "1.png"))
    assert given.shape == (84, 38, 3)
    np.testing.assert_array_equal(given[[20, -20], 19], [(200, 0, 0), (255, 255, 255)])


def test_a_shrunk_picture_has_no_side_larger_than_asked_for(tmp_path):
    save(tmp_path, "1.png", np.zeros((90, 200), np.uint8))
    save(tmp_path, "2.jpg", np.full((90, 200, 3), 200, np.uint8))
    for name in ("1.png", "2.jpg"):
        picture = open_picture(tmp_path / name, 50)
        assert max(picture.size) <= 50
        assert np.ptp(np.asarray(on_white(picture))) <= 1


@pytest.mark.parametrize("damage", ["cut", "text", "bomb", "missing"])
def test_what_is_no_whole_picture_is_refused(tmp_path, damage, monkeypatch):
    path = tmp_path / "1.png"
    save(tmp_path, "1.png", np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:900])
    elif damage == "text":
        path.write_text("no picture")
    elif damage == "bomb":
        monkeypatch.setattr(pictures, "MAX_PIXELS", 1599)
    else:
        path.unlink()
    with pytest.raises(pictures.DECODE_ERRORS):
        open_picture(path)


# Resized


def picture_files(folder):
    """Pictures of every kind that Keras reads, of many sizes."""
    noise = np.random.default_rng(3)
    colour = noise.integers(0, 256, (40, 31, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(folder / "a", "colour.png", colour)
    save(folder / "a", "photo.JPG", colour[:25], quality=80)
    save(folder / "a" / "deeper", "colour.bmp", colour[:, :7])
    save(folder / "a", "alpha.png", noise.integers(0, 256, (9, 50, 4), np.uint8))
    save(folder / "a", "turned.jpg", colour, exif=exif)
    save(folder / "b", "grey.tif", colour[..., 0])
    save(folder / "b", "deep.png", noise.integers(0, 65536, (28, 24), np.uint16))
    Image.fromarray(colour).quantize(16).save(folder / "b" / "palette.png")
    save(folder / "b", "exact.ppm", noise.integers(0, 256, (24, 28, 3), np.uint8))


def test_the_article_s_pixels_are_those_that_keras_loads(tmp_path):
    picture_files(tmp_path)
    iterator = ImageDataGenerator().flow_from_directory(
        tmp_path, target_size=(24, 28), shuffle=False, batch_size=9
    )
    images, labels = next(iterator)
    article = load(iterator, None, decode_as_article)
    assert len(images) == 9
    np.testing.assert_array_equal(article.pixels, images)
    np.testing.assert_array_equal(article.labels, labels.argmax(axis=1))


def test_what_has_the_right_size_is_not_touched(tmp_path):
    picture = np.random.default_rng(3).integers(0, 256, (24, 28, 3), np.uint8)
    save(tmp_path, "exact.png", picture)
    np.testing.assert_array_equal(decode(str(tmp_path / "exact.png"), (24, 28)), picture)


def test_shrunk_to_a_tenth_a_thin_line_grows_pale_but_does_not_vanish(tmp_path):
    page = np.full((300, 300, 3), 255, np.uint8)
    page[:, 141] = 0
    save(tmp_path, "line.png", page)
    shrunk = decode(str(tmp_path / "line.png"), (30, 30))
    assert (shrunk.min(axis=1) < 245).all() and (shrunk.max(axis=1) == 255).all()
    assert (decode_as_article(str(tmp_path / "line.png"), (30, 30)) == 255).all()


# Kept


def test_grey_pictures_take_a_third_of_the_memory_and_stay_exact(digits):
    kept = load(held_out(digits), None)
    assert kept.pixels.shape == (300, 28, 28, 1) and kept.grey
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
    assert kept.pixels.shape == (61, 28, 28, 3) and not kept.grey


def test_pictures_beyond_the_memory_limit_are_read_from_disk_and_it_is_said(digits, capsys):
    needed = 300 * 28 * 28 * 3 / 1e6  # 0.7 MB
    assert load(held_out(digits), int(needed) + 1).pixels is not None
    kept = load(held_out(digits), 0)
    assert kept.pixels is None and len(kept.paths) == 300 and not kept.grey
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


def test_an_iterator_loads_the_files_that_it_is_told_to(digits):
    iterator = held_out(digits)
    names = [file_names(iterator)[place] for place in (290, 3, 7)]
    load_only(iterator, names)
    iterator.shuffle = False
    images, labels = next(iterator)
    assert file_names(iterator) == names and iterator.samples == len(images) == 3
    assert [name[0] for name in names] == [str(label) for label in labels.argmax(axis=1)]
