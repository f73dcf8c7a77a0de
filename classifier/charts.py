"""The pictures of a run: training curves, confusion matrix, mistakes, sheets of predictions.

Matplotlib is imported when the first picture is drawn: it takes half a second, too long for a
program that may only want to print its help.
"""

import contextlib
import functools
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from classifier.console import printable
from classifier.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from classifier.predictions import Prediction

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
# DejaVu Sans comes with Matplotlib; these, if they are there, have the scripts that it lacks.
FONT = "DejaVu Sans"
OTHER_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei"),
    *("WenQuanYi Micro Hei", "Droid Sans Fallback"),  # Linux
    *("Microsoft YaHei", "SimHei", "Yu Gothic", "Malgun Gothic", "Nirmala UI"),
    *("Leelawadee UI", "Ebrima", "Segoe UI"),  # Windows
    *("PingFang SC", "Hiragino Sans GB", "Hiragino Sans", "Heiti TC", "STHeiti"),
    *("Apple SD Gothic Neo", "Arial Unicode MS"),  # macOS
    *("Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Bengali"),
    *("Noto Sans Tamil", "Noto Sans Telugu", "Noto Sans Gujarati", "Noto Sans Thai"),
    *("Noto Sans Khmer", "Noto Sans Myanmar", "Noto Sans Ethiopic"),
)

# More names and numbers than these can't be read.
MAX_NAMED_CLASSES = 25
# Each has two pixels; time and memory grow with the square: 16 s and 2 GB for 2,000 classes.
MAX_DRAWN_CLASSES = 500
MAX_MISTAKES = 40
SHEET_SIZE, MAX_SHEETS = 100, 5
MAX_DRAWN = MAX_SHEETS * SHEET_SIZE


class Mistake(NamedTuple):
    """A picture that was taken for what it is not."""

    picture: np.ndarray  # uint8 [h, w, 3]
    truth: str
    guess: str
    confidence: float  # of the guess, 0 to 1


@functools.cache
def _fonts() -> list[str]:
    from matplotlib import font_manager

    there = set(font_manager.get_font_names())
    return [FONT, *(name for name in OTHER_FONTS if name in there)]


@contextlib.contextmanager
def _page(width: int, height: int, **options) -> Iterator["Figure"]:
    """An empty figure of so many pixels, or more of them if dpi is given."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A font that comes in one weight only is no news to the user,
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    with warnings.catch_warnings(), matplotlib.rc_context():
        # nor is a character that no font has: a box stands for it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.rcdefaults()  # whatever the user's matplotlibrc says
        matplotlib.rcParams.update({**STYLE, "font.family": _fonts()})
        # Half a pixel more, since Matplotlib rounds down.
        figure = Figure(figsize=((width + 0.5) / DPI, (height + 0.5) / DPI), **options)
        FigureCanvasAgg(figure)
        yield figure


def _save(figure: "Figure", path: Path) -> None:
    with atomic_file(path) as partial:
        figure.savefig(partial, format="png")


def _save_over(canvas: np.ndarray, figure: "Figure", path: Path) -> None:
    """Save the canvas, uint8 [h, w, 3], with the figure's text on it.

    Matplotlib's own way, figimage, takes as long for a sheet as all the rest of it together.
    """
    figure.canvas.draw()
    text = np.asarray(figure.canvas.buffer_rgba())[:, :, :3]
    # Dark text on white paper: where it is white, the canvas stays as it is.
    page = Image.fromarray((canvas * (text / np.float32(255))).astype(np.uint8))
    with atomic_file(path) as partial:
        page.save(partial, format="PNG")


def _family(text: str) -> list[str]:
    """The fonts to look in: each costs time, and the first has all that most names need."""
    return [FONT] if text.isascii() else _fonts()


def _width(figure: "Figure", text: str, size: float, weight: str = "normal") -> float:
    """The text's width in pixels."""
    from matplotlib.font_manager import FontProperties

    font = FontProperties(family=_family(text), size=size, weight=weight)
    renderer = figure.canvas.get_renderer()
    return renderer.get_text_width_height_descent(text, font, ismath=False)[0]


