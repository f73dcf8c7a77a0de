"""Turn a picture that a person made of a digit into the picture MNIST's makers would have made.

MNIST's digits were black-and-white scans, fitted in proportion into 20x20 pixels (grey from
anti-aliasing alone) and laid in 28x28 with the centre of mass in the middle: LeCun, Cortes and
Burges, "The MNIST database", http://yann.lecun.com/exdb/mnist. People hand in photos of paper,
scans and Paint drawings; a network trained on MNIST reads those once they have gone the same way.
"""

import os

import numpy as np
from PIL import Image
from scipy import ndimage

from classifier.opener import open_picture, upright

WORK_SIDE = 640  # px; a digit a twentieth of the picture high still has 32 px, more than MNIST's 20
OVERSAMPLING = 6  # a stroke's edge is set to a sixth of a pixel: more reads no better
BOX_SHARE = 20 / 28  # MNIST's digits fit in 20 of the 28 pixels
# What whoever uses the network in another program has to know.
EXPECTED = (
    "A picture must look like MNIST's: one digit, white on black, scaled to fit into 20×20 of the "
    "28×28 pixels, its centre of mass in the middle. What the network says of anything else, such "
    "as a photograph of paper, means nothing. In Python, the program's digits/handwriting.py makes "
    'of any picture what is to be given to the network: open_as_mnist("photo.jpg", (28, 28))[1].'
)


class NoInkError(ValueError):
    """The picture is blank: nothing on it stands out from the paper."""

    def __init__(self):
        super().__init__("no ink found")


def to_mnist(
    picture: str | os.PathLike | Image.Image, height: int = 28, width: int = 28
) -> np.ndarray:
    """Turn a picture of one handwritten digit into what MNIST's makers would have made of it.

    Args:
        picture: a file Pillow can read, or a Pillow image of any mode and size.
        height: rows of the result.
        width: columns of the result.

    Returns:
        uint8 [height, width], white ink (255) on black (0).

    Raises:
        NoInkError: the picture is blank.
        ValueError: the picture has no pixels, or too many.
        OSError: the file cannot be read, is no picture, or ends too early.
    """
    opened = isinstance(picture, Image.Image)
    image = upright(picture, WORK_SIDE) if opened else open_picture(picture, WORK_SIDE)
    if is_mnist_like(image, height, width):
        return np.asarray(image.convert("L"))
    contrast, sure, weak = _find_ink(on_paper(image))
    # a stroke goes on where the pen was lifted a little, but does not start there (hysteresis)
    ink = ndimage.binary_propagation(contrast > sure, np.ones((3, 3)), mask=contrast > weak)
    return render(contrast / (2 * weak), _digit_of(ink, contrast), height, width)


def open_as_mnist(path: str, size: tuple[int, int]) -> tuple[Image.Image, np.ndarray]:
    """The picture, and what the network sees of it, uint8 [h, w, 3]. Raises as to_mnist."""
    picture = open_picture(path, WORK_SIDE)
    return picture, np.repeat(to_mnist(picture, *size)[..., None], 3, axis=-1)


def is_mnist_like(image: Image.Image, height: int, width: int) -> bool:
    """Whether the picture is already what the steps below would make, give or take a pixel."""
    if image.size != (width, height) or image.mode == "RGBa":
        return False
    pixels = np.asarray(image.convert("L"))
    box = box_of(pixels > 128)
    if pixels[[0, -1]].any() or pixels[:, [0, -1]].any() or box is None:
        return False
    side = _long_side(box)
    centre = ndimage.center_of_mass(pixels)
    off_centre = np.abs(np.subtract(centre, [(height - 1) / 2, (width - 1) / 2])).max()
    return abs(side - BOX_SHARE * min(height, width)) <= 2.5 and off_centre <= 1


