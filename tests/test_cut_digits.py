"""Digits are cut out of drawn pages with what they are, for the network that reads to learn."""

import sys

import numpy as np

from digits import cut_digits, train_finder
from digits.drawn import draw
from digits.drawn_pages import draw_page
from digits.drawn_shapes import draw_shapes
from digits.mnist_like import CUT_DIGITS


def test_what_is_cut_out_of_drawn_pages_is_what_was_written_there(finder, probabilities):
    rng = np.random.default_rng(0)
    shapes = draw_shapes(300, rng, *draw(300, 1))
    pages = [draw_page(rng, shapes) for _ in range(24)]
    images, labels = cut_digits.cut_digits(pages, finder)
    assert images.dtype == labels.dtype == np.uint8 and images.shape == (len(labels), 28, 28)
    assert len(labels) > 100 and set(labels.tolist()) == set(range(10))
    assert (probabilities(images).argmax(axis=1) == labels).mean() > 0.8


def test_the_command_writes_no_more_of_each_digit_than_asked(tmp_path, monkeypatch):
    for name, value in (("PAGES", 24), ("OF_EACH", 2), ("USUAL", 80), ("RARER", 20)):
        monkeypatch.setattr(cut_digits, name, value)
    for name, value in (("PART", 4), ("SHAPES", 60), ("cpu_count", lambda: 1)):
        monkeypatch.setattr(train_finder, name, value)
    monkeypatch.setattr(sys, "argv", ["cut_digits", "--out", str(tmp_path / "cut.npz")])
    cut_digits.main()
    with np.load(tmp_path / "cut.npz") as file:
        assert np.bincount(file["labels"]).max() == 2
        assert file["images"].shape == (len(file["labels"]), 28, 28)


def test_as_many_ship_of_each_digit():
    with np.load(CUT_DIGITS) as file:
        assert np.bincount(file["labels"]).tolist() == [1500] * 10
        assert (file["images"].max(axis=(1, 2)) > 200).all()
