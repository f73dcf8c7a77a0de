"""What the digits drawn by the program promise."""

import hashlib

import numpy as np
import pytest

import digits.drawn
from digits.drawn import draw
from digits.strokes import RARE, STYLES


@pytest.fixture(scope="module")
def drawn():
    return draw(2000, seed=1)


def ink_extent(images):
    """Height and width of each image's ink, [n, 2]."""
    ink = images > 0
    seen = np.stack([ink.any(2), ink.any(1)], axis=1)
    return seen.shape[2] - seen.argmax(2) - seen[:, :, ::-1].argmax(2)


def pen_widths(images):
    """Ink of each image for its outline's length: grows with the width of the strokes."""
    grey = images / 255
    outline = np.abs(np.diff(grey, axis=1)).sum((1, 2)) + np.abs(np.diff(grey, axis=2)).sum((1, 2))
    return grey.sum((1, 2)) / outline


@pytest.mark.parametrize("count", [0, 1, 7, 25, 600])
def test_images_and_labels_are_uint8_and_as_many_as_asked_for(count):
    images, labels = draw(count, seed=0)
    assert images.shape == (count, 28, 28)
    assert labels.shape == (count,)
    assert images.dtype == labels.dtype == np.uint8


@pytest.mark.parametrize("count", [1, 25, 600])
def test_labels_share_the_count_as_evenly_as_they_can(count):
    of_each_label = np.bincount(draw(count, seed=0)[1], minlength=10)
    assert of_each_label.max() - of_each_label.min() == (count % 10 > 0)


def test_labels_come_in_no_order(drawn):
    labels = drawn[1].astype(int)
    repeats = (np.diff(labels) == 0).mean()
    steps_up = (np.diff(labels) == 1).mean()
    assert 0.05 < repeats < 0.15
    assert 0.05 < steps_up < 0.13


def test_the_same_seed_draws_the_same_digits(drawn):
    again = draw(2000, seed=1)
    np.testing.assert_array_equal(drawn[0], again[0])
    np.testing.assert_array_equal(drawn[1], again[1])


def test_the_digits_of_a_seed_are_the_same_on_every_machine():
    images, labels = draw(1000, seed=7)
    assert labels[:12].tolist() == [6, 3, 1, 0, 3, 0, 1, 3, 3, 2, 5, 3]
    assert hashlib.sha256(images.tobytes()).hexdigest()[:16] == "8b75ea34f44c0343"


def test_the_digits_do_not_depend_on_how_many_are_drawn_at_a_time(monkeypatch):
    images, _ = draw(300, seed=3)
    monkeypatch.setattr(digits.drawn, "CHUNK", 77)
    np.testing.assert_array_equal(images, draw(300, seed=3)[0])


def test_another_seed_draws_other_digits_in_another_order(drawn):
    other = draw(2000, seed=2)
    assert (drawn[1] != other[1]).any()
    both = np.concatenate([drawn[0], other[0]]).reshape(4000, -1)
    assert len(np.unique(both, axis=0)) == 4000


def test_ink_just_fits_a_box_of_20_pixels_as_in_mnist(drawn):
    longer_side = ink_extent(drawn[0]).max(1)
    assert longer_side.max() == 20
    assert (longer_side == 20).mean() > 0.99


def test_proportions_are_kept(drawn):
    images, labels = drawn
    height, width = ink_extent(images).T
    assert np.median(width[labels == 1]) < 12 < np.median(width[labels == 0])
    assert 0.02 < (width > height).mean() < 0.4


def test_centre_of_mass_is_in_the_middle_as_near_as_whole_pixels_allow(drawn):
    mass = drawn[0].astype(float)
    place = np.arange(28)
    for axis in (1, 2):
        centre = (mass.sum(axis) * place).sum(1) / mass.sum((1, 2))
        off = np.abs(centre - 14)  # MNIST's own images have it there, not at 13.5
        assert (off <= 0.5 + 1e-9).mean() > 0.99  # else the ink would fall off the image
        assert off.max() < 3


def test_ink_is_white_on_black_with_grey_edges(drawn):
    images = drawn[0]
    assert (images[:, [0, 0, -1, -1], [0, -1, 0, -1]] == 0).all()
    assert (images.max((1, 2)) > 200).all()
    inked = images[images > 0]
    assert 0.3 < ((inked > 20) & (inked < 235)).mean() < 0.7


def test_pens_are_thin_and_thick(drawn):
    width = pen_widths(drawn[0])
    thin, thick = np.quantile(width, [0.05, 0.95])
    assert thick > 2 * thin


def test_digits_lean_left_and_more_of_them_right(drawn):
    ones = drawn[0][drawn[1] == 1].astype(float)
    rows, columns = np.mgrid[:28, :28] - 14
    slant = -(ones * rows * columns).sum((1, 2)) / (ones * rows * rows).sum((1, 2))
    assert 0.2 < np.mean(slant < -0.1) < np.mean(slant > 0.1)


def test_every_label_has_styles():
    assert list(STYLES) == list(range(10))


@pytest.mark.parametrize("table", [STYLES, RARE])
def test_every_style_is_drawn_by_its_share(table):
    labels = np.repeat(list(table), 20_000)
    ways = digits.drawn._choose_ways(labels, np.random.default_rng(0).random(len(labels)), table)
    for digit, styles in table.items():
        shares = np.array([share for share, _ in styles])
        drawn_share = np.bincount(ways[labels == digit], minlength=len(shares)) / 20_000
        np.testing.assert_allclose(drawn_share, shares / shares.sum(), atol=0.015)
        assert (drawn_share > 0).all()


@pytest.mark.parametrize(
    ("table", "digit"), [(table, digit) for table in (STYLES, RARE) for digit in table]
)
def test_styles_of_a_digit_differ_from_each_other(table, digit):
    ways = np.arange(len(table[digit]))
    steady_hand = np.zeros((len(ways), sum(digits.drawn.NUMBERS.values())))
    labels = np.full(len(ways), digit)
    images = digits.drawn._draw_chunk(labels, ways, steady_hand, table).astype(int)
    difference = np.abs(images[:, None] - images).mean((2, 3)) + 255 * np.eye(len(ways))
    assert difference.min() > 1


def test_a_digit_looks_like_its_label(drawn):
    def flat(images):
        vectors = images.reshape(len(images), -1).astype(float)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    images, labels = drawn
    other_images, other_labels = draw(500, seed=5)
    nearest = (flat(other_images) @ flat(images).T).argmax(1)
    assert (labels[nearest] == other_labels).mean() > 0.7
