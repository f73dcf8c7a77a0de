"""Feed thousands of damaged and hostile files to all that reads files, and report what breaks.

    python -m tests.fuzz --count 2000                   # as many cases of each kind
    python -m tests.fuzz --kind png --seed 1234 --count 1   # one case again

Each case is made from its seed alone. It fails if the reader raises what it has not declared,
crashes, takes more than 10 s, takes more than 1 GB of memory or changes a file. Only Linux holds a
process to such limits.
"""

import argparse
import contextlib
import functools
import gzip
import hashlib
import io
import json
import multiprocessing
import re
import signal
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import keras
import numpy as np
import psutil
from PIL import Image

import mnist_keras
import mnist_parser
from classifier import files, idx, metadata, opener, run_folder, trained_run, weights
from classifier.console import InputError, printable, warn
from digits import handwriting
from digits.drawn import draw
from digits.finder import load_finder
from setting import Setting
from tests.helpers import write_digits

CAN_LIMIT = sys.platform == "linux"
if CAN_LIMIT:
    import resource

MAX_SECONDS = 10
MAX_MEMORY = 1_000_000_000

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63)
HOSTILE_JSON = (
    *(None, True, [], {}, "", 0, -1, 2**31, 10**30, 0.5, 1e308, float("nan"), float("inf")),
    *("x" * 100_000, "\0", "\x1b[2J", "\ud800", "../..", "/", ["a", "b"], ["/", ".."], [1, 2]),
    [str(number) for number in range(200_000)],
)
HOSTILE_CELLS = ("", "nan", "inf", "-inf", "-1", "1e400", "9" * 5000, "x", "\0", '"', "\x1b[2J")


class Kind(NamedTuple):
    """What is damaged, how, and who reads it."""

    samples: dict[str, bytes]  # whole files by their names
    damages: tuple[Callable[[bytes, np.random.Generator], bytes], ...]
    readers: tuple[Callable[[Path], object], ...]
    refusals: tuple[type[Exception], ...] = (InputError,)


# ---------------------------------------------------------------- damage


def damaged(content: bytes, draw: np.random.Generator) -> bytes:
    """The bytes after one to four mishaps: bits flipped, ends cut, pieces moved, integers set."""
    content = bytearray(content)
    for _ in range(draw.integers(1, 5)):
        # Half of the mishaps hit the first bytes, where the header is.
        reach = min(len(content), 64) if draw.random() < 0.5 else len(content)
        at, other = (int(draw.integers(reach + 1)) for _ in range(2))
        length = int(draw.integers(1, 200))
        mishap = draw.integers(7)
        if mishap == 0 and at < len(content):
            content[at] ^= 1 << draw.integers(8)
        elif mishap == 1:
            size = int(draw.choice([1, 2, 4, 8]))
            number = EXTREMES[draw.integers(len(EXTREMES))] % 256**size
            content[at : at + size] = number.to_bytes(size, draw.choice(["big", "little"]))
        elif mishap == 2:
            del content[at : at + length]
        elif mishap == 3:
            content[at:at] = content[other : other + length]
        elif mishap == 4:
            content[at : at + length] = bytes(length)
        elif mishap == 5:
            content[at : at + length] = draw.bytes(length)
        elif draw.random() < 0.3:
            del content[at:]
    return bytes(content)


def gzip_around_damage(content: bytes, draw: np.random.Generator) -> bytes:
    """A whole gzip of what is damaged inside, or a bomb that keeps its header's promise."""
    inside = damaged(gzip.decompress(content), draw)
    if draw.random() < 0.05:
        rows = int(draw.integers(1, 1500))
        inside = b"\0\0\x08\x03" + np.array([1000, 1000, rows], ">u4").tobytes()
        packer = zlib.compressobj(1, wbits=31)
        parts = [packer.compress(inside)]
        parts += [packer.compress(bytes(1_000_000)) for _ in range(rows)]
        return b"".join(parts) + packer.flush()
    return gzip.compress(inside, 1)


