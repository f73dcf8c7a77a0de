"""Damaged and hostile files end in one clear line: a short form of `python -m tests.fuzz`."""

import csv
import json
import os
import re
import sys

import fuzz
import h5py
import numpy as np
import pytest

import mnist_keras
from classifier import files, run_folder
from classifier.console import InputError
from classifier.weights import load_weights, save_weights, without_optimizer
from setting import Setting

needs_limits = pytest.mark.skipif(
    not fuzz.CAN_LIMIT, reason="only Linux limits a process's time and memory"
)


@needs_limits
@pytest.mark.parametrize("name", fuzz.KINDS)
def test_no_damaged_file_breaks_its_reader(name):
    failures = {seed: fuzz.try_case(name, seed) for seed in range(12)}
    assert {seed: found for seed, found in failures.items() if found} == {}


def test_the_same_seed_makes_the_same_case(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = (fuzz.write_case(fuzz.made("png"), 3, tmp_path / name) for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    other = fuzz.write_case(fuzz.made("png"), 4, tmp_path / "two")
    assert other.read_bytes() != one.read_bytes()


# Weights


@pytest.fixture
def weights(tmp_path):
    """A network, and a file of its weights without a checksum."""
    model = without_optimizer(fuzz.small_network())
    path = tmp_path / "a.weights.h5"
    model.save_weights(path)
    return model, path


def replace_an_array(path, put):
    with h5py.File(path, "r+") as file:
        folder = file["layers/dense/vars"] if "dense" in file["layers"] else None
        folder = (
            folder or next(g for n, g in file["layers"].items() if n.startswith("dense"))["vars"]
        )
        shape = folder["0"].shape
        del folder["0"]
        put(folder, shape)


def linked_softly(folder, shape):
    folder.file["elsewhere"] = np.zeros(shape, np.float32)
    folder["0"] = h5py.SoftLink("/elsewhere")


def linked_to_another_file(folder, shape):
    folder["0"] = h5py.ExternalLink("victim.h5", "x")


def stored_in_another_file(folder, shape):
    folder.create_dataset("0", shape, "f4", external=[("victim.raw", 0, h5py.h5f.UNLIMITED)])


def stored_in_a_pipe(folder, shape):
    os.mkfifo("pipe")
    folder.create_dataset("0", shape, "f4", external=[("pipe", 0, h5py.h5f.UNLIMITED)])


def put_together_from_another_file(folder, shape):
    layout = h5py.VirtualLayout(shape, "f4")
    layout[...] = h5py.VirtualSource("victim.h5", "x", shape)
    folder.create_virtual_dataset("0", layout)


@pytest.mark.parametrize(
    "put",
    [
        linked_softly,
        linked_to_another_file,
        stored_in_another_file,
        pytest.param(
            stored_in_a_pipe,  # reading it would wait for ever
            marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here"),
        ),
        put_together_from_another_file,
    ],
)
def test_weights_that_lead_out_of_their_file_are_refused(weights, put, tmp_path, monkeypatch):
    model, path = weights
    monkeypatch.chdir(tmp_path)
    with h5py.File("victim.h5", "w") as victim:
        victim["x"] = np.ones((64, 3), np.float32)
    (tmp_path / "victim.raw").write_bytes(bytes(64 * 3 * 4))
    replace_an_array(path, put)
    with pytest.raises(
        InputError, match=r"a.weights.h5: .*(lies in another file|could not be loaded)"
    ):
        load_weights(model, path)


def array_of_a_terabyte(folder, shape):
    folder.create_dataset("0", (2**38,), "f4")


def a_thousand_names_for_all_of_it(folder, shape):
    for index in range(1000, 2000):
        folder.create_dataset(str(index), (1000,), "f4")


def chunk_of_two_gigabytes(folder, shape):
    folder.create_dataset(
        "0", (4,), "f4", chunks=(2**29,), maxshape=(None,), compression="gzip"
    ).id.write_direct_chunk((0,), b"x")


@needs_limits
@pytest.mark.parametrize(
    "put", [array_of_a_terabyte, a_thousand_names_for_all_of_it, chunk_of_two_gigabytes]
)
def test_weights_that_promise_more_than_their_file_holds_are_refused(weights, put):
    model, path = weights
    replace_an_array(path, put)
    with fuzz.limits(), pytest.raises(InputError, match="its arrays promise"):
        load_weights(model, path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(weights, value):
    model, path = weights
    replace_an_array(
        path, lambda folder, shape: folder.create_dataset("0", data=np.full(shape, value))
    )
    with pytest.raises(InputError, match="is not finite"):
        load_weights(model, path)


@pytest.mark.parametrize("epoch", [-1, 2**62])
def test_weights_of_an_epoch_that_never_was_are_refused(weights, epoch):
    model, path = weights
    with h5py.File(path, "r+") as file:
        file.attrs["epoch"] = epoch
    with pytest.raises(InputError, match="no run has"):
        load_weights(model, path)


def test_a_backup_of_another_optimizer_is_refused(tmp_path):
    model, other = fuzz.small_network(), fuzz.small_network()
    other.compile("rmsprop", loss="categorical_crossentropy")
    other.optimizer.build(other.trainable_variables)
    save_weights(other, tmp_path / run_folder.LAST_EPOCH, 3)
    with pytest.raises(InputError, match="optimizer"):
        load_weights(model, tmp_path / run_folder.LAST_EPOCH)


# What a run writes and reads again


def described(folder, **changes):
    mnist_keras.describe(Setting(checkpoint_path=str(folder)), ["cat", "dog"], True, 10)
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")
    return path


@pytest.mark.parametrize("name", ["..", ".", "/", "../cat", "a/b"])
def test_a_class_that_is_no_folder_s_name_is_refused(tmp_path, name):
    path = described(tmp_path, classes=["cat", name])
    with pytest.raises(InputError, match="model.json: .*not the name of a folder"):
        run_folder.read_description(path)


def test_a_description_without_its_source_is_refused(tmp_path):
    path = described(tmp_path, trained_on=None)
    with pytest.raises(InputError, match="trained on"):
        run_folder.read_description(path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no names that are no text")
def test_names_that_are_no_text_survive_in_json_and_csv(tmp_path):
    name = os.fsdecode(b"\xff\n\x1b[2J")
    mnist_keras.describe(Setting(checkpoint_path=str(tmp_path)), ["cat", name], False, 10)
    description = run_folder.read_description(tmp_path / "model.json")
    assert description["classes"] == ["cat", name]
    files.write_csv(tmp_path / "predictions.csv", [{"file": name, "label": "cat"}])
    with open(tmp_path / "predictions.csv", newline="", encoding="utf-8") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["cat"]


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
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "history.csv").write_text(content)
    assert run_folder.read_history(Setting(data_dir=str(tmp_path)), 5) == []
    assert re.fullmatch(r".*history.csv: damaged .*\n", capsys.readouterr().err)
