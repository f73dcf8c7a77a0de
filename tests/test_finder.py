"""The finder of digits ships small, and its file can be made anew."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax

from digits import finder, train_finder
from digits.drawn import draw
from digits.drawn_pages import DrawnPage
from digits.drawn_shapes import SIGN
from digits.finding import Mark, features

UNLIKELY = 0.3  # white paper is neither digit nor ink


def test_the_file_is_small_and_the_finders(tmp_path):
    assert finder.SHIPPED.stat().st_size < 3_000_000
    np.savez(tmp_path / "other.npz", np.zeros(3))
    with pytest.raises(ValueError):
        finder.load_finder(tmp_path / "other.npz")
    with pytest.raises(OSError):
        finder.load_finder(tmp_path / "none.npz")


def test_likelihoods_are_such_and_maps_are_as_large_as_the_picture_by_their_strides():
    maps = finder.load_finder().maps(np.full((64, 96, 3), 255, np.uint8))
    assert maps.places.shape == (16, 24, 2) and maps.ink.shape == (32, 48)
    assert maps.offsets.shape == (32, 48, 2) and maps.labels.shape == (16, 24, 10)
    assert maps.places.min() >= 0 and maps.places.max() < UNLIKELY
    assert maps.ink.min() >= 0 and maps.ink.max() < UNLIKELY
    assert maps.labels.sum(axis=2) == pytest.approx(np.ones((16, 24)), abs=1e-5)


def test_targets_say_where_which_digit_and_where_a_sign_is():
    boxes = np.array([(8, 16, 24, 48, 7), (100, 100, 120, 140, SIGN), (-40, 0, -10, 30, 3)])
    places, middles = train_finder.targets(boxes.astype(np.float32))
    assert places[8, 4].tolist() == [1, 0, 7]
    assert places[30, 27].tolist() == pytest.approx([0, 1, -1], abs=1e-6)
    assert 0 < places[9, 4, 0] < 1 and places[9, 4, 2] == -1
    assert (places[..., 2] >= 0).sum() == 1  # the third lies beyond the page
    assert middles[1].tolist() == [16, 32]


@pytest.fixture
def eagerly():
    """Two steps are taken sooner than one is traced."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.filterwarnings("ignore:Even though")  # tf.data is traced all the same
@pytest.mark.usefixtures("eagerly")
def test_training_makes_a_finder(tmp_path, monkeypatch):
    for name, value in (("PART", 4), ("SHAPES", 60), ("BATCH", 4), ("EVERY", 1)):
        monkeypatch.setattr(train_finder, name, value)
    monkeypatch.setattr(train_finder, "cpu_count", lambda: 1)
    images, labels = draw(60, 0)
    pages = train_finder.draw_pages(8, 0, images, labels)
    assert len(pages) == 8
    network = train_finder.train_finder(pages, steps=2, seed=0)
    weights = np.arange(12).reshape(3, 4) / 8
    finder.save_finder(network, weights, tmp_path / "finder.npz")
    made = finder.load_finder(tmp_path / "finder.npz")
    maps = made.maps(pages[0].image)
    assert np.isfinite(maps.places).all() and maps.ink.shape == (128, 128)
    assert (made.weights == weights).all()


def mark(box, heat, ink=0.9):
    return Mark(1, box, (0.0, 0.0), heat, ink)


def test_a_mark_is_of_what_stands_where_it_is_and_of_nothing_the_second_time():
    boxes = np.array([(8, 16, 24, 48, 7), (100, 100, 120, 140, SIGN)], np.float32)
    marks = [
        mark((10, 16, 24, 48), (0.5, 0.1)),
        mark((8, 16, 24, 48), (0.9, 0.1)),
        mark((100, 102, 120, 140), (0.1, 0.8)),
        mark((200, 10, 220, 40), (0.7, 0.1)),
        mark((8, 16, 80, 148), (0.95, 0.1)),
    ]
    assert train_finder.kinds_of(marks, boxes) == [2, 0, 1, 2, 2]
    assert train_finder.kinds_of(marks[:1], boxes[:0]) == [2]


def test_weights_tell_what_the_heat_on_drawn_pages_means():
    """Here what is 0.8 hot is a digit, or a sign, in four of five; all else is nothing."""
    ink = np.zeros((64, 64), np.float32)
    places = np.zeros((32, 32, 2), np.float32)
    for column, heat in zip((6, 16, 26), ((0.8, 0.01), (0.01, 0.8), (0.2, 0.2)), strict=True):
        places[16, column] = heat
        ink[24:40, 2 * column - 3 : 2 * column + 3] = 0.9
    rows, columns = np.mgrid[:64, :64]
    middles = 2 * np.array([6, 16, 26])
    nearest = middles[np.abs(columns[..., None] - middles).argmin(axis=-1)]
    offsets = np.stack([2.0 * (nearest - columns), 2.0 * (33 - rows)], axis=-1)
    boxes = np.array([(18, 48, 30, 80, 3), (58, 48, 70, 80, SIGN)], np.float32)
    pages = [DrawnPage(None, None, boxes)] * 4 + [DrawnPage(None, None, boxes[:0])]
    maps = finder.Maps(places, np.zeros((32, 32, 10), np.float32), ink, offsets)
    weights = train_finder.fit_weights(lambda image: maps, pages)
    likely = softmax(features([mark((0,) * 4, h) for h in places[16, [6, 16, 26]]]) @ weights.T, 1)
    assert likely == pytest.approx(np.array([[0.8, 0, 0.2], [0, 0.8, 0.2], [0, 0, 1]]), abs=0.02)