def png_with_good_checksums(content: bytes, draw: np.random.Generator) -> bytes:
    """A PNG of which one chunk is damaged, and none says so by its checksum."""
    chunks, at = [], 8
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    number = draw.integers(len(chunks))
    name, inside = chunks[number]
    if name == b"IDAT" and draw.random() < 0.5:
        inside = zlib.compress(damaged(zlib.decompress(inside), draw))
    else:
        inside = damaged(inside, draw)
    chunks[number] = (name, inside)
    return png(chunks)


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    content = b"\x89PNG\r\n\x1a\n"
    for name, inside in chunks:
        content += len(inside).to_bytes(4, "big") + name + inside
        content += zlib.crc32(name + inside).to_bytes(4, "big")
    return content


def png_of_absurd_size(content: bytes, draw: np.random.Generator) -> bytes:
    """A small file with a picture of up to 2**31 pixels a side, which it may even hold."""
    side = int(draw.choice([5000, 9999, 10_001, 13_000, 50_000, 2**31 - 1]))
    bits, channels, mode = ((8, 1, 0), (16, 1, 0), (8, 3, 2), (8, 4, 6), (1, 1, 0))[
        draw.integers(5)
    ]
    header = np.array([side, side], ">u4").tobytes() + bytes([bits, mode, 0, 0, 0])
    rows = min(side, 10_000) if draw.random() < 0.3 else 1
    packer = zlib.compressobj(1)
    row = bytes(1 + min(side, 10_000) * bits * channels // 8)
    inside = b"".join([packer.compress(row) for _ in range(rows)]) + packer.flush()
    return png([(b"IHDR", header), (b"IDAT", inside), (b"IEND", b"")])


def json_with_a_hostile_value(content: bytes, draw: np.random.Generator) -> bytes:
    """The same keys, but one of them has another value, is missing, or nests without end."""
    value = json.loads(content)
    key = str(draw.choice(list(value)))
    choice = draw.integers(len(HOSTILE_JSON) + 2)
    if choice == len(HOSTILE_JSON):
        return content.replace(f'"{key}": '.encode(), f'"{key}": '.encode() + b"[" * 100_000)
    if choice == len(HOSTILE_JSON) + 1:
        del value[key]
    else:
        value[key] = HOSTILE_JSON[choice]
    return json.dumps(value).encode()


def csv_with_a_hostile_cell(content: bytes, draw: np.random.Generator) -> bytes:
    cells = re.split(r"([,\n])", content.decode())
    cell = HOSTILE_CELLS[draw.integers(len(HOSTILE_CELLS))]
    cells[2 * int(draw.integers(len(cells) // 2))] = cell
    return "".join(cells).encode()


def hdf5_with_a_hostile_item(content: bytes, draw: np.random.Generator) -> bytes:
    """A sound HDF5 file of which one array or group has been replaced by something hostile."""
    memory = io.BytesIO(content)
    with h5py.File(memory, "r+") as file:
        names = []
        file.visit(names.append)
        name = str(draw.choice(names))
        item = file[name]
        shape = item.shape if isinstance(item, h5py.Dataset) else (4,)
        if draw.random() < 0.5:  # what has no checksum is read further
            file.attrs.pop("sha256", None)
        if draw.random() < 0.1:
            file.attrs["epoch"] = HOSTILE_EPOCHS[draw.integers(len(HOSTILE_EPOCHS))]
        del file[name]
        HOSTILE_ITEMS[draw.integers(len(HOSTILE_ITEMS))](file, name, shape)
    return memory.getvalue()


HOSTILE_EPOCHS = (-1, 2**63 - 1, 1e300, float("nan"), "x", [1, 2], b"\xff", np.zeros(5000))


def chunked(shape: tuple, chunks: tuple, **options) -> Callable:
    def add(file, name, old_shape):
        most = (None,) * len(shape)
        file.create_dataset(name, shape, "f4", chunks=chunks, maxshape=most, **options)

    return add


def huge_written_chunk(file: h5py.File, name: str, shape: tuple) -> None:
    item = file.create_dataset(name, (4,), "f4", chunks=(2**29,), maxshape=(None,))
    item.id.write_direct_chunk((0,), zlib.compress(bytes(1000)))


def virtual(file: h5py.File, name: str, shape: tuple) -> None:
    layout = h5py.VirtualLayout(shape, "f4")
    layout[...] = h5py.VirtualSource("victim.h5", "x", shape)
    file.create_virtual_dataset(name, layout)


def elsewhere(path: str) -> Callable:
    return lambda file, name, shape: file.create_dataset(
        name, shape, "f4", external=[(path, 0, h5py.h5f.UNLIMITED)]
    )


HOSTILE_ITEMS = (
    lambda file, name, shape: None,  # it is missing
    lambda file, name, shape: file.__setitem__(name, h5py.SoftLink("/")),
    lambda file, name, shape: file.__setitem__(name, h5py.SoftLink(name)),
    lambda file, name, shape: file.__setitem__(name, h5py.ExternalLink("victim.h5", "x")),
    lambda file, name, shape: file.__setitem__(name, file["/"]),  # a folder in itself
    lambda file, name, shape: file.create_group(name),
    lambda file, name, shape: file.create_dataset(name, shape, "f4"),  # none of it is stored
    lambda file, name, shape: file.create_dataset(name, data=np.full(shape, np.nan)),
    lambda file, name, shape: file.create_dataset(name, (1,) * 32, "f4"),  # HDF5 has no more axes
    lambda file, name, shape: file.create_dataset(name, (2**40,), "f4"),
    lambda file, name, shape: file.create_dataset(name, (0, 2**60), "f4"),
    lambda file, name, shape: file.create_dataset(name, (200,), h5py.string_dtype()),
    lambda file, name, shape: file.create_dataset(name, data="text"),
    lambda file, name, shape: file.create_dataset(name, data=h5py.Empty("f4")),
    lambda file, name, shape: file.create_dataset(name, (3,), h5py.ref_dtype),
    lambda file, name, shape: file.__setitem__(name, np.dtype([("a", "f4"), ("b", "i8", 9)])),
    chunked((2**50,), (1024,)),
    chunked((2**28,), (2**20,), compression="gzip"),
    chunked((4,), (2**29,), compression="gzip"),
    huge_written_chunk,
    virtual,
    elsewhere("victim.h5"),
    elsewhere("/dev/zero"),
)


# ---------------------------------------------------------------- what is damaged


def idx_kind() -> Kind:
    images, labels = draw(20, seed=0)
    samples = {"images": idx.encode_idx(images), "labels": idx.encode_idx(labels)}
    readers = (idx.decode_idx3_ubyte, idx.decode_idx1_ubyte)
    return Kind(samples, (damaged,), readers)


def gzip_kind() -> Kind:
    kind = idx_kind()
    samples = {f"{name}.gz": gzip.compress(content) for name, content in kind.samples.items()}
    return Kind(samples, (damaged, gzip_around_damage), kind.readers)


def picture_kind(ending: str, *damages: Callable) -> Kind:
    digit = Image.fromarray(np.kron(draw(1, seed=0)[0][0], np.ones((3, 3), np.uint8)))
    samples = {}
    for mode in ("1", "L", "P", "RGB", "RGBA", "I;16"):
        with contextlib.suppress(OSError), io.BytesIO() as memory:  # not every format has all modes
            digit.convert(mode).save(memory, Image.registered_extensions()[ending])
            samples[f"{len(samples)}{ending}"] = memory.getvalue()
    readers = [functools.partial(handwriting.to_mnist, finder=load_finder())]
    readers += [
        functools.partial(decode, size=(28, 28))
        for decode in (opener.decode, opener.decode_as_article)
    ]
    return Kind(samples, (damaged, *damages), tuple(readers), opener.DECODE_ERRORS)


def small_network() -> keras.Sequential:
    """Layers of the kinds that the program's network has, in a file of 20 kB."""
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            keras.layers.Conv2D(4, 3),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5, seed=0),
            keras.layers.Dense(3),
        ]
    )
    model.compile(keras.optimizers.AdamW(), loss="categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    return model


def weights_kind(backup: bool = False) -> Kind:
    model = small_network()
    if not backup:
        model = weights.without_optimizer(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.weights.h5")
        weights.save_weights(model, path, 3)
        samples = {path.name: path.read_bytes()}
        model.save_weights(path)  # by Keras alone: there is no checksum to be wrong
        samples["b.weights.h5"] = path.read_bytes()
    read = functools.partial(weights.load_weights, model)
    return Kind(samples, (damaged, hdf5_with_a_hostile_item), (read,))


@functools.cache
def written_run() -> tuple[dict[str, bytes], dict]:
    """model.json and split.json, as a training leaves them, and the network that it describes."""
    with tempfile.TemporaryDirectory() as folder:
        write_digits(Path(folder, "train"), 100, seed=0)
        setting = Setting(data_dir=folder, checkpoint_path=folder, recipe="tuned")
        network = metadata.network_config(mnist_keras.build_model(setting))
        with contextlib.redirect_stdout(io.StringIO()):
            iterators = mnist_keras.data_generator(setting)
        metadata.write_metadata(setting, network, setting.train_dir, True, *iterators)
        names = ("model.json", "split.json")
        return {name: Path(folder, name).read_bytes() for name in names}, network


def description_kind() -> Kind:
    contents, network = written_run()

    def predict(path: Path) -> None:
        # What predict and evaluate do with it, before they build the network and load weights.
        setting = Setting(data_dir=str(path.parent), restore_model=str(path.parent / "a.h5"))
        known = trained_run.find_run(setting)
        mnist_parser.remind_of_stand_in("x", known.metadata["trained_on"], "data")
        if "network" in known.metadata:
            metadata.config_difference(known.metadata["network"], network)

    def go_on(path: Path) -> None:
        setting = Setting(data_dir=str(path.parent), epochs=30)
        metadata.resumed_setting(setting, path.parent, list("0123456789"))

    content = {"model.json": contents["model.json"]}
    return Kind(content, (damaged, json_with_a_hostile_value), (predict, go_on))


def split_kind() -> Kind:
    def read(path: Path) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            metadata.read_split(path.parent)

    content = {"split.json": written_run()[0]["split.json"]}
    return Kind(content, (damaged, json_with_a_hostile_value), (read,))


def source_kind() -> Kind:
    content = json.dumps({"name": "MNIST", "folder": "/raw"}, indent=2).encode()
    return Kind(
        {"source.json": content},
        (damaged, json_with_a_hostile_value),
        (lambda path: mnist_parser.read_source(path.parent),),
    )


def history_kind() -> Kind:
    rows = [
        {"epoch": epoch, "loss": 0.5, "acc": 0.9, "val_loss": 0.1, "val_acc": 0.99, "seconds": 9.5}
        for epoch in (1, 2, 3)
    ]
    with tempfile.TemporaryDirectory() as folder:
        files.write_csv(Path(folder, "history.csv"), rows)
        content = Path(folder, "history.csv").read_bytes()

    def read(path: Path) -> None:
        # What training does with it: one more epoch comes after those that were read.
        checkpoint = run_folder.BestCheckpoint(path.parent, path.parent, 9, 1)
        checkpoint.on_epoch_begin(3)
        assert checkpoint.best <= 1
        with tempfile.TemporaryDirectory() as folder:
            files.write_csv(Path(folder, "history.csv"), [*checkpoint.rows, rows[0]])

    return Kind({"report/history.csv": content}, (damaged, csv_with_a_hostile_cell), (read,))


KINDS = {
    "idx": idx_kind,
    "gzip": gzip_kind,
    "png": functools.partial(picture_kind, ".png", png_with_good_checksums, png_of_absurd_size),
    **{
        ending: functools.partial(picture_kind, f".{ending}")
        for ending in ("jpg", "gif", "bmp", "webp", "tif", "ppm")
    },
    "weights": weights_kind,
    "backup": functools.partial(weights_kind, backup=True),
    "model_json": description_kind,
    "split_json": split_kind,
    "source_json": source_kind,
    "history": history_kind,
}


# ---------------------------------------------------------------- running the cases


def write_case(kind: Kind, seed: int, folder: Path) -> Path:
    """Write the damaged file of that seed into the folder."""
    draw = np.random.default_rng(seed)
    name = str(draw.choice(list(kind.samples)))
    damage = kind.damages[draw.integers(len(kind.damages))]
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(damage(kind.samples[name], draw))
    return path


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """MemoryError for what takes MAX_MEMORY more than there was; TimeoutError in MAX_SECONDS."""

    def stop(number, frame):
        raise TimeoutError(f"more than {MAX_SECONDS} s")

    before = resource.getrlimit(resource.RLIMIT_AS)
    most = psutil.Process().memory_info().vms + MAX_MEMORY
    handler = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def digests(folder: Path) -> dict[Path, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def try_case(name: str, seed: int) -> list[str]:
    """What goes wrong when the file of that seed is read."""
    kind, failures = made(name), []
    with tempfile.TemporaryDirectory() as folder:
        path = write_case(kind, seed, Path(folder))
        with h5py.File(Path(folder, "victim.h5"), "w") as victim:
            victim["x"] = np.zeros(1000, np.float32)
        before = digests(Path(folder))
        for read in kind.readers:
            failures += failures_of(read, path, kind.refusals)
        if digests(Path(folder)) != before:
            failures.append("a file was changed")
    return failures


@functools.cache
def made(name: str) -> Kind:
    return KINDS[name]()


def failures_of(read: Callable, path: Path, refusals: tuple[type[Exception], ...]) -> list[str]:
    failures = []
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            with limits():
                read(path)
        except TimeoutError as error:
            failures.append(str(error))
        except refusals as error:
            warn(str(error))
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}"[:300])
    if len(said.getvalue().splitlines()) > 1:
        failures.append(f"more than one line: {said.getvalue()[:300]!r}")
    return failures


def work(cases: list[tuple[str, int]], results) -> None:
    """A worker: send the failures after each case."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer
    for name, seed in cases:
        results.send(try_case(name, seed))


# A worker stops Python code itself after MAX_SECONDS; a loop in a C library knows of no alarm.
# The first case waits for TensorFlow's import, and each has two readers at most.
MAX_SILENCE = 60 + 2 * MAX_SECONDS


def run(cases: list[tuple[str, int]]) -> Iterator[tuple[str, int, list[str]]]:
    """Each case and its failures, from a worker that is replaced when it crashes or hangs."""
    spawn = multiprocessing.get_context("spawn")
    while cases:
        results, theirs = spawn.Pipe(duplex=False)
        worker = spawn.Process(target=work, args=(cases, theirs), daemon=True)
        worker.start()
        theirs.close()
        done = 0
        for name, seed in cases:
            failures = answer(results, worker)
            yield name, seed, failures
            done += 1
            if not worker.is_alive():
                break
        cases = cases[done:]


def answer(results, worker) -> list[str]:
    try:
        if results.poll(MAX_SILENCE):
            return results.recv()
        worker.kill()
        worker.join()
        return ["hangs"]
    except EOFError:
        worker.join()
        return [f"crash, exit status {worker.exitcode}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=1000, help="cases of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the first case of each kind")
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND")
    given = parser.parse_args()
    if not CAN_LIMIT:
        sys.exit("tests.fuzz limits each case's time and memory: only Linux can")
    seeds = range(given.seed, given.seed + given.count)
    failed = dict.fromkeys(given.kind, 0)
    for name, seed, failures in run([(name, seed) for name in given.kind for seed in seeds]):
        for failure in failures:
            print(f"--kind {name} --seed {seed} --count 1: {printable(failure)}", flush=True)
        failed[name] += bool(failures)
        if seed == seeds[-1]:
            print(f"{name}: {len(seeds)} cases, {failed[name]} failures", flush=True)
    sys.exit(any(failed.values()))


if __name__ == "__main__":
    main()
