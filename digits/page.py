"""Every digit on a picture: rows from top to bottom, in a row from left to right.

Ink is found in pieces (pieces.py), on the whole picture and on the sheet of paper that may lie on
it (sheet.py); search.py says which of them are digits; here they are put in order.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from classifier.opener import Picture, open_file
from digits import handwriting
from digits.pieces import Box, Pieces, find_pieces, height, is_stick, width
from digits.search import LARGEST, LIKELY, Block, Network, Read, Reader, solved, usual_of
from digits.sheet import find_sheet

WORK_SIDE = 1600  # px; a digit a fiftieth of the page high still has 32 px, more than MNIST's 20
# So many digits show that a row without a likely one is a pen, a ring or a coin; and so many that
# are more than sticks, that sticks which would be read instead are a frame.
ENOUGH = 3
SPACE = 0.6  # of a digit's height is a plain gap at least, and so many times the next narrower
PLAIN = 1.8  # gap of its row: 0.5 parts evenly spaced digits, 2 joins 53 54 55 on a list of numbers
# A stick so many times as tall as the tallest digit that is none is a slash or a bracket: on the 84
# pictures of several digits no 1 is more than 1.42 times as tall.
SLASH = 1.5
LEAN = 0.15  # of its height is a slash wide, and a bracket; a table's line is less
SIGN = 0.3  # of a digit's height is a sign at least: less is a dot or a speck
SLACK = 0.15  # of a digit's height: so far a sign may reach over or under a slanting neighbor
# The same digits are read a little less surely on the whole picture or on the sheet.
ALMOST = 0.95


class Digit(NamedTuple):
    """A digit on a page."""

    row: int  # from 0 at the top
    position: int  # in the row, from 0 at the left
    box: tuple[int, int, int, int]  # left, top, right, bottom in pixels of the upright picture
    label: int
    confidence: float  # 0 to 1
    second: int
    second_confidence: float
    is_digit: float  # how likely it is one at all, 0 to 1


class Page(NamedTuple):
    """All digits on a picture, in reading order, and as text: rows and plain gaps are spaces."""

    digits: list[Digit]
    text: str
    on_sheet: bool = False  # they are on a sheet of paper that does not fill the picture


def may_be_page(size: tuple[int, int], has_more: bool, is_digit: float) -> bool:
    """Whether a picture is worth reading as a page, by its first look and what the judge says."""
    return max(size) > handwriting.MIN_PAGE and (has_more or is_digit < LIKELY)


def full_size(picture: Picture) -> tuple[int, int]:
    """Width and height of the upright picture, which open_picture may have shrunk."""
    with open_file(picture) as file, Image.open(file) as image:
        width, height = image.size
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    return (height, width) if turned else (width, height)


def read_page(
    image: Image.Image,
    probabilities: Network,
    is_digit: Network,
    size: tuple[int, int] | None = None,
) -> Page:
    """Read all digits on a picture.

    Args:
        image: as opener.open_picture gives it, at most WORK_SIDE pixels a side.
        probabilities: the network that reads: uint8 [n, 28, 28] to float32 [n, 10].
        is_digit: the judge: uint8 [n, 28, 28] to float32 [n], the chance to be one digit.
        size: width and height of the upright picture that the boxes are to be given in, if the
            image was shrunk.

    Returns:
        The digits; none if there is none.
    """
    scale = 1 if size is None else size[0] / image.width
    whole = _likeliest(image, probabilities, is_digit)
    if sheet := find_sheet(image):
        corner = sheet.left, sheet.top
        on_sheet = _likeliest(sheet.image, probabilities, is_digit, corner)
        if on_sheet.blocks and _reads_as_much(on_sheet, whole):
            return _page(on_sheet, scale)._replace(on_sheet=True)
    return _page(whole, scale)


class Solution(NamedTuple):
    """Which blocks of a reader's pieces are digits, and where the pieces lie in the picture."""

    reader: Reader | None = None  # None if there is no ink
    blocks: list[Block] = []
    left: int = 0
    top: int = 0


def _likeliest(
    image: Image.Image, probabilities: Network, is_digit: Network, corner: tuple[int, int] = (0, 0)
) -> Solution:
    """The digits on a part of the picture, which has that left upper corner."""
    try:
        ways, (top, left) = find_pieces(handwriting.on_paper(image))
    except handwriting.NoInkError:
        return Solution()
    # what was seen best has most digits, and those that are more than sticks count double
    best = max((solved(way, probabilities, is_digit) for way in ways), key=_sureness)
    return Solution(*best, corner[0] + left, corner[1] + top)


