"""A sheet of paper on a table is found, and what is written on it is read."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from classifier.opener import upright
from digits import page
from digits.drawn import draw
from digits.sheet import find_sheet
from tests.pages import draw_page, on_table

TABLES = {"light": (200, 170, 130), "dark": (60, 45, 35), "blue": (90, 120, 200)}


@pytest.fixture(scope="module")
def three():
    """A 3, drawn by the program: uint8 [28, 28]."""
    images, labels = draw(60, 8)
    return images[np.flatnonzero(labels == 3)[0]]


def sheet_on(table, digits=(), size=(640, 480), corner=(150, 90)):
    """A sheet of 360×300 with digits, uint8 [28, 28] each, in a row, on a table of that colour."""
    photo = Image.new("RGB", size, table)
    sheet = Image.new("RGB", (360, 300), (238, 235, 225))
    for n, digit in enumerate(digits):
        stroke = Image.fromarray(digit).resize((70, 70), Image.Resampling.BICUBIC)
        sheet.paste((40, 40, 60), (20 + 80 * n, 110), stroke)
    photo.paste(sheet, corner)
    return photo


@pytest.mark.parametrize("table", TABLES)
def test_a_sheet_is_found_and_its_surroundings_become_paper(table, three):
    sheet = find_sheet(sheet_on(TABLES[table], [three]))
    # to a pixel of the small picture in which it is looked for
    assert (sheet.left, sheet.top) == pytest.approx((150, 90), abs=5)
    assert sheet.image.size == pytest.approx((360, 300), abs=10)
    pixels = np.asarray(sheet.image)
    for border in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert np.abs(border - np.float32((238, 235, 225))).max() < 5
    assert pixels.min() < 60  # its ink is still there


def test_a_sheet_that_reaches_beyond_the_picture_is_found():
    sheet = find_sheet(sheet_on(TABLES["dark"], corner=(-60, 240)))
    assert (sheet.left, sheet.top) == pytest.approx((0, 240), abs=5)
    assert sheet.image.size == pytest.approx((300, 240), abs=10)


def test_a_picture_that_is_paper_all_over_has_no_sheet_on_it(three):
    plain = Image.new("RGB", (640, 480), (238, 235, 225))
    assert find_sheet(plain) is None
    stroke = Image.fromarray(three).resize((100, 100))
    plain.paste((40, 40, 60), (200, 200), stroke)
    assert find_sheet(plain) is None
    assert find_sheet(Image.new("RGBa", (640, 480))) is None


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_what_is_written_on_a_sheet_is_read(table, count, three, read_file, tmp_path):
    sheet_on(TABLES[table], [three] * count).save(tmp_path / "photo.png")
    answer = read_file(tmp_path / "photo.png")
    assert answer.label == "3" * count and not answer.is_unsure


def test_digits_are_framed_where_they_are_on_the_photo(three, networks):
    photo = sheet_on(TABLES["dark"], [three, three])
    found = page.read_page(photo, *networks, size=(1280, 960))
    assert found.on_sheet
    for n, digit in enumerate(found.digits):
        left, top, right, bottom = np.array(digit.box) / 2
        assert 170 + 80 * n <= left < right <= 240 + 80 * n and 200 <= top < bottom <= 270


def test_squares_on_a_sheet_that_lies_askew_are_no_strokes(networks):
    rng = np.random.default_rng(3)
    for _ in range(3):
        sheet, rows = draw_page("squared", rng, *draw(600, 8))
        photo = upright(on_table(sheet, rng), page.WORK_SIDE)
        found = page.read_page(photo, *networks)
        assert found.on_sheet and len(found.digits) == len("".join(rows))


def test_no_digit_beside_a_shadow_is_lost(three, networks):
    """What the shadow leaves bright is no sheet: there are such digits outside."""
    sheet = sheet_on((0, 0, 0), [three] * 4).crop((150, 90, 510, 390))
    light = np.asarray(sheet, np.float32)
    light[:, 200:] *= 0.45
    photo = Image.fromarray(light.astype(np.uint8))
    assert find_sheet(photo) is not None
    found = page.read_page(photo, *networks)
    assert found.text == "3333" and not found.on_sheet


def thick_zeros(count):
    photo = Image.new("L", (60 + 340 * count, 520), 255)
    for n in range(count):
        sides = [60 + 340 * n, 60, 340 + 340 * n, 440]
        ImageDraw.Draw(photo).ellipse(sides, outline=0, width=90)
    return photo


def test_a_thick_0_is_no_sheet(read_file, tmp_path):
    thick_zeros(2).save(tmp_path / "two.png")
    assert read_file(tmp_path / "two.png").label == "00"
    photo = thick_zeros(1)
    ImageDraw.Draw(photo).line([(20, 490), (380, 490)], fill=0, width=20)
    photo.save(tmp_path / "underlined.png")
    assert read_file(tmp_path / "underlined.png").label == "0"


def test_digits_outside_a_coloured_box_are_read_however_large(networks, three):
    photo = Image.new("RGB", (900, 700), (250, 250, 248))
    photo.paste((170, 200, 250), (330, 330, 830, 630))
    for side, corner in ((150, (40, 20)), (150, (210, 20)), (70, (420, 420)), (70, (560, 420))):
        stroke = Image.fromarray(three).resize((side, side), Image.Resampling.BICUBIC)
        photo.paste((40, 40, 60), corner, stroke)
    assert find_sheet(photo) is not None
    assert page.read_page(photo, *networks).text == "33 33"
