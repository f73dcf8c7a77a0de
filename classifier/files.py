"""Files and folders that are written atomically: whole, or not at all."""

import contextlib
import csv
import datetime
import errno
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock

from classifier.console import InputError, printable, warn

# Errors of the disk, which concern every file.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
IN_USE = ".in-use"  # locked in a half-written folder while a program is at work there


def make_folder(path: Path) -> None:
    """Make the folder and those above it, as far as they are missing.

    Raises:
        InputError: a file stands in its place.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        for place in (path, *path.parents):
            if place.is_file():
                raise InputError(f"{place}: a file; a folder is wanted here") from None
        raise


def prepare_file(path: Path) -> None:
    """Make the folder of a file that is written after long work.

    Raises:
        InputError: it can't be written there.
    """
    if path.is_dir():
        raise InputError(f"{path}: a folder; name the file to write")
    make_folder(path.parent)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows, the keys of the first as the header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic_file(path) as partial,
        # A file's name may be bytes that aren't text.
        open(partial, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Where to write a file so that it stands at path whole or not at all.

    Yields:
        A path beside it with the same ending; what is there in the end is renamed to path.
    """
    # Two programs may write the same report at once, also in two containers with the same pids.
    partial = path.with_name(f".partial-{secrets.randbits(64)}-{path.name}")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        # A failed write, as on a full disk, names no file, or one that the user doesn't know.
        if error.errno and error.filename in (None, str(partial)):
            error.filename = str(path)
        raise
    finally:
        if partial.exists():  # unlink would complain of a read-only disk
            partial.unlink()


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Where to write a folder so that it stands at path whole or not at all.

    Yields:
        An empty folder, which is renamed to path in the end. What stands there is moved to
        previous/<date-time>/ beside it: nothing is lost.

    Raises:
        InputError: a file stands where it is to lie.
    """
    make_folder(path.parent)
    remove_partial_folders(path.parent)
    with (
        tempfile.TemporaryDirectory(dir=path.parent, prefix=".partial-") as temporary,
        filelock.FileLock(Path(temporary, IN_USE)),
    ):
        partial = Path(temporary, path.name)  # the folder around it is closed to other users
        partial.mkdir()
        yield partial
        if path.exists():
            now = datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S-%f")
            previous = path.parent / "previous" / now
            previous.mkdir(parents=True)
            path.rename(previous / path.name)
            print(f"what was in {printable(str(path))} is now in {printable(str(previous))}")
        partial.rename(path)


def remove_partial_files(folder: Path) -> None:
    """Remove what programs that were killed had half written there with atomic_file.

    Those that are at work there would lose theirs, too: the caller keeps them away.
    """
    for path in folder.glob(".partial-[0-9]*-*"):
        if path.is_file():  # a folder is atomic_folder's
            path.unlink(missing_ok=True)


def remove_partial_folders(folder: Path) -> None:
    """Remove what programs that were killed had half written there with atomic_folder."""
    for lock in folder.glob(f".partial-*/{IN_USE}"):
        with contextlib.suppress(filelock.Timeout):  # that program is at work
            with filelock.FileLock(lock, timeout=0):
                pass
            shutil.rmtree(lock.parent, ignore_errors=True)  # it may just be removed by its owner


def write_file(path: Path, content: bytes) -> None:
    with atomic_file(path) as partial:
        partial.write_bytes(content)


def try_write(path: Path, write: Callable[[Path], None]) -> Path | None:
    """Have write(path) write a report, and return the path; None with a warning if it fails.

    A report that is open in Excel is no reason to end a training.

    Raises:
        OSError: the disk is full or fails.
    """
    try:
        make_folder(path.parent)
        write(path)
    except InputError as error:
        warn(f"{path}: not updated, {error}")
        return None
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise
        denied = isinstance(error, PermissionError)
        hint = "; is it open in another program, or its folder read-only?" if denied else ""
        warn(f"{path}: not updated, {error.strerror or error}{hint}")
        return None
    return path
