"""Digits are cut out of drawn pages with what they are, for the network that reads to learn."""

import numpy as np
import pytest

from digits import cut_digits
from digits.drawn import draw
from digits.drawn_pages import draw_page
from digits.drawn_shapes import draw_shapes
from digits.mnist_like import CUT_DIGITS


@pytest.fixture(scope="module")
def pages():
    rng = np.random.default_rng(0)
    shapes = draw_shapes(300, rng, *draw(300, 1))
    return [draw_page(rng, shapes) for _ in range(24)]


def test_what_is_cut_out_of_drawn_pages_is_what_was_written_there(pages, finder, probabilities):
    images, labels = cut_digits.cut_digits(pages, finder)
    assert images.dtype == labels.dtype == np.uint8 and images.shape == (len(labels), 28, 28)
    assert len(labels) > 100 and set(labels.tolist()) == set(range(10))
    assert (probabilities(images).argmax(axis=1) == labels).mean() > 0.8


def test_the_command_writes_no_more_of_each_digit_than_asked(pages, tmp_path, monkeypatch):
    def draw_pages(count, seed, images, labels):
        assert count == 24 and len(images) == len(labels) == 100
        return pages

    for name, value in (("PAGES", 24), ("OF_EACH", 2), ("USUAL", 80), ("RARER", 20)):
        monkeypatch.setattr(cut_digits, name, value)
    monkeypatch.setattr(cut_digits, "draw_pages", draw_pages)
    cut_digits.make(tmp_path / "new" / "cut.npz")
    with np.load(tmp_path / "new" / "cut.npz") as file:
        assert np.bincount(file["labels"]).tolist() == [2] * 10
        assert file["images"].shape == (20, 28, 28)


def test_as_many_ship_of_each_digit():
    with np.load(CUT_DIGITS) as file:
        assert np.bincount(file["labels"]).tolist() == [1500] * 10
        assert (file["images"].max(axis=(1, 2)) > 200).all()