def on_paper(image: Image.Image) -> np.ndarray:
    """Float32 [height, width, 3] in 0..255; transparency laid on what the ink stands out from."""
    pixels = np.asarray(image, dtype=np.float32)
    if image.mode == "L":
        return np.repeat(pixels[..., None], 3, axis=2)
    if image.mode == "RGB":
        return pixels
    colour, alpha = pixels[..., :3], pixels[..., 3:]
    seen = alpha[..., 0] > 127
    if not seen.any():
        raise NoInkError
    opaque_colour = np.median(colour[seen] * (255 / alpha[seen]), axis=0)
    paper = 255.0 if opaque_colour.mean() < 128 else 0.0
    if seen.mean() > 0.6:  # no digit covers that much: what is opaque is the paper with its ink
        paper = opaque_colour
    return colour + paper * (1 - alpha / 255)


# ---------------------------------------------------------------- finding the ink


def _find_ink(pixels: np.ndarray) -> tuple[np.ndarray, float, float]:
    """The contrast, float32 [height, width], above which it is ink, and where a stroke goes on."""
    contrast = ink_contrast(pixels[inside_dark_edges(pixels)])
    floor = noise_floor(contrast)
    contrast = without_ruling(contrast, floor)
    sure = ink_threshold(contrast, floor)
    return contrast, sure, max(floor, 0.7 * sure)


