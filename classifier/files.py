"""Files that stand at their path whole or not at all."""

import contextlib
import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows, the keys of the first as the header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        whole_file(path) as partial,
        # A file's name may be bytes that are no text.
        open(partial, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write a file so that it stands at path whole or not at all.

    Yields:
        A path beside it with the same ending; what is there in the end is renamed to path.
    """
    # Two programs may write the same report at once.
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        # A failed write, as on a full disk, names no file, and the user knows of no partial one.
        if error.errno and error.filename in (None, str(partial)):
            error.filename = str(path)
        raise
    finally:
        if partial.exists():  # else a disk that is read-only would complain of it
            partial.unlink()


def save(path: Path, content: bytes) -> None:
    with whole_file(path) as partial:
        partial.write_bytes(content)
