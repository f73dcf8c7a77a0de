"""Pictures are decoded by other processes as they'd be in this one, and no sooner forgotten."""

import math
import subprocess
import sys
import time
from pathlib import Path

import filelock
import numpy as np
import psutil
import pytest
from helpers import SCRIPT, save, write_digits
from PIL import Image

from classifier import decoding, opener, pictures
from classifier.console import InputError
from classifier.decoding import CHUNK_SIZE, BackgroundDecoder
from classifier.opener import try_decode
from setting import Setting

SIZE = (20, 28)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    """Three chunks of pictures; one of them is none, and one is gone."""
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0)
    for index in range(2 * CHUNK_SIZE + 9):
        save(folder, f"{index}.png", noise.integers(0, 256, (30, 30, 3), np.uint8))
    (folder / "5.png").write_text("no picture")
    (folder / "70.png").unlink()
    return [str(folder / f"{index}.png") for index in range(2 * CHUNK_SIZE + 9)]


def assert_same(results, files, size=SIZE):
    """That these are the files' pixels to the bit, or the reasons why there are none."""
    results = list(results)
    assert len(results) == len(files)
    for result, file in zip(results, files, strict=True):
        expected = try_decode(file, size)
        assert type(result) is type(expected) and np.array_equal(result, expected)


@pytest.mark.parametrize("cores", [1, 2, 5])
def test_processes_give_the_same_pixels_and_the_same_reasons(files, cores, monkeypatch):
    monkeypatch.setattr(decoding, "cpu_count", lambda: cores)
    decoder = BackgroundDecoder(files, SIZE)
    results = list(decoder.results(files))
    assert results[5] == "it is no picture" and results[70] == "No such file or directory"
    assert_same(results, files)
    assert not decoder.remaining
    assert [worker.poll() for worker in decoder.workers] == [0] * min(cores, 3)


def test_pictures_may_be_asked_for_in_parts_and_in_any_order(files):
    decoder = BackgroundDecoder(files, SIZE)
    assert_same(decoder.results(files[100:20:-3]), files[100:20:-3])
    rest = sorted(decoder.remaining)
    assert len(rest) == len(files) - len(files[100:20:-3])
    assert_same(decoder.results(rest), rest)


def test_a_process_that_was_killed_is_an_error_of_one_line_that_names_a_picture(files):
    decoder = BackgroundDecoder(files[:CHUNK_SIZE], SIZE)
    decoder.workers[0].kill()
    with pytest.raises(InputError, match=r"\.png: the process that decodes it .* memory\?$"):
        list(decoder.results(files))


def test_what_goes_wrong_in_a_process_is_raised_where_the_pictures_are_wanted(files):
    decoder = BackgroundDecoder(files[:1], None)
    with pytest.raises(TypeError, match="cannot unpack"):
        list(decoder.results(files[:1]))


def test_large_pictures_are_decoded_one_at_a_time_by_all_processes(tmp_path):
    side = math.isqrt(opener.LARGE_PIXELS) + 1
    Image.new("L", (side, side), 200).save(tmp_path / "large.png")
    decoder = BackgroundDecoder([str(tmp_path / "large.png")], SIZE)
    with filelock.FileLock(decoder.lock_file), pytest.raises(subprocess.TimeoutExpired):
        decoder.workers[0].wait(timeout=2)
    assert list(decoder.results([str(tmp_path / "large.png")]))[0].min() == 200
    assert not decoder.lock_file.exists()


def test_no_process_imports_tensorflow():
    program = (
        "import sys; from classifier import decoding, opener, pictures; print(len(sys.modules), "
    )
    program += "'tensorflow' in sys.modules or 'keras' in sys.modules)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=SCRIPT.parent)
    assert done.stdout.split()[1] == "False", done.stderr


def test_python_files_in_the_current_folder_are_not_run(files, tmp_path, monkeypatch):
    for name in ("signal", "pickle", "PIL", "classifier", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])  # as in a notebook
    assert_same(BackgroundDecoder(files, SIZE).results(files), files)
    assert not (tmp_path / "ran").exists()


def test_processes_end_with_the_one_that_has_begun_them(files):
    program = f"""
import os
from classifier.decoding import BackgroundDecoder
decoder = BackgroundDecoder({files!r} * 1000, {SIZE})  # half a minute's work
print(*(worker.pid for worker in decoder.workers), flush=True)
os._exit(0)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=SCRIPT.parent)
    pids = [int(pid) for pid in done.stdout.split()]
    until = time.monotonic() + 8
    while any(is_running(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.1)
    assert pids and not any(is_running(pid) for pid in pids)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# When


@pytest.fixture
def two_are_many(monkeypatch) -> None:
    """Two cores and two pictures are enough for processes."""
    monkeypatch.setattr(decoding, "cpu_count", lambda: 2)
    monkeypatch.setattr(decoding, "MIN_FILES", 2)
    monkeypatch.setattr(decoding, "MIN_FILES_AHEAD", 2)
    monkeypatch.setattr(decoding, "ahead", None)


def test_processes_are_begun_for_many_pictures_and_several_cores(two_are_many, files, monkeypatch):
    assert len(decoding.decoder_for(files, SIZE).workers) == 2
    assert decoding.decoder_for(files[:1], SIZE) is None
    decoding.start_ahead(files[:1], SIZE)
    monkeypatch.setattr(decoding, "cpu_count", lambda: 1)
    decoding.start_ahead(files, SIZE)
    assert decoding.ahead is None and decoding.decoder_for(files, SIZE) is None


def test_what_has_begun_is_what_load_takes(two_are_many, tmp_path, capsys):
    from mnist_keras import data_generator  # here, since TensorFlow takes seconds

    write_digits(tmp_path / "train", 100, seed=1)
    Path(tmp_path, "train", "0", "broken.png").write_text("no picture")
    setting = Setting(data_dir=str(tmp_path))
    pictures.decode_ahead(setting)
    decoder = decoding.ahead
    assert len(decoder.workers) == 2 and len(decoder.remaining) == 101
    for iterator in data_generator(setting):
        kept = pictures.load(iterator, None)
        assert_same(kept.pixels.repeat(3, axis=-1), kept.paths, (28, 28))
    assert not decoder.remaining and [worker.poll() for worker in decoder.workers] == [0, 0]
    assert f"{tmp_path / 'train' / '0' / 'broken.png'}: left out" in capsys.readouterr().err


def test_of_another_size_or_a_second_time_pictures_are_decoded_anew(two_are_many, files):
    decoding.start_ahead(files, SIZE)
    assert decoding.decoder_for(files, (28, 28)) is not decoding.ahead
    assert decoding.decoder_for(files, SIZE) is decoding.ahead
    assert_same(decoding.ahead.results(files), files)
    assert decoding.decoder_for(files, SIZE) is not decoding.ahead


@pytest.mark.parametrize(
    "given",
    [
        {"recipe": "article"},  # decoded by Keras
        {"is_restore": True},  # of a size that model.json says
        {"cache_limit": 0},  # kept on disk
        {"train_dir": "gone"},
    ],
    ids=str,
)
def test_nothing_is_begun_that_would_not_be_taken(two_are_many, tmp_path, given):
    write_digits(tmp_path / "train", 20, seed=1)
    pictures.decode_ahead(Setting(**{"data_dir": str(tmp_path)} | given))
    assert decoding.ahead is None
    pictures.decode_ahead(Setting(data_dir=str(tmp_path)))
    assert decoding.ahead  # without that it would have been
