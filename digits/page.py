"""Every digit on a picture: rows from top to bottom, in a row from left to right."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from classifier.opener import Picture, open_file
from digits import drawn
from digits.cutting import Cut, cut_out
from digits.finding import Mark, View, in_picture
from digits.handwriting import is_mnist_like

SPACE = 0.6  # of a digit's height is a plain gap at least, and so many times the next narrower
PLAIN = 1.8  # gap of its row: 0.5 parts evenly spaced digits, 2 joins 53 54 55 on a list of numbers
BESIDE = 0.3  # of the lower one's height two marks share at least if they stand in one row
SMALLEST, LARGEST = 0.35, 2.6  # of the usual size of the marks: people's sizes differ so much

# So sure is the network that reads of angular 4s, which look like signs; of a plus it is less so.
SURELY = 0.997
EVEN = 0.5  # as likely a digit as none
# Several marks are specks if none is so likely a digit, nor so large a share of the picture's side.
SPECKS, SPECK = 0.8, 0.05
# With every so much less correlation between what the network says of them two marks count e times
# less for each other; 0.1 mends half as much (docs/figures.md).
ALIKE = 0.2
OWN = 3  # times as much a mark itself tells whether it is a sign: two 4s make no plus a 4
LEAST = 1e-5  # a probability below it counts as it: how small it is tells nothing more
TWO_TONED = 0.6  # less has one in two hundred of people's digits, and most of what things show

Network = Callable[[np.ndarray], np.ndarray]


class Digit(NamedTuple):
    """A digit on a page."""

    row: int  # from 0 at the top
    position: int  # in the row, from 0 at the left
    box: tuple[int, int, int, int]  # left, top, right, bottom in pixels of the picture
    is_digit: float  # how likely it is one at all, 0 to 1
    image: np.ndarray  # as the network that reads sees it: uint8 [28, 28]
    labels: tuple[float, ...]  # how likely the finder takes it for which digit, if it is one


class Page(NamedTuple):
    """What is on a picture, in reading order."""

    digits: list[Digit]
    # In place of each digit "0"; "?" for what is as large as one and none, and spaces between
    # rows and for plain gaps.
    pattern: str

    def text(self, labels: Iterable[str]) -> str:
        """The labels, one for each digit, with the signs and spaces between them."""
        rest = iter(labels)
        return "".join(next(rest) if letter == "0" else letter for letter in self.pattern)


def full_size(picture: Picture) -> tuple[int, int]:
    """Width and height of the upright picture, which open_picture may have shrunk."""
    with open_file(picture) as file, Image.open(file) as image:
        width, height = image.size
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    return (height, width) if turned else (width, height)


def find_digits(image: Image.Image, view: View, probabilities: Network) -> Page | None:
    """All digits on a picture; None if there is none.

    Args:
        image: as opener.open_picture gives it, at most handwriting.WORK_SIDE pixels a side.
        view: what finding.find gives for its pixels, as handwriting.on_paper gives them.
        probabilities: the network that reads: uint8 [n, 28, 28] to float32 [n, 10].
    """
    cuts = dict(zip((mark.number for mark in view.marks), cut_out(view), strict=True))
    marks = _surely_read(view.marks, cuts, probabilities)
    marks = [mark for mark in marks if mark.is_likely_digit or mark.is_sign > EVEN]
    if _are_specks(marks, view):
        return None
    rows = in_rows(of_usual_size(marks))
    rows = [row for row in rows if any(mark.is_likely_digit for mark in row)]
    if not rows:
        return None
    places = [
        (number, position, mark)
        for number, row in enumerate(rows)
        for position, mark in enumerate(mark for mark in row if mark.is_likely_digit)
    ]
    if len(places) == 1 and is_mnist_like(image, drawn.SIDE, drawn.SIDE):
        cuts[places[0][-1].number] = Cut(np.asarray(image.convert("L")), 1.0)
    digits = []
    for row, position, mark in places:
        cut = cuts[mark.number]
        is_digit = _is_digit(mark, cut)
        box = in_picture(mark, view)
        digits.append(Digit(row, position, box, is_digit, cut.image, mark.labels))
    return Page(digits, " ".join(map(_pattern, rows)))


def _are_specks(marks: list[Mark], view: View) -> bool:
    """Whether they are several, small and unlikely: dust, or the grain of paper seen from near."""
    largest = SPECK * max(view.image.shape)
    return len(marks) > 1 and all(mark.is_digit < SPECKS and mark.size < largest for mark in marks)


def _surely_read(marks: list[Mark], cuts: dict[int, Cut], probabilities: Network) -> list[Mark]:
    """The marks; what looks like a sign is a digit if it is read for sure, or as digits beside it.

    People write angular 4s, crossed 7s, and flat 0s.
    """
    if not any(mark.is_sign > mark.is_digit for mark in marks):
        return marks
    answers = probabilities(np.stack([cuts[mark.number].image for mark in marks]))
    likely = np.array([(mark.is_digit, mark.is_sign) for mark in marks])
    likely = by_one_hand(likely, answers, OWN)
    judged = []
    for mark, answer, (is_digit, is_sign) in zip(marks, answers, likely, strict=True):
        # a stroke that the finder knows no middle of is a line
        is_line = answer.argmax() == 1 and not max(mark.heat)
        if mark.is_sign > mark.is_digit and not is_line:
            if answer.max() >= SURELY:
                mark = mark._replace(is_digit=mark.is_digit + mark.is_sign, is_sign=0.0)
            elif is_digit > is_sign:  # or a plus among many 4s
                mark = mark._replace(is_digit=EVEN, is_sign=0.0)
        judged.append(mark)
    return judged


def by_one_hand(values: np.ndarray, probabilities: np.ndarray, own: float = 1) -> np.ndarray:
    """What is said of a page's marks, each averaged with the others that are like it.

    One hand writes all of a page's 1s alike. Where each of them looks a little like a 7, one that
    looks as much like a 7 as like a 1 is a 1, too. It is a kernel regression (Nadaraya 1964,
    Watson 1964), of the correlation of logits.

    Args:
        values: what is said, float [n, k].
        probabilities: the network's, of what digit each is, float [n, 10].
        own: how many times each counts for itself.

    Returns:
        float [n, k].
    """
    logits = np.log(np.maximum(probabilities, LEAST))
    logits -= logits.mean(axis=1, keepdims=True)
    logits /= np.maximum(np.linalg.norm(logits, axis=1, keepdims=True), LEAST)
    weights = np.exp((logits @ logits.T - 1) / ALIKE) + (own - 1) * np.eye(len(logits))
    return weights @ values / weights.sum(axis=1, keepdims=True)


def _is_digit(mark: Mark, cut: Cut) -> float:
    """How likely it is a digit: no more than none if its surroundings are no paper with ink."""
    return mark.is_digit if cut.two_toned >= TWO_TONED else min(mark.is_digit, EVEN)


def of_usual_size(marks: list[Mark]) -> list[Mark]:
    """The marks but for those that are much smaller or larger than most: specks, and things."""
    if len(marks) < 2:
        return marks
    sizes = np.array([mark.size for mark in marks])
    # a large one counts more, or specks would be the usual
    usual = np.median(np.repeat(sizes, np.maximum(1, 10 * sizes / sizes.max()).astype(int)))
    return [mark for mark in marks if SMALLEST * usual < mark.size < LARGEST * usual]


# ---------------------------------------------------------------- rows


def in_rows(marks: list[Mark]) -> list[list[Mark]]:
    """Put marks in reading order: rows from the top, each from the left; rows may slant.

    From left to right each mark joins the row whose last three it is most beside, so that a row
    may climb, fall and jump.
    """
    rows: list[list[Mark]] = []
    for mark in sorted(marks, key=lambda mark: mark.box[0] + mark.box[2]):
        best, best_overlap = None, BESIDE
        for row in rows:
            # what stands above or below is of another row
            if _shared(mark.box[0::2], row[-1].box[0::2]) > 0.5:
                continue
            overlap = max(_shared(mark.box[1::2], other.box[1::2]) for other in row[-3:])
            if overlap > best_overlap:
                best, best_overlap = row, overlap
        if best is None:
            rows.append([mark])
        else:
            best.append(mark)
    return sorted(rows, key=lambda row: np.mean([mark.box[1] + mark.box[3] for mark in row]))


def _shared(a: tuple[int, int], b: tuple[int, int]) -> float:
    """How much of the shorter of two stretches, start and end, the other covers."""
    return (min(a[1], b[1]) - max(a[0], b[0])) / min(a[1] - a[0], b[1] - b[0])


def _pattern(row: list[Mark]) -> str:
    """A row as in Page.pattern."""
    tall = np.median([mark.size for mark in row])
    gaps = [b.box[0] - a.box[2] for a, b in zip(row, row[1:], strict=False)]
    plain = _plain_gap(gaps, SPACE * tall)
    pattern = ""
    for gap, mark in zip([0, *gaps], row, strict=True):
        pattern += " " * bool(gap >= plain) + ("0" if mark.is_likely_digit else "?")
    return pattern


def _plain_gap(gaps: list[int], least: float) -> float:
    """The narrowest gap, of at least so many pixels, that is plainly wider than some others."""
    ordered = sorted(gaps)
    pairs = zip(ordered, ordered[1:], strict=False)
    return min((b for a, b in pairs if b > max(least, PLAIN * a)), default=np.inf)
