"""All digits of a picture are found, in reading order, and none where there is none."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from classifier.opener import upright
from digits import handwriting, page
from digits.drawn import draw
from digits.pieces import find_pieces, seams, take_out_lines
from digits.search import Read
from tests.pages import KINDS, distance, draw_page

SEVERAL = Path(__file__).parents[2] / "shared" / "several_digits"


def read(image, networks):
    return page.read_page(upright(image, page.WORK_SIDE), *networks)


@pytest.fixture(scope="module")
def written():
    return draw(600, 8)


# ---------------------------------------------------------------- pages


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_pages_are_read(kind, networks, written):
    rng = np.random.default_rng(1)
    wrong = total = 0
    for _ in range(3):
        image, rows = draw_page(kind, rng, *written)
        wrong += distance("".join(rows), read(image, networks).text.replace(" ", ""))
        total += sum(map(len, rows))
    assert wrong / total <= MAX_WRONG.get(kind, 0.15)


# Of drawn digits, which are less careful than people's, a twentieth is misread when alone.
MAX_WRONG = {"touching": 0.25, "cells": 0.3, "all": 0.25}


def laid_out(digits, places, side=60, size=(640, 400)):
    """Digits [n, 28, 28] at places (left, top), black on white."""
    sheet = Image.new("L", size, 255)
    for digit, (left, top) in zip(digits, places, strict=True):
        stroke = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
        sheet.paste(0, (left, top), stroke)
    return sheet


@pytest.fixture(scope="module")
def ten(written, networks):
    """A well-written picture of each digit."""
    images, labels = written
    probabilities, is_digit = networks
    likeness = probabilities(images)[np.arange(len(labels)), labels] * (is_digit(images) > 0.995)
    return [images[np.argmax(np.where(labels == d, likeness, -1))] for d in range(10)]


def test_rows_come_from_the_top_and_digits_from_the_left(ten, networks):
    places = [(400, 220), (120, 40), (260, 40), (400, 40), (120, 220), (260, 220)]
    found = read(laid_out([ten[n] for n in (6, 2, 0, 3, 4, 5)], places), networks)
    assert found.text == "203 456"
    assert [(d.row, d.position) for d in found.digits] == [
        (row, position) for row in (0, 1) for position in (0, 1, 2)
    ]


def test_a_row_may_climb(ten, networks):
    places = [(40 + 80 * n, 220 - 20 * n) for n in range(7)]
    assert read(laid_out(ten[2:9], places), networks).text == "2345678"


def test_a_plain_gap_is_a_space(ten, networks):
    places = [(30 + 60 * n + 160 * (n > 3), 100) for n in range(7)]
    assert read(laid_out(ten[2:9], places), networks).text == "2345 678"


def test_plain_gaps_are_spaces_though_they_are_half_of_all(ten, networks):
    places = [(30 + 42 * n + 24 * (n // 2), 100) for n in range(8)]
    assert read(laid_out([ten[3]] * 8, places), networks).text == "33 33 33 33"


def test_digits_that_stand_evenly_are_one_number(ten, networks):
    places = [(10 + 100 * n + 14 * (n % 2), 100) for n in range(6)]
    assert read(laid_out(ten[2:8], places), networks).text == "234567"


def plus(sheet, left, top):
    pencil = ImageDraw.Draw(sheet)
    pencil.line([(left, top + 20), (left + 40, top + 20)], fill=0, width=5)
    pencil.line([(left + 20, top), (left + 20, top + 40)], fill=0, width=5)
    return sheet


def test_a_sign_between_digits_does_not_vanish(ten, networks):
    sheet = laid_out([ten[8], ten[3], ten[2]], [(40, 100), (200, 100), (280, 100)])
    assert read(plus(sheet, 120, 110), networks).text == "8?32"


def test_a_slash_is_no_one(ten, networks):
    sheet = laid_out([ten[n] for n in (2, 3, 5, 8)], [(40 + 120 * n, 100) for n in range(4)])
    pencil = ImageDraw.Draw(sheet)
    pencil.line([(270, 75), (245, 180)], fill=0, width=5)
    pencil.line([(380, 75), (380, 180)], fill=0, width=3)  # of a table: it is nothing
    found = read(sheet, networks)
    assert found.text == "23?58" and [digit.label for digit in found.digits] == [2, 3, 5, 8]


def test_a_sign_at_the_end_of_a_row_does_not_vanish(ten, networks):
    sheet = laid_out([ten[8], ten[3]], [(40, 100), (110, 100)])
    assert read(plus(sheet, 190, 110), networks).text == "83?"
    assert read(plus(sheet, 560, 110), networks).text == "83?"  # too far to be of the row


@pytest.mark.parametrize(("pen", "text"), [(5, "2?3"), (1, "23")])
def test_a_dash_is_a_sign_and_a_thinner_line_is_none(pen, text, ten, networks):
    sheet = laid_out([ten[2], ten[3]], [(40, 100), (170, 100)])
    ImageDraw.Draw(sheet).line([(115, 130), (150, 130)], fill=0, width=pen)
    assert read(sheet, networks).text == text


def test_a_division_sign_is_one(ten, networks):
    sheet = laid_out([ten[8], ten[3]], [(40, 100), (200, 100)])
    pencil = ImageDraw.Draw(sheet)
    for box in ([118, 127, 162, 132], [137, 108, 142, 113], [137, 148, 142, 153]):
        pencil.rectangle(box, fill=0)
    assert read(sheet, networks).text == "8?3"


def test_specks_and_what_stands_between_rows_are_no_signs(ten, networks):
    sheet = laid_out([ten[8], ten[3]], [(40, 100), (200, 100)])
    ImageDraw.Draw(sheet).ellipse([136, 126, 142, 132], fill=0)
    assert read(plus(sheet, 120, 250), networks).text == "83"


def test_boxes_are_those_of_the_picture_before_it_was_shrunk(ten, networks):
    sheet = laid_out([ten[3], ten[8]], [(100, 200), (400, 200)])
    image = upright(sheet, page.WORK_SIDE)
    small = page.read_page(image, *networks)
    large = page.read_page(image, *networks, size=(6400, 4000))
    for a, b in zip(small.digits, large.digits, strict=True):
        assert b.box == tuple(10 * side for side in a.box)
    left, top, right, bottom = small.digits[0].box
    assert 100 <= left < right <= 160
    assert 200 <= top < bottom <= 260


def test_touching_digits_are_two(ten, networks):
    sheet = laid_out([ten[0], ten[0]], [(100, 100), (138, 100)])
    assert read(sheet, networks).text == "00"


def test_a_digit_in_pieces_is_one(ten, networks):
    sheet = laid_out([ten[5], ten[5]], [(100, 100), (300, 100)])
    sheet.paste(255, (100, 127, 160, 130))
    assert read(sheet, networks).text == "55"


def test_no_ink_is_no_digit(networks):
    assert read(Image.new("RGB", (200, 100), "white"), networks) == page.Page([], "")


@pytest.mark.parametrize("size", [(1, 1), (70, 3), (3, 70), (3000, 2), (300, 200)])
def test_odd_pictures_are_answered_one_way_or_the_other(size, networks):
    noise = np.random.default_rng(0).integers(0, 256, size[::-1], dtype=np.uint8)
    for pixels in (noise, np.where(noise > 250, 0, 255).astype(np.uint8), noise // 255 * 255):
        found = read(Image.fromarray(pixels), networks)
        assert sum(letter.isdecimal() for letter in found.text) == len(found.digits)


def test_one_digit_is_read_as_ever(tmp_path, ten, networks, read_file):
    file = tmp_path / "7.png"
    laid_out([ten[7]], [(200, 100)], side=200).save(file)
    answer = read_file(file)
    assert answer.label == "7" and not answer.detections
    probabilities = networks[0](handwriting.to_mnist(file)[None])[0]
    assert answer.confidence == pytest.approx(probabilities.max())


def test_several_digits_are_several(tmp_path, ten, read_file):
    file = tmp_path / "phone.png"
    laid_out(ten[2:6], [(40 + 90 * n, 100) for n in range(4)]).save(file)
    assert read_file(file).label == "2345"


def test_size_is_that_of_the_upright_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("L", (300, 200)).save(tmp_path / "a.jpg", exif=exif)
    Image.new("L", (300, 200)).save(tmp_path / "b.jpg")
    assert page.full_size(tmp_path / "a.jpg") == (200, 300)
    assert page.full_size(tmp_path / "b.jpg") == (300, 200)


# ---------------------------------------------------------------- what belongs together


def as_read(sides, sure):
    """A reader that has read pieces of so many pixels' height and width, and their blocks."""
    pieces = SimpleNamespace(
        level=dict.fromkeys(range(len(sides)), 1.0),
        pen=dict.fromkeys(range(len(sides)), 3.0),
        labels=np.zeros((500, 500)),
        box=lambda block: tuple(slice(100, 100 + side) for side in sides[block[0]]),
    )
    blocks = [(n,) for n in range(len(sides))]
    known = {block: Read(np.ones(10), chance) for block, chance in zip(blocks, sure, strict=True)}
    return SimpleNamespace(pieces=pieces, known=known, origin={}), blocks


