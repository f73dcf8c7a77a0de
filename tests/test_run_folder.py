"""What a run leaves in its folder, that nothing of it is lost, and how a later one goes on."""

import csv
import importlib.util
import re
from pathlib import Path

import filelock
import fuzz
import numpy as np
import pytest

from classifier import run_folder
from classifier.console import InputError
from classifier.files import write_file
from classifier.run_folder import (
    LAST_EPOCH,
    BestCheckpoint,
    archive_previous_run,
    archived_weights,
    checked_setting,
    checkpoints,
    load_first_usable,
    load_last_epoch,
    read_history,
    training_lock,
)
from classifier.weights import load_weights, save_weights, without_optimizer
from setting import Setting

EPOCH = {"loss": 0.5, "acc": 0.8, "val_loss": 0.4}


@pytest.fixture
def model():
    return fuzz.small_network()


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "model_weight").mkdir()
    return tmp_path / "model_weight"


@pytest.fixture
def reports(tmp_path) -> Path:
    return tmp_path / "report"


def train(model, folder, reports, accuracies, first=1, epochs=9, save_epochs=1):
    """What a training does with files in epochs of these val_accs."""
    callback = BestCheckpoint(folder, reports, epochs, save_epochs)
    callback.set_model(model)
    for epoch, accuracy in enumerate(accuracies, start=first):
        callback.on_epoch_begin(epoch - 1)
        callback.on_epoch_end(epoch - 1, EPOCH | {"val_acc": accuracy})


def names(folder):
    return [path.name[20:30] for path in checkpoints(folder)]


# Checkpoints


def test_the_best_checkpoint_has_the_highest_val_acc_and_of_equals_the_later_epoch(tmp_path):
    for name in ("02-0.99000", "10-0.98900", "07-0.99000", "03-0.97000"):
        (tmp_path / f"weights-improvement-{name}.weights.h5").touch()
    (tmp_path / LAST_EPOCH).touch()
    assert names(tmp_path) == ["07-0.99000", "02-0.99000", "10-0.98900", "03-0.97000"]


def test_a_checkpoint_is_kept_when_val_acc_is_better_than_ever(model, folder, reports):
    train(model, folder, reports, [0.5, 0.8, 0.8, 0.7, 0.9])
    assert names(folder) == ["05-0.90000", "02-0.80000", "01-0.50000"]
    for path, epoch in zip(checkpoints(folder), (5, 2, 1), strict=True):
        assert load_weights(without_optimizer(model), path) == epoch
    assert load_weights(model, folder / LAST_EPOCH) == 5


def test_only_every_so_many_epochs_a_better_val_acc_is_looked_for_and_after_the_last(
    model, folder, reports
):
    train(model, folder, reports, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], epochs=7, save_epochs=3)
    assert names(folder) == ["07-0.70000", "06-0.60000", "03-0.30000"]


def test_a_run_that_goes_on_has_the_history_and_the_best_val_acc_of_before(model, folder, reports):
    train(model, folder, reports, [0.5, 0.8])
    train(model, folder, reports, [0.7, 0.9], first=3)
    assert names(folder) == ["04-0.90000", "02-0.80000", "01-0.50000"]
    with open(reports / "history.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "loss", "acc", "val_loss", "val_acc", "seconds"]
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["val_acc"] for row in rows] == ["0.5", "0.8", "0.7", "0.9"]


def test_a_run_that_begins_anew_does_not_look_at_the_history_of_another(model, folder, reports):
    train(model, folder, reports, [0.9])
    train(model, folder, reports, [0.5])
    assert names(folder) == ["01-0.90000", "01-0.50000"]
    assert [row["val_acc"] for row in read_history(reports, 9)] == [0.5]


HEADER = "epoch,loss,acc,val_loss,val_acc,seconds\n"


@pytest.mark.parametrize(
    "content",
    [
        "epoch,loss\n1,0.5\n",
        HEADER + "1,0.5,0.9,0.1,9.9,1\n",  # no checkpoint would ever be better
        HEADER + "-inf,0.5,0.9,0.1,0.9,1\n",
        HEADER + "1,0.5,0.9\n",
        HEADER + '"' + "9" * 200_000 + '",0.5,0.9,0.1,0.9,1\n',
    ],
)
def test_a_damaged_history_is_named_and_starts_anew(tmp_path, content, capsys):
    (tmp_path / "history.csv").write_text(content)
    assert read_history(tmp_path, 5) == []
    assert re.fullmatch(r".*history.csv: damaged .*\n", capsys.readouterr().err)


# Going on


def test_a_run_goes_on_after_its_last_epoch(model, folder):
    save_weights(model, folder / LAST_EPOCH, 5)
    save_weights(without_optimizer(model), folder / checkpoint(3, 0.9), 3)
    assert load_last_epoch(fuzz.small_network(), folder) == 5


