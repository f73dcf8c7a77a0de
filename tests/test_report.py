"""What a run's reports say, and what becomes of one that can't be written."""

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classifier import report, sheets
from classifier.predictions import Prediction

EPOCHS = [{"epoch": 1, "loss": 0.9, "acc": 0.8, "val_loss": 0.1, "val_acc": 0.9, "seconds": 8.0}]
DIGITS = list("0123456789")
BLACK = np.zeros((28, 28, 3), np.uint8)


def answers(count, confidence=0.9):
    rows = (f"{number}.png" for number in range(count))
    return [Prediction(name, "7", confidence, "1", 0.05, BLACK, BLACK) for name in rows]


def probabilities(guesses, classes, confidence=0.9):
    """Of each guess's class so sure, float32 [n, k]."""
    return np.eye(classes, dtype=np.float32)[guesses] * confidence


def evaluation(folder, labels, guesses, names, open_picture=lambda index: BLACK):
    report.write_evaluation_report(
        folder, names, np.array(labels), probabilities(guesses, len(names)), open_picture
    )


def width(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.width


def test_importing_it_takes_neither_tensorflow_nor_matplotlib():
    code = (
        "import sys; from classifier import report; "
        "sys.exit(any(m in sys.modules for m in ('matplotlib', 'keras', 'tensorflow')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Evaluation: the table by class


def test_the_table_is_that_of_scikit_learns_documentation(tmp_path, capsys):
    # y_true = [0, 1, 2, 2, 2], y_pred = [0, 0, 2, 2, 1]
    evaluation(tmp_path, [0, 1, 2, 2, 2], [0, 0, 2, 2, 1], ["class 0", "class 1", "class 2"])
    assert capsys.readouterr().out.splitlines()[:6] == [
        "class                 images precision    recall        f1",
        "class 0                    1    0.5000    1.0000    0.6667",
        "class 1                    1    0.0000    0.0000    0.0000",
        "class 2                    3    1.0000    0.6667    0.8000",
        "accuracy                   5                        0.6000",
        "macro avg                  5    0.5000    0.5556    0.4889",
    ]


def test_classes_csv_holds_the_same_figures(tmp_path):
    evaluation(tmp_path, [0, 0, 0, 1, 1], [0, 0, 0, 1, 0], ["cat", "狗"])
    assert (tmp_path / "classes.csv").read_text("utf-8").splitlines() == [
        "class,images,precision,recall,f1",
        f"cat,3,0.75,1.0,{6 / 7}",
        f"狗,2,1.0,0.5,{2 / 3}",
        "accuracy,5,,,0.8",
        f"macro avg,5,0.875,0.75,{(6 / 7 + 2 / 3) / 2}",
    ]


def test_a_class_that_is_read_right_in_67_of_100_cases_says_so():
    counts = np.diag(np.full(10, 100))
    counts[3, 3], counts[3, 5] = 67, 33
    row = report.class_table(counts, list("0123456789"))[3]
    assert row == {
        "class": "3",
        "images": 100,
        "precision": 1,
        "recall": pytest.approx(0.67),
        "f1": pytest.approx(2 * 0.67 / 1.67),
    }


def test_a_class_without_images_or_guesses_has_zeros_and_stays_out_of_the_mean():
    rows = report.class_table(np.diag([3, 0, 1]), ["a", "not here", "b"])
    assert list(rows[1].values()) == ["not here", 0, 0, 0, 0]
    assert list(rows[-1].values()) == ["macro avg", 4, 1, 1, 1]


def test_a_class_that_is_never_guessed_counts_in_the_mean():
    rows = report.class_table(np.array([[0, 0], [3, 1]]), ["never there", "b"])
    assert rows[-1]["recall"] == pytest.approx((0 + 1 / 4) / 2)


def test_a_table_longer_than_a_screen_is_not_printed(tmp_path, capsys):
    names = [f"class {number}" for number in range(21)]
    evaluation(tmp_path, range(21), range(21), names)
    assert "class 19" not in capsys.readouterr().out
    assert "class 20,1,1.0," in (tmp_path / "classes.csv").read_text()
    evaluation(tmp_path, range(20), range(20), names[:20])
    assert "class 19" in capsys.readouterr().out


# Evaluation: the pictures


def test_only_the_mistakes_that_are_shown_are_opened_the_surest_first(tmp_path, monkeypatch):
    monkeypatch.setattr(sheets, "MAX_MISTAKES", 3)
    opened, shown = [], []
    monkeypatch.setattr(sheets, "mistakes", lambda rows, path: shown.extend(rows))
    labels = np.array([0, 0, 1, 1, 0, 1])
    said = probabilities([1, 0, 0, 0, 1, 0], 2) * np.array([[0.5], [1], [0.7], [0.9], [0.6], [0.4]])
    names = ["a", "b"]
    report.write_evaluation_report(
        tmp_path, names, labels, said, lambda index: opened.append(index) or BLACK
    )
    assert opened == [3, 2, 4]
    assert [(row.truth, row.guess) for row in shown] == [("b", "a"), ("b", "a"), ("a", "b")]
    assert [row.confidence for row in shown] == pytest.approx([0.81, 0.63, 0.54])


def test_an_evaluation_leaves_a_table_and_two_pictures_and_names_them(tmp_path, capsys):
    evaluation(tmp_path / "report", [0, 1, 1], [0, 1, 0], ["a", "b"])
    paths = sorted((tmp_path / "report").iterdir())
    assert [path.name for path in paths] == ["classes.csv", "confusion.png", "mistakes.png"]
    line = f"by class: {paths[0]}, confusion: {paths[1]}, mistakes: {paths[2]}"
    assert capsys.readouterr().out.splitlines()[-1] == line
    assert width(tmp_path / "report" / "confusion.png") > 600
    assert width(tmp_path / "report" / "mistakes.png") > 600


# Predictions


def test_predictions_csv_has_a_line_for_each_picture(tmp_path, capsys):
    rows = [Prediction("in/图.png", "cat", 0.75, "dog", 0.25, BLACK, BLACK)]
    report.write_prediction_report(tmp_path, rows, ["cat", "dog"])
    assert (tmp_path / "predictions.csv").read_text("utf-8").splitlines() == [
        "file,label,confidence,second_guess,second_confidence",
        "in/图.png,cat,0.75,dog,0.25",
    ]
    places = [tmp_path / name for name in ("predictions.csv", "predictions.png")]
    said = f"all answers: {places[0]}, with the pictures: {places[1]}\n"
    assert capsys.readouterr().out == said


def test_of_digits_there_is_another_column_how_likely_it_is_one_at_all(tmp_path):
    rows = [Prediction("a.png", "5", 0.75, "6", 0.25, BLACK, BLACK, is_digit=0.02)]
    report.write_prediction_report(tmp_path, rows, ["5", "6"])
    assert (tmp_path / "predictions.csv").read_text("utf-8").splitlines() == [
        "file,label,confidence,second_guess,second_confidence,is_digit",
        "a.png,5,0.75,6,0.25,0.02",
    ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"is_unsure": True}, "a.png: unsure, 5 (75%) or 6 (25%)"),
        ({"is_unsure": True, "is_digit": 0.9}, "a.png: unsure, 5 (75%) or 6 (25%)"),
        ({"is_unsure": True, "is_digit": 0.02}, "a.png: no digit? (a 5 if any)"),
        ({"is_unsure": True, "is_digit": 0.02, "label": "8"}, "a.png: no digit? (an 8 if any)"),
        (
            {"is_unsure": True, "is_digit": 0.02, "label": "5 3", "detections": [None]},
            "a.png: not only digits? (5 3 if so)",
        ),
    ],
)
def test_an_unsure_answer_says_why(changes, line, capsys):
    row = Prediction("a.png", "5", 0.75, "6", 0.25, BLACK, BLACK)
    report.print_prediction(row._replace(**changes))
    assert capsys.readouterr().err == line + "\n"