def test_an_eight_is_worth_more_than_its_halves():
    whole, halves = as_read([(40, 24)], [0.9]), as_read([(20, 24), (20, 24)], [0.6, 0.6])
    assert page._sureness(whole) > page._sureness(halves)


def test_three_digits_are_worth_more_than_the_sides_of_the_frame_around_them():
    digits, frame = as_read([(40, 24)] * 3, [0.9] * 3), as_read([(400, 8)] * 2, [0.95] * 2)
    assert page._sureness(digits) > page._sureness(frame)


def test_what_is_written_in_a_frame_is_read(ten, networks):
    noise = np.random.default_rng(1).normal(0, 4, (600, 900))
    shade = 236 - np.linspace(0, 20, 900) - np.linspace(0, 20, 600)[:, None]
    sheet = Image.fromarray((shade + noise).astype(np.uint8))
    for place, n in enumerate((2, 3, 5, 8)):
        stroke = Image.fromarray(ten[n]).resize((56, 56), Image.Resampling.BICUBIC)
        sheet.paste(30, (120 + 60 * place, 80), stroke)
    ImageDraw.Draw(sheet).rectangle([20, 20, 880, 580], outline=20, width=6)
    assert read(sheet, networks).text == "2358"


@pytest.mark.parametrize("elsewhere", [2, 3])
def test_a_pen_below_three_digits_is_no_row(elsewhere):
    reader, blocks = as_read([(40, 24)] * (elsewhere + 1), [0.9] * elsewhere + [0.2])
    rows = [blocks[:elsewhere], blocks[elsewhere:]]
    assert page.likely_rows(rows, reader) == (rows[:1] if elsewhere == 3 else rows)