def test_without_its_last_state_a_run_goes_on_from_its_best_weights(model, folder, capsys):
    save_weights(without_optimizer(model), folder / checkpoint(3, 0.9), 3)
    save_weights(without_optimizer(model), folder / checkpoint(4, 0.8), 4)
    (folder / LAST_EPOCH).write_bytes(b"cut")
    other = fuzz.small_network()
    assert load_last_epoch(other, folder) == 3
    np.testing.assert_array_equal(other.get_weights()[0], model.get_weights()[0])
    assert f"{LAST_EPOCH}: damaged" in capsys.readouterr().err


def test_a_run_that_has_finished_no_epoch_starts_with_the_first(folder, capsys):
    assert load_last_epoch(fuzz.small_network(), folder) == 0
    assert "starting with the first" in capsys.readouterr().out


def test_weights_of_which_none_can_be_gone_on_from_are_an_error(folder, capsys):
    (folder / LAST_EPOCH).write_bytes(b"cut")
    (folder / checkpoint(3, 0.9)).write_bytes(b"cut, too")
    with pytest.raises(InputError, match="without --is_restore a new training begins"):
        load_last_epoch(fuzz.small_network(), folder)
    assert capsys.readouterr().err.count("passed over") == 2


def test_the_first_of_the_weights_that_can_be_used_is_loaded(model, folder, capsys):
    model = without_optimizer(model)
    bad, good = folder / checkpoint(9, 1.0), folder / checkpoint(3, 0.9)
    bad.write_bytes(b"cut")
    assert load_first_usable(model, [bad]) is None
    save_weights(model, good, 3)
    assert load_first_usable(model, [bad, good]) == (good, 3)
    assert re.fullmatch(
        rf"({re.escape(str(bad))}: damaged .*; passed over\n)+", capsys.readouterr().err
    )


def checkpoint(epoch, val_acc):
    return run_folder.CHECKPOINT_FORMAT.format(epoch=epoch, val_acc=val_acc)


def test_tensorboard_s_package_is_asked_for_before_anything_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install tensorboard"):
        checked_setting(Setting(data_dir=str(tmp_path), tensorboard=True))


# A training at work


@pytest.mark.parametrize(
    ("taken", "said"),
    [
        ("data", "not a folder; name the one that"),
        ("data/model_weight", "a file; a folder is wanted here"),
        ("data/report", "a file; a folder is wanted here"),
    ],
)
def test_a_file_where_the_run_s_folders_are_wanted_is_named_and_kept(tmp_path, taken, said):
    file = tmp_path / taken
    file.parent.mkdir(exist_ok=True)
    file.write_text("the user's own")
    setting = Setting(data_dir=str(tmp_path / "data"))
    with pytest.raises(InputError, match=f"{taken}: {said}"):
        checked_setting(setting)
        with training_lock(Path(setting.checkpoint_path), Path(setting.report_dir), False, "again"):
            raise AssertionError("it began")
    assert file.read_text() == "the user's own"


@pytest.mark.parametrize("shared", ["model_weight", "report"])
def test_a_second_training_in_the_same_place_stops(tmp_path, shared):
    with training_lock(tmp_path / "model_weight", tmp_path / "report", False, "again"):
        pass  # a training that has ended is in nobody's way
    with (
        filelock.FileLock(tmp_path / shared / ".train.lock"),
        pytest.raises(InputError, match=f"{shared}: another training is at work here"),
        training_lock(tmp_path / "model_weight", tmp_path / "report", False, "again"),
    ):
        raise AssertionError("it began")


def test_what_a_killed_training_had_half_written_is_cleared_away(folder, reports):
    (folder / ".partial-123-model.json").write_text("half")
    (folder / "notes.txt").write_text("the user's own")
    (folder / ".partial-7-of-an-export").mkdir()  # atomic_folder sees to it
    with training_lock(folder, reports, False, "again"):
        there = {".train.lock", "notes.txt", ".partial-7-of-an-export"}
        assert {path.name for path in folder.iterdir()} == there


NO_EPOCH = "no epoch was finished"
GO_ON = "finished epochs are saved in {folder}; to go on: python x.py --is_restore"


@pytest.mark.parametrize(
    ("before", "restoring", "during", "said"),
    [
        (False, False, False, NO_EPOCH),
        (False, False, True, GO_ON),
        (True, False, False, NO_EPOCH + "; what was in {folder} is unharmed"),
        (True, False, True, GO_ON),
        (True, True, False, GO_ON),
        (False, True, False, NO_EPOCH),
    ],
)
@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, BrokenPipeError, OSError])
def test_a_training_that_is_stopped_says_truly_what_is_saved(
    folder, reports, before, restoring, during, said, stop, capsys
):
    if before:
        write_file(folder / LAST_EPOCH, b"earlier")
    ends, again = InputError if stop is OSError else stop, "python x.py --is_restore"
    with pytest.raises(ends) as ended, training_lock(folder, reports, restoring, again):
        if during:
            write_file(folder / LAST_EPOCH, b"of this run")
        raise stop(28, "No space left on device", "/disk/a.weights.h5")
    said = said.format(folder=folder)
    if stop is OSError:
        assert str(ended.value) == f"/disk/a.weights.h5: No space left on device; {said}"
    else:
        assert capsys.readouterr().err == f"interrupted; {said}\n"