def _fitted(figure: "Figure", name: str, room: float, size: float, weight: str = "normal") -> str:
    """The name on one line of so many pixels, shortened in the middle if need be."""
    name = printable(name)
    short, kept = name, len(name)
    while kept > 1 and (width := _width(figure, short, size, weight)) > room:
        kept = min(kept - 1, int(kept * room / width) + 1)
        short = name[: kept - kept // 2] + "…" + name[len(name) - kept // 2 :]
    # Left-to-right marks: what comes after an Arabic name is to stand on its right.
    return short if short.isascii() else f"\u200e{short}\u200e"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def training_curves(rows: list[dict[str, float]], least_loss: float, path: Path) -> None:
    """Draw loss and accuracy over the epochs; the epoch of the best val_acc is marked.

    Args:
        rows: one an epoch, at least one: epoch, loss, acc, val_loss, val_acc.
        least_loss: what the loss of a training on augmented pictures with smoothed labels can't
            fall below; 0 if it was on pictures and labels as they are.
        path: the PNG file to write.
    """
    # A loss that went to infinity leaves nan behind.
    best = max(rows, key=lambda row: -1 if math.isnan(row["val_acc"]) else row["val_acc"])
    training = "training, on augmented pictures" if least_loss else "training"
    with _page(1200, 560, layout="constrained") as figure:
        left, right = figure.subplots(1, 2)
        _draw_curves(left, rows, "loss", best, training)
        _draw_curves(right, rows, "acc", best, training)
        left.set_title(f"Loss: {best['val_loss']:.4f} in validation at the best epoch")
        right.set_title(f"Accuracy: {best['val_acc']:.4f} in validation at the best epoch")
        if least_loss:  # who sees training far above validation takes it for a fault
            label = f"least training loss, as labels are smoothed: {least_loss:.2f}"
            left.axhline(least_loss, color=FAINT, lw=1, ls=":", label=label)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
        _save(figure, path)


def _draw_curves(
    axes, rows: list[dict[str, float]], name: str, best: dict[str, float], label: str
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
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    axes.set_ylim(*_limits(np.array(training + validation), rising=name == "acc"))
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


def confusion_matrix(counts: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Draw which class was taken for which: mistakes in red on a log scale, so that few show too.

    Of many classes those are drawn that have most mistakes.

    Args:
        counts: int [k, k], rows are the true classes, columns the predicted ones.
        classes: their k names; up to 25 are written out, with the numbers.
        path: the PNG file to write.
    """
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    images, correct = counts.sum(axis=1), counts.diagonal()
    total, wrong = int(images.sum()), int(images.sum() - correct.sum())
    which = "" if len(counts) <= MAX_NAMED_CLASSES else " (line of the table by class, from 0)"
    if len(counts) > MAX_DRAWN_CLASSES:
        mistakes = images + counts.sum(axis=0) - 2 * correct
        drawn = np.sort(np.argsort(-mistakes, kind="stable")[:MAX_DRAWN_CLASSES])
        counts, images = counts[np.ix_(drawn, drawn)], images[drawn]
        which = f" ({MAX_DRAWN_CLASSES} classes with most mistakes, in the table's order)"
    shares = counts / np.maximum(images, 1)[:, None]
    right = np.eye(len(counts), dtype=bool)
    named = len(counts) <= MAX_NAMED_CLASSES
    reds = LinearSegmentedColormap.from_list("", ["#fddbc7", "#d6604d", "#67001f"])
    blues = LinearSegmentedColormap.from_list("", ["#f3f8fb", "#92c5de" if named else BLUE])
    # 54 pixels hold a number of five digits; 2 can just be seen (and the margins take some).
    side = int(np.clip(54 * len(counts), 600, 1100))
    dpi = max(DPI, 2.2 * DPI * len(counts) / side)
    with _page(side + 300, side + 200, layout="compressed", dpi=dpi) as figure:
        axes = figure.subplots()
        style = {"interpolation": "nearest"}  # the usual one makes a mistake among 1,000 pale
        axes.imshow(np.ma.array(shares, mask=~right), cmap=blues, vmin=0, vmax=1, **style)
        mistakes = np.ma.array(shares, mask=right | (counts == 0))
        # The same colours in every report, from one in a thousand, as in MNIST's test set.
        image = axes.imshow(mistakes, cmap=reds, norm=LogNorm(0.001, 1), **style)
        bar = figure.colorbar(image, shrink=0.5, label="mistakes: share of the true class")
        bar.set_ticks([0.001, 0.01, 0.1, 1], labels=["0.1%", "1%", "10%", "100%"])
        bar.minorticks_off()
        bar.outline.set_visible(False)
        accuracy = f"accuracy {(total - wrong) / max(total, 1):.4f}"
        axes.set_title(f"{_count(total, 'picture')}, {_count(wrong, 'mistake')}: {accuracy}")
        if named:
            _write_cells(axes, counts, shares, side)
            _name_classes(axes, classes, side)
        axes.set(xlabel=f"predicted{which}", ylabel=f"true{which}")
        axes.spines[:].set_color(LINE)
        _save(figure, path)


def _write_cells(axes, counts: np.ndarray, shares: np.ndarray, side: int) -> None:
    """The numbers in the cells; none where there is nothing to count."""
    digits = len(str(counts.max()))
    # A digit is 0.64 of its size wide; the size is in points, 72 an inch.
    size = min(11, 0.75 * side / len(counts) / digits / 0.64 * 72 / DPI)
    for row, column in np.argwhere(counts):
        # From a share of 3% on the red is dark.
        dark = row != column and shares[row, column] > 0.03
        style = {"ha": "center", "va": "center", "family": FONT}
        colour = "white" if dark else INK
        axes.text(column, row, str(counts[row, column]), size=size, color=colour, **style)


def _name_classes(axes, classes: Sequence[str], side: int) -> None:
    places = range(len(classes))
    # Names longer than this would leave the matrix too little of the page.
    names = [_fitted(axes.figure, name, 130, 9) for name in classes]
    crowded = max(_width(axes.figure, name, 9) for name in names) > 0.9 * side / len(names)
    slant = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    axes.set_xticks(places, names, **slant)
    axes.set_yticks(places, names)
    axes.tick_params(length=0, labelcolor=INK)


def _paste(canvas: np.ndarray, picture: np.ndarray, left: int, top: int, side: int) -> None:
    """Put the picture, as large as fits, into the middle of a square, in a thin frame."""
    scale = side / max(picture.shape[:2])
    height, width = (max(1, round(scale * length)) for length in picture.shape[:2])
    # Enlarged, the network's pixels are to be seen one by one.
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX
    top, left = top + (side - height) // 2, left + (side - width) // 2
    canvas[top - 1 : top + height + 1, left - 1 : left + width + 1] = ImageColor.getrgb(LINE)
    scaled = Image.fromarray(picture).convert("RGB").resize((width, height), how)
    canvas[top : top + height, left : left + width] = scaled


def _write(figure: "Figure", left: float, top: float, text: str, **style) -> None:
    """Text whose upper left corner is at a pixel, counted from the page's upper left corner."""
    width, height = figure.get_size_inches() * DPI
    style = {"va": "top", "family": _family(text), **style}
    figure.text(left / width, 1 - top / height, text, **style)


def mistakes(rows: Sequence[Mistake], path: Path) -> None:
    """Draw the mistakes, the worst first, each with "true → guess" and how sure the guess was.

    Args:
        rows: up to MAX_MISTAKES of them.
        path: the PNG file to write.
    """
    # In pixels; the caption has room for two lines.
    side, gap, head, caption, columns = 130, 20, 60, 48, 8
    width = gap + columns * (side + gap)
    height = head + math.ceil(len(rows) / columns) * (side + caption)
    canvas = np.full((height, width, 3), 255, np.uint8)
    with _page(width, height) as figure:
        title = "The worst mistakes: true → guess, and how sure" if rows else "No mistakes"
        _write(figure, gap, 18, title, size=11)
        for place, row in enumerate(rows):
            line, column = divmod(place, columns)
            left, top = gap + column * (side + gap), head + line * (side + caption)
            _paste(canvas, row.picture, left, top, side)
            text = _caption(figure, row, side)
            _write(figure, left, top + side + 5, text, size=9, linespacing=1.1)
        _save_over(canvas, figure, path)


def _caption(figure: "Figure", row: Mistake, room: float) -> str:
    """On one line if there is room, else on two."""
    end = f" {_percent(row.confidence)}"
    names = (_fitted(figure, name, math.inf, 9) for name in (row.truth, row.guess))
    text = " → ".join(names) + end
    if _width(figure, text, 9) <= room:
        return text
    truth = _fitted(figure, row.truth, room - _width(figure, " →", 9), 9)
    guess = _fitted(figure, row.guess, room - _width(figure, end, 9), 9)
    return f"{truth} →\n{guess}{end}"


def prediction_pages(
    rows: Sequence["Prediction"], unsure: float
) -> list[tuple[str, Sequence["Prediction"]]]:
    """What stands on each sheet of predictions: its title, and up to SHEET rows.

    Of more than MAX_DRAWN rows only those are shown that the network is least sure of: the unsure
    ones, and if these don't fill the first sheet, the next ones.

    Args:
        rows: the predictions, in the order in which they are shown.
        unsure: answers less confident than this count as unsure.
    """
    doubtful = sum(row.confidence < unsure for row in rows)
    title = f"{_count(len(rows), 'picture')}, {doubtful:,} unsure"
    title += f" (below {_percent(unsure)})" if doubtful else ""
    if len(rows) > MAX_DRAWN:
        shown = min(max(doubtful, SHEET_SIZE), MAX_DRAWN)
        rows = sorted(rows, key=lambda row: row.confidence)[:shown]
        title += f"; here the {shown} least sure"
    parts = [rows[start : start + SHEET_SIZE] for start in range(0, len(rows), SHEET_SIZE)]
    if len(parts) == 1:
        return [(title, rows)]
    return [(f"{title} – sheet {n} of {len(parts)}", part) for n, part in enumerate(parts, 1)]


def prediction_sheet(title: str, rows: Sequence["Prediction"], unsure: float, path: Path) -> None:
    """Draw pictures as given and as the network saw them, with its answers.

    Args:
        title: stands above them.
        rows: the predictions, with their pictures.
        unsure: answers less confident than this stand out, with the second guess.
        path: the PNG file to write.
    """
    width, height = CELL
    # As many columns as lines, but room for the title over a few pictures.
    columns = max(5, math.ceil(math.sqrt(len(rows))))
    lines = math.ceil(len(rows) / columns)
    head = 76  # pixels, for the title and the legend
    size = (head + lines * (height + MARGIN), MARGIN + columns * (width + MARGIN))
    canvas = np.full((*size, 3), 255, np.uint8)
    with _page(size[1], size[0]) as figure:
        _write(figure, 2 * MARGIN, 16, title, size=12)
        legend = "left: the picture as given; right: as the network saw it; below: its answer"
        _write(figure, 2 * MARGIN, 44, legend, size=9, color=FAINT)
        for place, row in enumerate(rows):
            line, column = divmod(place, columns)
            left, top = MARGIN + column * (width + MARGIN), head + line * (height + MARGIN)
            _draw_answer(canvas, figure, row, left, top, unsure)
        _save_over(canvas, figure, path)


# In pixels: two pictures side by side, three lines of text below, a margin all around.
SIDE, MARGIN = 84, 8
CELL = 2 * SIDE + 3 * MARGIN, SIDE + 3 * MARGIN + 46


def _draw_answer(
    canvas: np.ndarray, figure: "Figure", row: "Prediction", left: int, top: int, unsure: float
) -> None:
    """Draw a prediction into the cell whose upper left corner is at (left, top)."""
    width, height = CELL
    is_unsure = row.confidence < unsure
    if is_unsure:
        canvas[top : top + height, left : left + width] = ImageColor.getrgb(PALE_ORANGE)
    left, top, room = left + MARGIN, top + MARGIN, width - 2 * MARGIN
    _paste(canvas, row.original, left, top, SIDE)
    _paste(canvas, row.network_input, left + SIDE + MARGIN, top, SIDE)
    top += SIDE + 5
    _write(figure, left, top, _fitted(figure, Path(row.file).name, room, 7), size=7, color=FAINT)
    colour = ORANGE if is_unsure else INK
    answers = [("", row.label, row.confidence, 15, 9, "bold")]
    if is_unsure:
        answers.append(("or ", row.second_guess, row.second_confidence, 33, 8, "normal"))
    for before, name, confidence, below, size, weight in answers:
        sure = f"  {_percent(confidence)}"
        text = _fitted(
            figure, before + name, room - _width(figure, sure, size, weight), size, weight
        )
        style = {"size": size, "weight": weight, "color": colour}
        _write(figure, left, top + below, text + sure, **style)


# In pixels: a picture in which frames and answers of a hundred digits can be told apart.
PAGE_WIDTH, PAGE_HEIGHT = 560, 420
MAX_PAGES = 12


def page_sheet(rows: Sequence["Prediction"], unsure: float, path: Path) -> None:
    """Draw pictures that show several things whole, with a frame and the answer at each of them.

    Args:
        rows: up to MAX_PAGES predictions, with their pictures and parts.
        unsure: answers less confident than this stand out.
        path: the PNG file to write.
    """
    columns, head, caption = min(2, len(rows)), 50, 44
    cell = (PAGE_WIDTH + 3 * MARGIN, PAGE_HEIGHT + caption + 3 * MARGIN)
    lines = math.ceil(len(rows) / columns)
    size = (head + lines * cell[1], 2 * MARGIN + columns * cell[0])
    canvas = np.full((*size, 3), 255, np.uint8)
    with _page(size[1], size[0]) as figure:
        _write(figure, 2 * MARGIN, 16, "Pictures of several digits", size=12)
        for place, row in enumerate(rows):
            line, column = divmod(place, columns)
            left, top = 2 * MARGIN + column * cell[0], head + line * cell[1]
            _draw_page(canvas, figure, row, left, top + caption, unsure)
            style = {"size": 9, "weight": "bold"}
            said = f"{Path(row.file).name}: {row.label}  {_percent(row.confidence)}"
            _write(figure, left, top, _fitted(figure, said, PAGE_WIDTH, **style), **style)
        _save_over(canvas, figure, path)


def _draw_page(
    canvas: np.ndarray, figure: "Figure", row: "Prediction", left: int, top: int, unsure: float
) -> None:
    """Draw the picture with its upper left corner at (left, top), and a frame for each part."""
    picture = Image.fromarray(row.original).convert("RGB")
    scale = min(PAGE_WIDTH / picture.width, PAGE_HEIGHT / picture.height)
    picture = picture.resize([max(1, round(scale * side)) for side in picture.size])
    pencil = ImageDraw.Draw(picture)
    scale = picture.width / row.width
    for part in row.detections:
        colour = ORANGE if part.confidence < unsure else BLUE
        box = [scale * side for side in part.box]
        pencil.rectangle(box, outline=colour)
        _write(figure, left + box[0], top + box[1] - 13, part.label, size=8, color=colour)
    canvas[top : top + picture.height, left : left + picture.width] = np.asarray(picture)
