"""What several test files need: the real MNIST, if it is there, and a place for many files."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

import mnist_parser

BESIDE_THE_REPOSITORY = Path(__file__).parents[2] / "shared" / "mnist"


@pytest.fixture(scope="session")
def mnist_idx() -> Path:
    """The folder of MNIST's four IDX files; without them, the test is skipped."""
    folder = Path(os.environ.get("MNIST_DIR") or BESIDE_THE_REPOSITORY)
    if not mnist_parser.has_idx(folder):
        pytest.skip(f"no MNIST in {folder}; the variable MNIST_DIR can name another folder")
    return folder


@pytest.fixture(scope="session")
def link():
    """A function that puts a symbolic link at a path; a copy where Windows refuses its users links.

    There, a test that needs a link which leads nowhere is skipped.
    """

    def make(path: Path, target: Path) -> None:
        try:
            path.symlink_to(target)
        except OSError:
            if target.is_dir():
                shutil.copytree(target, path)
            elif target.is_file():
                shutil.copy(target, path)
            else:
                pytest.skip("this user may not make symbolic links")

    return make


@pytest.fixture(scope="session")
def scratch():
    """A folder for thousands of files, in memory where there is room: some disks take minutes."""
    memory = Path("/dev/shm")
    room = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1e9
    with tempfile.TemporaryDirectory(dir=memory if room else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def mnist(mnist_idx, scratch) -> Path:
    """A data_dir with all of MNIST, as mnist_parser writes it."""
    mnist_parser.parse(scratch / "mnist_data", str(mnist_idx))
    return scratch / "mnist_data"