def inside_dark_edges(pixels: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns within the desk or the scanner's lid along the picture's border."""
    grey = grey_of(pixels)
    paper = np.median(grey)
    foreign = (grey < paper / 2) | (255 - grey < (255 - paper) / 2)
    return _kept(foreign.mean(axis=1) > 0.9), _kept(foreign.mean(axis=0) > 0.9)


def _kept(foreign: np.ndarray) -> slice:
    # an edge is narrower than the strokes of a digit that fills the picture; one row is its blur
    limit = len(foreign) // 12
    first = int(np.argmin(foreign))
    last = int(np.argmin(foreign[::-1]))
    return slice(
        first + 1 if 0 < first <= limit else 0,
        len(foreign) - (last + 1 if 0 < last <= limit else 0),
    )


def ink_contrast(pixels: np.ndarray) -> np.ndarray:
    """How far each pixel is from the paper towards the ink: float32 [height, width], 1 is most."""
    colour = _even_paper(pixels)
    dark = _above_paper(-pixels, None if colour is None else -colour)
    light = _above_paper(pixels, colour)
    grey = grey_of(pixels)
    usual = grey - _wide_median(grey)
    is_dark = _strength(dark, -usual) >= _strength(light, usual)
    ink = dark if is_dark else light
    contrast = ink @ _ink_axis(ink) / 255
    if max(contrast.shape) > 100:
        # shrinking leaves hairlines like a string of beads; small pictures have been shrunk already
        contrast = ndimage.gaussian_filter(contrast, 0.7)
    if colour is not None:
        return contrast
    if is_dark:
        # dark ink loses contrast in a shadow as the paper does; a fifth is as dark as shadows get
        paper = grey_of(pixels + dark)
        contrast *= paper.max() / np.maximum(paper, paper.max() / 5)
    return contrast - np.median(contrast)


def _strength(ink: np.ndarray, usual: np.ndarray) -> float:
    """What the strongest pixels have, without what chance gives a few.

    The paper inside a loop stands out from the stroke around it, but not from its wide median.
    """
    total = ndimage.uniform_filter(np.minimum(grey_of(ink), usual), 2)
    few = min(total.size, max(2, total.size // 10_000))  # fewer than the smallest digit has
    return float(np.partition(total.ravel(), -few)[-few])


def grey_of(pixels: np.ndarray) -> np.ndarray:
    return pixels @ np.full(3, 1 / 3, np.float32)  # ten times as fast as mean(axis=2)


def _wide_median(values: np.ndarray) -> np.ndarray:
    grey = Image.fromarray(values)
    size = grey.size
    grey.thumbnail((16, 16), Image.Resampling.BOX)  # its edges need not be sharp
    window = (grey.height // 2 | 1, grey.width // 2 | 1)
    median = Image.fromarray(ndimage.median_filter(np.asarray(grey), window, mode="nearest"))
    return np.asarray(median.resize(size, Image.Resampling.BILINEAR))


def _above_paper(pixels: np.ndarray, colour: np.ndarray | None) -> np.ndarray:
    """How far the pixels stand above the paper in each colour: float32 [height, width, 3]."""
    if colour is not None:
        return pixels - colour
    return np.stack([band - _paper(band) for band in np.moveaxis(pixels, 2, 0)], axis=2)


def _even_paper(pixels: np.ndarray) -> np.ndarray | None:
    """The paper's colour, float32 [3], where it is the same all over, as in a drawing or a scan."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    median = np.median(border, axis=0)
    # 12 levels are less than the faintest pencil; no shadow ends before the border
    if (np.abs(border - median).max(axis=1) < 12).mean() > 0.98:
        return median
    colours, counts = np.unique(border, axis=0, return_counts=True)
    commonest = colours[counts.argmax()]
    paper = np.abs(pixels - commonest) @ np.ones(3, np.float32) == 0
    # no camera gives a third of its pixels one value, and no brush is a third of the picture wide
    if (
        paper.mean() > 0.3
        and not ndimage.minimum_filter(
            ~paper, [max(3, n // 3) for n in paper.shape], mode="constant"
        ).any()
    ):
        return commonest
    return None


def _ink_axis(ink: np.ndarray) -> np.ndarray:
    """The weights of the colours, float32 [3], that show the strongest ink best."""
    size = grey_of(ink)
    axis = np.maximum(ink[size >= size.max() / 2].sum(axis=0), 0)
    return axis / max(axis.sum(), 1e-6)


def _paper(band: np.ndarray) -> np.ndarray:
    """What the band would be without ink, which is brighter here: float32 [height, width].

    An opening takes away what is narrower than its window, which is ink, and leaves the edge of
    a shadow where it is, which no blur does.
    """
    height, width = band.shape
    small = Image.fromarray(band)
    small.thumbnail((64, 64), Image.Resampling.BOX)
    values = ndimage.median_filter(np.asarray(small), 3, mode="nearest")
    # a third of the picture: brushes reach a quarter
    window = [max(3, length // 3 | 1) for length in values.shape]
    margin = [(min(w, n - 1),) * 2 for w, n in zip(window, values.shape, strict=True)]
    # odd reflection continues a slope beyond the border
    values = np.pad(values, margin, mode="reflect", reflect_type="odd")
    values = ndimage.grey_opening(values, window)
    values = values[tuple(slice(m, -m or None) for m, _ in margin)]
    # at the edge of a shadow a pixel of this small picture is half in: it counts as shadow
    values = ndimage.maximum_filter(values, 3)
    return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR))


def noise_floor(contrast: np.ndarray) -> float:
    """The contrast that the paper's noise stays below."""
    # away from the ink there is nothing but noise: one deviation is its 16th percentile.
    # 0.03, which is 8 levels, is less than shrinking leaves of a hairline
    return max(0.03, -5 * float(np.quantile(contrast, 0.16)))


def without_ruling(contrast: np.ndarray, floor: float) -> np.ndarray:
    """The contrast without ruled lines or squares."""
    # in so small a picture a line is no thinner than a stroke
    if min(contrast.shape) < 56:
        return contrast
    ink = contrast > floor
    free = ink.copy()
    for view, values in ((free, contrast), (free.T, contrast.T)):  # lines, then columns
        # px; short enough for the steps of a line that is a little askew
        run = max(8, view.shape[1] // 40)
        view &= ~ruled_lines(view, values, run, 0.05 * len(view))
    # a single stroke from border to border, with nothing else on the page, is a 1
    if free.sum() < 12:
        return contrast
    return np.where(ink & ~free, 0, contrast)


def ruled_lines(ink: np.ndarray, contrast: np.ndarray, run: int, thickest: float) -> np.ndarray:
    """Pixels of thin lines that run from the left border to the right.

    Args:
        ink: which pixels are ink, bool [height, width].
        contrast: float32 [height, width].
        run: for so many pixels a line stays within its row and the ones beside it.
        thickest: a line is no thicker, in pixels.

    Returns:
        bool [height, width]; the strokes that cross a line are not of it.
    """
    width = ink.shape[1]
    thick = ndimage.maximum_filter1d(ink, 3, axis=0)
    gap = max(8, width // 40)  # px; short, or the strokes of a row would make a line
    joined = ndimage.minimum_filter1d(ndimage.maximum_filter1d(thick, gap, axis=1), gap, axis=1)
    runs = ndimage.maximum_filter1d(ndimage.minimum_filter1d(joined, run, axis=1), run, axis=1)
    groups, _ = ndimage.label(runs, np.ones((3, 3)))
    ruling = np.zeros_like(ink)
    for number, box in enumerate(ndimage.find_objects(groups), 1):
        if box[1].stop - box[1].start >= 0.97 * width:
            line = (groups == number) & ink
            if line.any():  # where dots of the rows beside it have met, a group has no ink
                ruling |= _line(ink, contrast, line, thickest)
    return ruling


def _line(ink: np.ndarray, contrast: np.ndarray, line: np.ndarray, thickest: float) -> np.ndarray:
    """The line without the strokes that cross it; nothing if it is as thick as a pen's stroke."""
    thickness = _median_run(line)
    if thickness > thickest:
        return np.zeros_like(ink)
    longest = int(2 * thickness) + 2
    crossing = ndimage.maximum_filter1d(
        ndimage.minimum_filter1d(ink, longest, axis=0), longest, axis=0
    )
    columns = np.where(line & ~crossing, contrast, 0).max(axis=0)
    # ink on a line is darker than the line alone, by more than the line varies
    darker = contrast > 1.3 * np.median(columns[columns > 0]) if columns.any() else crossing
    return ndimage.maximum_filter1d(line, 3, axis=0) & ~crossing & ~darker


def _median_run(mask: np.ndarray) -> float:
    """The median height of the vertical runs in a mask."""
    steps = np.diff(np.pad(mask.T, ((0, 0), (1, 1))).astype(np.int8).ravel())
    return float(np.median(np.flatnonzero(steps == -1) - np.flatnonzero(steps == 1)))


def ink_threshold(contrast: np.ndarray, floor: float) -> float:
    standing_out = contrast[contrast > floor]
    if not standing_out.size:
        raise NoInkError
    return max(floor, otsu(standing_out))  # where all values are alike, Otsu's lies below them


def otsu(values: np.ndarray) -> float:
    """The threshold with the largest variance between the values below and above it (Otsu 1979)."""
    if values.max() <= values.min() * 1.2:
        return float(values.min() * 0.5)
    counts, edges = np.histogram(values, 64)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    mean_below = sums / np.maximum(below, 1)
    mean_above = (sums[-1] - sums) / np.maximum(above, 1)
    return float(edges[np.argmax(below * above * (mean_below - mean_above) ** 2) + 1])


def _digit_of(ink: np.ndarray, contrast: np.ndarray) -> np.ndarray:
    """The pieces of ink that make up the digit, without shadows and specks: bool as `ink`."""
    pieces, count = ndimage.label(ink, np.ones((3, 3)))
    boxes = ndimage.find_objects(pieces)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    widths = np.ones(count)
    for n in np.argsort(sizes)[-20:]:  # among twenty larger things nobody would find a digit
        widths[n] = max(1.0, _stroke_width(pieces[boxes[n]] == n + 1))
    inside = np.array([not _at_border(box, ink.shape) for box in boxes])
    levels = ndimage.mean(contrast, pieces, np.arange(1, count + 1))
    # by length, not area: a shadow is broad and pale
    likeness = sizes / widths * levels**2
    # a twenty-fifth of the picture: less is a speck, not the digit beside the shadow
    likely = inside & (np.array([_long_side(box) for box in boxes]) > 0.04 * max(ink.shape))
    main = int(np.argmax(likeness * likely if likely.any() else likeness))
    # less than a dot of the pen is a speck, much broader than the pen is a shadow
    pen = widths[main]
    kept = (sizes >= 0.5 * pen**2) & (widths < np.where(inside, 4, 2) * pen)
    kept[main] = True
    return _around(np.append(False, kept)[pieces], pieces == main + 1, pen)


def _around(ink: np.ndarray, main: np.ndarray, pen: float) -> np.ndarray:
    """The main piece and all that is near enough to be of the same digit."""
    if _long_side(box_of(main)) < max(3, 0.015 * max(ink.shape)):  # nobody could read it
        raise NoInkError
    # the gap that a skipping pen leaves is about as long as its stroke is wide
    groups, _ = ndimage.label(ndimage.distance_transform_edt(~ink) <= max(1, 1.5 * pen))
    groups[~ink] = 0
    sizes = np.bincount(groups.ravel())
    digit = groups[main][0]
    limits = ndimage.find_objects(groups)
    reach = _long_side(limits[digit - 1]) / 2  # strokes of one digit are no further apart
    own = [
        number
        for number, box in enumerate(limits, 1)
        if number == digit
        # a seventh of the rest is a stroke, less is a blot
        or (box and sizes[number] > sizes[digit] / 7 and _gap(box, limits[digit - 1]) < reach)
    ]
    return np.isin(groups, own)


def _gap(a: tuple[slice, slice], b: tuple[slice, slice]) -> int:
    return max(max(p.start - q.stop, q.start - p.stop) for p, q in zip(a, b, strict=True))


def _at_border(box: tuple[slice, slice], shape: tuple[int, int]) -> bool:
    return any(s.start == 0 or s.stop == length for s, length in zip(box, shape, strict=True))


def _long_side(box: tuple[slice, slice]) -> int:
    return max(s.stop - s.start for s in box)


def _stroke_width(mask: np.ndarray) -> float:
    # across a stroke of width w the distance to the paper averages w / 4
    return 4 * float(ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1][mask].mean()) - 1


def box_of(mask: np.ndarray) -> tuple[slice, slice] | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


# ---------------------------------------------------------------- drawing it as MNIST's makers did


def render(ink: np.ndarray, mask: np.ndarray, height: int, width: int) -> np.ndarray:
    shape = _enlarged(ink, mask, round(BOX_SHARE * min(height, width) * OVERSAMPLING))
    shape = _usual_stroke(shape, BOX_SHARE * min(height, width) / 20)
    return _centred(shape, height, width)


def _enlarged(ink: np.ndarray, mask: np.ndarray, side: int) -> np.ndarray:
    """The digit alone, bool, its longer side `side` pixels."""
    near = ndimage.binary_dilation(mask, np.ones((3, 3)), 2)
    box = box_of(near)
    soft = np.where(near, np.clip(ink, 0, 1), 0)[box].astype(np.float32)
    scale = side / _long_side(box_of(mask))
    size = [max(1, round(length * scale)) for length in soft.shape[::-1]]
    image = Image.fromarray(soft)
    if scale < 1:
        image = image.resize(size, Image.Resampling.BOX)
    else:
        image = image.resize(size, Image.Resampling.BICUBIC)
    shape = np.asarray(image) > 0.5
    return shape if shape.any() else np.asarray(image) >= np.asarray(image).max()


def _usual_stroke(shape: np.ndarray, unit: float) -> np.ndarray:
    """The digit with strokes no thinner and no thicker than MNIST's writers' pens."""
    stroke = _stroke_width(shape) / OVERSAMPLING / unit
    grow = (np.clip(stroke, 2.2, 4.5) - stroke) / 2 * OVERSAMPLING * unit
    if grow > 0:
        margin = int(np.ceil(grow))
        return ndimage.distance_transform_edt(~np.pad(shape, margin)) <= grow
    return ndimage.distance_transform_edt(np.pad(shape, 1)) > -grow


def _centred(shape: np.ndarray, height: int, width: int) -> np.ndarray:
    """The digit fitted into MNIST's 20x20 and laid with its centre of mass in the middle."""
    shape = shape[box_of(shape)]
    scale = BOX_SHARE * min(height, width) / max(shape.shape)
    size = [max(1, round(length * scale)) for length in shape.shape[::-1]]
    digit = np.asarray(
        Image.fromarray(shape.astype(np.float32) * 255).resize(size, Image.Resampling.BOX)
    )
    page = np.zeros((height, width), np.uint8)
    centre = ndimage.center_of_mass(digit)
    top, left = (
        int(np.clip(round((whole - 1) / 2 - middle), 0, whole - length))
        for whole, middle, length in zip(page.shape, centre, digit.shape, strict=True)
    )
    page[top : top + digit.shape[0], left : left + digit.shape[1]] = np.round(digit)
    return page
