"""What is written on a sheet of paper that lies on a table is read."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from digits.drawn import draw
from tests.pages import draw_page, on_table

TABLES = {"light": (200, 170, 130), "dark": (60, 45, 35), "blue": (90, 120, 200)}


@pytest.fixture(scope="module")
def three(probabilities):
    """A well-written 3: uint8 [28, 28]."""
    images, _ = draw(600, 8)
    return images[probabilities(images)[:, 3].argmax()]


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
@pytest.mark.parametrize("count", [1, 2, 4])
def test_what_is_written_on_a_sheet_is_read(table, count, three, read_file, tmp_path):
    sheet_on(TABLES[table], [three] * count).save(tmp_path / "photo.png")
    answer = read_file(tmp_path / "photo.png")
    assert answer.label == "3" * count and not answer.is_unsure


def test_digits_are_framed_where_they_are_on_the_photo(three, read_page):
    found, _ = read_page(sheet_on(TABLES["dark"], [three, three]))
    for n, digit in enumerate(found.digits):
        left, top, right, bottom = digit.box
        assert 170 + 80 * n <= left < right <= 240 + 80 * n and 200 <= top < bottom <= 270


def test_squares_on_a_sheet_that_lies_askew_are_no_strokes(read_page):
    rng = np.random.default_rng(3)
    for _ in range(3):
        sheet, rows = draw_page("squared", rng, *draw(600, 8))
        assert len(read_page(on_table(sheet, rng))[0].digits) == len("".join(rows))


def test_no_digit_beside_a_shadow_is_lost(three, read_page):
    sheet = sheet_on((0, 0, 0), [three] * 4).crop((150, 90, 510, 390))
    light = np.asarray(sheet, np.float32)
    light[:, 200:] *= 0.45
    assert read_page(Image.fromarray(light.astype(np.uint8)))[1] == "3333"


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


def test_digits_outside_a_coloured_box_are_read_however_large(read_page, three):
    photo = Image.new("RGB", (900, 700), (250, 250, 248))
    photo.paste((170, 200, 250), (330, 330, 830, 630))
    for side, corner in ((150, (40, 20)), (150, (210, 20)), (70, (420, 420)), (70, (560, 420))):
        stroke = Image.fromarray(three).resize((side, side), Image.Resampling.BICUBIC)
        photo.paste((40, 40, 60), corner, stroke)
    assert read_page(photo)[1] == "33 33"
