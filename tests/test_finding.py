"""What the finder marks becomes digits with their ink, in the size that shows most."""

import numpy as np
import pytest

from digits import finding
from digits.finder import SHIPPED, Finder, Maps


def blocks(places):
    """A picture of 200 x 100 px with black blocks of 12 x 24 px, their left upper corners there."""
    picture = np.full((100, 200, 3), 255, np.uint8)
    for left, top in places:
        picture[top : top + 24, left : left + 12] = 0
    return picture


def found(picture, maps):
    """The view of the picture by a finder that gives these maps, judged as the one that ships."""
    with np.load(SHIPPED) as file:
        weights = file[max(file.files)].astype(float)
    return finding.find(picture, Finder(maps, weights))


def block_maps(image):
    """Knows blocks of 24 to 80 px as digits: as a finder says it of what it knows."""
    from scipy import ndimage

    ink = (image[::2, ::2].mean(axis=2) < 128).astype(np.float32)
    offsets = np.zeros((*ink.shape, 2), np.float32)
    places = np.zeros((image.shape[0] // 4, image.shape[1] // 4, 2), np.float32)
    labels, _ = ndimage.label(ink)
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        x, y = columns.start + columns.stop, rows.start + rows.stop  # the middle, in px
        if 24 <= 2 * (rows.stop - rows.start) <= 80:
            places[y // 4, x // 4, 0] = 0.9
        at = np.argwhere(labels == number)
        offsets[labels == number] = ([y, x] - (2 * at + 1))[:, ::-1]
    return Maps(places, np.zeros((*places.shape[:2], 10), np.float32), ink, offsets)


def test_every_digit_is_marked_where_it_is():
    places = [(20, 30), (90, 50), (150, 10)]
    view = found(blocks(places), block_maps)
    boxes = sorted(finding.in_picture(mark, view) for mark in view.marks)
    assert len(boxes) == 3
    for (left, top), box in zip(places, boxes, strict=True):
        assert box == pytest.approx((left, top, left + 12, top + 24), abs=2)


def test_ink_belongs_to_the_digit_whose_middle_it_points_to():
    view = found(blocks([(20, 30), (90, 50)]), block_maps)
    first, second = sorted(view.marks, key=lambda mark: mark.box)
    for mark in (first, second):
        left, top, right, bottom = (side // 2 for side in mark.box)
        rows, columns = np.nonzero(view.owner == mark.number)
        assert (left, right - 1) == (columns.min(), columns.max())
        assert (top, bottom - 1) == (rows.min(), rows.max())


def test_a_picture_is_looked_at_in_the_size_in_which_most_is_found():
    small = found(blocks([(20, 30), (90, 50)]), block_maps)
    large = found(np.kron(blocks([(20, 30)]), np.ones((6, 6, 1), np.uint8)), block_maps)
    assert len(small.marks) == 2 and len(large.marks) == 1
    assert max(large.image.shape) < 600  # though the picture has 1,200 px


def test_two_marks_in_one_box_are_one():
    def twice(image):
        maps = block_maps(image)
        places = maps.places.copy()
        for row, column in np.argwhere(maps.places[..., 0] > 0):
            places[row + 2, column, 0] = 0.5
        return maps._replace(places=places)

    (mark,) = found(blocks([(90, 50)]), twice).marks
    assert mark.heat[0] == pytest.approx(0.9)


def changed(picture, change):
    """What is marked by a finder that says of each block what `change` makes of it, by its place.

    `change` takes the number of the block, from the left, its heat and its ink to new ones.
    """

    def maps(image):
        given = block_maps(image)
        places, ink = given.places.copy(), given.ink.copy()
        middles = np.argwhere(places[..., 0] > 0)
        for number, (row, column) in enumerate(middles[np.argsort(middles[:, 1])]):
            columns = slice(max(0, 2 * column - 16), 2 * column + 16)
            places[row, column], likely = change(number)
            ink[:, columns] *= likely
        return given._replace(places=places, ink=ink)

    return sorted(found(picture, maps).marks, key=lambda mark: mark.box)


def test_what_is_likelier_a_sign_says_so():
    digit, sign = changed(
        blocks([(20, 30), (120, 30)]), lambda number: ((0.01, 0.9) if number else (0.9, 0.01), 0.9)
    )
    assert digit.is_likely_digit and digit.is_digit > 0.9
    assert not sign.is_likely_digit and sign.is_sign > 0.9


def test_what_is_less_plainly_ink_than_the_others_is_less_likely():
    picture = blocks([(20, 30), (90, 30), (160, 30)])
    alike = changed(picture, lambda number: ((0.4 if number else 0.9, 0.1), 0.9))
    assert len(alike) == 3 and alike[0].is_digit > alike[1].is_digit > 0.5
    (only,) = changed(picture, lambda number: ((0.4, 0.1), 0.5) if number else ((0.9, 0.1), 0.9))
    assert only.is_digit > 0.9


def test_around_the_picture_is_its_borders_color():
    picture = np.full((50, 60, 3), (200, 180, 40), np.uint8)
    picture[10:40, 10:50] = 0
    view = found(picture, block_maps)
    assert (view.image[0, 0] == (200, 180, 40)).all()


def test_plain_ink_that_no_middle_claims_is_a_sign():
    """A dash, or a digit as the finder knows none, does not vanish; a speck does."""

    def maps(image):
        given = block_maps(image)
        places = given.places.copy()
        columns = np.argwhere(places[..., 0] > 0)[:, 1]
        places[:, columns.max(initial=0) :] = 0
        return given._replace(places=places)

    picture = blocks([(20, 30), (90, 30)])
    picture[45:49, 50:53] = 0
    digit, sign = sorted(found(picture, maps).marks, key=lambda mark: mark.box)
    assert digit.is_digit > 0.9 and not digit.is_sign > 0.5
    assert sign.is_sign > 0.9 and not sign.is_likely_digit
    view = found(picture, maps)
    assert finding.in_picture(sign, view) == pytest.approx((90, 30, 102, 54), abs=2)
