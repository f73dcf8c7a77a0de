"""What mnist_parser promises: the right pixels, from anywhere, whole or not at all."""

import contextlib
import gzip
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
from PIL import Image
from test_download import Mirror, good, hangs_before_the_answer

import mnist_parser
from classifier import decoding, opener, pictures
from classifier.console import InputError
from classifier.download import TIMEOUT, NoMirrorError
from classifier.idx import encode_idx
from digits.drawn import draw
from mnist_parser import (
    DRAWN,
    PREFIXES,
    ensure,
    parse,
    read_source,
    remind_of_stand_in,
    source_of,
)

ROOT = Path(__file__).parents[1]
TRAIN_IMAGES = "train-images-idx3-ubyte"


def make_idx(folder, seed=0, train=60, test=20):
    """Four IDX files of drawn digits; returns the arrays by part."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"train": draw(train, seed), "test": draw(test, seed + 1)}
    for part, (images, labels) in parts.items():
        (folder / f"{PREFIXES[part]}-images-idx3-ubyte").write_bytes(encode_idx(images))
        (folder / f"{PREFIXES[part]}-labels-idx1-ubyte").write_bytes(encode_idx(labels))
    return parts


def assert_pictures_are(data_dir, parts):
    """Each part of data_dir holds these images under these labels, pixel for pixel, no more."""
    for part, (images, labels) in parts.items():
        folder = data_dir / part
        found = {
            f"{label}/{name}" for label in os.listdir(folder) for name in os.listdir(folder / label)
        }
        names = [f"{label}/{index}.png" for index, label in enumerate(labels)]
        assert found == set(names)
        for name, image in zip(names, images, strict=True):
            with Image.open(f"{folder}/{name}") as png:
                assert (png.mode, png.size) == ("L", image.shape[::-1])
                assert png.tobytes() == image.tobytes()


def assert_nothing_lies_about(data_dir):
    hidden = {path.name for path in data_dir.rglob(".*")}
    assert hidden <= {".parser.lock"}


@pytest.fixture
def source(tmp_path):
    return tmp_path / "idx"


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "mnist_data"


@pytest.fixture
def few_drawn(monkeypatch):
    """The stand-in, but of 60 and 10 digits: drawing and writing 70,000 takes seconds."""
    monkeypatch.setattr(mnist_parser.drawn, "draw", lambda count, seed: draw(count // 1000, seed))
    return {"train": draw(60, 0), "test": draw(10, 1)}


# ---------------------------------------------------------------- from a folder


@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_folder_of_idx_files_becomes_folders_of_png(source, data_dir, dot, suffix):
    parts = make_idx(source)
    for path in list(source.iterdir()):
        content = gzip.compress(path.read_bytes()) if suffix else path.read_bytes()
        path.unlink()
        path.with_name(path.name.replace("-idx", f"{dot}idx") + suffix).write_bytes(content)
    parse(data_dir, str(source))
    assert_pictures_are(data_dir, parts)
    assert_nothing_lies_about(data_dir)
    assert read_source(data_dir) == {
        "name": f"the IDX files of {source}",
        "folder": str(source),
    }


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (300, 400)])
def test_pictures_of_any_size_are_valid_png(source, data_dir, shape):
    make_idx(source, train=4)
    images = np.random.default_rng(0).integers(0, 256, (4, *shape), np.uint8)
    (source / TRAIN_IMAGES).write_bytes(encode_idx(images))
    parse(data_dir, str(source))
    for path in data_dir.glob("train/*/*.png"):
        with Image.open(path) as png:
            png.verify()  # the checksums
        with Image.open(path) as png:
            assert np.array_equal(png, images[int(path.stem)])


def test_all_of_mnist_is_there_pixel_for_pixel(mnist, mnist_idx):
    parts = {part: mnist_parser.decode_part(mnist_idx, part) for part in PREFIXES}
    assert [len(labels) for _, labels in parts.values()] == [60_000, 10_000]
    assert parts["train"][1][0] == 5
    assert (mnist / "train/5/0.png").is_file()
    assert_pictures_are(mnist, parts)
    assert_nothing_lies_about(mnist)
    assert read_source(mnist)["name"] == "MNIST"


def labels_of(source, part, labels):
    (source / f"{PREFIXES[part]}-labels-idx1-ubyte").write_bytes(encode_idx(labels))


@pytest.mark.parametrize("part", ["train", "test"])
def test_images_and_labels_that_do_not_belong_together_leave_no_pictures(source, data_dir, part):
    make_idx(source, train=20, test=20)
    labels_of(source, part, np.zeros(3, np.uint8))
    with pytest.raises(InputError, match="20 images, but 3 labels"):
        parse(data_dir, str(source))
    (source / f"{PREFIXES[part]}-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match=f"there is no {PREFIXES[part]}-labels"):
        parse(data_dir, str(source))
    assert not (data_dir / "train").exists() and not (data_dir / "test").exists()


def test_an_idx_file_without_images_is_refused(source, data_dir):
    make_idx(source)
    (source / TRAIN_IMAGES).write_bytes(encode_idx(np.zeros((0, 28, 28), np.uint8)))
    labels_of(source, "train", np.zeros(0, np.uint8))
    with pytest.raises(InputError, match="no images"):
        parse(data_dir, str(source))


def test_a_source_that_is_no_folder_is_named(data_dir, source):
    with pytest.raises(InputError, match=f"{re.escape(str(source))}: no such folder"):
        parse(data_dir, str(source))


@pytest.mark.parametrize("place", ["raw", "."])
def test_files_put_there_by_hand_are_what_auto_takes(data_dir, place):
    parts = make_idx(data_dir / place)
    parse(data_dir)
    assert_pictures_are(data_dir, parts)


def test_labels_may_go_up_to_255(source, data_dir):
    images, _ = draw(60, 0)
    labels = np.repeat(np.uint8([0, 9, 10, 255]), 15)
    make_idx(source, test=60)
    for part in PREFIXES:
        (source / f"{PREFIXES[part]}-images-idx3-ubyte").write_bytes(encode_idx(images))
        labels_of(source, part, labels)
    parse(data_dir, str(source))
    assert_pictures_are(data_dir, dict.fromkeys(PREFIXES, (images, labels)))


# --------------------------------------------------------------------- EMNIST


def make_emnist(folder, set_name, first=0, count=60):
    """A set under EMNIST's names, its pictures stored column by column; labels count from first.

    Returns the pictures by part, upright, with their labels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = {}
    for seed, part in enumerate(PREFIXES):
        images, labels = draw(count, seed)
        labels += np.uint8(first)
        stored = np.ascontiguousarray(images.transpose(0, 2, 1))
        (folder / f"{set_name}-{part}-images-idx3-ubyte").write_bytes(encode_idx(stored))
        packed = gzip.compress(encode_idx(labels))
        (folder / f"{set_name}-{part}-labels-idx1-ubyte.gz").write_bytes(packed)
        parts[part] = (images, labels)
    return parts


