"""Which pieces of ink make up digits: all likely ways are read, and the likeliest is kept.

A piece may be a digit, a part of one, several that touch, or none. Which it is shows only when it
has been read: pieces are cut where a pen's stroke may join two of them, put together where they lie
close, and of all ways to share out the ink the likeliest is kept (over-segment, recognise, search:
Casey and Lecolinet 1996; LeCun, Bottou, Bengio and Haffner 1998, section V). That needs a judge
which knows what is no digit: judge.py. Both networks come in as functions; nothing here knows
TensorFlow.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from digits.pieces import Pieces, cut, height, is_stick, take_out_lines, width

LARGEST = 1.9  # of the usual height: the largest digit, since people's sizes differ so much
SURE = 0.9  # of being one digit: such a piece is not cut
LIKELY = 0.5  # of being one digit
FEW = 0.2  # of all ink's length: fewer digits than that do not say how a digit is here
MAX_ATOMS = 5  # parts of one digit: an 8 that is cut twice through each loop
MAX_BLOCKS = 400  # ways to join the parts of one heap: beyond it is a texture
MAX_STATES = 20_000  # of a heap that is shared out: a tenth of a second; beyond it is a texture
BATCH = 64  # networks always see so many at a time, so that they are compiled once
# What the likeliest reading pays, in natural logarithms of chances. They are round figures, chosen
# from what they mean while drawn and real pages were looked at.
CUT = 1.0  # for each digit that was cut out: one piece in three or four is no single digit
CUT_STICK = 1.0  # the same for a slim one: a slice of anything is a 1
MERGE = 0.3  # for each piece joined to another
DROP = 4.0  # for a piece as large as a digit that is taken for none: less than 2% likely to be one
ODD = 2.0  # for each factor of e by which its size, contrast or pen is beyond the usual
EDGE = 2.0  # more of that for a bare stroke at the left or right border, most likely an edge, and
SHORT = 0.7  # for one shorter than that by the usual height at the top or bottom: a table's line
STICK = 0.8  # the chance of a slim piece to be a digit is no better: edges and lines are, too

Network = Callable[[np.ndarray], np.ndarray]
Block = tuple[int, ...]  # the pieces that make up a digit


class Read(NamedTuple):
    """What the networks say of a block."""

    probabilities: np.ndarray  # float32 [10]
    is_digit: float


class Usual(NamedTuple):
    """How a digit is on this page."""

    tall: float  # px
    level: float  # contrast
    pen: float  # px


class Reader:
    """Reads blocks of pieces and remembers what it has read."""

    def __init__(self, pieces: Pieces, probabilities: Network, is_digit: Network):
        self.pieces = pieces
        self.known: dict[Block, Read] = {}
        self._chances, self._is_digit = probabilities, is_digit
        self.origin: dict[int, int] = {}  # of pieces that were cut out: from which

    def read(self, blocks: list[Block]) -> None:
        """Read those that are new."""
        new = [block for block in dict.fromkeys(blocks) if block not in self.known]
        for start in range(0, len(new), BATCH):
            part = new[start : start + BATCH]
            seen = np.zeros((BATCH, 28, 28), np.uint8)
            for index, block in enumerate(part):
                seen[index] = self.pieces.seen(block)
            answers = zip(part, self._chances(seen), self._is_digit(seen), strict=False)
            for block, probabilities, is_digit in answers:
                self.known[block] = Read(probabilities, float(is_digit))

    def is_digit(self, number: int) -> float:
        """How likely a piece that was read alone is a digit; one that was not is none."""
        read = self.known.get((number,))
        return read.is_digit if read else 0.0


def solved(pieces: Pieces, probabilities: Network, is_digit: Network) -> tuple[Reader, list[Block]]:
    """The likeliest way to make digits of the pieces: each block of the list is a digit."""
    reader = Reader(pieces, probabilities, is_digit)
    reader.read([(n,) for n in pieces.boxes])
    usual = usual_of(reader)
    for n in [n for n in pieces.boxes if reader.is_digit(n) < LIKELY]:
        reader.read([(part,) for part in take_out_lines(pieces, n, usual.tall)])
    usual = usual_of(reader)
    # a fifth of a digit is a speck or a dot
    for n in [n for n, b in pieces.boxes.items() if max(height(b), width(b)) < 0.2 * usual.tall]:
        del pieces.boxes[n]
    _cut_what_is_none(reader, usual.tall)
    links = _neighbours(reader, usual.tall)
    heaps = list(_heaps(links))
    ways = [_blocks(heap, links, pieces, usual.tall) for heap in heaps]
    reader.read([block for blocks in ways for block in blocks])
    digits = []
    for heap, blocks in zip(heaps, ways, strict=True):
        scores = {block: _score(block, reader, usual) for block in blocks}
        best = best_partition(heap, {block: score for block, (score, _) in scores.items()})
        digits += [block for block in best if scores[block][1]]
    return reader, digits


def usual_of(reader: Reader) -> Usual:
    """Height, contrast and pen of what is a digit: medians weighted by size and contrast.

    Sticks say nothing here, for the remains of lines and edges are sticks.
    """
    pieces = reader.pieces
    boxes = pieces.boxes
    if not boxes:
        return Usual(1, 1, 1)
    weight = {n: max(height(box), width(box)) * pieces.level[n] for n, box in boxes.items()}
    sure = [n for n, box in boxes.items() if reader.is_digit(n) >= LIKELY and not is_stick(box)]
    if sum(weight[n] for n in sure) < FEW * sum(weight.values()):
        sure = list(boxes)
    values = np.array([(height(boxes[n]), pieces.level[n], pieces.pen[n]) for n in sure])
    weights = np.array([weight[n] for n in sure])
    medians = []
    for column in values.T:
        order = np.argsort(column)
        total = np.cumsum(weights[order])
        medians.append(float(column[order][np.searchsorted(total, total[-1] / 2)]))
    return Usual(*medians)


def _cut_what_is_none(reader: Reader, tall: float) -> None:
    """Cut the pieces that are hardly one digit, and no smaller than one."""
    for n, box in list(reader.pieces.boxes.items()):
        small = min(width(box), height(box)) < 0.4 * tall
        large = min(width(box), height(box)) > 2.5 * tall
        if reader.is_digit(n) <= SURE and not small and not large:
            for part in cut(reader.pieces, n, tall):
                reader.origin[part] = n


# ---------------------------------------------------------------- what may belong together


def _neighbours(reader: Reader, tall: float) -> dict[int, set[int]]:
    """Which pieces lie so close that they may be parts of one digit."""
    boxes = reader.pieces.boxes
    numbers = sorted(boxes, key=lambda n: boxes[n][1].start)
    links = {n: set() for n in numbers}
    for index, a in enumerate(numbers):
        for b in numbers[index + 1 :]:
            if boxes[b][1].start - boxes[a][1].stop > tall:
                continue
            if _are_close(a, b, reader, tall):
                links[a].add(b)
                links[b].add(a)
    return links


def _are_close(a: int, b: int, reader: Reader, tall: float) -> bool:
    p, q = reader.pieces.boxes[a], reader.pieces.boxes[b]
    down, across = (max(s.start, t.start) - min(s.stop, t.stop) for s, t in zip(p, q, strict=True))
    if a in reader.origin and reader.origin[a] == reader.origin.get(b):
        return max(across, down) <= 2
    if min(reader.is_digit(a), reader.is_digit(b)) > SURE and (
        across > -0.3 * min(width(p), width(q))
    ):
        # two digits, unless a stroke was broken: then one of them at least is a stick
        pen = max(reader.pieces.pen[a], reader.pieces.pen[b])
        return (is_stick(p) or is_stick(q)) and max(across, down) < 1.5 * pen
    return across < 0.25 * tall and down < 0.3 * tall


def _heaps(links: dict[int, set[int]]) -> Iterator[list[int]]:
    """The pieces that are linked, directly or through others, sorted."""
    left = set(links)
    while left:
        ahead, heap = [left.pop()], []
        while ahead:
            n = ahead.pop()
            heap.append(n)
            more = links[n] & left
            left -= more
            ahead += more
        yield sorted(heap)


def _blocks(heap: list[int], links: dict[int, set[int]], pieces: Pieces, tall: float) -> set[Block]:
    """All linked sets of up to MOST_ATOMS of the heap's pieces that are no larger than a digit."""
    found = {(n,) for n in heap}
    level = set(found)
    for _ in range(MAX_ATOMS - 1):
        grown = set()
        for block in level:
            for n in set().union(*(links[b] for b in block)).difference(block):
                larger = tuple(sorted((*block, n)))
                box = pieces.box(larger)
                if max(height(box), width(box)) <= LARGEST * tall:
                    grown.add(larger)
        if len(found) + len(grown) > MAX_BLOCKS:
            break
        level = grown
        found |= grown
    return found


