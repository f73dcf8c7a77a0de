"""What classifier.idx promises: the arrays of an IDX file, or one line on what is wrong with it."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from classifier.console import InputError
from classifier.idx import decode_idx1_ubyte, decode_idx3_ubyte, encode_idx
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
    "promises the moon": (RAW[:4] + b"\xff" * 12 + RAW[16:], "more than the file can hold"),
    "gzip that promises the moon": (
        gzip.compress(RAW[:4] + b"\xff" * 12 + RAW[16:]),
        "more than the file can hold",
    ),
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


def test_only_bytes_are_put_into_an_idx_file_of_bytes():
    with pytest.raises(ValueError, match="int32"):
        encode_idx(np.zeros(3, np.int32))
