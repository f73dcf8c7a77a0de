"""What the network is fed: every picture once an epoch, varied as hands vary, and no other."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import save

from classifier import batches
from classifier.batches import (
    LABEL_SMOOTHING,
    augment,
    evaluation_batches,
    inference_batch_size,
    map_and_prefetch,
    rescale,
    to_model_input,
    training_batches,
    vary_stroke_width,
)
from classifier.console import InputError
from classifier.opener import decode
from classifier.pictures import ImageSet, load
from mnist_keras import data_generator
from setting import Setting


@pytest.fixture(autouse=True)
def made_where_a_training_makes_them(processor):
    """On the processor, whatever they are for."""


def noise(count: int, channels: int = 1) -> ImageSet:
    """Pictures of 20×28 that are all different; each is a class of its own."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 20, 28, channels), np.uint8)
    labels = np.arange(count, dtype=np.int32)
    return ImageSet(np.array([""] * count), labels, pixels, (20, 28), decode, pixels.shape[-1] == 1)


def test_every_epoch_shows_every_picture_once_in_another_order():
    data = training_batches(noise(300), 300, 100, 3, range(2), seed=0)
    order = [int(label) for _, labels in data for label in np.argmax(labels, axis=1)]
    assert sorted(order[:300]) == sorted(order[300:]) == list(range(300))
    assert order[:300] != order[300:] != list(range(300))


def test_of_pictures_left_over_other_ones_are_left_in_every_epoch():
    data = training_batches(noise(100), 100, 30, 3, range(2), seed=0)
    order = [int(label) for _, labels in data for label in np.argmax(labels, axis=1)]
    assert len(set(order[:90])) == len(set(order[90:])) == 90
    assert set(order[:90]) != set(order[90:])


def test_of_pictures_that_take_turns_every_epoch_has_another_third():
    pictures = noise(50)._replace(rotating=30)
    data = training_batches(pictures, 50, 15, 2, range(1, 4), seed=0)
    epochs = np.array([int(label) for _, labels in data for label in np.argmax(labels, axis=1)])
    epochs = [set(epoch.tolist()) for epoch in epochs.reshape(3, 30)]
    assert pictures.epoch_size == 20
    assert all(set(range(20)) < epoch and len(epoch) == 30 for epoch in epochs)
    assert set.union(*epochs) == set(range(50))


@pytest.mark.parametrize("strokes", [False, True])
def test_a_training_that_goes_on_has_the_batches_that_it_would_have_had(strokes):
    def epochs(which: range, seed: int = 5) -> list[np.ndarray]:
        data = training_batches(noise(60), 60, 20, 3, which, seed, strokes=strokes)
        return [images.numpy() for images, _ in data]

    whole = epochs(range(3))
    np.testing.assert_array_equal(epochs(range(1, 3)), whole[3:])
    assert not np.allclose(whole[:3], whole[3:6])
    assert not np.allclose(epochs(range(3), seed=6), whole)


def test_training_has_smoothed_labels_and_varied_pictures_and_validation_neither():
    pictures = noise(5)
    images, labels = next(iter(training_batches(pictures, 5, 5, 1, range(1), seed=0)))
    smoothed = LABEL_SMOOTHING / 5
    np.testing.assert_allclose(np.sort(labels, axis=1)[:, :4], smoothed, rtol=1e-6)
    np.testing.assert_allclose(np.max(labels, axis=1), 1 - LABEL_SMOOTHING + smoothed, rtol=1e-6)
    order = np.argmax(labels, axis=1)
    assert images.shape == (5, 20, 28, 3) and images.dtype == tf.float32
    assert not np.allclose(images[..., :1], pictures.pixels[order] / 255, atol=0.1)

    images, labels = next(iter(evaluation_batches(pictures, 5)))
    np.testing.assert_array_equal(labels, np.eye(5))
    np.testing.assert_allclose(images, pictures.pixels.repeat(3, axis=-1) / 255, rtol=1e-6)


def test_only_grey_strokes_are_varied():
    for channels, varied in ((1, True), (3, False)):
        plain, pens = (
            next(iter(training_batches(noise(9, channels), 9, 9, 1, range(1), 0, strokes=strokes)))
            for strokes in (False, True)
        )
        assert np.array_equal(plain[0], pens[0]) is not varied


def test_pictures_read_from_disk_give_the_same_batches(digits):
    setting = Setting(data_dir=str(digits))
    cached = load(data_generator(setting)[1], None)
    streamed = load(data_generator(setting)[1], 0)
    assert cached.pixels is not None and streamed.pixels is None
    for one, other in zip(
        [*training_batches(cached, 10, 100, 3, range(1), 0), *evaluation_batches(cached, 10)],
        [*training_batches(streamed, 10, 100, 3, range(1), 0), *evaluation_batches(streamed, 10)],
        strict=True,
    ):
        np.testing.assert_allclose(one[0], other[0], atol=1e-6)
        np.testing.assert_array_equal(one[1], other[1])


def test_a_picture_that_goes_while_training_is_named(tmp_path):
    save(tmp_path, "1.png", np.zeros((20, 28), np.uint8))
    paths = np.array([str(tmp_path / "1.png"), str(tmp_path / "gone.png")])
    pictures = ImageSet(paths, np.zeros(2, np.int32), None, (20, 28), decode, False)
    with pytest.raises((InputError, tf.errors.OpError), match=r"gone.png: gone or changed"):
        list(evaluation_batches(pictures, 2))