def test_emnist_s_letters_become_folders_of_upright_letters(source, data_dir):
    parts = make_emnist(source, "emnist-letters", first=1)
    parse(data_dir, str(source))
    letters = np.array(list(" abcdefghij"))
    named = {part: (images, letters[labels]) for part, (images, labels) in parts.items()}
    assert_pictures_are(data_dir, named)
    assert read_source(data_dir)["name"] == "EMNIST letters"


def test_emnist_where_mnist_is_expected_is_not_downloaded_over(data_dir, mirror):
    parts = make_emnist(data_dir, "emnist-digits")
    parse(data_dir)
    assert_pictures_are(data_dir, parts)
    (data_dir / "emnist-digits-test-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match="there is no emnist-digits-test-labels-idx1-ubyte"):
        parse(data_dir, overwrite=True)
    assert_pictures_are(data_dir, parts)
    assert mirror.asked == []


def test_of_several_sets_in_a_folder_none_is_taken(source, data_dir):
    make_idx(source)
    make_emnist(source, "emnist-letters", first=1)
    with pytest.raises(InputError, match=r"several sets \(mnist, emnist-letters\).*--source"):
        parse(data_dir, str(source))
    assert not (data_dir / "train").exists()


# ---------------------------------------------------------------- again, and over


def test_a_second_run_sees_that_the_work_is_done(source, data_dir, capsys):
    make_idx(source)
    parse(data_dir, str(source))
    before = (data_dir / "train").stat().st_mtime_ns
    for again in (str(source), "auto"):
        capsys.readouterr()
        parse(data_dir, again)
        assert "already holds" in capsys.readouterr().out
    assert (data_dir / "train").stat().st_mtime_ns == before


def test_another_source_asks_for_overwrite(source, data_dir, tmp_path):
    first = make_idx(source)
    second = make_idx(tmp_path / "other", seed=7)
    parse(data_dir, str(source))
    for other in (str(tmp_path / "other"), "drawn"):
        with pytest.raises(InputError, match="--overwrite"):
            parse(data_dir, other)
        assert_pictures_are(data_dir, first)
    parse(data_dir, str(tmp_path / "other"), overwrite=True)
    assert_pictures_are(data_dir, second)
    assert_nothing_lies_about(data_dir)


@pytest.mark.skipif(os.name == "nt", reason="links need special rights on Windows")
def test_links_are_replaced_again_and_again_and_their_targets_stay(source, data_dir, tmp_path):
    make_idx(source)
    parse(data_dir, str(source))
    for seed in (7, 8, 9):
        for part in PREFIXES:
            target = tmp_path / f"other disk {seed}" / part
            target.parent.mkdir(exist_ok=True)
            (data_dir / part).rename(target)
            (data_dir / part).symlink_to(target)
        parts = make_idx(tmp_path / "other", seed=seed)
        parse(data_dir, str(tmp_path / "other"), overwrite=True)
        assert_pictures_are(data_dir, parts)
        assert_nothing_lies_about(data_dir)
        assert all(any((tmp_path / f"other disk {seed}" / part).iterdir()) for part in PREFIXES)


@pytest.mark.skipif(os.name == "nt", reason="links need special rights on Windows")
def test_a_link_to_a_disk_that_is_not_mounted_is_not_replaced(source, data_dir, tmp_path):
    parts = make_idx(source)
    data_dir.mkdir()
    (data_dir / "train").symlink_to(tmp_path / "unmounted")
    with pytest.raises(InputError, match="train: a link to .*unmounted, which does not exist"):
        parse(data_dir, str(source))
    assert (data_dir / "train").is_symlink()
    parse(data_dir, str(source), overwrite=True)
    assert_pictures_are(data_dir, parts)


def test_a_file_in_the_place_of_a_folder_is_replaced_again_and_again(source, data_dir):
    parts = make_idx(source)
    data_dir.mkdir()
    for _ in range(2):
        shutil.rmtree(data_dir / "train", ignore_errors=True)
        (data_dir / "train").write_text("a file")
        parse(data_dir, str(source), overwrite=True)
        assert_pictures_are(data_dir, parts)
        assert_nothing_lies_about(data_dir)


def test_a_mount_point_is_named_before_anything_is_written(source, data_dir, monkeypatch):
    make_idx(source)
    (data_dir / "test").mkdir(parents=True)
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "test")
    with pytest.raises(InputError, match="test: a mount point"):
        parse(data_dir, str(source), overwrite=True)
    assert list((data_dir / "test").iterdir()) == []
    assert_nothing_lies_about(data_dir)


