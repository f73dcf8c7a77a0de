"""What becomes of a picture file: how it is opened, what is refused, and how it is resized."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import save
from PIL import ExifTags, Image, ImageFile
from tensorflow.keras.preprocessing.image import ImageDataGenerator

from classifier import opener
from classifier.opener import (
    decode,
    decode_as_article,
    on_white,
    open_picture,
    thumbnail,
    try_decode,
)
from classifier.pictures import load

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
    given = thumbnail(open_picture(tmp_path / "1.png"))
    assert given.shape == (84, 38, 3)
    np.testing.assert_array_equal(given[[20, -20], 19], [(200, 0, 0), (255, 255, 255)])


def test_a_shrunk_picture_has_no_side_larger_than_asked_for(tmp_path):
    save(tmp_path, "1.png", np.zeros((90, 200), np.uint8))
    save(tmp_path, "2.jpg", np.full((90, 200, 3), 200, np.uint8))
    for name in ("1.png", "2.jpg"):
        picture = open_picture(tmp_path / name, 50)
        assert max(picture.size) <= 50
        assert np.ptp(np.asarray(on_white(picture))) <= 1


@pytest.mark.parametrize("damage", ["cut", "text", "missing"])
def test_what_is_no_whole_picture_is_refused(tmp_path, damage):
    path = tmp_path / "1.png"
    save(tmp_path, "1.png", np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:900])
    elif damage == "text":
        path.write_text("no picture")
    else:
        path.unlink()
    with pytest.raises(opener.DECODE_ERRORS):
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


def test_shrunk_to_a_tenth_a_thin_line_grows_pale_but_does_not_vanish(tmp_path):
    page = np.full((300, 300, 3), 255, np.uint8)
    page[:, 141] = 0
    save(tmp_path, "line.png", page)
    shrunk = decode(str(tmp_path / "line.png"), (30, 30))
    assert (shrunk.min(axis=1) < 245).all() and (shrunk.max(axis=1) == 255).all()
    assert (decode_as_article(str(tmp_path / "line.png"), (30, 30)) == 255).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers_are_said_in_words(tmp_path, value):
    Image.fromarray(np.full((9, 9), value, "f4")).save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match="it has pixels that are no numbers"):
        opener.decode(tmp_path / "x.tif", (20, 20))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize(("level", "expected"), [(0, 0), (26214, 102), (65535, 255)])
def test_a_sheet_of_16_bits_is_as_light_as_it_is(level, expected, suffix, tmp_path):
    sheet = np.full((20, 20), level, np.uint16)
    sheet[:10] = max(level - 600, 0)  # a faint edge
    save(tmp_path, f"sheet.{suffix}", sheet)
    pixels = decode(str(tmp_path / f"sheet.{suffix}"), (20, 20))
    assert pixels[15].min() == pixels[15].max() == expected
    assert int(expected) - int(pixels[3].min()) <= 3


@pytest.mark.parametrize("white", [1, 255, 65535])
def test_floats_have_the_white_of_the_range_that_they_are_in(white, tmp_path):
    save(tmp_path, "float.tiff", np.float32(white) * np.float32([[0, 0.4], [0.6, 1]]))
    pixels = decode(str(tmp_path / "float.tiff"), (2, 2))[..., 0]
    assert pixels.tolist() == [[0, 102], [153, 255]]


def test_a_photo_on_its_side_is_decoded_at_the_size_that_it_needs(tmp_path):
    """A JPEG is decoded at an eighth of its size only if that is no less than asked for."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (1600, 400)).save(tmp_path / "side.jpg", exif=exif)
    width, height = open_picture(tmp_path / "side.jpg", near=(100, 400)).size
    assert width >= 100 and height >= 400 and height < 1600


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("how", [decode, decode_as_article])
def test_a_pipe_is_no_picture_and_is_not_waited_for(how, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert try_decode(str(tmp_path / "pipe.png"), (20, 20), how) == "it is no picture"


def test_more_than_a_hundred_megapixels_are_refused_unread(tmp_path):
    Image.new("1", (20_000, 5_001)).save(tmp_path / "huge.png")
    with pytest.raises(ValueError, match="100,000,000 pixels"):
        open_picture(tmp_path / "huge.png")


def test_large_pictures_are_decoded_one_at_a_time_and_reduced(tmp_path, monkeypatch):
    """Each takes up to 16 bytes a pixel, 1.6 GB for a file of 12 kB, in each thread."""
    monkeypatch.setattr(opener, "LARGE_PIXELS", 60 * 60)
    at_once, most, load = [], {}, ImageFile.ImageFile.load

    def counted_load(image):
        at_once.append(id(image))
        most[image.size] = max(most.get(image.size, 0), len(at_once))
        time.sleep(0.02)
        at_once.remove(id(image))
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", counted_load)
    for side in (60, 90):
        save(tmp_path, f"{side}.png", np.zeros((side, side), np.uint8))
        for how in (decode, decode_as_article):
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(how, [str(tmp_path / f"{side}.png")] * 8, [(20, 20)] * 8))
    assert most[60, 60] > 1 and most[90, 90] == 1
    assert open_picture(tmp_path / "90.png").size == (45, 45)
    assert open_picture(tmp_path / "60.png").size == (60, 60)


def test_integers_brighter_than_16_bits_have_no_known_white(tmp_path):
    save(tmp_path, "counts.tiff", np.full((20, 20), 70_000, np.int32))
    with pytest.raises(ValueError, match="pixels of 70000; scale them to 0..65535"):
        decode(str(tmp_path / "counts.tiff"), (20, 20))


def test_an_alpha_channel_that_is_opaque_all_over_is_none(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)
    for alpha, mode in ((255, "RGB"), (254, "RGBa")):
        pixels[..., 3] = alpha
        save(tmp_path, "a.png", pixels)
        assert open_picture(str(tmp_path / "a.png")).mode == mode
