"""MNIST's four IDX files, found or downloaded, checked, and written as folders of PNG.

`python mnist_parser.py` leaves `mnist_data/train/<label>/<index>.png` (60,000 pictures) and
`mnist_data/test/<label>/<index>.png` (10,000): 8-bit grey, the pixels of the IDX files, with the
image's position in its file as the index. `mnist_data/source.json` says what they were made from.
"""

import contextlib
import gzip
import hashlib
import http.client
import json
import os
import queue
import shutil
import struct
import sys
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import filelock
import numpy as np

import drawn_digits
from setting import ArgumentParser, InputError, Setting, one_line_errors, warn

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
PREFIXES = {"train": "train", "test": "t10k"}

# The largest of the four is 9.9 MB; a mirror that sends more is not sending MNIST.
MOST_BYTES = 16_000_000
# A mirror may keep us waiting this long; three of them hang for less than 10 seconds in all.
PATIENCE = 3.0
# Slower than this is as good as hanging: at 10 kB a second MNIST takes 20 minutes.
LEAST_BYTES_PER_SECOND = 10_000
# Deflate packs 1,032 bytes into one at best (zlib's technical notes).
MOST_DEFLATE_RATIO = 1032

# The SHA-256 of MNIST's 60,000 training labels tells MNIST from other sets of its form.
MNIST_LABELS = "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13"


DRAWN = "drawn digits, not MNIST"
# source.json while the new pictures are written, but not yet in their places.
READY = ".source.json.new"


class NoMirrorError(InputError):
    """No mirror has given MNIST."""


def decode_idx3_ubyte(path: str | os.PathLike) -> np.ndarray:
    """The images of an IDX file, raw or gzip.

    Returns:
        uint8 [n, rows, cols], 0 is paper and 255 ink.

    Raises:
        InputError: the file is not what its header promises.

    The format is described at http://yann.lecun.com/exdb/mnist/.
    """
    return read_idx(path, magic=0x803, dimensions=3)


def decode_idx1_ubyte(path: str | os.PathLike) -> np.ndarray:
    """The labels of an IDX file, raw or gzip: uint8 [n]. Raises as decode_idx3_ubyte does."""
    return read_idx(path, magic=0x801, dimensions=1)


def read_idx(path: str | os.PathLike, magic: int, dimensions: int) -> np.ndarray:
    """The uint8 array of an IDX file; of a gzip, no more is unpacked than the header promises."""
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            room = os.path.getsize(path) * (MOST_DEFLATE_RATIO if packed else 1)
            return read_idx_stream(gzip.open(file) if packed else file, magic, dimensions, room)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: the gzip file is truncated or corrupt ({error})") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None