def test_sheets_of_an_earlier_predict_go_and_what_is_the_users_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(sheets, "SHEET_SIZE", 2)
    (tmp_path / "predictions-best.png").write_text("mine")
    report.write_prediction_report(tmp_path, answers(5), DIGITS)
    drawn = ["predictions-2.png", "predictions-3.png", "predictions.png"]
    left = sorted(path.name for path in tmp_path.glob("*.png"))
    assert left == sorted([*drawn, "predictions-best.png"])
    report.write_prediction_report(tmp_path, answers(2), DIGITS)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["predictions-best.png", "predictions.csv", "predictions.png"]


# Training


def test_a_training_leaves_its_curves_and_names_them(tmp_path, capsys):
    report.write_training_report(tmp_path / "report", EPOCHS, smoothing=0.1, classes=10)
    path = tmp_path / "report" / "training_curves.png"
    assert width(path) == 1200
    assert capsys.readouterr().out == f"curves: {path}\n"


def test_the_least_loss_of_smoothed_labels_is_their_entropy():
    # 0.91 for the class, 0.01 for each of nine others
    assert report.min_loss(0.1, 10) == pytest.approx(0.500288, abs=1e-6)
    assert report.min_loss(0.1, 2) == pytest.approx(0.198515, abs=1e-6)
    assert report.min_loss(0, 10) == 0


