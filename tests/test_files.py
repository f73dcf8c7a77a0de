"""What classifier.files promises: a file stands at its path whole or not at all."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from classifier.console import InputError
from classifier.files import (
    atomic_file,
    atomic_folder,
    make_folder,
    prepare_file,
    try_write,
    write_csv,
    write_file,
)


def test_a_whole_file_stands_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "model.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with atomic_file(path) as partial:
        assert partial.suffix == path.suffix
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_two_programs_that_write_one_report_do_not_share_a_half_file(tmp_path):
    """Not even in two containers, in which both have the same process number."""
    with atomic_file(tmp_path / "predictions.csv") as one:
        with atomic_file(tmp_path / "predictions.csv") as other:
            assert one != other
            other.write_text("other")
        one.write_text("one")
    assert (tmp_path / "predictions.csv").read_text() == "one"


def test_a_file_that_cannot_be_written_is_named_as_the_user_knows_it(tmp_path):
    path = tmp_path / "missing" / "model.json"
    with pytest.raises(FileNotFoundError) as failure, atomic_file(path) as partial:
        partial.write_text("new")
    assert failure.value.filename == str(path)


def test_saving_again_replaces_the_file(tmp_path):
    for content in (b"old", b"new"):
        write_file(tmp_path / "raw.gz", content)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"new"]


def test_a_table_can_hold_any_file_name(tmp_path):
    path = tmp_path / "report" / "predictions.csv"
    write_csv(path, [{"file": name, "label": "七"} for name in ("a,b.png", "\udce9.png")])
    with open(path, newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [
            {"file": "a,b.png", "label": "七"},
            {"file": r"\udce9.png", "label": "七"},
        ]


def test_an_atomic_folder_stands_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "export" / "onnx"
    with pytest.raises(RuntimeError), atomic_folder(path) as partial:
        (partial / "half").touch()
        raise RuntimeError
    assert not any(path.parent.iterdir())
    with atomic_folder(path) as partial:
        (partial / "old").touch()
        assert not path.exists()
    assert [file.name for file in path.iterdir()] == ["old"]
    assert path.stat().st_mode == path.parent.stat().st_mode  # as any folder that is made


def test_a_folder_that_stood_there_is_kept(tmp_path, capsys):
    path = tmp_path / "onnx"
    for name in ("old", "new"):
        with atomic_folder(path) as partial:
            (partial / name).touch()
    (kept,) = (tmp_path / "previous").iterdir()
    assert (kept / "onnx" / "old").exists() and (path / "new").exists()
    assert not (path / "old").exists()
    assert f"is now in {kept}" in capsys.readouterr().out


def test_what_a_killed_program_had_half_written_of_a_folder_is_cleared_away(tmp_path):
    program = (
        "import os, pathlib, sys; from classifier.files import atomic_folder\n"
        "with atomic_folder(pathlib.Path(sys.argv[1], 'onnx')) as partial:\n"
        " (partial / 'half').touch(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path], cwd=Path(__file__).parents[1])
    assert list(tmp_path.glob(".partial-*/onnx/half"))
    with atomic_folder(tmp_path / "litert") as other:
        assert list(tmp_path.glob(".partial-*/*/")) == [other]
        with atomic_folder(tmp_path / "keras"):
            pass  # another program does not clear away what this one is at
        assert other.is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {"litert", "keras"}


@pytest.mark.parametrize("place", ["taken", "taken/model_weight"])
def test_a_file_where_a_folder_is_wanted_is_named(tmp_path, place, capsys):
    (tmp_path / "taken").write_text("the user's own")
    said = "taken: a file; a folder is wanted here"
    with pytest.raises(InputError, match=said):
        make_folder(tmp_path / place)
    assert not try_write(tmp_path / place / "report.csv", Path.touch)
    assert said in capsys.readouterr().err
    assert (tmp_path / "taken").read_text() == "the user's own"


def test_where_a_file_can_not_be_written_is_said_before_the_work(tmp_path):
    prepare_file(tmp_path / "new" / "finder.npz")
    assert (tmp_path / "new").is_dir()
    with pytest.raises(InputError, match="a folder; name the file to write"):
        prepare_file(tmp_path)