def _reads_as_much(on_sheet: Solution, whole: Solution) -> bool:
    """Whether the digits on the whole picture are hardly more than those on the sheet.

    A table's grain looks like 1s, but is not as dark as what is written, nor of its height. Where
    no shadow falls on a page, or in a thick 0, is no sheet: there are other digits. A side of a
    frame is longer than all that is written in it, but no sheet shows nothing but that.
    """

    def shapes(solution: Solution) -> int:
        return sum(_is_shape(block, solution.reader) for block in solution.blocks)

    if not shapes(on_sheet) and shapes(whole) >= ENOUGH:
        return False
    usual = usual_of(on_sheet.reader)

    def total(solution: Solution) -> float:
        result = 0.0
        for block in solution.blocks:
            pieces, sure = solution.reader.pieces, solution.reader.known[block].is_digit
            box, level = pieces.box(block), max(pieces.level[n] for n in block)
            is_alike = 0.5 < height(box) / usual.tall < 2
            if level > usual.level / 2 and (is_alike or _is_shape(block, solution.reader)):
                result += sure * _length([box])
        return result

    return total(on_sheet) >= ALMOST * total(whole)


def _is_shape(block: Block, reader: Reader) -> bool:
    """Whether it is likely a digit, and more than a stick."""
    return reader.known[block].is_digit > LIKELY and not is_stick(reader.pieces.box(block))


def _page(solution: Solution, scale: float) -> Page:
    """The digits in reading order; scale: of the picture that their boxes are given in."""
    reader, blocks, left, top = solution
    if not blocks:
        return Page([], "")
    rows = likely_rows(in_rows(blocks, reader.pieces.box), reader)
    slashes = _slashes(rows, reader.pieces)
    rows = [[block for block in row if block not in slashes] for row in rows]
    rows = [row for row in rows if row]
    share = _share_read(reader.pieces, [block for row in rows for block in row])
    if _is_column_of_sticks([[reader.pieces.box(block) for block in row] for row in rows]):
        share = min(share, LIKELY)
    digits = []
    for number, row in enumerate(rows):
        for position, block in enumerate(row):
            box = reader.pieces.box(block)
            sides = (box[1].start + left, box[0].start + top, box[1].stop + left, box[0].stop + top)
            digit = _digit(reader.known[block], number, position, sides, scale)
            if share <= LIKELY:  # where most is no digit, what looks like one may be chance
                digit = digit._replace(is_digit=min(digit.is_digit, share))
            digits.append(digit)
    leaning = [box for box in map(reader.pieces.box, slashes) if width(box) > LEAN * height(box)]
    return Page(digits, as_text(rows, reader, leaning))


def _slashes(rows: list[list[Block]], pieces: Pieces) -> set[Block]:
    """Sticks that are plainly taller than all that is more: slashes, brackets, lines, edges."""
    boxes = {block: pieces.box(block) for row in rows for block in row}
    others = [height(box) for box in boxes.values() if not is_stick(box)]
    if len(others) < ENOUGH:
        return set()
    tallest = SLASH * max(others)
    return {block for block, box in boxes.items() if is_stick(box) and height(box) > tallest}


def _is_column_of_sticks(rows: list[list[Box]]) -> bool:
    """Whether it is what ruling leaves of an upright line, or nothing but 1s under one another."""
    return len(rows) > 1 and all(len(row) == 1 and is_stick(row[0]) for row in rows)


def _digit(read: Read, row: int, position: int, sides: tuple[int, ...], scale: float) -> Digit:
    first, second = np.argsort(read.probabilities)[:-3:-1]
    box = tuple(round(side * scale) for side in sides)
    return Digit(
        row,
        position,
        box,
        int(first),
        float(read.probabilities[first]),
        int(second),
        float(read.probabilities[second]),
        read.is_digit,
    )


def _sureness(solution: tuple[Reader, list[Block]]) -> tuple[bool, float]:
    """Whether shapes were read, not sticks alone; and how much, and how surely.

    As length, so that an 8 is worth more than its halves. But the two sides of a frame are longer
    than all that is written in it.
    """
    reader, blocks = solution
    sticks = [is_stick(reader.pieces.box(block)) for block in blocks]
    total = sum(
        reader.known[block].is_digit
        * reader.pieces.level[block[0]]
        * _length([reader.pieces.box(block)])
        * (0.5 if stick else 1)
        for block, stick in zip(blocks, sticks, strict=True)
    )
    return sticks.count(False) >= ENOUGH, total


def _share_read(pieces: Pieces, blocks: list[Block]) -> float:
    """How much of all that is as high as a digit was read as one."""
    boxes = [pieces.box(block) for block in blocks]
    if not boxes:
        return 0.0
    tall = np.median([height(box) for box in boxes])
    read = {n for block in blocks for n in block}
    # two fifths, as of what is cut
    left = [box for n, box in pieces.boxes.items() if n not in read and height(box) > 0.4 * tall]
    return _length(boxes) / (_length(boxes) + _length(left))


def _length(boxes: list[Box]) -> int:
    return sum(max(height(box), width(box)) for box in boxes)


# ---------------------------------------------------------------- rows


