"""The charts of a run: training curves and the confusion matrix; sheets.py has those of pictures.

Matplotlib is imported when the first chart is drawn: it takes half a second, too long for a program
that may only want to print its help.
"""

import contextlib
import functools
import logging
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from classifier.console import printable, warn
from classifier.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Ten points of text are 17 pixels high then, which reads well on a screen of usual density.
DPI = 120
INK, FAINT, LINE = "#222222", "#6b6b6b", "#d0d0d0"
# Blue and orange are told apart by the colour-blind too.
BLUE, ORANGE, PALE_ORANGE = "#2166ac", "#b34700", "#fff0dc"
STYLE = {
    "figure.dpi": DPI,
    "savefig.dpi": "figure",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$5$"
    "figure.constrained_layout.w_pad": 0.12,  # inches: labels don't touch the edge of the page
    "figure.constrained_layout.h_pad": 0.12,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": FAINT,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
}
FONT = "DejaVu Sans"  # comes with Matplotlib
# Files of fonts that are tried last.
UNUSUAL_FONTS = re.compile("bold|italic|oblique|black|light|thin|mono|serif", re.IGNORECASE)
MAX_CLASSES = 30  # more names and numbers can't be read


@functools.cache
def find_fonts(characters: frozenset[str]) -> tuple[list[str], set[str]]:
    """The fonts of this system that have the characters, and the characters that none has.

    A font is named by its family, as Matplotlib has it.
    """
    from matplotlib import font_manager

    font = font_manager.get_font(font_manager.findfont(FONT))
    missing = {c for c in characters if not font.get_char_index(ord(c))}
    names = [FONT]
    # Not Matplotlib's own list, which is from the day when it first ran.
    paths = font_manager.findSystemFonts() if missing else []
    for path in sorted(paths, key=lambda path: (bool(UNUSUAL_FONTS.search(path)), path)):
        if not missing:
            break
        with contextlib.suppress(RuntimeError, OSError):  # such as bitmaps, which it can't draw
            font = font_manager.get_font(path)
            found = {c for c in missing if font.get_char_index(ord(c))}
            if found and "LastResort" not in path:
                font_manager.fontManager.addfont(path)
                names.append(font.family_name)
                missing -= found
    return names, missing


def displayed_names(classes: Sequence[str]) -> list[str]:
    """The classes' names for the charts; where no font has a name's letters, its number first.

    The number is the class's place among all, from 0. Which package has the letters is said once.
    """
    missing = find_fonts(frozenset(printable("".join(classes))))[1]
    boxes = {n: name for n, name in enumerate(classes) if missing.intersection(name)}
    if boxes:
        first, name = next(iter(boxes.items()))
        warn(
            f"charts: no font here has the letters of {name}, which is number {first} there; "
            "install one, on Debian and Ubuntu the package fonts-noto-cjk or fonts-noto-core"
        )
    return [f"{n} {name}" if n in boxes else name for n, name in enumerate(classes)]


