"""The ink of a digit that was found, without its neighbors', lines and shadows."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from digits.cutting import cut_out
from digits.finding import MARGIN, Mark, View


def seven(color=(30, 30, 40), paper=(240, 238, 230)):
    """A 7 on paper, 60 x 80 px."""
    picture = Image.new("RGB", (60, 80), paper)
    ImageDraw.Draw(picture).line([(12, 12), (48, 12), (24, 68)], fill=color, width=5)
    return np.asarray(picture)


def view_of(picture, own, others=None):
    """A view in the picture's own size that knows its ink, bool as large as the picture."""
    height, width = (-(-(length + 2 * MARGIN) // 32) * 32 for length in picture.shape[:2])
    image = np.empty((height, width, 3), np.uint8)
    image[:] = np.median(picture[:3].reshape(-1, 3), axis=0)
    image[MARGIN : MARGIN + len(picture), MARGIN : MARGIN + picture.shape[1]] = picture
    owner = np.zeros((height, width), np.int32)
    inner = owner[MARGIN:, MARGIN:][: len(picture), : picture.shape[1]]
    inner[own] = 1
    if others is not None:
        inner[others] = 2
    owner = np.stack([owner[a::2, b::2] for a in (0, 1) for b in (0, 1)]).max(axis=0)
    rows, columns = np.nonzero(owner == 1)
    box = (2 * columns.min(), 2 * rows.min(), 2 * columns.max() + 2, 2 * rows.max() + 2)
    ink = (owner > 0).astype(np.float32)
    mark = Mark(1, tuple(map(int, box)), (0.0, 0.0), (0.9, 0.0), 1.0, is_digit=0.9)
    return View(picture, image, (1.0, 1.0), ink, owner, [mark])


def cut(picture, own, others=None):
    return cut_out(view_of(picture, own, others))[0].image


@pytest.fixture(scope="module")
def plain():
    picture = seven()
    return cut(picture, picture.mean(axis=2) < 130)


def alike(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def test_it_looks_as_mnists_makers_would_have_made_it(plain):
    assert plain.shape == (28, 28) and plain.dtype == np.uint8 and plain.max() == 255
    rows, columns = np.nonzero(plain)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
    assert plain[:, 14:].sum() > plain[14:, 14:].sum()  # the bar is above


@pytest.mark.parametrize("paper", [(250, 250, 255), (250, 220, 60), (60, 60, 70)])
@pytest.mark.parametrize("color", [(20, 20, 20), (200, 30, 30), (140, 255, 140)])
def test_ink_and_paper_may_have_any_color(paper, color, plain):
    own = seven().mean(axis=2) < 130
    assert alike(cut(seven(color, paper), own), plain) > 0.97


def test_a_shadow_over_a_half_changes_nothing(plain):
    picture = seven().astype(np.float32)
    own = picture.mean(axis=2) < 130
    picture *= np.linspace(1, 0.5, 60)[None, :, None]
    assert alike(cut(picture.astype(np.uint8), own), plain) > 0.95


def test_what_belongs_to_a_neighbor_or_to_nobody_stays_out(plain):
    picture = seven().copy()
    own = picture.mean(axis=2) < 130
    picture[30:70, 50:56] = 20  # a neighbor
    picture[73:76] = 90  # a line
    others = np.zeros_like(own)
    others[30:70, 50:56] = True
    assert alike(cut(picture, own, others), plain) > 0.95


def test_a_coarse_mark_is_enough(plain):
    from scipy import ndimage

    picture = seven()
    own = picture.mean(axis=2) < 130
    assert alike(cut(picture, ndimage.binary_dilation(own, iterations=2)), plain) > 0.97


def test_ink_on_paper_is_two_tones_and_a_picture_of_things_has_more():
    picture = seven()
    own = picture.mean(axis=2) < 130
    assert cut_out(view_of(picture, own))[0].two_toned > 0.9
    things = np.random.default_rng(0).integers(0, 255, (8, 6, 3)).astype(np.uint8)
    things = np.kron(things, np.ones((10, 10, 1), np.uint8))
    things[own] = 30
    assert cut_out(view_of(things, own))[0].two_toned < 0.6
