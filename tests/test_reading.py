"""What predict promises of pictures with one digit, and with many."""

import csv

import numpy as np
import pytest
from PIL import Image, ImageDraw

import mnist_keras
from classifier.predictions import Prediction
from digits.page import EVEN, Digit, Page
from digits.reading import of_one
from mnist_keras import predict
from setting import Setting
from tests.networks import DATA


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A folder with a page of two rows and a single digit; and what is on them."""
    folder = tmp_path_factory.mktemp("pages")
    digit = {name: np.asarray(Image.open(DATA / "tmp" / f"{name}.png")) for name in "02468"}
    paper = np.full((260, 420, 3), 245, np.uint8)
    rows = ("2468", "042")
    for line, row in enumerate(rows):
        for column, name in enumerate(row):
            ink = np.kron(digit[name], np.ones((3, 3), np.uint8))[..., None]
            top, left = 20 + 120 * line, 10 + 100 * column
            paper[top : top + 84, left : left + 84] -= (ink * 0.8).astype(np.uint8)
    Image.fromarray(paper).save(folder / "page.png")
    Image.fromarray(digit["8"]).save(folder / "single.png")
    return folder, " ".join(rows), "8"


@pytest.fixture(scope="module")
def answers(page, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("data")
    setting = Setting(
        data_dir=str(data_dir), checkpoint_path=str(DATA / "shipped"), imp_dir=str(page[0])
    )
    return {row.file.rsplit("/", 1)[-1]: row for row in predict(setting)}, data_dir / "report"


def test_all_digits_of_a_page_are_read_row_by_row(page, answers):
    rows, report = answers
    row = rows["page.png"]
    assert row.label == page[1]
    with open(report / "predictions.csv", encoding="utf-8") as file:
        table = {line["file"].rsplit("/", 1)[-1]: line for line in csv.DictReader(file)}
    assert table["page.png"]["label"] == page[1]
    assert float(table["page.png"]["confidence"]) == min(part.confidence for part in row.detections)
    assert sum(a != b for a, b in zip(row.label, row.second_guess, strict=True)) == 1
    assert row.is_unsure == any(part.is_unsure for part in row.detections)
    assert row.is_digit == min(part.is_digit for part in row.detections)


def test_a_text_has_the_signs_and_spaces_too():
    assert Page([], "0?0 0").text("832") == "8?3 2"


def test_a_second_table_has_a_line_a_digit_with_its_place(page, answers):
    _, report = answers
    with open(report / "digits.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    lines = [line for line in lines if line["file"].endswith("page.png")]
    assert "".join(line["label"] for line in lines) == page[1].replace(" ", "")
    places = [(int(line["row"]), int(line["position"])) for line in lines]
    assert places == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2)]
    for (row, position), line in zip(places, lines, strict=True):
        assert 10 + 100 * position <= int(line["left"]) < int(line["right"]) <= 94 + 100 * position
        assert 20 + 120 * row <= int(line["top"]) < int(line["bottom"]) <= 104 + 120 * row
    with Image.open(report / "pages.png") as sheet:
        assert sheet.width > 500


def test_one_digit_is_one_digit_and_sure(page, answers):
    row = answers[0]["single.png"]
    assert row.label == page[2] and not row.detections and not row.is_unsure


@pytest.mark.parametrize(
    ("is_digit", "finder_s", "unsure"),
    [(0.9, 7, False), (EVEN, 7, True), (0.7, 7, False), (0.7, 4, True), (0.9, 4, False)],
)
def test_what_is_hardly_a_digit_or_read_as_another_by_the_finder_is_not_sure(
    is_digit, finder_s, unsure
):
    answer = Prediction("7.png", "7", 0.99, "1", 0.01, None, None)
    labels = tuple(np.eye(10)[finder_s])
    read = of_one(answer, Digit(0, 0, (0, 0, 9, 9), is_digit, None, labels))
    assert read.is_unsure == unsure and read.confidence == 0.99
    assert (read.is_digit <= EVEN) == unsure


def test_ink_that_is_no_digit_is_answered_unsurely(read_file, tmp_path):
    page = Image.new("L", (300, 200), 255)
    ImageDraw.Draw(page).line([(20, 30), (280, 40), (150, 180), (20, 30)], fill=0, width=9)
    page.save(tmp_path / "triangle.png")
    answer = read_file(tmp_path / "triangle.png")
    assert answer.is_unsure


def test_beside_a_sign_an_answer_is_not_sure(read_file, tmp_path):
    """A ? may be a plus; or a digit that could not be read, which must not vanish unsaid."""
    sheet = Image.new("L", (400, 200), 0)
    for left, name in ((20, "8"), (250, "2")):
        digit = Image.open(DATA / "tmp" / f"{name}.png").resize((112, 112))
        sheet.paste(digit, (left, 40))
    sheet.save(tmp_path / "82.png")
    answer = read_file(tmp_path / "82.png")
    assert (answer.label, answer.is_unsure) == ("82", False)
    pencil = ImageDraw.Draw(sheet)
    pencil.line([(160, 96), (220, 96)], fill=255, width=8)
    pencil.line([(190, 66), (190, 126)], fill=255, width=8)
    sheet.save(tmp_path / "8+2.png")
    answer = read_file(tmp_path / "8+2.png")
    assert answer.label == "8?2" and answer.is_unsure and answer.is_doubtful
    assert not any(part.is_unsure for part in answer.detections)


def test_the_pictures_that_ship_are_read_for_sure(read_file):
    for file in (DATA / "tmp").iterdir():
        answer = read_file(file)
        assert (answer.label, answer.is_unsure) == (file.stem, False)


def test_a_digit_on_grainy_paper_is_sure(tmp_path, read_file):
    digit = Image.open(DATA / "tmp" / "8.png").convert("L").resize((168, 168))
    grain = np.random.default_rng(0).normal(0, 17, (168, 168))
    paper = 200 - 80 / 255 * np.asarray(digit, float) + grain
    Image.fromarray(np.clip(paper, 0, 255).astype(np.uint8)).save(tmp_path / "grainy.png")
    row = read_file(tmp_path / "grainy.png")
    assert row.label == "8" and not row.is_unsure


def test_without_a_page_no_table_of_digits_is_left(page, answers, tmp_path):
    _, report = answers
    setting = Setting(
        data_dir=str(report.parent),
        checkpoint_path=str(DATA / "shipped"),
        imp_dir=str(page[0] / "single.png"),
    )
    (answer,) = mnist_keras.predict(setting)
    assert answer.label == page[2]
    assert not (report / "digits.csv").exists() and not (report / "pages.png").exists()