# ---------------------------------------------------------------- what is likeliest


def _score(block: Block, reader: Reader, usual: Usual) -> tuple[float, bool]:
    """The logarithm of the chance that the block is one digit, or is none; and whether it is one.

    How likely a digit is depends on the page as well as on the shape: it is about as large, as
    dark and of as thick a pen as the others.
    """
    pieces, read = reader.pieces, reader.known[block]
    box = pieces.box(block)
    stick = is_stick(box)
    size = max(height(box), 0.7 * width(box)) / usual.tall
    level = max(pieces.level[n] for n in block) / usual.level
    thick = max(pieces.pen[n] for n in block)
    odd = max(0, abs(np.log(size)) - 0.5) + max(0, np.log(0.6 / level))
    odd += max(0, abs(np.log(thick / usual.pen)) - 0.7)
    from_side, from_end = (
        min(s.start, length - s.stop)
        for s, length in zip(box[::-1], pieces.labels.shape[::-1], strict=True)
    )
    is_cut_off = from_end < thick and height(box) < SHORT * usual.tall
    if width(box) < 2.5 * thick and (from_side < thick or is_cut_off):
        odd += EDGE
    chance = min(read.is_digit, STICK) if stick else read.is_digit
    digit = np.log(max(chance, 1e-6)) + 0.3 * np.log(read.probabilities.max()) - ODD * odd
    origins = {reader.origin.get(n, n) for n in block}
    digit -= MERGE * (len(origins) - 1)
    is_whole = all(n in block for n in reader.origin if reader.origin[n] in origins)
    was_cut = any(n in reader.origin for n in block)
    if was_cut:
        digit -= CUT * (not is_whole) + CUT_STICK * stick
    visible = min(1.0, level)
    if was_cut and not is_whole:  # who reads a part of a piece should read the rest of it
        none = -2 * DROP * min(1.0, max(size, 3 * size - 0.3)) * visible
    elif len(block) == 1 or was_cut:
        # what lies flat is a dash or the rest of a line, what is wide may be several digits unless
        # it is a thing that lies on the page, higher than any digit
        flat = min(1.0, height(box) / usual.tall)
        several = max(1.0, width(box) / usual.tall) if height(box) <= LARGEST * usual.tall else 1.0
        none = -DROP * flat * visible * several
    else:
        none = -np.inf
    return max(digit, none), bool(digit > none)