def test_the_old_pictures_are_there_until_the_new_are_in_place(source, data_dir, monkeypatch):
    make_idx(source)
    parse(data_dir, str(source))
    before = {path.read_bytes() for path in data_dir.rglob("train/*/*.png")}
    rename = Path.rename

    def rename_old_only(path, target):
        if path == data_dir / ".new" / "train":
            raise PermissionError(13, "open in another program", str(path))
        return rename(path, target)

    make_idx(source, seed=7)
    monkeypatch.setattr(Path, "rename", rename_old_only)
    with pytest.raises(InputError, match="unharmed"):
        parse(data_dir, str(source), overwrite=True)
    assert before <= {path.read_bytes() for path in data_dir.rglob("*.png")}


def test_a_part_that_was_removed_is_made_again_from_where_it_came(source, data_dir):
    parts = make_idx(source)
    parse(data_dir, str(source))
    shutil.rmtree(data_dir / "test")
    parse(data_dir)
    assert_pictures_are(data_dir, parts)


@pytest.mark.parametrize("wanted", ["auto", "download", "drawn"])
def test_pictures_of_the_user_s_own_are_not_touched(data_dir, wanted, dead_mirror):
    own = data_dir / "train" / "cat" / "tom.png"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"his")
    with pytest.raises(InputError, match="did not write; --overwrite"):
        parse(data_dir, wanted)
    assert own.read_bytes() == b"his"


