"""Drawn pages of digits whose truth is known, and drawn pictures without any digit.

Everything that real pictures have and that can break the reading is a kind of its own, so that
what breaks is seen at once; "all" mixes them. Digits are drawn by the program or handed in.
"""

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

PAPERS = ((250, 250, 248), (235, 225, 200), (200, 200, 198), (240, 205, 205))
INKS = ((20, 20, 25), (30, 50, 160), (180, 40, 40), (30, 110, 60), (80, 80, 90))
KINDS = (
    "plain",
    "light on dark",
    "slant",
    "touching",
    "sizes",
    "ruled",
    "squared",
    "cells",
    "underlined",
    "shadow",
    "dark edge",
    "faint",
    "things",
    "all",
    "table",
)
NO_DIGITS = ("texture", "gradient", "blobs", "edges", "letters", "scene")


def draw_page(
    kind: str, rng: np.random.Generator, digits: np.ndarray, labels: np.ndarray
) -> tuple[Image.Image, list[str]]:
    """Write rows of digits on a page and take its photo.

    Args:
        kind: one of KINDS.
        rng: where chance comes from.
        digits: uint8 [n, 28, 28], white on black, to choose from.
        labels: int [n].

    Returns:
        The photo, and what is written in each row.
    """
    has = {kind}
    if kind == "all":
        has = {some for some in KINDS[2:-2] if rng.random() < 0.25}
    rows = 1 if has & {"touching", "slant"} and rng.random() < 0.5 else int(rng.integers(1, 5))
    counts = [int(rng.integers(1 + (rows == 1), 9)) for _ in range(rows)]
    side = int(rng.uniform(34, 90))
    pitch = 2.2 if "slant" in has or "sizes" in has else 1.6
    width = int(side * (max(counts) * 1.15 + 2.5))
    climb = rng.uniform(-0.12, 0.12) if "slant" in has else rng.uniform(-0.015, 0.015)
    height = int(side * (rows * pitch + 2) + abs(climb) * width)
    paper, ink = PAPERS[rng.integers(len(PAPERS))], INKS[rng.integers(len(INKS))]
    if "light on dark" in has:
        paper, ink = (20, 30, 35), (235, 235, 225)
    page = Image.new("RGB", (width, height), paper)
    pencil = ImageDraw.Draw(page)
    pale = tuple(int(0.6 * p + 0.4 * i) for p, i in zip(paper, (90, 120, 180), strict=True))
    if has & {"ruled", "squared"}:
        for at in range(side // 2, max(page.size), int(side * rng.uniform(0.6, 1.2))):
            pencil.line([(0, at), (width, at + width // 60)], fill=pale, width=1 + side // 50)
            if "squared" in has:
                pencil.line([(at, 0), (at - height // 60, height)], fill=pale, width=1 + side // 50)
    written = []
    for row, count in enumerate(counts):
        # the first row in pencil, the others in ink
        share = rng.uniform(0.3, 0.5) if "faint" in has and row == 0 else 1
        pen = tuple(int(p + share * (i - p)) for p, i in zip(paper, ink, strict=True))
        chosen = rng.integers(len(digits), size=count)
        written.append("".join(str(labels[n]) for n in chosen))
        x = side * rng.uniform(0.8, 1.6)
        base = side * (1.5 + row * pitch) + (-climb * width if climb < 0 else 0)
        for n in chosen:
            size = side * (rng.uniform(0.55, 1.3) if "sizes" in has else rng.uniform(0.88, 1.12))
            stroke = _enlarged(digits[n], size, rng)
            y = base + climb * x - stroke.height + rng.normal(0, 0.04) * side
            page.paste(pen, (round(x), round(y)), stroke)
            gap = side * rng.uniform(0.2, 0.45)
            if "cells" in has:
                gap = 0
                _cell(pencil, x, base + climb * x, side, ink)
                x += 1.25 * side - stroke.width
            elif "touching" in has and rng.random() < 0.4:
                gap = -side * rng.uniform(0.02, 0.08)
            x += stroke.width + gap
        if "underlined" in has and rng.random() < 0.7:
            line = base + side * rng.uniform(-0.03, 0.12)
            ends = [(side * 0.5, line + climb * side * 0.5), (x, line + climb * x)]
            pencil.line(ends, fill=ink, width=max(1, side // 20))
    if "things" in has:
        page = _among_things(page, side, rng)
    photo = _photo(page, has, rng)
    return (on_table(photo, rng) if "table" in has else photo), written


def _among_things(page: Image.Image, side: int, rng: np.random.Generator) -> Image.Image:
    """The page with what lies about on a desk or a board: to its right and below it, two at least.

    Disks, blocks and pens of any colour, and now and then the board's rim.
    """
    more = int(side * rng.uniform(1.2, 2.5))
    desk = Image.new("RGB", (page.width + more, page.height + more), page.getpixel((0, 0)))
    desk.paste(page, (0, 0))
    pencil = ImageDraw.Draw(desk)
    for _ in range(int(rng.integers(2, 6))):
        at_right = rng.random() < 0.5
        x, y = rng.uniform(0.1, 0.9, 2) * more
        if at_right:
            x, y = page.width + x, rng.uniform(0, 1) * desk.height
        else:
            x, y = rng.uniform(0, 1) * desk.width, page.height + y
        grey = rng.uniform(20, 150, 3).astype(int)
        colour, long = tuple(int(value) for value in grey), side * rng.uniform(0.4, 1.6)
        kind = rng.integers(3)
        if kind == 0:
            pencil.ellipse([x, y, x + long, y + long], fill=colour)
        elif kind == 1:
            pencil.rectangle([x, y, x + long, y + long * rng.uniform(0.3, 1)], fill=colour)
        else:
            angle = rng.uniform(0, np.pi)
            end = (x + 2 * long * np.cos(angle), y + 2 * long * np.sin(angle))
            pencil.line([(x, y), end], fill=colour, width=max(2, side // 6))
    if rng.random() < 0.3:
        edge = max(2, side // 8)
        pencil.rectangle([desk.width - edge, 0, desk.width, desk.height], fill=(60, 60, 60))
    return desk


def on_table(sheet: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The sheet as it lies on a table, a little askew: wood, light or dark, smooth or grained."""
    tables = ((200, 170, 130), (90, 60, 40), (170, 120, 80))
    angle, more = rng.uniform(-5, 5), rng.uniform(0.1, 0.4, 4)
    width, height = (
        int(side * (1 + more[n] + more[n + 1])) for side, n in zip(sheet.size, (0, 2), strict=True)
    )
    wood = np.full((height, width, 3), tables[rng.integers(len(tables))], np.float32)
    if rng.random() < 0.5:
        grain = ndimage.gaussian_filter(rng.normal(0, 1, (height, width)), (2, 40))
        wood += 10 * (grain / grain.std())[..., None]
    wood += rng.normal(0, 3, wood.shape)
    table = Image.fromarray(np.clip(wood, 0, 255).astype(np.uint8))
    lies = sheet.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    mask = Image.new("L", sheet.size, 255).rotate(angle, Image.Resampling.BICUBIC, expand=True)
    corner = (int(sheet.width * more[0]), int(sheet.height * more[2]))
    table.paste(lies, corner, mask)
    return table


def _cell(pencil, x, base, side, ink):
    pencil.rectangle(
        [x - 0.2 * side, base - 1.25 * side, x + 1.05 * side, base + 0.2 * side],
        outline=ink,
        width=max(1, side // 30),
    )


def _enlarged(digit: np.ndarray, size: float, rng: np.random.Generator) -> Image.Image:
    """The digit's ink, tight, mode L, its longer side about so many pixels."""
    big = Image.fromarray(digit).resize((8 * 28, 8 * 28), Image.Resampling.BICUBIC)
    big = big.point(lambda value: 255 * (value > 110)).rotate(rng.uniform(-6, 6))
    big = big.crop(big.getbbox())
    scale = size / max(big.size)
    return big.resize([max(2, round(n * scale)) for n in big.size], Image.Resampling.BOX)


def _photo(page: Image.Image, has: set[str], rng: np.random.Generator) -> Image.Image:
    width, height = page.size
    light = np.asarray(page, np.float32)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    across = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle)
    shade = 1 - rng.uniform(0, 0.25) * (across + 0.5)
    if "shadow" in has:
        across -= rng.uniform(-0.25, 0.25)
        soft = rng.choice([0.02, 0.1, 0.4])
        shade = shade * (1 - rng.uniform(0.25, 0.5) / (1 + np.exp(-across / soft * 6)))
    light = light * shade[..., None]
    if "dark edge" in has:
        edge = max(2, int(0.03 * min(page.size)))
        for side in (np.s_[:edge], np.s_[:, :edge], np.s_[-edge:], np.s_[:, -edge:]):
            if rng.random() < 0.5:
                light[side] = 40
    light = ndimage.gaussian_filter(light, [rng.uniform(0, 0.9), rng.uniform(0, 0.9), 0])
    light += rng.normal(0, rng.uniform(0, 7), light.shape)
    file = io.BytesIO()
    photo = Image.fromarray(np.clip(light, 0, 255).astype(np.uint8))
    photo.save(file, "JPEG", quality=int(rng.uniform(50, 95)))
    return Image.open(file)


def draw_nothing(kind: str, rng: np.random.Generator) -> Image.Image:
    """A picture, about 200 pixels a side, without any digit; kind is one of NO_DIGITS."""
    height, width = (int(n) for n in rng.uniform(100, 300, 2))
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    colours = rng.uniform(0, 255, (4, 3))
    if kind == "letters":
        return _word(rng)
    if kind == "texture":
        noise = rng.normal(size=(height, width))
        value = ndimage.gaussian_filter(noise, rng.uniform(1, 15, 2))
    elif kind == "gradient":
        value = x * rng.normal() + y * rng.normal() + rng.normal() * (x - 0.5) * (y - 0.5)
        value = value + rng.normal(0, 0.02, value.shape)
    else:
        value = _shapes(rng, height, width, kind)
    value = (value - value.min()) / max(np.ptp(value), 1e-9)
    light = colours[0] + value[..., None] * (colours[1] - colours[0])
    if kind == "scene":
        light += 40 * ndimage.gaussian_filter(rng.normal(size=(height, width, 3)), [4, 4, 0]) * 3
    light += rng.normal(0, rng.uniform(0, 8), light.shape)
    return Image.fromarray(np.clip(light, 0, 255).astype(np.uint8))


def draw_pole() -> Image.Image:
    """A black pole, which looks like a 1, in front of walls of all greys."""
    rng = np.random.default_rng(3)
    picture = Image.new("L", (90, 90), 128)
    pencil = ImageDraw.Draw(picture)
    for _ in range(30):
        left, top = rng.integers(0, 80, 2)
        width, height = rng.integers(5, 50, 2)
        pencil.rectangle([left, top, left + width, top + height], fill=int(rng.integers(60, 200)))
    pencil.rectangle([43, 20, 46, 70], fill=0)
    return picture


def _shapes(rng: np.random.Generator, height: int, width: int, kind: str) -> np.ndarray:
    """Filled shapes of different greys ("blobs", "scene"), or their outlines ("edges")."""
    canvas = Image.new("L", (width, height), 0)
    pencil = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(1, 4) if kind == "blobs" else rng.integers(4, 14))):
        points = [
            tuple(p) for p in rng.uniform(-0.1, 1.1, (int(rng.integers(3, 7)), 2)) * [width, height]
        ]
        grey = int(rng.uniform(60, 255))
        if kind == "edges":
            pencil.line(points, fill=grey, width=int(rng.uniform(1, 8)))
        elif rng.random() < 0.5:
            pencil.polygon(points, fill=grey)
        else:
            (a, b), (c, d) = points[:2]
            pencil.ellipse([min(a, c), min(b, d), max(a, c) + 1, max(b, d) + 1], fill=grey)
    return ndimage.gaussian_filter(np.asarray(canvas, float), rng.uniform(0.5, 2))


def _word(rng: np.random.Generator) -> Image.Image:
    """One to six printed letters, none that could pass for a digit."""
    letters = rng.choice(list("AEFHKLMNPRTVWXadefhkmnprtwx@#+=?"), rng.integers(1, 7))
    font = ImageFont.load_default(size=int(rng.uniform(30, 90)))
    paper, ink = PAPERS[rng.integers(len(PAPERS))], INKS[rng.integers(len(INKS))]
    text = "".join(letters)
    box = font.getbbox(text)
    page = Image.new("RGB", (box[2] + 60, box[3] + 60), paper)
    ImageDraw.Draw(page).text((30, 30), text, font=font, fill=ink)
    page = page.rotate(rng.uniform(-8, 8), fillcolor=paper, resample=Image.Resampling.BICUBIC)
    light = np.asarray(page, np.float32) + rng.normal(0, rng.uniform(0, 6), (*page.size[::-1], 3))
    return Image.fromarray(np.clip(light, 0, 255).astype(np.uint8))


def distance(a: str, b: str) -> int:
    """How many digits must be put in, left out or changed to make b of a (Levenshtein 1965)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (x != y))
    return row[-1]
