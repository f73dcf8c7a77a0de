"""What it costs to write and to read pictures, and how often they are read right."""

import os
import shutil
import statistics
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from classifier.console import InputError
from classifier.idx import decode_part
from digits.drawn import draw
from mnist_parser import encode_pngs

from .runs import Run, idx_folder, last_lines, network, parsed, read_csv, run


def parse(work_dir: Path, rounds: int) -> None:
    """Print mnist_parser's time against that of bare creation of as many files of those sizes.

    The parser is timed as a command, process start included; bare creation is open, write and
    close of zeros in folders laid out alike, and nothing else. They alternate, on a disk that has
    been synchronised first; the last line is the median of the rounds' ratios.
    """
    shared = parsed(work_dir)
    paths = [p for part in ("train", "test") for p in (shared / part).glob("*/*.png")]
    sizes = {str(path.relative_to(shared)): path.stat().st_size for path in paths}
    ratios = []
    for number in range(1, rounds + 1):
        parser = parser_seconds(work_dir / "parse")
        bare = creation_seconds(work_dir / "parse", sizes)
        ratios.append(parser / bare)
        print(f"round {number}: mnist_parser.py {parser:.2f} s, bare creation {bare:.2f} s")
    print(
        f"{len(sizes)} files: mnist_parser.py takes {statistics.median(ratios):.2f} times as long"
    )


def parser_seconds(folder: Path) -> float:
    empty(folder)
    source = idx_folder()
    return run("mnist_parser.py", "--data_dir", folder / "mnist_data", "--source", source).seconds


def creation_seconds(folder: Path, sizes: dict[str, int]) -> float:
    empty(folder)
    for parent in {os.path.dirname(name) for name in sizes}:
        (folder / parent).mkdir(parents=True)
    files = [(f"{folder}/{name}", bytes(size)) for name, size in sizes.items()]
    start = time.monotonic()
    for name, content in files:
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        os.write(file, content)
        os.close(file)
    return time.monotonic() - start


def empty(folder: Path) -> None:
    """Leave an empty folder, and nothing of it to be written to disk while the next is timed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.sync()


def predict(work_dir: Path, weights: str | None, rounds: int, small: int, large: int) -> None:
    """Print how many pictures a second --mode predict reads, small ones and photographs.

    The small ones are digits of 28x28 pixels as PNG, the large ones JPEG of 12 megapixels, ink on
    shaded, noisy paper; both from digits.drawn. Each is timed as a command. Of the same command
    with one such picture the time is process start, but for that picture.
    """
    flags = network(weights)
    makers = {"28x28": (small, write_small), "4000x3000": (large, write_large)}
    for name, (count, write) in makers.items():
        many, one = work_dir / name, work_dir / f"{name}-one"
        for folder, number in ((many, count), (one, 1)):
            empty(folder)
            write(folder, number)
        included, excluded = [], []
        for _ in range(rounds):
            start_up = predict_folder(work_dir, one, flags).seconds
            done = predict_folder(work_dir, many, flags)
            included.append(count / done.seconds)
            excluded.append((count - 1) / (done.seconds - start_up))
            print(
                f"{count} pictures of {name}: {done.seconds:.2f} s, of which start {start_up:.2f} "
                f"s; peak memory {done.peak_memory:.0f} MB"
            )
        print(
            f"{name}: {statistics.median(included):.1f} pictures a second with process start, "
            f"{statistics.median(excluded):.1f} without"
        )


def predict_folder(work_dir: Path, folder: Path, flags: Iterable[str]) -> Run:
    """Run `--mode predict` on the folder; its answers are in work_dir/report/predictions.csv."""
    command = ("mnist_keras.py", "--mode", "predict", "--data_dir", work_dir, "--imp_dir", folder)
    answers = work_dir / "report" / "predictions.csv"
    answers.unlink(missing_ok=True)  # else an earlier run's could pass for this one's
    done = run(*command, *flags, may_fail=True)
    if not answers.exists():
        raise InputError(f"nothing predicted: {last_lines(done.output)}")
    return done


def write_small(folder: Path, count: int) -> None:
    images, _ = draw(count, seed=2)
    for index, png in enumerate(encode_pngs(images)):
        (folder / f"{index}.png").write_bytes(png)


def write_large(folder: Path, count: int) -> None:
    images, _ = draw(count, seed=3)
    shade = np.linspace(235, 170, 4000, dtype=np.float32)  # light falls in from the left
    noise = np.random.default_rng(0).normal(0, 4, (3000, 4000)).astype(np.float32)
    for index, image in enumerate(images):
        digit = Image.fromarray(image).resize((1500, 1500), Image.Resampling.BICUBIC)
        page = shade + noise
        page[700:2200, 1200:2700] *= 1 - 0.75 * np.asarray(digit, np.float32) / 255
        photo = Image.fromarray(np.clip(page, 0, 255).astype(np.uint8)).convert("RGB")
        photo.save(folder / f"{index}.jpg", quality=90)


def wild(work_dir: Path, folder: Path, weights: str | None) -> None:
    """Print how many pictures --mode predict reads right, which it confuses, and MNIST's figures.

    A picture's label is the first character of its file's name; one that can't be read is wrong.
    MNIST's test pictures go through predict with and without handwriting.to_mnist.
    """
    flags = network(weights)
    predict_folder(work_dir, folder, flags)
    answers = {
        os.path.basename(row["file"]): row
        for row in read_csv(work_dir / "report" / "predictions.csv")
    }
    files = sorted(path.name for path in folder.iterdir() if path.name[0].isdecimal())
    wrong = [name for name in files if name not in answers or answers[name]["label"] != name[0]]
    print_confusion(files, answers)
    for name in wrong:
        print(f"wrong: {name}: {describe(answers.get(name))}")
    right = len(files) - len(wrong)
    print(f"{folder}: {right} of {len(files)} right, {right / len(files):.2%}")
    mnist = write_mnist_test(work_dir / "mnist-test")
    for handwriting in ("false", "true"):
        predict_folder(work_dir, mnist, [*flags, "--handwriting", handwriting])
        rows = read_csv(work_dir / "report" / "predictions.csv")
        right = sum(os.path.basename(row["file"])[0] == row["label"] for row in rows)
        count = len(list(mnist.iterdir()))
        print(f"MNIST's {count} test pictures, --handwriting {handwriting}: {right / count:.4f}")


def describe(answer: dict[str, str] | None) -> str:
    if answer is None:
        return "not predicted"
    return "{} ({:.0%}), second guess {} ({:.0%})".format(
        answer["label"],
        float(answer["confidence"]),
        answer["second_guess"],
        float(answer["second_confidence"]),
    )


def print_confusion(files: list[str], answers: dict[str, dict[str, str]]) -> None:
    """A row a label, a column an answer; the last column is for what could not be read."""
    counts = np.zeros((10, 11), int)
    for name in files:
        answer = answers[name]["label"] if name in answers else "10"
        counts[int(name[0]), int(answer)] += 1
    print("     " + " ".join(f"{digit:>4}" for digit in (*range(10), "none")))
    for digit, row in enumerate(counts):
        print(f"{digit:>4} " + " ".join(f"{count or '.':>4}" for count in row))


def write_mnist_test(folder: Path) -> Path:
    """MNIST's test pictures in one folder, as <label>_<index>.png."""
    empty(folder)
    images, labels = decode_part(idx_folder(), "test")
    for index, (label, png) in enumerate(zip(labels, encode_pngs(images), strict=True)):
        (folder / f"{label}_{index}.png").write_bytes(png)
    return folder