def read_idx_stream(stream: BinaryIO, magic: int, dimensions: int, room: int) -> np.ndarray:
    header = stream.read(4 + 4 * dimensions)
    if len(header) < 4 + 4 * dimensions:
        raise ValueError("no IDX file: it ends within its header")
    found, *shape = struct.unpack(f">{1 + dimensions}I", header)
    if found != magic:
        raise ValueError(
            f"no IDX file of {dimensions} dimensions: magic {found:#x}, not {magic:#x}"
        )
    promised = int(np.prod(shape, dtype=object))
    if promised > room:
        raise ValueError(f"the header promises {promised} bytes, more than the file can hold")
    content = stream.read(promised)
    if len(content) < promised or stream.read(1):
        has = f"{len(content)}" if len(content) < promised else "more"
        raise ValueError(f"the header promises {promised} bytes, the file holds {has}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def find_idx(folder: Path, name: str) -> Path | None:
    """The IDX file of that name in the folder: raw or .gz, with a dash or a dot in its name."""
    for stem in (name, name.replace("-idx", ".idx")):
        for suffix in ("", ".gz"):
            if (folder / (stem + suffix)).is_file():
                return folder / (stem + suffix)
    return None


def decode_part(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of "train" or "test" from the IDX files in the folder, checked."""
    paths = []
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        name = f"{PREFIXES[part]}-{kind}"
        path = find_idx(folder, name)
        if path is None:
            raise InputError(f"{folder}: there is no {name} or {name}.gz here")
        paths.append(path)
    images, labels = decode_idx3_ubyte(paths[0]), decode_idx1_ubyte(paths[1])
    if len(images) != len(labels):
        raise InputError(
            f"{paths[0]}: {len(images)} images, but {len(labels)} labels in {paths[1]}"
        )
    if not images.size:
        raise InputError(f"{paths[0]}: no images in it")
    if labels.max() > 9:
        raise InputError(f"{paths[1]}: label {labels.max()}, but the classes are 0 to 9")
    return images, labels


def encode_png(image: np.ndarray) -> bytes:
    """An 8-bit grey PNG of a uint8 [height, width] image (W3C PNG, third edition).

    Pillow takes four times as long for pictures this small, and 70,000 of them are waited for.
    """
    height, width = image.shape
    rows = np.zeros((height, 1 + width), np.uint8)  # each row opens with its filter type, 0: none
    rows[:, 1:] = image
    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    # Level 1: a third of the time of zlib's default for files a tenth larger.
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def write_pngs(images: np.ndarray, labels: np.ndarray, folder: Path) -> None:
    """Write images uint8 [n, height, width] as `folder/<label>/<index>.png`; the folder is new."""
    for label in np.unique(labels):
        (folder / str(label)).mkdir(parents=True)
    prefixes = [f"{folder / str(label)}{os.sep}" for label in range(10)]
    for index in progress(len(images), f"writing {folder.name.split('.')[1]}"):
        with open(f"{prefixes[labels[index]]}{index}.png", "wb") as file:
            file.write(encode_png(images[index]))


def progress(total: int, doing: str) -> Iterator[int]:
    """Count to total, showing how far: a bar on a terminal, four plain lines in a log."""
    terminal = sys.stdout.isatty()
    shown = 100 if terminal else 4
    for count in range(total):
        yield count
        if (count + 1) * shown // total > count * shown // total:
            share = (count + 1) / total
            bar = f"[{'=' * round(30 * share):30s}] " if terminal else ""
            end = "\r" if terminal and share < 1 else "\n"
            print(f"{doing}: {bar}{count + 1}/{total}", end=end, flush=True)


def mirrors() -> tuple[str, ...]:
    """Where the four .gz are served: MIRRORS, or what MNIST_MIRROR names, separated by spaces."""
    return tuple(os.environ.get("MNIST_MIRROR", "").split()) or MIRRORS


def download(folder: Path) -> None:
    """Fetch what the folder lacks of MNIST's four .gz files.

    Raises:
        NoMirrorError: no mirror has given all the files; what came whole stays in the folder.
        InputError: the folder holds other files under MNIST's names, which would be mixed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in SHA256 if find_idx(folder, name) is None]
    for name in SHA256.keys() - missing if missing else ():
        path = find_idx(folder, name)
        if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256[name]:
            raise InputError(
                f"{path}: not the file that MNIST's mirrors serve, and there is no {missing[0]} "
                "beside it; complete the set or take the file away"
            )
    failures = []
    for mirror in mirrors():
        try:
            while missing:
                name = missing[0]
                fetch(f"{mirror.rstrip('/')}/{name}.gz", folder / f"{name}.gz", SHA256[name])
                missing.pop(0)
            return
        except (OSError, ValueError, http.client.HTTPException) as error:
            failures.append(f"{mirror}: {getattr(error, 'reason', error)}")
    raise NoMirrorError(
        f"MNIST can't be downloaded ({'; '.join(failures)}); put "
        f"{', '.join(f'{name}.gz' for name in missing)} into {folder} by hand and run again"
    )


def fetch(url: str, path: Path, sha256: str) -> None:
    """Download one file: written beside the path, renamed into place only if it is the right one.

    Raises:
        OSError: no connection, no answer in time, or the answer is not the file that sha256 names.
    """
    partial = path.with_name(path.name + ".partial")
    digest, received, start = hashlib.sha256(), 0, time.monotonic()
    with open_url(url) as response, open(partial, "wb") as file:
        size = int(response.headers.get("Content-Length") or MOST_BYTES)
        for block in iter(lambda: response.read1(1 << 16), b""):
            received += len(block)
            if received > MOST_BYTES:
                raise OSError(f"{path.name} does not end after {MOST_BYTES} bytes")
            if time.monotonic() - start > PATIENCE + received / LEAST_BYTES_PER_SECOND:
                raise TimeoutError(f"{path.name} stalls after {received} bytes")
            digest.update(block)
            file.write(block)
            if sys.stdout.isatty():
                print(f"\r{path.name}: {received / 1e6:.1f} of {size / 1e6:.1f} MB", end="")
    if digest.hexdigest() != sha256:
        partial.unlink()
        raise OSError(f"{path.name} is not MNIST's: wrong SHA-256 after {received} bytes")
    partial.replace(path)
    print(f"\r{path.name}: {received} bytes from {url}")


class RedirectToHttps(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, request, response, code, message, headers, url):
        if not url.startswith("https://"):
            raise urllib.error.HTTPError(url, code, "redirected away from https", headers, response)
        return super().redirect_request(request, response, code, message, headers, url)


def open_url(url: str) -> http.client.HTTPResponse:
    """The answer to a request for the url, or TimeoutError after PATIENCE seconds.

    In a thread of its own, since a name look-up that hangs knows of no time-out.
    """
    answers = queue.SimpleQueue()

    def ask():
        try:
            opener = urllib.request.build_opener(RedirectToHttps)
            answers.put(opener.open(url, timeout=PATIENCE))
        except (OSError, ValueError, http.client.HTTPException) as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=PATIENCE)
    except queue.Empty:
        raise TimeoutError(f"no answer in {PATIENCE:.0f} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def has_idx(folder: Path) -> bool:
    return all(find_idx(folder, name) for name in SHA256)


def write_drawn(folder: Path) -> None:
    """Draw as many digits as MNIST has and keep them in the folder as its four files."""
    folder.mkdir(parents=True, exist_ok=True)
    print(f"drawing 70000 digits into {folder}")
    for part, count, seed in (("train", 60_000, 0), ("test", 10_000, 1)):
        images, labels = drawn_digits.draw(count, seed)
        for kind, magic, array in (("images-idx3", 0x803, images), ("labels-idx1", 0x801, labels)):
            header = struct.pack(f">{1 + array.ndim}I", magic, *array.shape)
            (folder / f"{PREFIXES[part]}-{kind}-ubyte").write_bytes(header + array.tobytes())


def find_source(source: str, data_dir: Path) -> Path:
    """The folder with the IDX files that the source stands for, downloaded if need be.

    Raises:
        InputError: they can't be had.
    """
    raw = data_dir / "raw"
    if source == "drawn":
        return data_dir / "drawn"
    if source == "download" or (source == "auto" and not has_idx(raw)):
        download(raw)
        return raw
    return raw if source == "auto" else Path(source)


def read_source(data_dir: str | os.PathLike) -> dict[str, Any] | None:
    """What parse wrote into source.json, "name" and "folder"; None if it isn't there.

    Raises:
        InputError: the file is damaged.
    """
    path = Path(data_dir, "source.json")
    try:
        source = json.loads(path.read_text(encoding="utf-8"))
        return {"name": str(source["name"]), "folder": str(source["folder"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{path}: damaged; remove it, then run mnist_parser.py --overwrite"
        ) from None


def parse(data_dir: str | os.PathLike, source: str = "auto", overwrite: bool = False) -> None:
    """Fill data_dir with `train/<label>/<index>.png` and `test/<label>/<index>.png`.

    Args:
        data_dir: the folder to fill.
        source: a folder with the four IDX files; "download"; "drawn"; or "auto": data_dir/raw,
            else download, else drawn digits as a stand-in that the next call tries to replace.
        overwrite: replace the pictures of another source.

    Raises:
        InputError: the source can't be had or is damaged, or there are other pictures already.
    """
    data_dir = Path(data_dir)
    data_dir.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(data_dir / ".parser.lock")
    try:
        with lock.acquire(timeout=0):
            parse_locked(data_dir, source, overwrite)
    except filelock.Timeout:
        raise InputError(f"{data_dir}: another mnist_parser.py is at work here") from None


def parse_locked(data_dir: Path, source: str, overwrite: bool) -> None:
    if (data_dir / READY).exists():
        put_in_place(data_dir)  # what a killed run had ready
    there = read_source(data_dir)
    parts = [data_dir / part for part in PREFIXES]
    whole = there is not None and all(part.is_dir() for part in parts)
    stand_in = there is not None and there["name"] == DRAWN
    folder = None
    if source != "auto" or overwrite or stand_in or not whole:
        folder = find_source_or_draw(source, data_dir)
    same = there is not None and (folder is None or there["folder"] == str(folder.resolve()))
    if whole and same and not overwrite:
        print(f"{data_dir} already holds {there['name']}, from {there['folder']}")
        return
    if any(part.exists() for part in parts) and not (overwrite or same or stand_in):
        holds = there["name"] if there else "pictures that mnist_parser.py did not write"
        raise InputError(
            f"{data_dir} holds {holds}; --overwrite replaces them by those of {folder}"
        )
    if folder == data_dir / "drawn":
        write_drawn(folder)
    write_parts(data_dir, folder)
    put_in_place(data_dir)


def find_source_or_draw(source: str, data_dir: Path) -> Path:
    """As find_source, but where "auto" finds no mirror, the folder of drawn digits."""
    try:
        return find_source(source, data_dir)
    except NoMirrorError as error:
        if source != "auto":
            raise
        warn(f"{error}. UNTIL THEN {data_dir} HOLDS DRAWN DIGITS, NOT MNIST.")
        return find_source("drawn", data_dir)


def beside(part: Path, word: str) -> Path:
    """Where a folder is while it is not in place: "new" before, "old" after."""
    return part.with_name(f".{part.name}.{word}")


def write_parts(data_dir: Path, folder: Path) -> None:
    """Write both parts and the new source.json beside their places; READY comes last."""
    parts = {data_dir / part: decode_part(folder, part) for part in PREFIXES}
    for part, (images, labels) in parts.items():
        shutil.rmtree(beside(part, "new"), ignore_errors=True)
        write_pngs(images, labels, beside(part, "new"))
    labels = parts[data_dir / "train"][1]
    if folder == data_dir / "drawn":
        name = DRAWN
    elif hashlib.sha256(labels.tobytes()).hexdigest() == MNIST_LABELS:
        name = "MNIST"
    else:
        name = f"the IDX files of {folder}"
    source = {"name": name, "folder": str(folder.resolve())}
    with whole_file(data_dir / READY) as path:
        path.write_text(json.dumps(source, indent=2), encoding="utf-8")
    counts = " and ".join(f"{len(labels)} in {part}" for part, (_, labels) in parts.items())
    print(f"{name}: {counts}")


def put_in_place(data_dir: Path) -> None:
    """Rename what is ready into its place; killed half-way, the next call does the rest."""
    parts = [data_dir / part for part in PREFIXES]
    for part in parts:
        if beside(part, "new").exists():
            if part.exists():
                shutil.rmtree(beside(part, "old"), ignore_errors=True)
                part.rename(beside(part, "old"))
            beside(part, "new").rename(part)
    (data_dir / READY).replace(data_dir / "source.json")
    for part in parts:
        shutil.rmtree(beside(part, "old"), ignore_errors=True)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write a file so that it stands at path whole or not at all.

    Yields:
        A path beside it with the same ending; what is there in the end is renamed to path.
    """
    partial = path.with_name(f".partial-{path.name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def main() -> None:
    parser = ArgumentParser(description="Write MNIST as folders of PNG: train/<label>/<index>.png")
    parser.add_argument(
        "--data_dir",
        default=Setting.data_dir,
        help="where train/ and test/ are made (default: %(default)s)",
    )
    parser.add_argument(
        "--source",
        default="auto",
        help="a folder with the four IDX files, raw or .gz; download; drawn (by this program); "
        "or auto: DATA_DIR/raw, else download, else drawn (default: %(default)s)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace pictures that came from another source"
    )
    arguments = parser.parse_args()
    with one_line_errors():
        parse(arguments.data_dir, arguments.source, arguments.overwrite)


if __name__ == "__main__":
    main()