def test_a_run_comes_back_if_the_next_one_is_stopped_before_its_first_epoch_ends(
    model, folder, reports, capsys
):
    train(model, folder, reports, [0.5, 0.8])
    for name in ("model.json", "split.json"):
        (folder / name).write_text("earlier")
    before = fuzz.digests(folder.parent)
    with pytest.raises(SystemExit), training_lock(folder, reports, False, "again"):
        archive_previous_run(folder, reports)
        (folder / "model.json").write_text("of the run that is stopped")
        raise SystemExit(130)
    assert {
        k: v for k, v in fuzz.digests(folder.parent).items() if k.name != ".train.lock"
    } == before
    message = f"{NO_EPOCH}; what was in {folder} is unharmed"
    assert capsys.readouterr().err == f"interrupted; {message}\n"


def test_a_run_stays_archived_if_the_next_one_has_finished_an_epoch(model, folder, reports):
    train(model, folder, reports, [0.5])
    with pytest.raises(SystemExit), training_lock(folder, reports, False, "again"):
        archive_previous_run(folder, reports)
        train(model, folder, reports, [0.7])
        raise SystemExit(130)
    assert names(folder) == ["01-0.70000"] and archived_weights(folder).name[20:30] == "01-0.50000"


def test_a_user_s_own_reports_are_not_moved(model, folder, reports):
    train(model, folder, reports, [0.5])
    (reports / "my notes.txt").write_text("the user's own")
    archive_previous_run(folder, reports)
    assert [path.name for path in reports.iterdir()] == ["my notes.txt"]


def test_reports_alone_are_no_run(folder, reports, capsys):
    reports.mkdir()
    (reports / "predictions.csv").write_text("by the weights that ship")
    archive_previous_run(folder, reports)
    assert (reports / "predictions.csv").exists() and not capsys.readouterr().out


def test_without_the_last_epoch_s_state_it_is_said_what_a_run_goes_on_from(
    model, folder, reports, capsys
):
    train(model, folder, reports, [0.5, 0.8, 0.6])
    (folder / LAST_EPOCH).unlink()
    assert load_last_epoch(model, folder) == 2
    error = capsys.readouterr().err
    assert f"{LAST_EPOCH}: missing or unusable; going on from weights-improvement-02" in error


def test_where_no_checkpoint_is_left_the_next_epoch_s_is_kept(model, folder, reports):
    train(model, folder, reports, [0.5, 0.8])
    for path in checkpoints(folder):
        path.unlink()
    train(model, folder, reports, [0.6], first=3)
    assert names(folder) == ["03-0.60000"]


# What an earlier run has left


def test_what_an_earlier_run_left_is_moved_and_kept(model, folder, reports, capsys):
    train(model, folder, reports, [0.5, 0.8])
    for name in ("model.json", "split.json", "notes.txt", ".train.lock"):
        (folder / name).write_text(name)
    before = fuzz.digests(folder.parent)
    archive_previous_run(folder, reports)
    assert {path.name for path in folder.iterdir()} == {"notes.txt", ".train.lock", "previous"}
    (previous,) = (folder / "previous").iterdir()
    assert f"now in {previous}" in capsys.readouterr().out
    moved = {
        previous / path.name if path.name not in ("notes.txt", ".train.lock") else path: digest
        for path, digest in before.items()
    }
    assert fuzz.digests(folder.parent) == moved
    assert not checkpoints(folder) and read_history(reports, 9) == []


def test_earlier_runs_are_kept_side_by_side(model, folder, reports):
    for _ in range(2):
        train(model, folder, reports, [0.5])
        archive_previous_run(folder, reports)
    assert len(list((folder / "previous").iterdir())) == 2
    archive_previous_run(folder, reports)  # there is nothing to move
    assert len(list((folder / "previous").iterdir())) == 2


def test_an_epoch_whose_loss_is_no_number_ends_the_training_and_is_not_saved(
    model, folder, reports
):
    train(model, folder, reports, [0.5])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    checkpoint = BestCheckpoint(folder, reports, epochs=9, save_epochs=1)
    checkpoint.set_model(model)
    checkpoint.on_epoch_begin(1)
    with pytest.raises(InputError, match="^epoch 2: the loss is nan, .*isn't saved"):
        checkpoint.on_epoch_end(1, EPOCH | {"val_acc": 0.9, "loss": float("nan")})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
