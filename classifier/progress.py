"""How far a command is: tqdm's bar on a terminal, a line now and then in a log."""

import builtins
import io
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

LOG_INTERVAL = 10  # seconds between two lines
# The first words are what a narrow terminal has room for.
BAR_FORMAT = "{desc}: {n_fmt}/{total_fmt} |{bar}| {remaining} left, {rate_fmt}{postfix}"
LOG_FORMAT = BAR_FORMAT.replace(" |{bar}|", ",")


def progress(
    items: Iterable | None = None,
    *,
    total: int | None,
    desc: str,
    unit: str = "picture",
    **options: Any,
) -> "tqdm":
    """The items, with a bar on stderr that vanishes in the end; in a log, with lines.

    Args:
        items: what is done one after the other; None if the bar's update is called instead.
        total: how many there are, if that is known.
        desc: what is being done.
        unit: what one of them is called.
        options: other arguments of tqdm.
    """
    from tqdm import tqdm  # here, since it takes a tenth of a second, as long as `--help`

    options |= {"desc": desc, "total": total, "unit": unit, "leave": False}
    if in_notebook() or sys.stderr.isatty():
        file = sys.stdout if in_notebook() else sys.stderr  # a notebook shows stderr in red
        return tqdm(items, file=file, bar_format=BAR_FORMAT, dynamic_ncols=True, **options)
    seldom = {"delay": LOG_INTERVAL, "mininterval": LOG_INTERVAL, "miniters": 1}
    return tqdm(items, file=LogLines(), bar_format=LOG_FORMAT, **seldom, **options)


class LogLines(io.TextIOBase):
    """Stderr where it is no terminal: of what tqdm writes each state becomes a line."""

    def write(self, text: str) -> int:
        if line := text.strip():
            print(line, file=sys.stderr, flush=True)
        return len(text)


def in_notebook() -> bool:
    """Whether a cell of a notebook is running; in a terminal IPython comes without ipykernel."""
    return hasattr(builtins, "get_ipython") and "ipykernel" in sys.modules
