"""Digits that the finder cut out of drawn pages: the network that reads learns from them, too.

It meets such in people's pictures: thick and thin, with a piece of a line, or an end missing. None
of them is MNIST's, so that none of those that it is measured on comes back as one to learn from.

  python -m digits.cut_digits     makes digits/cut_digits.npz anew, in 4 minutes
"""

from pathlib import Path

import numpy as np

from classifier.console import ArgumentParser, one_line_errors
from classifier.files import atomic_file, prepare_file
from digits import drawn
from digits.cutting import cut_out
from digits.drawn_pages import SIDE, DrawnPage
from digits.drawn_shapes import SIGN
from digits.finder import Finder, load_finder
from digits.finding import MARGIN, look
from digits.mnist_like import CUT_DIGITS
from digits.page import TWO_TONED
from digits.strokes import RARE, STYLES
from digits.train_finder import draw_pages, matches

PAGES, OF_EACH = 3_000, 1_500  # digits of each kind: a file of 2 MB
SEED = 20_000  # the finder did not learn from pages of this one
USUAL, RARER = 50_000, 10_000  # digits to write on them in pens of all widths
WHOLE = 0.6  # of the box of what is cut out and of the digit's both share more than that


def cut_digits(pages: list[DrawnPage], finder: Finder) -> tuple[np.ndarray, np.ndarray]:
    """The digits that the finder finds on the pages, if they are whole and plainly ink on paper.

    Returns:
        Images, uint8 [n, 28, 28], and what they are, uint8 [n].
    """
    images, labels = [], []
    for page in pages:
        view = look(page.image, SIDE, finder)
        rows = matches(view.marks, np.add(page.boxes, [MARGIN] * 4 + [0]), WHOLE)
        for row, cut in zip(rows, cut_out(view), strict=True):
            if row is None or page.boxes[row, 4] == SIGN or cut.two_toned < TWO_TONED:
                continue
            images.append(cut.image)
            labels.append(page.boxes[row, 4])
    return np.stack(images), np.array(labels, np.uint8)


def make(path: Path) -> None:
    """Draw pages, cut digits out of them, and write as many of each to the file."""
    prepare_file(path)  # now: the rest takes minutes
    usual, rarer = drawn.draw(USUAL, SEED, STYLES), drawn.draw(RARER, SEED, RARE)
    written = (np.concatenate(parts) for parts in zip(usual, rarer, strict=True))
    pages = draw_pages(PAGES, SEED, *written)
    images, labels = cut_digits(pages, load_finder())
    kept = np.concatenate([np.flatnonzero(labels == kind)[:OF_EACH] for kind in range(10)])
    with atomic_file(path) as partial:
        np.savez_compressed(partial, images=images[kept], labels=labels[kept])
    print(f"{path}: {len(kept)} of {len(labels)} digits, {path.stat().st_size:,} bytes")


def main() -> None:
    """Make the file of digits anew."""
    parser = ArgumentParser(
        prog="python -m digits.cut_digits", description="Cut digits out of drawn pages."
    )
    parser.add_argument("--out", type=Path, default=CUT_DIGITS, help="(default: %(default)s)")
    options = parser.parse_args()
    with one_line_errors():
        make(options.out)


if __name__ == "__main__":
    main()