@contextlib.contextmanager
def new_figure(width: int, height: int, texts: Iterable[str] = (), **options) -> Iterator["Figure"]:
    """An empty figure of so many pixels, or more of them if dpi is given, to write the texts on."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fonts, _ = find_fonts(frozenset(printable("".join(texts))) | {"…"})
    # A font that comes in one weight only is no news to the user,
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    with warnings.catch_warnings(), matplotlib.rc_context():
        # nor is a character that no font has: a box stands for it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.rcdefaults()  # whatever the user's matplotlibrc says
        matplotlib.rcParams.update({**STYLE, "font.family": fonts})
        # Half a pixel more, since Matplotlib rounds down.
        figure = Figure(figsize=((width + 0.5) / DPI, (height + 0.5) / DPI), **options)
        FigureCanvasAgg(figure)
        yield figure


def save(figure: "Figure", path: Path) -> None:
    with atomic_file(path) as partial:
        figure.savefig(partial, format="png")


def text_width(figure: "Figure", text: str, **font) -> float:
    """The text's width in pixels; the font's size and weight are as in Matplotlib."""
    from matplotlib.font_manager import FontProperties

    renderer = figure.canvas.get_renderer()
    return renderer.get_text_width_height_descent(text, FontProperties(**font), ismath=False)[0]


def fitted(figure: "Figure", name: str, room: float = math.inf, **font) -> str:
    """The name on one line of so many pixels, shortened in the middle if need be."""
    name = printable(name)
    short, length = name, len(name)
    while length > 1 and (width := text_width(figure, short, **font)) > room:
        length = min(length - 1, int(length * room / width) + 1)
        short = name[: length - length // 2] + "…" + name[len(name) - length // 2 :]
    # Left-to-right marks: what comes after an Arabic name is to stand on its right.
    return short if short.isascii() else f"\u200e{short}\u200e"


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def training_curves(rows: list[dict[str, float]], least_loss: float, path: Path) -> None:
    """Draw loss and accuracy over the epochs; the epoch of the best val_acc is marked.

    Args:
        rows: one an epoch, at least one: epoch, loss, acc, val_loss, val_acc.
        least_loss: what the loss of a training on augmented pictures with smoothed labels can't
            fall below; it is subtracted. 0 if it was on pictures and labels as they are.
        path: the PNG file to write.
    """
    # A loss that went to infinity leaves nan behind.
    best = max(rows, key=lambda row: -1 if math.isnan(row["val_acc"]) else row["val_acc"])
    rows = [row | {"loss": row["loss"] - least_loss} for row in rows]
    training = "training"
    if least_loss:  # who sees training far above validation takes it for a fault
        training += f", on augmented pictures; loss less the {least_loss:.2f} of smoothed labels"
    with new_figure(1200, 560, layout="constrained") as figure:
        loss, accuracy = figure.subplots(1, 2)
        _draw_curves(loss, rows, "loss", best, training)
        _draw_curves(accuracy, rows, "acc", best, training)
        loss.set_title(f"Loss: {best['val_loss']:.4f} in validation at the best epoch")
        accuracy.set_title(f"Accuracy: {best['val_acc']:.4f} in validation at the best epoch")
        legends = [axes.get_legend_handles_labels() for axes in (loss, accuracy)]
        figure.legend(
            *max(legends, key=lambda legend: len(legend[0])), loc="outside lower center", ncols=4
        )
        save(figure, path)


def _draw_curves(
    axes: "Axes", rows: list[dict[str, float]], name: str, best: dict[str, float], label: str
) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs, training, validation = (
        [row[k] for row in rows] for k in ("epoch", name, f"val_{name}")
    )
    # A line of one epoch can't be seen; the marks of a hundred hide the line.
    style = {"marker": "o" if len(rows) <= 50 else "", "markersize": 3}
    axes.plot(epochs, training, color=FAINT, lw=1.2, ls="--", label=label, **style)
    axes.plot(epochs, validation, color=BLUE, label="validation", **style)
    ring = {"marker": "o", "markersize": 9, "mfc": "none", "mec": ORANGE, "mew": 2, "ls": ""}
    axes.plot(best["epoch"], best[f"val_{name}"], label=f"best epoch: {best['epoch']:.0f}", **ring)
    low, high = _limits(np.array(training + validation), rising=name == "acc")
    edge, marker = (low, "v") if name == "acc" else (high, "^")
    pairs = zip(epochs * 2, training + validation, strict=True)
    if off := [epoch for epoch, value in pairs if value < low or value > high]:
        style = {"marker": marker, "ls": "", "color": INK, "clip_on": False}
        axes.plot(off, [edge] * len(off), label="off the chart", **style)
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    axes.set_ylim(low, high)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.ticklabel_format(useOffset=False)
    axes.grid(color=LINE, lw=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def _limits(values: np.ndarray, rising: bool) -> tuple[float, float]:
    """Where the axis ends: all values, but not the long way that the first epochs came."""
    values = values[np.isfinite(values)]
    if not values.size:
        return 0, 1
    low, middle, high = values.min(), np.median(values), values.max()
    # Half of the values fill at least a quarter of the axis.
    if rising and middle < high:
        low = max(low, high - 4 * (high - middle))
    elif not rising and middle > low:
        high = min(high, low + 4 * (middle - low))
    edge = 0.06 * (high - low) or 0.01
    return low - edge, high + edge


def most_confused(counts: np.ndarray) -> np.ndarray:
    """The indices of up to MAX_CLASSES classes, of the pairs that are confused most.

    Args:
        counts: int [k, k], rows are the true classes, columns the predicted ones.
    """
    if len(counts) <= MAX_CLASSES:
        return np.arange(len(counts))
    mistakes = counts + counts.T
    np.fill_diagonal(mistakes, 0)
    # So many pairs have MAX_CLASSES classes in them at least.
    pairs = np.argsort(-mistakes, axis=None, kind="stable")[: MAX_CLASSES**2]
    classes = np.stack(np.unravel_index(pairs, counts.shape), axis=1).ravel().tolist()
    return np.sort(list(dict.fromkeys(classes))[:MAX_CLASSES])


def confusion_matrix(counts: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Draw which class was taken for which: mistakes in red on a log scale, so that few show too.

    Of more than MAX_CLASSES classes those are drawn that are confused most.

    Args:
        counts: int [k, k], rows are the true classes, columns the predicted ones.
        classes: their k names.
        path: the PNG file to write.
    """
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    images, total, correct = counts.sum(axis=1), int(counts.sum()), int(counts.trace())
    accuracy = f"accuracy {correct / max(total, 1):.4f}"
    title = f"{counted(total, 'picture')}, {counted(total - correct, 'mistake')}: {accuracy}"
    drawn = most_confused(counts)
    if len(drawn) < len(counts):
        title += f"\nhere the {len(drawn)} of {len(counts):,} classes that are confused most"
    counts, images, classes = (
        counts[np.ix_(drawn, drawn)],
        images[drawn],
        [classes[n] for n in drawn],
    )
    shares = counts / np.maximum(images, 1)[:, None]
    right = np.eye(len(counts), dtype=bool)
    reds = LinearSegmentedColormap.from_list("", ["#fddbc7", "#d6604d", "#67001f"])
    blues = LinearSegmentedColormap.from_list("", ["#f3f8fb", "#92c5de"])
    side = int(np.clip(54 * len(counts), 600, 1300))  # 54 pixels hold a number of five digits
    with new_figure(side + 300, side + 200, classes, layout="compressed") as figure:
        axes = figure.subplots()
        axes.imshow(np.ma.array(shares, mask=~right), cmap=blues, vmin=0, vmax=1)
        mistakes = np.ma.array(shares, mask=right | (counts == 0))
        # The same colours in every report, from one in a thousand, as in MNIST's test set.
        image = axes.imshow(mistakes, cmap=reds, norm=LogNorm(0.001, 1))
        bar = figure.colorbar(image, shrink=0.5, label="mistakes: share of the true class")
        bar.set_ticks([0.001, 0.01, 0.1, 1], labels=["0.1%", "1%", "10%", "100%"])
        bar.minorticks_off()
        bar.outline.set_visible(False)
        axes.set(title=title, xlabel="predicted", ylabel="true")
        axes.spines[:].set_color(LINE)
        _write_counts(axes, counts, shares, side)
        _write_classes(axes, classes, side)
        save(figure, path)


