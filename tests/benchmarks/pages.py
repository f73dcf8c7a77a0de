"""How often all digits of a picture are read right, and how often one is read where there is none.

Measured in this process, with the functions that predict reads with.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from classifier.idx import decode_part
from classifier.predictions import Prediction
from digits.finder import load_finder
from digits.reading import digit_reader
from tests.networks import shipped_model
from tests.pages import KINDS, NO_DIGITS, distance, draw_nothing, draw_page

from .runs import idx_folder

Read = Callable[[list[str]], list[Prediction]]


def pages(work_dir: Path, folder: Path, single: Path, weights: str | None, count: int) -> None:
    """Print how pictures of several digits, of one, and of none are read.

    Args:
        work_dir: where drawn pictures are written to be read again.
        folder: pictures named by the digits on them, rows joined by "-", up to the last "_".
        single: pictures of one digit whose names begin with it.
        weights: others than those that ship.
        count: how many pages, and pictures without a digit, are drawn of each kind.
    """
    model, finder = shipped_model(weights), load_finder()
    read = digit_reader(model, finder)
    of_several(folder, read)
    of_one(single, read)
    images, labels = (np.asarray(part) for part in decode_part(idx_folder(), "test"))
    of_mnist(work_dir, images, labels, read)
    of_drawn(work_dir, images, labels, read, count)
    of_none(work_dir, read, count)
    speed(work_dir, images, read)


def of_several(folder: Path, read: Read) -> None:
    right = errors = digits = 0
    files = pictures_in(folder)
    for file, row in zip(files, each(read, files), strict=True):
        truth = file.name.rsplit("_", 1)[0].replace("-", "")
        wrong = distance(truth, row.label.replace(" ", "")) if row else len(truth)
        if wrong:
            print(f"wrong: {file.name}: {row and row.label}")
        right, errors, digits = right + (not wrong), errors + wrong, digits + len(truth)
    print(f"{folder}: {right} of {len(files)} wholly right, digit error rate {errors / digits:.2%}")


def of_one(folder: Path, read: Read) -> None:
    files = pictures_in(folder)
    one = right = unsure = 0
    for file, row in zip(files, each(read, files), strict=True):
        is_right = row is not None and row.label == file.name[0]
        if not is_right or not is_sure(row):
            print(f"{file.name}: {row and f'{row.label} ({row.confidence:.0%})'}")
        one += row is not None and not row.detections
        right, unsure = right + is_right, unsure + (not is_sure(row))
    print(f"{folder}: {one} of {len(files)} are exactly one digit, {right} right, {unsure} unsure")


def of_mnist(work_dir: Path, images: np.ndarray, labels: np.ndarray, read: Read) -> None:
    """Every tenth of MNIST's test images."""
    files, truths = [], {}
    for number in range(0, len(images), 10):
        file = work_dir / f"{number}.png"
        Image.fromarray(images[number]).save(file)
        files.append(file)
        truths[str(file)] = str(labels[number])
    rows = [row for row in each(read, files) if row]
    wrong = [row for row in rows if row.label != truths[row.file]]
    print(
        f"MNIST's test images: {len(files) - sum(map(is_sure, rows))} of {len(files)} unsure, "
        f"{len(wrong)} wrong, {sum(map(is_sure, wrong))} of them sure"
    )


def of_drawn(
    work_dir: Path, images: np.ndarray, labels: np.ndarray, read: Read, count: int
) -> None:
    """Pages of MNIST's test digits, which no network has learned from."""
    totals = np.zeros(3, int)
    file = work_dir / "page.png"
    for kind in KINDS:
        rng = np.random.default_rng(42)
        sums = np.zeros(3, int)
        for _ in range(count):
            image, rows = draw_page(kind, rng, images, labels)
            image.save(file)
            (row,) = each(read, [file])
            wrong = distance("".join(rows), row.label.replace(" ", "") if row else "")
            sums += [not wrong, wrong, sum(map(len, rows))]
        print(f"drawn, {kind}: {sums[0]} of {count} wholly right, {sums[1] / sums[2]:.1%}")
        totals += sums
    print(f"drawn pages: {totals[0]} of {count * len(KINDS)}, {totals[1] / totals[2]:.2%}")


def of_none(work_dir: Path, read: Read, count: int) -> None:
    total = 0
    for kind in NO_DIGITS:
        rng = np.random.default_rng(7)
        sure = 0
        for _ in range(count):
            file = work_dir / "none.png"
            draw_nothing(kind, rng).save(file)
            (row,) = each(read, [file])
            sure += is_sure(row)
        print(f"no digit, {kind}: {sure} of {count} called one for sure")
        total += sure
    print(f"no digit: {total / count / len(NO_DIGITS):.1%} called one for sure")


def speed(work_dir: Path, images: np.ndarray, read: Read) -> None:
    """A photo of 12 megapixels with a hundred digits, the best of three times."""
    sheet = np.full((3000, 4000), 230, np.float32)
    for n in range(100):
        digit = Image.fromarray(images[n]).resize((200, 200), Image.Resampling.BICUBIC)
        top, left = 150 + n // 10 * 280, 300 + n % 10 * 350
        sheet[top : top + 200, left : left + 200] -= 0.8 * np.asarray(digit, np.float32)
    sheet += np.random.default_rng(0).normal(0, 4, sheet.shape)
    file = work_dir / "hundred.jpg"
    Image.fromarray(np.clip(sheet, 0, 255).astype(np.uint8)).convert("RGB").save(file, quality=90)
    seconds = []
    for _ in range(3):
        start = time.monotonic()
        (row,) = read([str(file)])
        seconds.append(time.monotonic() - start)
    print(f"a hundred digits on 12 megapixels: {min(seconds):.2f} s, {len(row.detections)} found")


def pictures_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.name[0].isdecimal())


def each(read: Read, files: list[Path]) -> list[Prediction | None]:
    """What is read in each file; None where there is no ink."""
    found = {row.file: row for row in read([str(file) for file in files])}
    return [found.get(str(file)) for file in files]


def is_sure(row: Prediction | None) -> bool:
    return row is not None and not row.is_unsure