def in_rows(blocks: list[Block], box_of: Callable[[Block], Box]) -> list[list[Block]]:
    """Put digits in reading order: rows from the top, each from the left; rows may slant.

    From left to right each digit joins the row whose last three it is most beside, so that a row
    may climb, fall and jump.
    """
    rows: list[list[Block]] = []
    for block in sorted(blocks, key=lambda block: sum(_ends(box_of(block)[1]))):
        box = box_of(block)
        best, best_overlap = None, 0.3
        for row in rows:
            last = box_of(row[-1])
            # what stands above or below is of another row
            if _shared(box[1], last[1]) > 0.5:
                continue
            overlap = max(_shared(box[0], box_of(other)[0]) for other in row[-3:])
            if overlap > best_overlap:
                best, best_overlap = row, overlap
        if best is None:
            rows.append([block])
        else:
            best.append(block)
    return sorted(rows, key=lambda row: np.mean([_ends(box_of(block)[0]) for block in row]))


def likely_rows(rows: list[list[Block]], reader: Reader) -> list[list[Block]]:
    """The rows but for those in which nothing is likely a digit, if the others hold ENOUGH."""
    likely = [row for row in rows if max(reader.known[block].is_digit for block in row) >= LIKELY]
    return likely if sum(map(len, likely)) >= ENOUGH else rows


def _ends(side: slice) -> tuple[int, int]:
    return side.start, side.stop


def _shared(a: slice, b: slice) -> float:
    """How much of the shorter one the other covers."""
    shared = min(a.stop, b.stop) - max(a.start, b.start)
    return shared / min(a.stop - a.start, b.stop - b.start)


def as_text(rows: list[list[Block]], reader: Reader, slashes: list[Box]) -> str:
    """The labels; "?" for what stands beside a digit and is none; spaces for rows, plain gaps."""
    others = _not_read(rows, reader) + slashes
    words = []
    for row in rows:
        boxes = [reader.pieces.box(block) for block in row]
        tall = np.median([height(box) for box in boxes])
        gaps = [b[1].start - a[1].stop for a, b in zip(boxes, boxes[1:], strict=False)]
        places = np.searchsorted([box[1].start for box in boxes], _signs(boxes, others, tall))
        signs = ["?" * count for count in np.bincount(places, minlength=len(row) + 1)]
        plain = _plain_gap(
            [gap for gap, sign in zip(gaps, signs[1:-1], strict=True) if not sign], SPACE * tall
        )
        word = ""
        for sign, gap, block in zip(signs[:-1], [0, *gaps], row, strict=True):
            word += sign or " " * bool(gap >= plain)
            word += str(reader.known[block].probabilities.argmax())
        words.append(word + signs[-1])
    return " ".join(words)


def _plain_gap(gaps: list[int], least: float) -> float:
    """The narrowest gap, of at least so many pixels, that is plainly wider than some others."""
    ordered = sorted(gaps)
    pairs = zip(ordered, ordered[1:], strict=False)
    return min((b for a, b in pairs if b > max(least, PLAIN * a)), default=np.inf)


def _not_read(rows: list[list[Block]], reader: Reader) -> list[Box]:
    """Things as dark as the digits that are none, but lines; what was cut in vain is one thing."""
    read = [n for row in rows for block in row for n in block]
    level, pen = reader.pieces.level, reader.pieces.pen
    dark, thin = (np.median([values[n] for n in read]) / 2 for values in (level, pen))
    things: dict[int, list[int]] = {}
    for n in set(reader.pieces.boxes).difference(read):
        if level[n] > dark:
            things.setdefault(reader.origin.get(n, n), []).append(n)
    boxes = [reader.pieces.box(thing) for thing in things.values()]
    return [box for box in boxes if not is_stick(box) and height(box) > thin]


def _signs(row: list[Box], others: list[Box], tall: float) -> list[int]:
    """Where those of the others begin that stand in the row; one above another is one: ÷, =."""
    starts, end = [], -np.inf
    for box in sorted(others, key=lambda box: box[1].start):
        before = [digit for digit in row if digit[1].start < box[1].start]
        if _is_sign(box, before[-1:] + row[len(before) :][:1], tall):
            if box[1].start >= end:
                starts.append(box[1].start)
            end = max(end, box[1].stop)
    return starts


def _is_sign(box: Box, beside: list[Box], tall: float) -> bool:
    """Whether it is as large as a sign and in the row of the one or two digits beside it."""
    middle = sum(_ends(box[0])) / 2
    in_row = min(d[0].start for d in beside) <= middle <= max(d[0].stop for d in beside)
    gaps = [max(box[1].start - d[1].stop, d[1].start - box[1].stop) for d in beside]
    short, long = sorted((height(box), width(box)))
    # what lies flat is a dash between two digits, and at the end of a row the rest of a line
    is_near = len(beside) == 2 or (gaps[0] < tall and short > SIGN * tall)
    is_apart = min(gaps) > -SLACK * tall
    is_sized = SIGN * tall < long < LARGEST * tall or is_stick(box)  # that is a slash
    return in_row and is_near and is_apart and is_sized
