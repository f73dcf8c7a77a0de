"""What is promised of pictures that don't fit into memory."""

import collections
import os

import numpy as np
import pytest
from helpers import save
from tensorflow.keras.preprocessing.image import ImageDataGenerator

from classifier import disk_cache
from classifier.disk_cache import DiskCache
from classifier.opener import decode
from classifier.pictures import load

SIZE = (6, 5)


@pytest.fixture
def files(tmp_path):
    """Three pictures, the second of them damaged."""
    noise = np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path, name, noise.integers(0, 256, (9, 9, 3), np.uint8))
    (tmp_path / "b.png").write_bytes(b"damaged")
    return [str(tmp_path / name) for name in ("a.png", "b.png", "c.png")]


@pytest.fixture
def decoded():
    """The names of the files that were decoded."""
    return []


@pytest.fixture
def kept(files, tmp_path, decoded):
    """Makes a decoder as a run does, which has decoded all that can be."""

    def counted(path, size):
        decoded.append(path)
        return decode(path, size)

    def make():
        keeper = DiskCache(tmp_path / "run" / "pixels" / "training.bin", files, SIZE, counted)
        for file in files:
            try:
                keeper(file, SIZE)
            except OSError:
                continue
        keeper.complete()
        return keeper

    return make


def test_a_picture_is_decoded_once_and_then_read_as_it_was(kept, files, decoded):
    keeper = kept()
    assert decoded == files
    assert "may be deleted" in keeper.metadata_path.read_text()
    for file in (files[0], files[2]):
        np.testing.assert_array_equal(keeper(file, SIZE), decode(file, SIZE))
    assert decoded == files


def test_a_later_run_reads_what_an_earlier_one_has_kept(kept, files, decoded):
    kept()
    decoded.clear()
    later = kept()
    assert decoded == [files[1]]  # what can't be decoded is no black picture next time
    np.testing.assert_array_equal(later(files[2], SIZE), decode(files[2], SIZE))


def test_pictures_that_have_changed_are_decoded_anew(kept, files, decoded):
    kept()
    os.utime(files[2], ns=(1, 1))
    decoded.clear()
    kept()
    assert decoded == files


@pytest.mark.parametrize("note", ["", "[]", '{"made_from": 1}', None])
def test_a_file_that_was_not_finished_is_begun_anew(kept, files, decoded, note):
    place = kept().metadata_path
    place.write_text(note) if note is not None else place.unlink()
    decoded.clear()
    kept()
    assert decoded == files


def test_training_pictures_beyond_the_memory_for_them_are_kept_beside_the_run(tmp_path, capsys):
    for name in ("cat", "dog"):
        for number in range(3):
            picture = np.full((20, 20, 3), 40 * number, np.uint8)
            save(tmp_path / "train" / name, f"{number}.png", picture)
    iterator = ImageDataGenerator().flow_from_directory(tmp_path / "train", target_size=SIZE)
    beside = tmp_path / "model_weight" / "pixels" / "training.bin"
    pictures = load(iterator, 0, cache_file=beside)
    assert f"kept in {beside}" in capsys.readouterr().out
    assert pictures.pixels is None and beside.stat().st_size == 6 * 6 * 5 * 3
    for path in iterator.filepaths:
        np.testing.assert_array_equal(pictures.decode(path, SIZE), decode(path, SIZE))


def test_where_the_disk_is_too_full_for_them_they_are_decoded_every_epoch(
    tmp_path, capsys, monkeypatch
):
    for name in ("cat", "dog"):
        save(tmp_path / "train" / name, "1.png", np.zeros((20, 20, 3), np.uint8))
    iterator = ImageDataGenerator().flow_from_directory(tmp_path / "train", target_size=SIZE)
    monkeypatch.setattr(disk_cache, "MAX_DISK_SHARE", 0)
    pictures = load(iterator, 0, cache_file=tmp_path / "pixels" / "training.bin")
    assert "decoded every epoch" in capsys.readouterr().out
    assert pictures.decode is decode and not (tmp_path / "pixels").exists()


def test_a_second_run_counts_its_own_file_as_room(tmp_path, monkeypatch):
    path, size = tmp_path / "pixels" / "training.bin", (28, 28)
    needed = 20 * 28 * 28 * 3
    disk = [2 * needed]  # so many bytes are free: just enough, since half of them may be taken
    usage = collections.namedtuple("usage", "free")
    monkeypatch.setattr(disk_cache.shutil, "disk_usage", lambda folder: usage(disk[0]))
    assert DiskCache.fits(path, 20, size) and not DiskCache.fits(path, 21, size)
    path.parent.mkdir()
    path.write_bytes(bytes(needed))
    disk[0] -= needed
    assert DiskCache.fits(path, 20, size)
    with open(path, "wb") as file:  # a run that has just begun: nothing of it is on the disk
        file.truncate(needed)
    if hasattr(os.stat(path), "st_blocks") and os.stat(path).st_blocks == 0:
        assert not DiskCache.fits(path, 20, size)
