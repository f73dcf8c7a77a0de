"""The finder of digits ships small, and its file can be made anew."""

import numpy as np
import pytest

from digits import finder, train_finder
from digits.drawn import draw
from digits.drawn_shapes import SIGN

UNLIKELY = 0.3  # white paper is neither digit nor ink


def test_the_file_is_small_and_the_finders(tmp_path):
    assert finder.SHIPPED.stat().st_size < 3_000_000
    np.savez(tmp_path / "other.npz", np.zeros(3))
    with pytest.raises(ValueError):
        finder.load_finder(tmp_path / "other.npz")
    with pytest.raises(OSError):
        finder.load_finder(tmp_path / "none.npz")


def test_likelihoods_are_such_and_maps_are_as_large_as_the_picture_by_their_strides(shipped):
    maps = shipped[1](np.full((64, 96, 3), 255, np.uint8))
    assert maps.places.shape == (16, 24, 2) and maps.ink.shape == (32, 48)
    assert maps.offsets.shape == (32, 48, 2)
    assert maps.places.min() >= 0 and maps.places.max() < UNLIKELY
    assert maps.ink.min() >= 0 and maps.ink.max() < UNLIKELY


def test_targets_say_where_which_digit_and_where_a_sign_is():
    boxes = np.array([(8, 16, 24, 48, 7), (100, 100, 120, 140, SIGN), (-40, 0, -10, 30, 3)])
    places, middles = train_finder.targets(boxes.astype(np.float32))
    assert places[8, 4].tolist() == [1, 0, 7]
    assert places[30, 27].tolist() == pytest.approx([0, 1, -1], abs=1e-6)
    assert 0 < places[9, 4, 0] < 1 and places[9, 4, 2] == -1
    assert (places[..., 2] >= 0).sum() == 1  # the third lies beyond the page
    assert middles[1].tolist() == [16, 32]


def test_training_makes_a_finder(tmp_path, monkeypatch):
    for name, value in (("PART", 4), ("SHAPES", 60), ("BATCH", 4), ("EVERY", 1)):
        monkeypatch.setattr(train_finder, name, value)
    monkeypatch.setattr(train_finder, "cpu_count", lambda: 1)
    images, labels = draw(60, 0)
    pages = train_finder.draw_pages(8, 0, images, labels)
    assert len(pages) == 8
    network = train_finder.train_finder(pages, steps=3, seed=0)
    train_finder.save_finder(network, tmp_path / "finder.npz")
    maps = finder.load_finder(tmp_path / "finder.npz")(pages[0].image)
    assert np.isfinite(maps.places).all() and maps.ink.shape == (128, 128)