# Reports that can't be written


@pytest.fixture
def open_in_excel(monkeypatch):
    """As Windows has it: a CSV file that a table program shows can't be replaced."""
    replace = Path.replace

    def refuse(path, target):
        if str(target).endswith(".csv"):
            raise PermissionError(errno.EACCES, "Access is denied", str(path), None, str(target))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", refuse)


def test_a_table_that_is_open_elsewhere_is_a_line_on_stderr(tmp_path, capsys, open_in_excel):
    table = tmp_path / "predictions.csv"
    table.write_text("as it was")
    report.write_prediction_report(tmp_path, answers(1), DIGITS)
    printed = capsys.readouterr()
    assert printed.err == (
        f"{table}: not updated, Access is denied; is it open in another program, or its folder "
        "read-only?\n"
    )
    assert printed.out == f"with the pictures: {tmp_path / 'predictions.png'}\n"
    assert table.read_text() == "as it was"
    assert width(tmp_path / "predictions.png") > 600
    assert len(list(tmp_path.iterdir())) == 2


def test_an_evaluation_goes_on_without_its_table(tmp_path, capsys, open_in_excel):
    evaluation(tmp_path, [0, 1], [0, 1], ["a", "b"])
    printed = capsys.readouterr()
    assert "macro avg" in printed.out
    assert printed.err.count("\n") == 1
    assert width(tmp_path / "mistakes.png") > 600


@pytest.mark.parametrize(
    "write, left_out",
    [
        (
            lambda folder: report.write_training_report(folder, EPOCHS, 0, 2),
            ["training_curves.png"],
        ),
        (
            lambda folder: evaluation(folder, [0, 1], [0, 1], ["a", "b"]),
            ["classes.csv", "confusion.png", "mistakes.png"],
        ),
        (
            lambda folder: report.write_prediction_report(folder, answers(1), DIGITS),
            ["predictions.csv", "predictions.png"],
        ),
    ],
)
def test_where_nothing_can_be_written_each_report_is_named(write, left_out, tmp_path, capsys):
    folder = tmp_path / "report"
    folder.write_text("a file, where the folder is to be")
    write(folder)
    printed = capsys.readouterr()
    assert "all answers" not in printed.out and "pictures" not in printed.out
    names = [Path(line.partition(": not updated, ")[0]) for line in printed.err.splitlines()]
    assert names == [folder / name for name in left_out]


def test_a_full_disk_ends_the_command(tmp_path, monkeypatch):
    def full(path, rows):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(report, "write_csv", full)
    with pytest.raises(OSError, match="No space left on device"):
        report.write_prediction_report(tmp_path, answers(1), DIGITS)
    with pytest.raises(OSError, match="No space left on device"):
        evaluation(tmp_path, [0, 1], [0, 1], ["a", "b"])
