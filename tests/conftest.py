"""What several test files need: drawn digits, a network that knows them, and the real MNIST.

What takes seconds to make only one file needs: side by side, a file's tests run in one process.
"""

import functools
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from helpers import on_the_processor, write_digits

import mnist_parser

# Tests run side by side, and some start a program: each shall take of a GPU's memory what it needs.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

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
def digits(tmp_path_factory) -> Path:
    """A folder with train/ and test/ of drawn digits."""
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder / "train", 1500, seed=1)
    write_digits(folder / "test", 200, seed=2)
    return folder


@pytest.fixture
def data_dir(digits, tmp_path, link) -> Path:
    """A data_dir of its own with the drawn digits in it."""
    for part in ("train", "test"):
        link(tmp_path / part, digits / part)
    return tmp_path


@pytest.fixture(scope="session")
def trained(digits, tmp_path_factory, link) -> Path:
    """A data_dir after two epochs of the default recipe; nothing in it may be changed."""
    from mnist_keras import train  # here, since TensorFlow takes seconds that few files need
    from setting import Setting

    folder = tmp_path_factory.mktemp("trained")
    for part in ("train", "test"):
        link(folder / part, digits / part)
    train(Setting(data_dir=str(folder), epochs=2, precision="float32", batch_size=32))
    return folder


@pytest.fixture
def copy(trained, tmp_path) -> Path:
    """A copy of that data_dir, to be changed."""
    return shutil.copytree(trained, tmp_path / "copy", symlinks=True)


@pytest.fixture
def processor():
    """The test runs on the processor, also on a machine with a GPU."""
    with on_the_processor():
        yield


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


@pytest.fixture(autouse=True)
def precision():
    """Every test begins in float32: a training chooses its own precision, and leaves it."""
    if keras := sys.modules.get("keras"):
        keras.mixed_precision.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def finder():
    """The finder as it ships."""
    from digits.finder import load_finder  # TensorFlow, which most tests do without

    return load_finder()


@pytest.fixture(scope="session")
def to_mnist(finder):
    """handwriting.to_mnist with that finder."""
    from digits import handwriting

    return functools.partial(handwriting.to_mnist, finder=finder)


@pytest.fixture(scope="session")
def shipped(finder):
    """The network that reads digits and the finder of them, both as they ship."""
    from tests.networks import shipped_model

    return shipped_model(), finder


@pytest.fixture(scope="session")
def probabilities(shipped):
    """The network that reads as a function: uint8 [n, 28, 28] to float32 [n, 10]."""
    from tests.networks import as_function

    return as_function(shipped[0])


@pytest.fixture(scope="session")
def read_page(shipped, probabilities):
    """What is on a picture: a function from a Pillow image to the page and its text."""
    from classifier.opener import upright
    from digits import handwriting, page
    from digits.finding import find

    def read(image):
        picture = upright(image, handwriting.WORK_SIDE)
        view = find(handwriting.on_paper(picture), shipped[1])
        found = page.find_digits(picture, view, probabilities)
        if not found:
            return page.Page([], ""), ""
        answers = probabilities(np.stack([digit.image for digit in found.digits]))
        answers = page.by_one_hand(answers, answers)
        return found, found.text(map(str, answers.argmax(axis=1)))

    return read


@pytest.fixture(scope="session")
def read_file(shipped):
    """What predict says of a picture file: a function to a Prediction, None if it has no digit."""
    from digits.reading import digit_reader

    read = digit_reader(*shipped)
    return lambda file: next(iter(read([str(file)])), None)