def test_lines_of_a_table_that_the_border_cuts_off_are_no_ones(ten, networks):
    sheet = laid_out([ten[n] for n in (2, 3, 5, 8)], [(60 + 130 * n, 80) for n in range(4)])
    pencil = ImageDraw.Draw(sheet)
    for x in (150, 280, 410):
        pencil.line([(x, 0), (x, 24)], fill=0, width=3)
    assert read(sheet, networks).text == "2358"


def test_a_broken_line_is_no_column_of_ones_for_sure(networks):
    sheet = Image.new("L", (640, 400), 255)
    pencil = ImageDraw.Draw(sheet)
    for top in (40, 110, 180, 250):
        pencil.line([(300, top), (302, top + 50)], fill=60, width=4)
    found = read(sheet, networks)
    assert found.text == "1 1 1 1"
    assert max(digit.is_digit for digit in found.digits) <= page.LIKELY


def test_a_pen_below_a_page_is_not_read(ten, networks):
    sheet = laid_out([ten[2], ten[3], ten[4]], [(100, 100), (200, 100), (300, 100)])
    ImageDraw.Draw(sheet).line([(272, 386), (214, 324)], fill=0, width=22)
    assert read(sheet, networks).text == "234"


def test_a_seam_runs_between_two_rings_that_touch():
    sheet = Image.new("1", (80, 44))
    pencil = ImageDraw.Draw(sheet)
    pencil.ellipse([2, 2, 41, 41], outline=1, width=4)
    pencil.ellipse([38, 2, 77, 41], outline=1, width=4)
    mask = np.asarray(sheet)
    shares = [mask[left].sum() / mask.sum() for left in seams(mask, 7)]
    assert any(0.4 < share < 0.6 for share in shares)


def test_an_underline_is_taken_out(ten):
    sheet = laid_out([ten[2], ten[3]], [(100, 100), (200, 100)])
    ink = np.asarray(sheet.convert("L")) < 128
    bottom = min(np.flatnonzero(half.any(axis=1))[-1] for half in (ink[:, :180], ink[:, 180:]))
    ImageDraw.Draw(sheet).line([(60, bottom), (340, bottom)], fill=0, width=3)
    pieces = find_pieces(handwriting.on_paper(sheet))[0][0]
    assert len(pieces.boxes) == 1
    left = take_out_lines(pieces, *pieces.boxes, tall=45)
    assert len([n for n in left if page.height(pieces.boxes[n]) > 30]) == 2


# ---------------------------------------------------------------- people's pictures


def test_pictures_that_people_made(read_file):
    if not SEVERAL.is_dir():
        pytest.skip(f"no pictures in {SEVERAL}")
    files = [f for f in sorted(SEVERAL.iterdir()) if f.name[0].isdecimal()][::3]
    right = 0
    for file in files:
        text = read_file(file).label.replace(" ", "")
        right += text == file.name.rsplit("_", 1)[0].replace("-", "")
    assert right / len(files) >= 0.75
