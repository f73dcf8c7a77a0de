"""A training that is killed between two file operations loses nothing: `tests.kill`, in short."""

import contextlib
import itertools
from pathlib import Path

import fuzz
import kill
import pytest

from classifier import run_folder, weights

EPOCH = {"loss": 0.5, "acc": 0.8, "val_loss": 0.4}


class KilledError(BaseException):
    """Stands for SIGKILL: after it, no file is touched any more."""


@pytest.fixture(scope="module")
def network():
    return fuzz.small_network()


def finish_epochs(network, data_dir, first, last):
    """What a training does with files from one epoch to another."""
    callback = run_folder.BestCheckpoint(data_dir / "model_weight", data_dir / "report", 9, 1)
    callback.set_model(network)
    for epoch in range(first, last + 1):
        callback.on_epoch_begin(epoch - 1)
        callback.on_epoch_end(epoch - 1, EPOCH | {"val_acc": epoch / 10})


@contextlib.contextmanager
def killed_after(operations: int):
    """No rename, removal or write to a file is done after so many; given are those left to do."""
    left = iter(range(operations))

    def until_killed(operation):
        def done(*arguments, **options):
            if next(left, None) is None:
                raise KilledError
            return operation(*arguments, **options)

        return done

    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "unlink", "write_bytes", "mkdir"):
            patch.setattr(Path, name, until_killed(getattr(Path, name)))
        patch.setattr(run_folder.shutil, "move", until_killed(run_folder.shutil.move))
        with contextlib.suppress(KilledError):
            yield left


@pytest.fixture
def run(tmp_path_factory):
    """A function that makes a data_dir after two epochs."""

    def make(network) -> Path:
        data_dir = tmp_path_factory.mktemp("run")
        (data_dir / "model_weight").mkdir()
        finish_epochs(network, data_dir, 1, 2)
        return data_dir

    return make


def test_killed_between_any_two_steps_of_saving_at_most_that_epoch_is_lost(network, run):
    for operations in itertools.count():
        data_dir = run(network)
        folder, reports = data_dir / "model_weight", data_dir / "report"
        with killed_after(operations) as left:
            finish_epochs(network, data_dir, 3, 3)
        assert kill.broken_files(data_dir) == []
        best = run_folder.checkpoints(folder)
        assert weights.load_weights(weights.without_optimizer(network), best[0]) in (2, 3)
        done = weights.load_weights(network, folder / run_folder.LAST_EPOCH)
        assert done in (2, 3)
        assert [row["epoch"] for row in run_folder.read_history(reports, done)][-1] == done
        finish_epochs(network, data_dir, done + 1, 4)
        assert [row["epoch"] for row in run_folder.read_history(reports, 9)] == [1, 2, 3, 4]
        if next(left, None) is not None:  # nothing was killed any more
            break
    assert done == 3 and operations > 5


def test_killed_during_the_move_of_an_earlier_run_every_file_is_in_one_of_two_places(network, run):
    for operations in range(8):
        data_dir = run(network)
        folder = data_dir / "model_weight"
        for name, content in fuzz.written_run()[0].items():
            (folder / name).write_bytes(content)
        names = {path.name for path in data_dir.rglob("*.*")}
        assert {"model.json", "split.json"} < names
        with killed_after(operations):
            run_folder.archive_previous_run(folder, data_dir / "report")
        assert {path.name for path in data_dir.rglob("*.*")} >= names
        assert kill.broken_files(data_dir) == []
        # What is left in place can be used.
        assert not run_folder.checkpoints(folder) or (folder / "model.json").exists()
    assert not run_folder.checkpoints(folder)


@pytest.mark.parametrize("failing", ["write_bytes", "replace"])
def test_a_disk_that_is_full_spares_the_earlier_checkpoints(network, run, monkeypatch, failing):
    data_dir = run(network)
    before = fuzz.digests(data_dir)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, failing, full)
    with pytest.raises(OSError, match="No space left on device: '.*weights-improvement-03"):
        finish_epochs(network, data_dir, 3, 3)
    assert fuzz.digests(data_dir) == before
