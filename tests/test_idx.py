"""What classifier.idx promises: the arrays of an IDX file, or one line on what is wrong with it."""

import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from classifier.console import InputError
from classifier.idx import (
    EMNIST,
    class_names,
    decode_idx1_ubyte,
    decode_idx3_ubyte,
    encode_idx,
    find_idx,
    find_sets,
)
from digits.drawn import draw

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_decoded_raw_and_gzip(tmp_path, suffix):
    images, labels = draw(30, 0)
    pack = gzip.compress if suffix else bytes
    (tmp_path / f"images{suffix}").write_bytes(pack(encode_idx(images)))
    (tmp_path / f"labels{suffix}").write_bytes(pack(encode_idx(labels)))
    decoded = decode_idx3_ubyte(tmp_path / f"images{suffix}")
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, images)
    np.testing.assert_array_equal(decode_idx1_ubyte(tmp_path / f"labels{suffix}"), labels)


IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
RAW = encode_idx(IMAGES)
GZIP = gzip.compress(RAW)
DAMAGED = {
    "empty": (b"", "ends within its header"),
    "ends in the header": (RAW[:10], "ends within its header"),
    "labels for images": (encode_idx(IMAGES[0, 0]) + bytes(20), "magic 0x801"),
    "another magic number": (b"\x00\x00\x0d\x03" + RAW[4:], "magic 0xd03"),
    "ends too early": (RAW[:-1], "promises 60 bytes, the file holds 59"),
    "goes on too long": (RAW + b"\0", "promises 60 bytes, the file holds more"),
    "promises too much": (struct.pack(">4I", 0x803, 700_001, 1000, 1), "700000000 are the most"),
    "gzip cut short": (GZIP[:-12], "gzip"),
    "gzip without its checksum": (GZIP[:-8], "gzip"),
    "gzip with a wrong checksum": (GZIP[:-8] + bytes(4) + GZIP[-4:], "gzip"),
    "gzip with a flipped bit": (GZIP[:20] + bytes([GZIP[20] ^ 0x10]) + GZIP[21:], ""),
    "gzip of nothing": (gzip.compress(b""), "ends within its header"),
    "gzip and rubbish": (GZIP + b"rubbish", "gzip"),
    "gzip that goes on": (gzip.compress(RAW + bytes(99)), "holds more"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_idx_file_is_refused_in_one_line_that_names_it(tmp_path, what):
    content, reason = DAMAGED[what]
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        decode_idx3_ubyte(path)
    assert str(error.value).startswith(f"{path}: ")
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory")
def test_a_gzip_bomb_is_not_unpacked_past_its_header_s_promise(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(RAW) + 400 * gzip.compress(bytes(10_000_000)))  # 4 GB
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)); "
    code = f"{limit}from classifier.idx import *; decode_idx3_ubyte({str(path)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # whose threads take address space
    )
    assert "holds more" in done.stderr


@pytest.mark.parametrize("path", ["missing", "."])
def test_an_idx_file_that_cannot_be_read_is_named(tmp_path, path):
    with pytest.raises(InputError, match="No such file|Is a directory|Permission"):
        decode_idx3_ubyte(tmp_path / path)


# ------------------------------------------------------------------- names of classes

ALL_LABELS = np.arange(256, dtype=np.uint8)


def folder_of(folder, set_name):
    """The folder, which holds a file of the set's."""
    start = "train" if set_name == "mnist" else f"{set_name}-train"
    (folder / f"{start}-images-idx3-ubyte.gz").write_bytes(b"")
    return folder


def test_a_set_is_known_by_the_names_of_its_files(tmp_path):
    assert find_sets(tmp_path) == []
    for set_name in ("emnist-mnist", "mnist"):
        folder_of(tmp_path, set_name)
    assert find_sets(tmp_path) == ["mnist", "emnist-mnist"]


def test_without_letters_the_labels_are_the_names(tmp_path):
    names = class_names(folder_of(tmp_path, "mnist"), ALL_LABELS)
    assert names.tolist() == [str(label) for label in range(256)]


@pytest.mark.parametrize(
    ("set_name", "count", "some"),
    [
        ("emnist-balanced", 47, {0: "0", 10: "A", 35: "Z", 36: "a_small", 46: "t_small"}),
        ("emnist-bymerge", 47, {9: "9", 12: "C", 40: "f_small"}),
        ("emnist-byclass", 62, {10: "A", 36: "a_small", 38: "c_small", 61: "z_small"}),
        ("emnist-letters", 26, {1: "a", 26: "z"}),
        ("emnist-digits", 10, {0: "0", 9: "9"}),
        ("emnist-mnist", 10, {0: "0", 9: "9"}),
    ],
)
def test_emnist_s_labels_have_their_characters(tmp_path, set_name, count, some):
    labels = np.uint8(sorted(EMNIST[set_name]))
    names = class_names(folder_of(tmp_path, set_name), labels)
    assert len(labels) == count
    assert {label: names[labels == label] for label in some} == some
    # Windows and macOS don't tell A from a.
    assert len({name.lower() for name in names}) == count


def test_a_label_without_a_character_is_named(tmp_path):
    with pytest.raises(InputError, match="label 27, for which emnist-letters has no character"):
        class_names(folder_of(tmp_path, "emnist-letters"), np.uint8([1, 26, 27]))


def test_a_raw_file_comes_before_a_packed_one(tmp_path):
    """Who has unpacked a file, and perhaps changed it, means that one."""
    for name in ("train-labels-idx1-ubyte", "train-labels-idx1-ubyte.gz"):
        (tmp_path / name).write_bytes(b"")
    assert find_idx(tmp_path, "train-labels-idx1-ubyte").suffix == ""
