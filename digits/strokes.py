"""How people write digits and signs: the tables of strokes.txt, which says what stands in them.

STYLES and RARE hold, for each digit, the ways to write it: their share and their strokes. SIGNS and
ARITHMETIC hold the strokes of each sign.
"""

from collections import defaultdict
from pathlib import Path

Way = tuple[float, list[str]]  # its share of the writers, its strokes


def read_tables(path: Path) -> dict[str, list[Way]]:
    """The ways to write each thing in a file like strokes.txt, in its order."""
    tables = defaultdict(list)
    for line in path.read_text("utf-8").splitlines():
        way = line.partition("#")[0].split(None, 2)
        if way:
            name, share, strokes = way
            tables[name].append((float(share), [stroke.strip() for stroke in strokes.split("|")]))
    return tables


_TABLES = read_tables(Path(__file__).with_suffix(".txt"))
STYLES = {digit: _TABLES[f"{digit}"] for digit in range(10)}
RARE = {digit: _TABLES[f"rare-{digit}"] for digit in (1, 7, 9)}
SIGNS, ARITHMETIC = ([strokes for _, strokes in _TABLES[name]] for name in ("sign", "arithmetic"))