def best_partition(heap: list[int], scores: dict[Block, float]) -> list[Block]:
    """Share out the heap among blocks so that the sum of their scores is the highest.

    Args:
        heap: the pieces.
        scores: of each block that may be chosen; every piece alone is among them.

    Returns:
        Blocks that together have each piece once. The pieces alone, if there are too many ways.
    """
    bit = {n: 1 << index for index, n in enumerate(heap)}
    starting: dict[int, list[tuple[int, Block]]] = {}
    for block in scores:
        bits = sum(bit[n] for n in block)
        starting.setdefault(bits & -bits, []).append((bits, block))
    full = (1 << len(heap)) - 1
    best = {full: (0.0, None)}  # by the pieces that are shared out already: the rest's score
    todo = [0]
    while todo:
        done = todo[-1]
        first = ~done & (done + 1)  # the first piece that is left
        ways = [(bits, block) for bits, block in starting[first] if not bits & done]
        ahead = [done | bits for bits, _ in ways if done | bits not in best]
        if len(best) > MAX_STATES:
            return [(n,) for n in heap]
        if ahead:
            todo += ahead
            continue
        best[done] = max(
            ((scores[block] + best[done | bits][0], block) for bits, block in ways),
            key=lambda way: way[0],
        )
        todo.pop()
    done, chosen = 0, []
    while done != full:
        chosen.append(best[done][1])
        done |= sum(bit[n] for n in chosen[-1])
    return chosen
