"""The judge knows a digit from what is none, and its file can be made anew."""

import numpy as np
import pytest

from classifier import idx
from digits import judge, not_digits, page
from digits.drawn import draw
from digits.reading import is_unsure
from tests.pages import NO_DIGITS, draw_nothing


@pytest.fixture(scope="module")
def written():
    return draw(1000, 31)


def test_digits_are_digits(written, networks):
    assert np.mean(networks[1](written[0]) < page.LIKELY) < 0.06


def test_mnists_digits_stay_sure(mnist_idx, networks):
    images = np.asarray(idx.decode_part(mnist_idx, "test")[0])
    probabilities, is_digit = networks
    unsure = is_unsure(probabilities(images).max(axis=1), is_digit(images))
    assert unsure.mean() <= 0.015


@pytest.mark.parametrize("make", [make for make, _ in not_digits.KINDS])
def test_what_is_none_is_told(make, written, networks):
    rng = np.random.default_rng(5)
    shapes = np.stack([not_digits._drawn(make, rng, written[0]) for _ in range(40)])
    # a half of an 8 is a 3, and some pairs are one digit to everyone
    assert np.mean(networks[1](shapes) < page.LIKELY) > 0.7


@pytest.mark.parametrize("kind", NO_DIGITS)
def test_pictures_without_a_digit_are_not_answered_for_sure(kind, read_file, tmp_path):
    rng = np.random.default_rng(9)
    sure = 0
    for _ in range(8):
        file = tmp_path / "picture.png"
        draw_nothing(kind, rng).save(file)
        answer = read_file(file)
        sure += answer is not None and not answer.is_unsure
    assert sure <= 2


def test_shapes_are_as_to_mnist_makes_them(written):
    for shapes in (
        not_digits.draw(50, 1, written[0]),
        not_digits.draw_digits(50, 1, *written)[0],
    ):
        assert shapes.shape == (50, 28, 28)
        assert shapes.dtype == np.uint8
        assert (shapes.reshape(50, -1).max(axis=1) > 128).all()
        for shape in shapes:  # in MNIST's 20x20, give or take what rounding does
            assert abs(max(np.ptp(places) for places in np.nonzero(shape)) - 19) <= 1


def test_the_same_seed_gives_the_same_shapes(written):
    again = [not_digits.draw(20, seed, written[0]) for seed in (3, 3, 4)]
    assert np.array_equal(again[0], again[1])
    assert not np.array_equal(again[0], again[2])


def test_the_file_is_small_and_the_networks(tmp_path):
    assert judge.SHIPPED.stat().st_size < 300_000
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(ValueError):
        judge.load_judge(tmp_path / "other.npz")
    with pytest.raises(OSError):
        judge.load_judge(tmp_path / "none.npz")


def test_training_makes_a_judge(tmp_path, written, monkeypatch):
    monkeypatch.setattr(judge, "DRAWN", 300)
    monkeypatch.setattr(judge, "MET", 200)
    monkeypatch.setattr(judge, "NONE", 200)
    monkeypatch.setattr(judge, "PART", 100)
    monkeypatch.setattr(judge, "EPOCHS", 1)
    images, labels = judge.training_set(*written, seed=0)
    assert len(images) == len(labels) == 1000 + 300 + 200 + 200
    assert (labels == judge.NO_DIGIT).sum() == 200
    judge.save_judge(judge.train_judge(images, labels, seed=0), tmp_path / "judge.npz")
    probabilities = judge.load_judge(tmp_path / "judge.npz")(images[:10])
    assert probabilities.shape == (10,)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
