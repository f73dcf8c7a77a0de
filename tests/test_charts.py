"""What the pictures of a run show."""

import subprocess
import sys
import time
import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from classifier import charts, predictions, sheets
from classifier.predictions import Detection, Prediction
from classifier.sheets import Mistake

NAMES = [
    *("cat", "Gänseblümchen", "雏菊 和 蒲公英", "한국어 장미", "بابونج", "עברית", "गुलाब", "ไทย"),
    *("$x^2$ and $\\frac{1}{0}$", "line\nbreak\x1b[31m", "W" * 255, "长" * 80, "\udcff", "_", "🌷"),
]


@pytest.fixture
def figures(monkeypatch):
    """Each figure that is drawn, for a look at what stands on it."""
    drawn, init = [], Figure.__init__

    def remember(figure, *arguments, **options):
        init(figure, *arguments, **options)
        drawn.append(figure)

    monkeypatch.setattr(Figure, "__init__", remember)
    return drawn


@pytest.fixture
def no_other_fonts(monkeypatch):
    """A computer that has Matplotlib's own fonts only."""
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])
    charts.find_fonts.cache_clear()
    yield
    charts.find_fonts.cache_clear()


def texts(figure):
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]


def written(figure):
    return [text.get_text() for text in texts(figure)]


def boxes(figure):
    """Left, bottom, right and top of each text in pixels, [n, 4]."""
    return np.array([text.get_window_extent().extents for text in texts(figure)])


def overlapping(figure):
    """How many pairs of texts share more than a pixel, as the boxes of two lines may."""
    left, bottom, right, top = boxes(figure).T
    width = np.minimum.outer(right, right) - np.maximum.outer(left, left)
    height = np.minimum.outer(top, top) - np.maximum.outer(bottom, bottom)
    return np.count_nonzero(np.triu((width > 1) & (height > 1), k=1))


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def epochs(accuracies, first=1):
    return [
        {"epoch": epoch, "loss": 1 - a, "acc": a, "val_loss": 1.01 - a, "val_acc": a - 0.001}
        for epoch, a in enumerate(accuracies, start=first)
    ]


def confusion(classes, mistakes=(), images=1000):
    counts = np.diag(np.full(classes, images))
    for true, predicted in mistakes:
        counts[true, true] -= 1
        counts[true, predicted] += 1
    return counts


WHITE = np.full((84, 84, 3), 255, np.uint8)


def row(name="a.png", confidence=0.9, label="7", seen=(0, 0, 0), second="1", given=WHITE):
    seen = np.full((28, 28, 3), seen, np.uint8)
    answer = Prediction(name, label, confidence, second, 1 - confidence, given, seen)
    return answer._replace(is_unsure=confidence < 0.6)