def test_a_stand_in_does_not_take_the_place_of_anything_but_a_stand_in(
    source, data_dir, dead_mirror, few_drawn
):
    (data_dir / "train" / "cat").mkdir(parents=True)
    with pytest.raises(NoMirrorError):
        parse(data_dir, "auto", overwrite=True)
    assert (data_dir / "train" / "cat").is_dir()


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "null", '{"name": "MNIST"}', "[" * 99_999, "\0"]
)
def test_a_damaged_source_json_is_named(data_dir, content):
    data_dir.mkdir()
    (data_dir / "source.json").write_text(content)
    with pytest.raises(InputError, match="source.json: damaged"):
        read_source(data_dir)


def test_a_forged_source_json_cannot_steer_the_terminal(source, data_dir, capsys):
    make_idx(source)
    parse(data_dir, str(source))
    forged = {"name": "\x1b[2JMNIST\n", "folder": str(source)}
    (data_dir / "source.json").write_text(json.dumps(forged))
    capsys.readouterr()
    parse(data_dir)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.count("\n") == 1


# ------------------------------------------------------------------- the network


DEAD = "http://127.0.0.1:9/"  # a port where nobody listens


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """Four .gz files by name, which the parser takes for MNIST's; their pictures by part."""
    parts = make_idx(tmp_path / "served")
    files = {
        f"{path.name}.gz": gzip.compress(path.read_bytes())
        for path in (tmp_path / "served").iterdir()
    }
    hashes = {name[:-3]: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(mnist_parser, "SHA256", {name: hashes[name] for name in sorted(hashes)})
    return files, parts


@pytest.fixture
def mirror(packed, monkeypatch):
    """A mirror that serves them, and is named in MNIST_MIRROR."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Mirror(packed[0], good)
    monkeypatch.setenv("MNIST_MIRROR", f"{DEAD} {server.url}")
    yield server
    server.close()


@pytest.fixture
def dead_mirror(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("MNIST_MIRROR", DEAD)


@pytest.mark.parametrize("wanted", ["auto", "download"])
def test_mnist_is_downloaded_into_raw(mirror, packed, data_dir, wanted):
    files, parts = packed
    parse(data_dir, wanted)
    assert {path.name: path.read_bytes() for path in (data_dir / "raw").iterdir()} == files
    assert_pictures_are(data_dir, parts)


@pytest.mark.parametrize("place", ["raw", "."])
def test_a_set_begun_by_hand_or_by_a_download_is_completed_where_it_lies(
    mirror, packed, data_dir, place
):
    files, parts = packed
    first, *others = sorted(files)
    (data_dir / place).mkdir(parents=True)
    (data_dir / place / first).write_bytes(files[first])
    parse(data_dir)
    assert sorted(mirror.asked) == others
    assert (data_dir / "raw").exists() == (place == "raw")
    assert_pictures_are(data_dir, parts)


def test_the_genuine_files_have_the_sums_that_are_asked_for(mnist_idx, tmp_path, monkeypatch):
    files = {path.name: path.read_bytes() for path in mnist_idx.glob("*.gz")}
    if len(files) < 4:
        pytest.skip(f"the files in {mnist_idx} are unpacked")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Mirror(files, good)
    monkeypatch.setenv("MNIST_MIRROR", server.url)
    mnist_parser.fetch_missing(tmp_path / "raw")
    server.close()
    assert {path.name: path.read_bytes() for path in (tmp_path / "raw").iterdir()} == files


def test_other_files_under_mnist_s_names_are_not_mixed_with_a_download(mirror, data_dir):
    (data_dir / "raw").mkdir(parents=True)
    (data_dir / "raw" / TRAIN_IMAGES).write_bytes(b"others")
    with pytest.raises(InputError, match=f"{TRAIN_IMAGES}: not the file"):
        parse(data_dir)
    assert (data_dir / "raw" / TRAIN_IMAGES).read_bytes() == b"others"


def test_a_hanging_network_costs_less_than_10_seconds_in_all():
    assert len(mnist_parser.MIRRORS) * TIMEOUT < 10
    assert all(url.startswith("https://") for url in mnist_parser.MIRRORS)


def test_what_cannot_be_downloaded_leaves_no_pictures(dead_mirror, data_dir):
    with pytest.raises(NoMirrorError, match="train-images-idx3-ubyte.gz.*by hand"):
        parse(data_dir, "download")
    assert not (data_dir / "train").exists()


def test_the_disk_s_errors_are_not_blamed_on_the_mirrors(mirror, data_dir):
    data_dir.mkdir()
    (data_dir / "raw").write_text("in the way")
    with pytest.raises(InputError, match=re.escape(str(data_dir / "raw"))) as error:
        parse(data_dir, "auto")
    assert not isinstance(error.value, NoMirrorError)


# ----------------------------------------------------------------- the stand-in


def test_without_a_mirror_auto_draws_digits_and_says_so_loudly(
    dead_mirror, data_dir, few_drawn, capsys
):
    parse(data_dir)
    out, err = capsys.readouterr()
    assert err.startswith("WARNING: ")
    assert "DRAWN DIGITS, NOT MNIST" in err
    assert "Connection refused" in err
    assert str(data_dir / "raw") in err
    assert out.endswith(f"{DRAWN}: 60 in train and 10 in test\n")
    assert_pictures_are(data_dir, few_drawn)
    assert read_source(data_dir)["name"] == DRAWN


def test_the_stand_in_stays_while_there_is_no_mirror(dead_mirror, data_dir, few_drawn, capsys):
    parse(data_dir)
    before = (data_dir / "train").stat().st_mtime_ns
    capsys.readouterr()
    parse(data_dir)
    out, err = capsys.readouterr()
    assert f"already holds {DRAWN}" in out
    assert "DRAWN DIGITS, NOT MNIST" in err
    assert (data_dir / "train").stat().st_mtime_ns == before


def test_the_stand_in_makes_way_for_mnist_when_a_mirror_answers(
    mirror, packed, data_dir, few_drawn, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setenv("MNIST_MIRROR", DEAD)
        parse(data_dir)
    assert read_source(data_dir)["name"] == DRAWN
    parse(data_dir)
    assert_pictures_are(data_dir, packed[1])
    assert read_source(data_dir)["name"] != DRAWN
    assert_nothing_lies_about(data_dir)


def test_drawn_digits_can_be_asked_for(data_dir, few_drawn):
    parse(data_dir, "drawn")
    assert_pictures_are(data_dir, few_drawn)
    assert read_source(data_dir)["name"] == DRAWN
    kept = mnist_parser.decode_part(data_dir / "drawn", "train")
    np.testing.assert_array_equal(kept[0], few_drawn["train"][0])


# ------------------------------------------------------- killed, full, two at once

# A parser that ends, as if it were killed, just before it opens, makes, renames or removes a file
# in data_dir for the n-th time; what it prints is how many times were left.
KILLED = """
import os, sys, mnist_parser
data_dir, source, n = sys.argv[1:]
left = iter(range(int(n)))
def step(event, arguments):
    if event in ("open", "os.mkdir", "os.rename", "os.remove"):
        if str(arguments[0]).startswith(data_dir) and next(left, None) is None:
            os._exit(9)
sys.addaudithook(step)
mnist_parser.parse(data_dir, source)
print(len(list(left)), file=sys.stderr)
"""


def parse_killed(data_dir, source, steps):
    """Parse until so many steps are done; returns how many more could have been, None if killed."""
    command = [sys.executable, "-c", KILLED, data_dir, source, str(steps)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 9)
    return None if done.returncode else int(done.stderr)


def test_killed_at_any_moment_every_folder_is_whole_or_absent(source, tmp_path):
    parts = make_idx(source)
    total = 1000 - parse_killed(tmp_path / "undisturbed", source, 1000)
    # Most of the last steps, in which the folders come to their places.
    for steps in (*range(1, total - 10, total // 4), *range(total - 10, total, 2)):
        data_dir = tmp_path / f"killed after {steps}"
        assert parse_killed(data_dir, source, steps) is None
        for part in PREFIXES:
            if (data_dir / part).exists():
                assert_pictures_are(data_dir, {part: parts[part]})
        parse(data_dir, str(source))
        assert_pictures_are(data_dir, parts)
        assert_nothing_lies_about(data_dir)


@pytest.mark.parametrize("renames", range(8))
def test_killed_between_two_renames_the_next_run_does_the_rest(
    source, data_dir, tmp_path, monkeypatch, renames
):
    class KilledError(BaseException):
        pass

    make_idx(source)
    parts = make_idx(tmp_path / "other", seed=7)
    parse(data_dir, str(source))
    left = iter(range(renames))

    def then_killed(move):
        def moved(self, target):
            if next(left, None) is None:
                raise KilledError
            return move(self, target)

        return moved

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", then_killed(Path.rename))
        patch.setattr(Path, "replace", then_killed(Path.replace))
        with contextlib.suppress(KilledError):
            parse(data_dir, str(tmp_path / "other"), overwrite=True)
    parse(data_dir, str(tmp_path / "other"), overwrite=renames == 0)
    assert_pictures_are(data_dir, parts)
    assert_nothing_lies_about(data_dir)


def test_no_half_file_of_a_killed_run_lies_about(source, data_dir):
    parts = make_idx(source)
    for place in ("", "raw", "drawn"):
        (data_dir / place).mkdir(exist_ok=True)
        (data_dir / place / f".partial-123-{TRAIN_IMAGES}").write_bytes(b"half")
    parse(data_dir, str(source))
    assert_pictures_are(data_dir, parts)
    assert_nothing_lies_about(data_dir)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without a signal")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_parser_says_how_to_go_on(tmp_path, data_dir, number, status, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Mirror({f"{name}.gz": b"" for name in mnist_parser.SHA256}, hangs_before_the_answer)
    monkeypatch.setenv("MNIST_MIRROR", server.url)
    child = subprocess.Popen(
        [sys.executable, ROOT / "mnist_parser.py", "--data_dir", data_dir],
        stderr=subprocess.PIPE,
        text=True,
    )
    while not server.asked:
        time.sleep(0.01)
    child.send_signal(number)
    err = child.communicate()[1]
    server.close()
    assert child.returncode == status
    assert "the same command goes on" in err
    assert err.count("\n") == 1


def test_two_at_once_the_second_says_so_and_stops(source, data_dir):
    make_idx(source)
    data_dir.mkdir()
    with (
        filelock.FileLock(data_dir / ".parser.lock"),
        pytest.raises(InputError, match="another mnist_parser.py is at work"),
    ):
        parse(data_dir, str(source))
    parse(data_dir, str(source))


# What a full disk does to a write, a limit on the size of files does too.
FULL_DISK = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)); "
COMMAND = "import sys, mnist_parser; sys.argv[0] = 'mnist_parser.py'; mnist_parser.main()"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not limit the size of files")
def test_a_full_disk_is_one_clear_line_and_leaves_what_was_there(source, data_dir, tmp_path):
    parts = make_idx(source)
    make_idx(tmp_path / "other", seed=7)
    parse(data_dir, str(source))
    arguments = ["--data_dir", data_dir, "--source", tmp_path / "other", "--overwrite"]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK + COMMAND, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"mnist_parser.py: {data_dir}: File too large; ")
    assert done.stderr.count("\n") == 1
    assert_pictures_are(data_dir, parts)
    assert_nothing_lies_about(data_dir)


def test_a_data_dir_that_cannot_be_made_is_named(source, tmp_path):
    make_idx(source)
    (tmp_path / "file").write_text("a file")
    for data_dir in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=f"^{re.escape(str(data_dir))}: .* needs 400 MB"):
            parse(data_dir, str(source))
    assert (tmp_path / "file").read_text() == "a file"


# ------------------------------------------------------------ for who needs pictures


def test_pictures_that_are_there_are_left_as_they_are(data_dir, dead_mirror):
    (data_dir / "train").mkdir(parents=True)
    ensure(data_dir / "train", data_dir)
    assert list(data_dir.rglob("*")) == [data_dir / "train"]


@pytest.mark.parametrize("place", ["mnist_data/raw", "my digits/raw", "my digits"])
def test_idx_files_are_parsed_where_pictures_are_missing(tmp_path, place):
    parts = make_idx(tmp_path / place)
    data_dir = tmp_path / place.removesuffix("/raw")
    ensure(data_dir / "train", data_dir)
    assert_pictures_are(data_dir, parts)


def test_a_fresh_clone_has_mnist_fetched(mirror, packed, data_dir):
    (data_dir / "tmp").mkdir(parents=True)
    ensure(data_dir / "train", data_dir)
    assert_pictures_are(data_dir, packed[1])


def test_a_folder_of_the_user_s_that_is_missing_is_not_filled_with_mnist(tmp_path, mirror):
    for train_dir, data_dir in (("my pets/train", "my pets"), ("cats", "mnist_data")):
        with pytest.raises(InputError) as error:
            ensure(tmp_path / train_dir, tmp_path / data_dir)
        assert str(error.value).startswith(f"{tmp_path / train_dir}: no such folder")
        assert f"--data_dir {shlex.quote(str(tmp_path / data_dir))})" in str(error.value)
        assert not (tmp_path / data_dir).exists()
    assert mirror.asked == []


def test_what_a_killed_parser_had_ready_is_put_in_place(source, data_dir, tmp_path, monkeypatch):
    make_idx(source)
    parts = make_idx(tmp_path / "other", seed=7)
    parse(data_dir, str(source))
    mnist_parser.write_new(data_dir, tmp_path / "other")
    # Training has begun to decode the pictures that were there.
    monkeypatch.setattr(decoding, "MIN_FILES_AHEAD", 1)
    monkeypatch.setattr(decoding, "cpu_count", lambda: 2)
    files = [str(path) for path in data_dir.glob("train/*/*.png")]
    decoding.start_ahead(files, (28, 28))
    decoding.ahead.read_chunk()
    ensure(data_dir / "train", data_dir)
    assert_pictures_are(data_dir, parts)
    files = [path for path in files if os.path.exists(path)]
    assert files and [opener.decode(path, (28, 28)).tolist() for path in files] == [
        image.tolist() for image in pictures.decode_all(files, (28, 28))
    ]


def test_pictures_are_called_what_they_are(data_dir, few_drawn):
    assert source_of(data_dir / "test", data_dir) == str(data_dir / "test")
    parse(data_dir, "drawn")
    assert source_of(data_dir / "train", data_dir) == DRAWN
    assert source_of(f"{data_dir}/./test", f"{data_dir}/") == DRAWN
    assert source_of("flowers/train", data_dir) == "flowers/train"


def test_only_of_a_stand_in_one_is_reminded(capsys):
    for source in ("MNIST", "flowers/train"):
        remind_of_stand_in("the network knows", source, "mnist_data/")
    assert capsys.readouterr().err == ""
    remind_of_stand_in("it is measured on", DRAWN, "my data")
    assert capsys.readouterr().err == (
        f"NOTE: it is measured on {DRAWN}; "
        "python mnist_parser.py --data_dir 'my data' fetches the real ones\n"
    )


def test_where_the_real_ones_are_by_now_it_is_training_that_is_missing(source, data_dir, capsys):
    make_idx(source)
    parse(data_dir, str(source))
    remind_of_stand_in("the network was trained on", DRAWN, data_dir)
    assert f"--mode train learns from the IDX files of {source}" in capsys.readouterr().err


# --------------------------------------------------------------- the command line


def test_the_command_says_what_it_wrote_and_draws_no_bar_in_a_log(source, data_dir):
    make_idx(source)
    command = [sys.executable, ROOT / "mnist_parser.py", "--data_dir", data_dir, "--source", source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    counts = "60 in train and 20 in test"
    assert done.stdout == f"the IDX files of {source}: {counts}\n"


def test_the_parser_does_not_import_tensorflow():
    code = (
        "import sys, mnist_parser; print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n"
