"""MNIST's four IDX files, found or downloaded, checked, and written as folders of PNG.

`python mnist_parser.py` leaves `mnist_data/train/<label>/<index>.png` (60,000 pictures) and
`mnist_data/test/<label>/<index>.png` (10,000): 8-bit grey, the pixels of the IDX files, with the
image's position in its file as the index. `mnist_data/source.json` says what they were made from.
Other sets under the same names, such as Fashion-MNIST, and EMNIST's become folders as well.
"""

import hashlib
import json
import os
import shlex
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from classifier.console import (
    ArgumentParser,
    InputError,
    one_line_errors,
    printable,
    setup_terminal,
    warn,
)

if __name__ == "__main__":
    setup_terminal()  # a package that the imports below miss is named in one line

import filelock
import numpy as np

from classifier import decoding
from classifier.download import NoMirrorError, download
from classifier.files import remove_partial_files, write_file
from classifier.idx import (
    MNIST_FORM,
    PREFIXES,
    class_names,
    decode_part,
    encode_idx,
    find_idx,
    find_set,
    find_sets,
)
from classifier.progress import progress
from digits import drawn
from setting import Setting

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://raw.githubusercontent.com/fgnt/mnist/master/",
)
SHA256 = {
    "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
MAX_BYTES = 16_000_000  # the largest of the four is 9.9 MB, packed
# The SHA-256 of MNIST's training pixels and labels tells it from other sets of its form.
MNIST_CONTENT = "edc0d1098aa497be14ace79ddd5171e5a3dcf9c4d196c015389203eb3ba1f59b"
DRAWN = "drawn digits, not MNIST"
UNKNOWN_SOURCE = {"name": "pictures that mnist_parser.py did not write", "folder": ""}
# In data_dir: what is written, and what it replaces; then all three come to their places in turn.
NEW, OLD = ".new", ".old"
PARSED = (*PREFIXES, "source.json")  # source.json last: in NEW it says that the pictures are whole


def encode_pngs(images: np.ndarray) -> Iterator[bytes]:
    """Each of uint8 [n, height, width] as an 8-bit grey PNG (W3C PNG, third edition).

    Pillow takes twenty times as long for pictures this small.
    """
    height, width = images.shape[1:]
    rows = np.zeros((height, 1 + width), np.uint8)  # each begins with its filter, 0 for none
    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    start, end = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header), png_chunk(b"IEND", b"")
    for image in images:
        rows[:, 1:] = image
        # Not compressed: either way a file takes one disk block, and this is 8 times as fast.
        yield start + png_chunk(b"IDAT", zlib.compress(rows, 0)) + end


def png_chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def write_pngs(images: np.ndarray, classes: np.ndarray, folder: Path, desc: str) -> None:
    """Write images, uint8 [n, height, width], as `folder/<class>/<index>.png`; the folder is new.

    Args:
        images: of digits or letters.
        classes: the names of their classes or their labels, [n].
        folder: where the classes' folders are made.
        desc: what the progress bar says.
    """
    for name in np.unique(classes):
        (folder / str(name)).mkdir(parents=True)
    paths = (f"{folder}/{name}/{index}.png" for index, name in enumerate(classes.tolist()))
    pngs = zip(paths, encode_pngs(images), strict=True)
    for path, png in progress(pngs, total=len(images), desc=desc):
        with open(path, "wb") as file:
            file.write(png)


def fetch_missing(folder: Path) -> None:
    """Download what the folder lacks of MNIST's four .gz files.

    The variable MNIST_MIRROR may name other mirrors than MIRRORS, separated by spaces.

    Raises:
        NoMirrorError: not all files came from the mirrors; those that came stay in the folder.
        InputError: the folder holds other files under MNIST's names, which would be mixed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in SHA256 if find_idx(folder, name) is None]
    for name in SHA256.keys() - missing:
        path = find_idx(folder, name)
        if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256[name]:
            raise InputError(
                f"{path}: not the file that MNIST's mirrors serve, and there is no {missing[0]} "
                "beside it; complete the set or take the file away"
            )
    sums = {f"{name}.gz": SHA256[name] for name in missing}
    mirrors = os.environ.get("MNIST_MIRROR", "").split() or MIRRORS
    download(sums, mirrors, folder, MAX_BYTES)


def has_idx(folder: Path) -> bool:
    """Whether the folder holds the four files of a set under MNIST's names."""
    return all(find_idx(folder, name) for name in SHA256)


def write_drawn(folder: Path) -> None:
    """Draw as many digits as MNIST has and keep them in the folder as its four files."""
    folder.mkdir(parents=True, exist_ok=True)
    print(f"drawing 70000 digits into {folder}")
    for part, count, seed in (("train", 60_000, 0), ("test", 10_000, 1)):
        images, labels = drawn.draw(count, seed)
        write_file(folder / f"{PREFIXES[part]}-images-idx3-ubyte", encode_idx(images))
        write_file(folder / f"{PREFIXES[part]}-labels-idx1-ubyte", encode_idx(labels))


