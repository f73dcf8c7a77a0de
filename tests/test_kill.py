"""A training that is killed between two file operations loses nothing: `tests.kill`, in short."""

import contextlib
import itertools
import os
from pathlib import Path

import fuzz
import kill
import pytest

import mnist_keras
from classifier import files, recipe, run_folder, weights
from classifier.console import InputError
from setting import Setting

EPOCH = {"loss": 0.5, "acc": 0.8, "val_loss": 0.4}


class KilledError(BaseException):
    """Stands for SIGKILL: after it, no file is touched any more."""


@pytest.fixture(scope="module")
def network():
    return fuzz.small_network()


@pytest.fixture
def setting(tmp_path):
    (tmp_path / "model_weight").mkdir()
    return Setting(data_dir=str(tmp_path), epochs=9)


def finish_epochs(network, setting, first, last):
    """What a training does with files from one epoch to another."""
    callback = run_folder.Checkpoint(setting, run_folder.read_history(setting, first - 1))
    callback.set_model(network)
    for epoch in range(first, last + 1):
        callback.on_epoch_begin(epoch - 1)
        callback.on_epoch_end(epoch - 1, EPOCH | {"val_acc": epoch / 10})


@contextlib.contextmanager
def killed_after(operations: int):
    """No rename, removal or write to a file is done after so many."""
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
            yield


def test_killed_between_any_two_steps_of_saving_at_most_that_epoch_is_lost(
    network, tmp_path_factory
):
    for operations in itertools.count():
        setting = Setting(data_dir=str(tmp_path_factory.mktemp("run")), epochs=9)
        folder = Path(setting.checkpoint_path)
        folder.mkdir()
        finish_epochs(network, setting, 1, 2)
        with killed_after(operations):
            finish_epochs(network, setting, 3, 3)
        assert kill.broken_files(Path(setting.data_dir)) == []
        best = run_folder.checkpoints(folder)
        assert weights.load_weights(weights.without_optimizer(network), best[0]) in (2, 3)
        done = weights.load_weights(network, folder / run_folder.LAST_EPOCH)
        assert done in (2, 3)
        assert [row["epoch"] for row in run_folder.read_history(setting, done)][-1] == done
        finish_epochs(network, setting, done + 1, 4)
        assert [row["epoch"] for row in run_folder.read_history(setting, 9)] == [1, 2, 3, 4]
        if operations > 20:
            break
    assert done == 3


def test_killed_during_the_move_of_an_earlier_run_every_file_is_in_one_of_two_places(
    network, tmp_path_factory
):
    for operations in range(8):
        setting = Setting(data_dir=str(tmp_path_factory.mktemp("run")), epochs=9)
        folder = Path(setting.checkpoint_path)
        folder.mkdir()
        finish_epochs(network, setting, 1, 2)
        mnist_keras.describe(setting, ["cat", "dog"], False, 10)
        names = {path.name for path in Path(setting.data_dir).rglob("*.*")}
        with killed_after(operations):
            run_folder.move_earlier_run(setting)
        assert {p.name for p in Path(setting.data_dir).rglob("*.*")} >= names
        assert kill.broken_files(Path(setting.data_dir)) == []
        # What is left in place can be used.
        assert not run_folder.checkpoints(folder) or (folder / "model.json").exists()


def test_a_run_goes_on_with_the_dropout_it_would_have_had(network):
    recipe.set_steps(network, 42, parts=2)
    dropout = next(layer for layer in network.layers if "dropout" in layer.name)
    assert int(network.optimizer.iterations) == 42
    assert int(dropout.seed_generator.state[1]) == 84


@pytest.mark.parametrize("failing", ["write_bytes", "replace"])
def test_a_disk_that_is_full_spares_the_earlier_checkpoints(network, setting, monkeypatch, failing):
    finish_epochs(network, setting, 1, 2)
    before = fuzz.digests(Path(setting.data_dir))

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, failing, full)
    with pytest.raises(OSError, match="No space left on device: '.*weights-improvement-03"):
        finish_epochs(network, setting, 3, 3)
    assert fuzz.digests(Path(setting.data_dir)) == before


@pytest.mark.parametrize(
    ("epochs", "said"), [(0, "no epoch was finished"), (1, "--is_restore goes on")]
)
def test_a_training_that_fails_to_save_says_what_is_saved(tmp_path, monkeypatch, epochs, said):
    kill.write_digits(tmp_path, 60)
    if epochs:
        (tmp_path / "model_weight").mkdir()
        files.save(tmp_path / "model_weight" / run_folder.LAST_EPOCH, b"")

    def full(*arguments):
        raise OSError(28, "No space left on device", "/disk/a.weights.h5")

    monkeypatch.setattr(mnist_keras, "fit", full)
    with pytest.raises(InputError, match=f"^/disk/a.weights.h5: No space.*{said}"):
        mnist_keras.train(Setting(data_dir=str(tmp_path)))


def test_two_programs_that_write_one_report_do_not_share_a_half_file(tmp_path, monkeypatch):
    with files.whole_file(tmp_path / "predictions.csv") as one:
        monkeypatch.setattr(os, "getpid", lambda: 1)
        with files.whole_file(tmp_path / "predictions.csv") as other:
            assert one != other
            other.write_text("other")
        one.write_text("one")
    assert (tmp_path / "predictions.csv").read_text() == "one"