def test_importing_it_takes_neither_matplotlib_nor_tensorflow():
    code = (
        "import sys; from classifier import charts; "
        "sys.exit(any(m in sys.modules for m in ('matplotlib', 'keras')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Training curves


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_curves_of_any_number_of_epochs_can_be_drawn(count, tmp_path):
    charts.training_curves(epochs(np.linspace(0.9, 0.99, count)), 0, tmp_path / "curves.png")
    assert pixels(tmp_path / "curves.png").std() > 0
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_a_steep_start_leaves_room_for_the_last_few_tenths_of_a_percent(figures, tmp_path):
    late = np.linspace(0.98, 0.997, 18)
    charts.training_curves(epochs([0.1, 0.7, *late]), 0, tmp_path / "curves.png")
    low, high = figures[0].axes[1].get_ylim()
    assert low < 0.985
    assert high > 0.997
    assert high - low < 3 * (0.997 - 0.98)
    low, high = figures[0].axes[0].get_ylim()
    assert high < 0.2


def test_accuracies_that_are_far_apart_are_all_in_view(figures, tmp_path):
    charts.training_curves(epochs([0.4, 0.5, 0.6, 0.7, 0.8]), 0, tmp_path / "curves.png")
    low, high = figures[0].axes[1].get_ylim()
    assert low < 0.399
    assert high > 0.8


def test_the_epoch_of_the_best_val_acc_is_marked_in_both_panels(figures, tmp_path):
    charts.training_curves(epochs([0.9, 0.95, 0.97, 0.96], first=6), 0, tmp_path / "curves.png")
    loss, accuracy = figures[0].axes
    assert "best epoch: 8" in written(figures[0])
    for axes, value in ((loss, 0.04), (accuracy, 0.969)):
        (ring,) = (line for line in axes.lines if line.get_label() == "best epoch: 8")
        assert [*ring.get_xdata(), *ring.get_ydata()] == [8, pytest.approx(value)]
    assert "0.9690" in accuracy.get_title(loc="left")


def test_epochs_are_whole_numbers_on_the_axis(figures, tmp_path):
    charts.training_curves(epochs([0.9, 0.95], first=3), 0, tmp_path / "curves.png")
    ticks = [tick.get_text() for tick in figures[0].axes[0].get_xticklabels()]
    assert {"3", "4"} <= set(ticks) <= {"2", "3", "4", "5"}


def test_training_and_validation_loss_can_be_compared_where_labels_were_smoothed(figures, tmp_path):
    plain, smoothed = (epochs([0.9, 0.95]) for _ in range(2))
    for epoch in smoothed:
        epoch["loss"] += 0.5003
    charts.training_curves(plain, 0, tmp_path / "plain.png")
    charts.training_curves(smoothed, 0.5003, tmp_path / "smoothed.png")
    for figure in figures:
        loss = figure.axes[0].lines[0]
        assert loss.get_ydata() == pytest.approx([0.1, 0.05])
    assert "training" in written(figures[0])
    label = "training, on augmented pictures; loss less the 0.50 of smoothed labels"
    assert label in written(figures[1])
    assert overlapping(figures[1]) == 0


def test_points_that_are_off_the_chart_are_marked_at_its_edge(figures, tmp_path):
    rows = epochs([0.1, 0.7, *np.linspace(0.98, 0.997, 18)])
    rows[1]["val_loss"] = float("inf")
    charts.training_curves(rows, 0, tmp_path / "curves.png")
    for axes, edge in zip(figures[0].axes, (1, 0), strict=True):
        (marks,) = (line for line in axes.lines if line.get_label() == "off the chart")
        assert marks.get_xdata().tolist() == [1, 2, 1, 2]
        assert set(marks.get_ydata()) == {axes.get_ylim()[edge]}
    assert "off the chart" in written(figures[0])
    charts.training_curves(epochs([0.9, 0.95]), 0, tmp_path / "curves.png")
    assert "off the chart" not in written(figures[1])


@pytest.mark.parametrize("broken", [[1], [0, 1, 2]])
def test_a_training_that_diverged_is_drawn_too(broken, tmp_path):
    rows = epochs([0.9, 0.95, 0.96])
    for epoch in broken:
        rows[epoch].update(loss=float("nan"), val_loss=float("inf"), val_acc=float("nan"))
    charts.training_curves(rows, 0, tmp_path / "curves.png")
    assert pixels(tmp_path / "curves.png").std() > 0


# Confusion matrix


def test_rows_are_the_true_classes(figures, tmp_path):
    charts.confusion_matrix(confusion(3, [(0, 2)]), ["a", "b", "c"], tmp_path / "matrix.png")
    (mistake,) = (text for text in texts(figures[0]) if text.get_text() == "1")
    assert mistake.get_position() == (2, 0)
    axes = figures[0].axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b", "c"]
    assert axes.get_ylabel() == "true"


def test_the_title_counts_pictures_and_mistakes(figures, tmp_path):
    charts.confusion_matrix(confusion(2, [(0, 1)]), ["a", "b"], tmp_path / "matrix.png")
    assert "2,000 pictures, 1 mistake: accuracy 0.9995" in written(figures[0])


def test_of_more_than_30_classes_those_that_are_confused_most_are_drawn(figures, tmp_path):
    names = [f"class {number}" for number in range(3000)]
    pairs = [(number, 2999 - number) for number in range(15)]
    mistakes = [*pairs * 3, *((5, number) for number in range(100, 200))]
    start = time.monotonic()
    charts.confusion_matrix(confusion(3000, mistakes), names, tmp_path / "matrix.png")
    assert time.monotonic() - start < 10
    drawn = [*range(15), *range(2985, 3000)]
    labels = [tick.get_text() for tick in figures[0].axes[0].get_yticklabels()]
    assert labels == [f"class {number}" for number in drawn]
    title = figures[0].axes[0].get_title(loc="left")
    assert "3,000,000 pictures, 145 mistakes" in title
    assert "here the 30 of 3,000 classes that are confused most" in title


@pytest.mark.parametrize("classes", [10, 30])
def test_a_single_mistake_in_a_thousand_can_be_seen(classes, tmp_path):
    names = [str(number) for number in range(classes)]
    charts.confusion_matrix(confusion(classes, [(7, 3)]), names, tmp_path / "matrix.png")
    red, green, blue = np.moveaxis(pixels(tmp_path / "matrix.png"), -1, 0)
    matrix = slice(0, red.shape[1] * 3 // 4)  # the scale of colours is on its right
    assert np.count_nonzero(((red > green + 25) & (red > blue + 25))[:, matrix]) >= 400


@pytest.mark.parametrize(
    "counts", [np.zeros((3, 3), int), confusion(1), confusion(2, images=10**6)]
)
def test_odd_counts_are_drawn_without_a_warning(counts, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        charts.confusion_matrix(counts, NAMES[: len(counts)], tmp_path / "matrix.png")
    assert pixels(tmp_path / "matrix.png").std() > 0


def test_names_and_numbers_of_30_classes_do_not_overlap(figures, tmp_path):
    names = NAMES * 2
    charts.confusion_matrix(np.full((30, 30), 99_999), names, tmp_path / "matrix.png")
    axes = figures[0].axes[0]
    upright = [text for text in texts(figures[0]) if text not in axes.get_xticklabels()]
    for text in set(texts(figures[0])) - set(upright):
        text.set_visible(False)
    assert overlapping(figures[0]) == 0


# Mistakes


def draw_mistakes(count, path, truth="4", guess="9"):
    sheets.mistakes([Mistake(WHITE, truth, guess, 0.97)] * count, path)


def test_a_mistake_says_what_was_taken_for_what_and_how_sure(figures, tmp_path):
    draw_mistakes(1, tmp_path / "mistakes.png")
    assert "4 read as 9, 97%" in written(figures[0])


def test_the_captions_of_many_mistakes_do_not_overlap(figures, tmp_path):
    draw_mistakes(40, tmp_path / "mistakes.png")
    assert written(figures[0]).count("4 read as 9, 97%") == 40
    assert overlapping(figures[0]) == 0


def test_no_mistakes_are_a_picture_too(figures, tmp_path):
    draw_mistakes(0, tmp_path / "mistakes.png")
    assert "No mistakes" in written(figures[0])
    assert (tmp_path / "mistakes.png").exists()


def test_a_mistake_shows_the_pixels_of_the_picture_in_proportion(tmp_path):
    picture = np.full((20, 40, 3), (10, 200, 30), np.uint8)
    sheets.mistakes([Mistake(picture, "a", "b", 0.5)], tmp_path / "mistakes.png")
    lines, columns = np.nonzero((pixels(tmp_path / "mistakes.png") == (10, 200, 30)).all(-1))
    assert np.ptp(columns) + 1 == 130
    assert np.ptp(lines) + 1 == 65
    assert lines.size == 130 * 65


def test_the_captions_of_long_and_foreign_names_do_not_overlap(figures, tmp_path):
    rows = [Mistake(WHITE, *names, 1.0) for names in zip(NAMES, NAMES[::-1], strict=True)]
    sheets.mistakes(rows, tmp_path / "mistakes.png")
    assert overlapping(figures[0]) == 0


# Sheets of predictions


def draw_sheet(rows, path):
    ((title, part),) = sheets.prediction_sheets(rows)
    sheets.prediction_sheet(title, part, path)


def test_a_sheet_shows_the_file_the_answer_and_how_sure_it_is(figures, tmp_path):
    draw_sheet([row("in/a.png", 0.97)], tmp_path / "p.png")
    assert {"a.png", "7  97%"} <= set(written(figures[0]))
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]


def test_a_sheet_shows_the_picture_as_given_and_as_seen(tmp_path):
    given, seen = (200, 10, 30), (10, 200, 30)
    picture = np.full((30, 60, 3), given, np.uint8)
    draw_sheet([row(seen=seen, given=picture)], tmp_path / "p.png")
    sheet = pixels(tmp_path / "p.png")
    assert np.count_nonzero((sheet == given).all(-1)) == 84 * 42
    assert np.count_nonzero((sheet == seen).all(-1)) == 84 * 84


def test_the_networks_pixels_are_enlarged_without_blur(tmp_path):
    seen = np.zeros((28, 28), np.uint8)
    seen[::2] = 200
    grey = Prediction("a.png", "7", 0.9, "1", 0.1, WHITE, seen)
    draw_sheet([grey], tmp_path / "p.png")
    drawn = pixels(tmp_path / "p.png")[76 : 76 + 84, 108 : 108 + 84, 0]  # beside the one as given
    np.testing.assert_array_equal(drawn, seen.repeat(3, axis=0).repeat(3, axis=1))


def test_unsure_answers_stand_out_and_have_their_second_guess(figures, tmp_path):
    rows = [row("sure.png", 0.61), row("unsure.png", 0.59)]
    draw_sheet(rows, tmp_path / "p.png")
    assert [text for text in written(figures[0]) if text.startswith("or ")] == ["or 1  41%"]
    assert "2 pictures, 1 unsure" in written(figures[0])
    colours = {text.get_text(): text.get_color() for text in texts(figures[0])}
    assert colours["7  59%"] == charts.ORANGE != colours["7  61%"]
    assert (pixels(tmp_path / "p.png") == (0xFF, 0xF0, 0xDC)).all(-1).any()


def test_of_what_may_be_no_digit_the_sheet_asks_that_and_gives_no_percentage(figures, tmp_path):
    rows = [row(label=label)._replace(is_unsure=True, is_digit=0.02) for label in "58"]
    draw_sheet(rows, tmp_path / "p.png")
    text = written(figures[0])
    assert text.count("no digit?") == 2 and {"a 5 if any", "an 8 if any"} <= set(text)
    assert not any("%" in each for each in text)


def test_no_text_overlaps_another_or_leaves_the_sheet(figures, tmp_path):
    rows = [row(f"{n}.png", 0.55, n, second=n) for n in NAMES]
    draw_sheet(rows, tmp_path / "p.png")
    assert overlapping(figures[0]) == 0
    extents = boxes(figures[0])
    assert extents.min() >= 0
    assert (extents[:, 2:].max(axis=0) <= figures[0].bbox.size).all()


@pytest.mark.parametrize("count, expected", [(1, 1), (100, 1), (101, 2), (500, 5)])
def test_there_are_100_pictures_on_a_sheet_in_the_order_given(count, expected):
    rows = [row(f"{number}.png", 0.9 - number / 1000) for number in range(count)]
    parts = [part for _, part in sheets.prediction_sheets(rows)]
    assert len(parts) == expected
    assert parts == [rows[n : n + 100] for n in range(0, count, 100)]


def test_a_sheet_says_which_of_several_it_is():
    titles = [title for title, _ in sheets.prediction_sheets([row()] * 101)]
    assert titles == [
        "101 pictures, 0 unsure – sheet 1 of 2",
        "101 pictures, 0 unsure – sheet 2 of 2",
    ]
    assert [title for title, _ in sheets.prediction_sheets([row()] * 100)] == [
        "100 pictures, 0 unsure"
    ]


MIN_CONFIDENCE = [(0, 100), (30, 100), (150, 150), (600, 500)]


@pytest.mark.parametrize("unsure, drawn", MIN_CONFIDENCE)
def test_of_more_than_500_pictures_the_least_sure_are_shown(unsure, drawn):
    rows = thousand(unsure)
    shown = sheets.prediction_sheets(rows)
    least = sorted(row.confidence for row in rows)[:drawn]
    assert [row.confidence for _, part in shown for row in part] == least
    assert all(f"1,000 pictures, {unsure} unsure" in title for title, _ in shown)
    assert all(f"the {drawn} least sure" in title for title, _ in shown)


@pytest.mark.parametrize("unsure, drawn", MIN_CONFIDENCE)
def test_pictures_that_no_sheet_will_show_need_not_be_kept(unsure, drawn):
    rows, kept, with_images = thousand(unsure), [], []
    for start in range(0, 1000, 128):
        with_images += range(start, min(start + 128, 1000))
        kept += rows[start : start + 128]
        predictions.drop_images(kept, with_images)
        assert sum(row.original is not None for row in kept) <= sheets.MAX_DRAWN
    assert all((row.original is None) == (row.network_input is None) for row in kept)
    assert [row[:5] for row in kept] == [row[:5] for row in rows]
    shown = [row for _, part in sheets.prediction_sheets(kept) for row in part]
    assert len(shown) == drawn and all(row.original is not None for row in shown)


def thousand(unsure):
    """A thousand predictions, so many of them unsure, many of them equally sure."""
    confidences = [0.5 - n // 20 / 1000 for n in range(unsure)]
    confidences += [0.9 - n // 20 / 1000 for n in range(1000 - unsure)]
    return [row(f"{n}.png", sure) for n, sure in enumerate(confidences)]


def test_a_sheet_of_100_is_drawn_in_less_than_two_seconds(tmp_path):
    rows = [row(f"{number}_photo.png", 0.55) for number in range(100)]
    start = time.process_time()
    draw_sheet(rows, tmp_path / "p.png")
    assert time.process_time() - start < 2


# Pictures of several digits


def page(name="page.png", confidence=0.9, original=WHITE):
    boxes = [(20 * n, 10, 20 * n + 15, 60) for n in range(3)]
    digits = [Detection(0, n, box, str(n), 0.9, "1", 0.1) for n, box in enumerate(boxes)]
    return Prediction(name, "012", confidence, "112", 0.1, original, WHITE, tuple(digits), 84)


def test_every_picture_of_several_digits_is_on_a_sheet_in_the_order_given():
    rows = [page(f"{number}.png", 0.9 - number / 100) for number in range(30)]
    contents = sheets.page_sheets([*rows, row()])
    assert [row for _, part in contents for row in part] == rows
    titles = [title for title, _ in contents]
    assert titles == [f"30 pictures read digit by digit – sheet {n} of 3" for n in (1, 2, 3)]
    assert sheets.page_sheets([row()]) == []


def test_a_heading_says_of_how_many_pictures_the_pixels_are_gone():
    rows = [page(), page(original=None), page()]
    ((title, part),) = sheets.page_sheets(rows)
    assert title == "3 pictures read digit by digit; here the 2 least sure"
    assert part == [rows[0], rows[2]]


def test_each_digit_of_a_page_has_a_frame_and_its_answer(figures, tmp_path):
    sheets.page_sheet("1 picture", [page("in/a.png")], tmp_path / "pages.png")
    assert {"1 picture", "a.png", "012  90%", "0", "1", "2"} <= set(written(figures[0]))
    blue = (pixels(tmp_path / "pages.png") == (0x21, 0x66, 0xAC)).all(-1)
    assert np.count_nonzero(blue) > 3 * 2 * (75 + 250)


# Names


def test_names_are_written_as_they_are_but_control_characters_are_escaped(figures, tmp_path):
    rows = [row(label="$5$"), row(label="a\nb"), row(label="雏菊"), row(label="\udcff")]
    draw_sheet(rows, tmp_path / "p.png")
    answers = [text.replace("\u200e", "") for text in written(figures[0])]
    assert {"$5$  90%", "a\\nb  90%", "雏菊  90%", "\\udcff  90%"} <= set(answers)
    assert not any(text.get_parse_math() for text in texts(figures[0]))


def test_a_long_name_is_shortened_in_the_middle(figures, tmp_path):
    long = "holiday" + "x" * 200 + "0815.png"
    draw_sheet([row(long)], tmp_path / "p.png")
    (short,) = (text.strip("\u200e") for text in written(figures[0]) if "…" in text)
    assert short.startswith("holiday")
    assert short.endswith("0815.png")
    assert 15 < len(short) < 40


def test_what_follows_an_arabic_name_stands_on_its_right(figures, tmp_path):
    draw_mistakes(1, tmp_path / "mistakes.png", truth="ليل", guess="יום")
    names = {"\u200eليل\u200e read as", "\u200eיום\u200e, 97%"}
    assert names <= set(written(figures[0]))


def test_a_script_without_a_font_brings_no_warning(no_other_fonts, caplog, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = [row(name, 0.5, name, second=name) for name in NAMES]
        draw_sheet(rows, tmp_path / "p.png")
        count = len(NAMES)
        charts.confusion_matrix(confusion(count), NAMES, tmp_path / "matrix.png")
        draw_mistakes(1, tmp_path / "mistakes.png", *NAMES[2:4])
    assert not caplog.records


def test_where_no_font_has_a_name_its_number_is_shown_and_a_package_named(no_other_fonts, capsys):
    shown = charts.displayed_names(["rose", "向日葵", "雏菊"])
    assert shown == ["rose", "1 向日葵", "2 雏菊"]
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "向日葵" in err and "fonts-noto-cjk" in err


def test_names_in_latin_cyrillic_and_arabic_letters_need_no_other_font(no_other_fonts, capsys):
    names = ["Gänseblümchen", "роза", "وردة"]
    assert charts.displayed_names(names) == names
    assert capsys.readouterr().err == ""


def test_the_users_matplotlib_settings_neither_show_nor_change(tmp_path):
    charts.training_curves(epochs([0.9, 0.95]), 0, tmp_path / "plain.png")
    with matplotlib.rc_context({"lines.linewidth": 9, "figure.facecolor": "black"}):
        before = dict(matplotlib.rcParams)
        charts.training_curves(epochs([0.9, 0.95]), 0, tmp_path / "styled.png")
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "styled.png").read_bytes()


def test_only_what_is_certain_is_100_percent():
    assert [charts.percent(p) for p in (0.02, 0.994, 0.995, 0.9999, 1)] == [
        *("2%", "99%", ">99%", ">99%", "100%")
    ]