def source_folder(source: str, data_dir: Path) -> Path:
    """Where the source's IDX files are, or will be once they are downloaded or drawn."""
    folders = {"auto": data_dir, "download": data_dir / "raw", "drawn": data_dir / "drawn"}
    if source == "auto" and (find_sets(data_dir / "raw") or not find_sets(data_dir)):
        source = "download"
    return folders.get(source, Path(source)).resolve()


def provide_idx(source: str, data_dir: Path) -> Path:
    """The folder of the source's IDX files, which are downloaded or drawn if they are missing.

    Raises:
        InputError: they can't be.
    """
    folder, drawn_folder = (source_folder(kind, data_dir) for kind in (source, "drawn"))
    downloadable = source == "auto" or folder == source_folder("download", data_dir)
    if downloadable and find_set(folder) == MNIST_FORM and not has_idx(folder):
        try:
            fetch_missing(folder)
        except NoMirrorError as error:
            if source != "auto":
                raise
            warn(f"WARNING: {data_dir} WILL HOLD DRAWN DIGITS, NOT MNIST, until you act. {error}")
            folder = drawn_folder
    if folder == drawn_folder and not has_idx(folder):
        write_drawn(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; source is a folder, auto, download or drawn")
    return folder


def read_source(data_dir: str | os.PathLike) -> dict[str, str] | None:
    """The "name" and the "folder" that parse wrote into source.json; None if it isn't there.

    Raises:
        InputError: the file is damaged.
    """
    path = Path(data_dir, "source.json")
    try:
        source = json.loads(path.read_text(encoding="utf-8"))
        return {"name": str(source["name"]), "folder": str(source["folder"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(
            f"{path}: damaged; remove it, then run mnist_parser.py --overwrite"
        ) from None


def parse(data_dir: str | os.PathLike, source: str = "auto", overwrite: bool = False) -> None:
    """Fill data_dir with `train/<label>/<index>.png` and `test/<label>/<index>.png`.

    Args:
        data_dir: the folder to fill.
        source: a folder with the four IDX files of MNIST, of EMNIST or of another set under
            MNIST's names; "download"; "drawn"; or "auto": what is there already, else the files
            in data_dir/raw or data_dir, else download, else drawn digits as a stand-in that the
            next call tries to replace.
        overwrite: replace the pictures of another source.

    Raises:
        InputError: the source can't be had or is damaged, or there are other pictures already.
    """
    data_dir = Path(data_dir)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(data_dir / ".parser.lock", timeout=0):
            parse_locked(data_dir, source, overwrite)
    except filelock.Timeout:
        raise InputError(
            f"{data_dir}: another mnist_parser.py is at work here; let it end"
        ) from None
    except BrokenPipeError:  # of stdout, not of the disk
        raise
    except OSError as error:
        # MNIST is 70,000 files of one disk block; Windows renames no folder with an open file.
        raise InputError(
            f"{error.filename or data_dir}: {error.strerror or error}; {data_dir} needs 400 MB for "
            "MNIST, and no other program may use it. What was in place is unharmed."
        ) from None


def parse_locked(data_dir: Path, source: str, overwrite: bool) -> None:
    finish_interrupted(data_dir)
    parts = [data_dir / part for part in PREFIXES]
    present = read_source(data_dir) or UNKNOWN_SOURCE
    # Drawn digits are a stand-in, and make way for anything.
    worth_keeping = present["name"] != DRAWN and any(part.exists() for part in parts)
    if worth_keeping and source == "auto":
        source = present["folder"] or "download"
    folder = source_folder(source, data_dir)
    if worth_keeping and present["folder"] != str(folder) and not overwrite:
        raise InputError(
            f"{data_dir} holds {present['name']}; --overwrite replaces them by those of {folder}"
        )

    def is_done() -> bool:
        complete = all(part.is_dir() for part in parts)
        return complete and present["folder"] == str(folder) and not overwrite

    if not is_done():
        folder = provide_idx(source, data_dir)
    if is_done():
        print(printable(f"{data_dir} already holds {present['name']}, from {folder}"))
        return
    for part in parts:
        check_replaceable(part, overwrite)
    write_new(data_dir, folder)
    put_in_place(data_dir)


def write_new(data_dir: Path, folder: Path) -> None:
    """Write the pictures of the IDX files in the folder, and source.json, into NEW."""
    parts = {part: decode_part(folder, part) for part in PREFIXES}
    classes = {part: class_names(folder, labels) for part, (_, labels) in parts.items()}
    name = set_name(folder, data_dir, *parts["train"])
    try:
        for part, (images, _) in parts.items():
            write_pngs(images, classes[part], data_dir / NEW / part, f"writing {part}")
        source = {"name": name, "folder": str(folder)}
        write_file(data_dir / NEW / "source.json", json.dumps(source, indent=2).encode())
    except OSError:  # such as a full disk, which half a set would keep full
        finish_interrupted(data_dir)
        raise
    counts = " and ".join(f"{len(labels)} in {part}" for part, (_, labels) in parts.items())
    print(printable(f"{name}: {counts}"))


def set_name(folder: Path, data_dir: Path, images: np.ndarray, labels: np.ndarray) -> str:
    """What to call the set with these training pictures."""
    if folder == source_folder("drawn", data_dir):
        return DRAWN
    if find_set(folder) != MNIST_FORM:
        return find_set(folder).replace("emnist-", "EMNIST ")
    if hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest() == MNIST_CONTENT:
        return "MNIST"
    return f"the IDX files of {folder}"


def finish_interrupted(data_dir: Path) -> None:
    """Put in place what an interrupted run had ready, and remove what it had not."""
    if (data_dir / NEW / "source.json").exists():
        put_in_place(data_dir)
    for folder in (data_dir, *(source_folder(kind, data_dir) for kind in ("download", "drawn"))):
        remove_partial_files(folder)
    remove(data_dir / NEW)
    remove(data_dir / OLD)


def put_in_place(data_dir: Path) -> None:
    """Move what is in NEW into its place; if this is interrupted, the next run does the rest."""
    decoding.ahead = None  # training may have begun to decode the pictures that are replaced
    new, old = data_dir / NEW, data_dir / OLD
    old.mkdir(exist_ok=True)
    for name in PARSED:
        if (new / name).exists():
            if os.path.lexists(data_dir / name):
                remove(old / name)
                (data_dir / name).rename(old / name)
            (new / name).rename(data_dir / name)
    remove(new)
    remove(old)


def remove(path: Path) -> None:
    """Remove a folder, a file or a link if it exists; what a link points to stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def check_replaceable(part: Path, overwrite: bool) -> None:
    """Raise InputError if the folder is a mount point, or a link that leads nowhere."""
    if part.is_mount():
        raise InputError(f"{part}: a mount point, which can't be replaced; mount its parent folder")
    if part.is_symlink() and not part.exists() and not overwrite:
        raise InputError(
            f"{part}: a link to {os.readlink(part)}, which does not exist; mount the disk it is "
            "on, or remove the link"
        )


def ensure(train_dir: str | os.PathLike, data_dir: str | os.PathLike) -> None:
    """Have data_dir filled, as parse does by itself, if train_dir, its train/, is missing.

    Raises:
        InputError: the missing folder is not MNIST's but the user's; or as parse.
    """
    train_dir, data_dir = Path(train_dir), Path(data_dir)
    if (data_dir / NEW / "source.json").exists():  # a parser was killed at its last step
        parse(data_dir)
    if train_dir.exists():
        return
    for_mnist = data_dir.resolve().name == "mnist_data" or (data_dir / "raw").is_dir()
    if train_dir != data_dir / "train" or not (for_mnist or find_sets(data_dir)):
        raise InputError(
            f"{train_dir}: no such folder; what is expected is one folder a class, as in "
            f"{train_dir}/cat/1.png and {train_dir}/dog/2.png (for MNIST: {command(data_dir)})"
        )
    parse(data_dir)


def source_of(folder: str | os.PathLike, data_dir: str | os.PathLike) -> str:
    """What the pictures in a folder are: the name that parse gave them, or else the folder's.

    Raises:
        InputError: source.json is damaged.
    """
    source = read_source(data_dir)
    written = [Path(data_dir, part) for part in PREFIXES]
    return source["name"] if source and Path(folder) in written else str(folder)


def remind_of_stand_in(what: str, source: str, data_dir: str | os.PathLike) -> None:
    """Say so on stderr if `what`, such as "the network was trained on", is about drawn digits."""
    if source != DRAWN:
        return
    present = read_source(data_dir)
    if present and present["name"] != DRAWN:
        advice = f"--mode train learns from {present['name']}, which is there by now"
    else:
        advice = f"{command(data_dir)} fetches the real ones"
    warn(f"NOTE: {what} {DRAWN}; {advice}")


def command(data_dir: str | os.PathLike) -> str:
    """What to type to have data_dir filled."""
    return f"python mnist_parser.py --data_dir {shlex.quote(str(data_dir))}"


def main() -> None:
    parser = ArgumentParser(description="Write MNIST as folders of PNG: train/<label>/<index>.png")
    parser.add_argument(
        "--data_dir",
        default=Setting().data_dir,
        help="where train/ and test/ are made (default: %(default)s)",
    )
    parser.add_argument(
        "--source",
        default="auto",
        help="a folder with the four IDX files of MNIST or EMNIST, raw or .gz; download; drawn (by "
        "this program); or auto: DATA_DIR/raw or DATA_DIR, else download, else drawn "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace pictures that came from another source"
    )
    with one_line_errors():
        arguments = parser.parse_args()
        try:
            parse(arguments.data_dir, arguments.source, arguments.overwrite)
        except SystemExit:
            warn("stopped; what is in place is whole, and the same command goes on from there")
            raise


if __name__ == "__main__":
    main()
