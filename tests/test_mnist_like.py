"""Pictures like MNIST's are told from other ones, and joined by drawn digits that are labelled."""

import numpy as np
import pytest
from helpers import save, write_digits
from PIL import Image
from tensorflow.keras.preprocessing.image import ImageDataGenerator

from classifier.batches import training_batches
from classifier.opener import decode
from classifier.pictures import ROTATION_EPOCHS, ImageSet, load
from digits import mnist_like
from digits.drawn import draw
from digits.mnist_like import (
    CUT_DIGITS,
    CUT_SHARE,
    DRAWN_SHARE,
    RARE_SHARE,
    looks_like_mnist,
    with_drawn_digits,
)
from digits.strokes import RARE


def grey_digits(count: int) -> ImageSet:
    images, labels = draw(count, seed=1)
    paths = np.array([f"{index}.png" for index in range(count)])
    return ImageSet(paths, labels.astype(np.int32), images[..., None], (28, 28), decode, True)


def paths_in(folder):
    return sorted(map(str, folder.rglob("*.png")))


def test_drawn_digits_look_like_mnist(tmp_path):
    write_digits(tmp_path, 60, seed=1)
    assert looks_like_mnist(paths_in(tmp_path), (28, 28)) is True


def test_what_is_dark_on_light_large_or_no_digit_does_not(tmp_path):
    images, _ = draw(20, seed=1)
    noise = np.random.default_rng(0)
    for index, image in enumerate(images):
        save(tmp_path / "inverted", f"{index}.png", 255 - image)
        save(tmp_path / "shapes", f"{index}.png", noise.integers(0, 256, (28, 28, 3), np.uint8))
        corner = np.asarray(Image.fromarray(image).resize((14, 14)))
        save(tmp_path / "corner", f"{index}.png", np.pad(corner, ((0, 14), (14, 0))))
        save(tmp_path / "blank", f"{index}.png", np.zeros((28, 28), np.uint8))
    for name in ("inverted", "shapes", "corner", "blank"):
        assert looks_like_mnist(paths_in(tmp_path / name), (28, 28)) is False


def test_a_few_odd_pictures_are_forgiven_and_one_in_seven_is_not(tmp_path):
    write_digits(tmp_path, 100, seed=1)
    save(tmp_path, "odd.png", np.full((28, 28), 200, np.uint8))
    paths = paths_in(tmp_path)[:-1]
    few = [str(tmp_path / "nowhere.png"), str(tmp_path / "odd.png"), *paths[2:]]
    many = [
        str(tmp_path / "odd.png") if index % 7 == 0 else path for index, path in enumerate(paths)
    ]
    assert looks_like_mnist(few, (28, 28))
    assert not looks_like_mnist(many, (28, 28))


def test_drawn_digits_rarer_ones_and_ones_that_were_cut_out_join_them_each_with_its_label():
    pictures = grey_digits(960)
    joined = with_drawn_digits(pictures, seed=3)
    usual, rare = draw(240, seed=3), draw(48, seed=3, table=RARE)
    images, labels = (np.concatenate(parts) for parts in zip(usual, rare, strict=True))
    assert len(usual[0]) == ROTATION_EPOCHS * DRAWN_SHARE * 960
    assert len(rare[0]) == RARE_SHARE * len(usual[0])
    cut = ROTATION_EPOCHS * int(CUT_SHARE * 960)
    assert joined.rotating == 240 + 48 + cut and joined.epoch_size == 960
    for field in ("paths", "labels", "pixels"):
        np.testing.assert_array_equal(getattr(joined, field)[:960], getattr(pictures, field))
        assert len(getattr(joined, field)) == 960 + joined.rotating
    np.testing.assert_array_equal(joined.labels[960:-cut], labels)
    np.testing.assert_array_equal(joined.pixels[960:-cut, ..., 0], images)
    with np.load(CUT_DIGITS) as file:
        by_image = {image.tobytes(): label for image, label in zip(*file.values(), strict=True)}
    for image, label in zip(joined.pixels[-cut:], joined.labels[-cut:], strict=True):
        assert by_image[image.tobytes()] == label
    assert joined.labels.dtype == np.int32 and joined.grayscale
    assert set(joined.labels[-cut:].tolist()) == set(labels.tolist()) == set(range(10))


def test_among_many_pictures_there_are_no_more_than_do_good(monkeypatch):
    monkeypatch.setattr(mnist_like, "MAX_DRAWN", 50)
    monkeypatch.setattr(mnist_like, "MAX_CUT", 70)
    assert with_drawn_digits(grey_digits(960), seed=3).rotating == 3 * (50 + 10 + 70)


def test_another_seed_draws_other_digits():
    one, other = (with_drawn_digits(grey_digits(960), seed) for seed in (3, 4))
    assert not np.array_equal(one.pixels[960:], other.pixels[960:])


@pytest.mark.parametrize("kind", ["coloured", "large"])
def test_nothing_joins_pictures_that_it_does_not_fit(kind):
    pictures = grey_digits(320)
    changes = {
        "coloured": {"pixels": pictures.pixels.repeat(3, axis=-1), "grayscale": False},
        "large": {"pixels": pictures.pixels.repeat(2, axis=1), "size": (56, 28)},
    }
    pictures = pictures._replace(**changes[kind])
    assert with_drawn_digits(pictures, seed=3) is pictures


@pytest.mark.parametrize("on_disk", [False, True])
def test_what_is_learned_does_not_depend_on_the_memory_for_it(tmp_path, on_disk):
    write_digits(tmp_path / "train", 120, seed=1)

    def batches_of(cache_limit, cache_file=None):
        iterator = ImageDataGenerator().flow_from_directory(
            tmp_path / "train", target_size=(28, 28), shuffle=False
        )
        joined = with_drawn_digits(load(iterator, cache_limit, cache_file=cache_file), seed=3)
        assert joined.rotating == 30 + 6 + 36 and (joined.pixels is None) == (cache_limit == 0)
        data = training_batches(joined, 10, 26, 5, range(2), 0, strokes=True)
        return [images.numpy() for images, _ in data]

    beside = tmp_path / "pixels" / "training.bin" if on_disk else None
    np.testing.assert_array_equal(batches_of(0, beside), batches_of(None))
