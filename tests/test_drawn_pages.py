"""Pages are drawn with what is on them known to the pixel."""

import numpy as np
import pytest

from digits.drawn import draw
from digits.drawn_pages import SIDE, draw_page
from digits.drawn_shapes import SIGN, draw_shapes


@pytest.fixture(scope="module")
def shapes():
    return draw_shapes(300, np.random.default_rng(0), *draw(200, 1))


@pytest.fixture(scope="module")
def pages(shapes):
    rng = np.random.default_rng(2)
    return [draw_page(rng, shapes) for _ in range(60)]


def test_the_same_numbers_draw_the_same_page(shapes):
    first, again, other = (draw_page(np.random.default_rng(seed), shapes) for seed in (5, 5, 6))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.image, other.image)


def test_shapes_are_all_digits_and_signs_tight_in_their_boxes(shapes):
    assert {shape.label for shape in shapes} == {*range(10), SIGN}
    for shape in shapes:
        ink = np.asarray(shape.ink) > 0
        assert ink.any(axis=0)[[0, -1]].all() and ink.any(axis=1)[[0, -1]].all()


def test_the_ink_of_what_is_to_be_found_lies_in_its_box(pages):
    found = 0
    for page in pages:
        assert page.image.shape == (SIDE, SIDE, 3) and page.owner.max() <= len(page.boxes)
        for number, (left, top, right, bottom, label) in enumerate(page.boxes, 1):
            rows, columns = np.nonzero(page.owner == number)
            assert len(rows) and 0 <= label <= SIGN
            assert left - 2 <= 2 * columns.min() and 2 * columns.max() <= right + 2
            assert top - 2 <= 2 * rows.min() and 2 * rows.max() <= bottom + 2
            found += 1
    assert found > 200


def test_ink_stands_out_from_the_paper_around_it(pages):
    apart = []
    for page in pages:
        light = page.image[::2, ::2].mean(axis=2)
        for number in range(1, len(page.boxes) + 1):
            ink = page.owner == number
            rows, columns = (slice(at.min(), at.max() + 1) for at in np.nonzero(ink))
            box = light[rows, columns]
            if (~ink[rows, columns]).any():
                apart.append(abs(box[ink[rows, columns]].mean() - box[~ink[rows, columns]].mean()))
    assert np.median(apart) > 20


def test_some_pages_have_nothing_to_be_found(pages):
    assert 0.15 < np.mean([not len(page.boxes) for page in pages]) < 0.6