def _write_counts(axes: "Axes", counts: np.ndarray, shares: np.ndarray, side: int) -> None:
    """The numbers in the cells; none where there is nothing to count."""
    digits = len(str(counts.max()))
    # A digit is 0.64 of its size wide; the size is in points, 72 an inch.
    size = min(11, 0.75 * side / len(counts) / digits / 0.64 * 72 / DPI)
    for row, column in np.argwhere(counts):
        # From a share of 3% on the red is dark.
        dark = row != column and shares[row, column] > 0.03
        style = {"ha": "center", "va": "center", "color": "white" if dark else INK}
        axes.text(column, row, str(counts[row, column]), size=size, **style)


def _write_classes(axes: "Axes", classes: Sequence[str], side: int) -> None:
    places = range(len(classes))
    # Names longer than this would leave the matrix too little of the page.
    names = [fitted(axes.figure, name, 130, size=9) for name in classes]
    crowded = max(text_width(axes.figure, name, size=9) for name in names) > 0.9 * side / len(names)
    slant = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    axes.set_xticks(places, names, **slant)
    axes.set_yticks(places, names)
    axes.tick_params(length=0, labelcolor=INK)


def percent(probability: float) -> str:
    """As text; what isn't certain is never 100%."""
    return f"{probability:.0%}" if not 0.995 <= probability < 1 else ">99%"