def test_large_pictures_come_in_small_batches(monkeypatch):
    assert inference_batch_size((28, 28)) == 512
    assert inference_batch_size((280, 280)) == 5
    assert inference_batch_size((4000, 4000)) == 1
    monkeypatch.setattr(batches, "INFERENCE_PIXELS", 4 * 20 * 28)
    assert [len(labels) for _, labels in evaluation_batches(noise(9), 9)] == [4, 4, 1]


def test_the_network_gets_three_channels_where_it_wants_them(monkeypatch):
    images = rescale(np.full((2, 4, 5, 1), 51, np.uint8))
    assert to_model_input(images).shape == (2, 4, 5, 3)
    np.testing.assert_allclose(to_model_input(images), 0.2)
    monkeypatch.setattr(keras.backend, "image_data_format", lambda: "channels_first")
    assert to_model_input(tf.zeros((2, 4, 5, 3))).shape == (2, 3, 4, 5)


def test_augmented_pictures_are_bent_but_never_mirrored_unless_asked():
    ramp = tf.tile(tf.linspace(0.0, 1.0, 28)[None, None, :, None], [50, 28, 1, 1])
    seed = tf.constant([0, 1], tf.int64)
    plain = augment(ramp, seed)
    assert not np.allclose(plain, ramp, atol=0.05)
    rising = np.sign(np.mean(plain[:, :, 20] - plain[:, :, 8], axis=(1, 2)))
    assert (rising == 1).all()
    flipped = augment(ramp, seed, flip=True)
    rising = np.sign(np.mean(flipped[:, :, 20] - flipped[:, :, 8], axis=(1, 2)))
    assert (rising == 1).sum() == (rising == -1).sum() == 25


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("sharp", [False, True])
def test_half_of_the_pictures_are_moved_by_whole_pixels_where_they_shall_stay_sharp(flip, sharp):
    given = np.random.default_rng(0).random((80, 28, 28, 1), np.float32)
    bent = augment(given, tf.constant([0, 1], tf.int64), flip, sharp).numpy()[:, 2:-2, 2:-2]

    def is_moved_only(index):
        mirrored = flip and index % 2
        sharp = given[index, :, ::-1] if mirrored else given[index]
        moves = [sharp[y : y + 24, x : x + 24] for y in range(5) for x in range(5)]
        return any(np.allclose(bent[index], moved, atol=1e-5) for moved in moves)

    moved = [i for i in range(80) if sharp and i // 2 % 2 == 0]
    assert [i for i in range(80) if is_moved_only(i)] == moved


def test_augmented_pictures_stay_in_the_middle_and_as_large_on_average():
    square = np.zeros((400, 30, 40, 1), np.float32)
    square[:, 10:20, 15:25] = 1
    bent = augment(square, tf.constant([0, 1], tf.int64)).numpy()
    assert np.all(bent >= 0) and np.all(bent <= 1)
    assert abs(bent.sum() / square.sum() - 1) < 0.02
    rows, columns = (np.arange(n) - (n - 1) / 2 for n in (30, 40))
    offset_y = np.einsum("nhw,h->n", bent[..., 0], rows) / bent.sum(axis=(1, 2, 3))
    offset_x = np.einsum("nhw,w->n", bent[..., 0], columns) / bent.sum(axis=(1, 2, 3))
    assert 1 < np.abs(offset_y).max() < 3 and abs(offset_y.mean()) < 0.3
    assert 1.5 < np.abs(offset_x).max() < 3.7 and abs(offset_x.mean()) < 0.3


def test_strokes_become_thicker_and_thinner_but_stay_strokes():
    digit = np.zeros((200, 28, 28, 1), np.float32)
    digit[:, 4:24, 12:16] = 1
    ink = np.sum(vary_stroke_width(digit, tf.constant([0, 1], tf.int64)), axis=(1, 2, 3))
    assert ink.min() < 65 < 80 < 95 < ink.max()
    blank = np.zeros((2, 28, 28, 1), np.float32)
    assert not np.any(vary_stroke_width(blank, tf.constant([0, 1], tf.int64)))


def test_batches_are_made_without_the_tuner_that_delays_the_end_of_an_epoch():
    dataset = map_and_prefetch(tf.data.Dataset.range(3), lambda number: number + 1)
    assert list(dataset.as_numpy_iterator()) == [1, 2, 3]
    assert not dataset.options().autotune.enabled


def test_images_are_shifted_by_a_share_of_their_width_and_of_their_height(monkeypatch):
    for name in ("ROTATION", "SHEAR", "ZOOM"):
        monkeypatch.setattr(batches, name, 0.0)
    dots = np.zeros((200, 21, 81, 1), np.float32)
    dots[:, 10, 40] = 1
    shifted = np.asarray(batches.augment(tf.constant(dots), tf.constant([1, 2])))[..., 0]
    down = (shifted * np.arange(21)[:, None]).sum(axis=(1, 2)) / shifted.sum(axis=(1, 2)) - 10
    right = (shifted * np.arange(81)).sum(axis=(1, 2)) / shifted.sum(axis=(1, 2)) - 40
    assert 0.9 < np.abs(down).max() <= 0.05 * 21 + 1e-3
    assert 3.5 < np.abs(right).max() <= 0.05 * 81 + 1e-3


def test_strokes_and_warp_are_drawn_from_different_numbers(monkeypatch):
    def number(seed):
        return tf.cast(1000 * seed[0] + seed[1], tf.float32)

    monkeypatch.setattr(
        batches, "vary_stroke_width", lambda images, seed: 0 * images + number(seed)
    )
    monkeypatch.setattr(batches, "augment", lambda images, seed, *_, **__: images - number(seed))
    data = training_batches(noise(30), 30, 10, 3, range(1), seed=0, strokes=True)
    differences = [images for images, _ in data]
    assert differences and np.all(differences)
