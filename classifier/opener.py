"""A picture file becomes pixels, as a person sees it: opened, checked, turned upright, resized.

The one opener for training, evaluation and prediction.
"""

import contextlib
import io
import logging
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

# A file's path, or what would stand in the file.
Picture = str | os.PathLike | bytes
# From a file and (height, width) to its pixels, uint8 [height, width, 3].
Decoder = Callable[[str, tuple[int, int]], np.ndarray]
# Twice the largest camera in use; beyond it a file is a mishap or an attack.
MAX_PIXELS = 100_000_000
# Decoding takes up to 16 bytes a pixel (docs/figures.md), in each thread at once. Pictures larger
# than this, which is 0.3 GB, wait for each other, and are reduced to it.
LARGE_PIXELS = 16_000_000
large_picture_lock: contextlib.AbstractContextManager = threading.Lock()
THUMBNAIL = 84  # pixels, as many as a cell of a sheet of predictions has for it
# Endings of the pictures that people have. Pillow opens those that it, or a plug-in, knows.
KNOWN_EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", ".jp2", ".avif", ".heic", ".heif"),
)
with contextlib.suppress(ImportError):  # who has photos of an iPhone may install it
    import pillow_heif

    pillow_heif.register_heif_opener()
FORMATS = Image.registered_extensions()
PICTURE_EXTENSIONS = tuple(
    ending for ending in KNOWN_EXTENSIONS if FORMATS.get(ending) in Image.OPEN
)

# What is wrong with a picture is said in one line; Pillow's own warnings would be more.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
logging.getLogger("PIL").setLevel(logging.CRITICAL)

# What open_picture and all that is made of it raise for a file that is no whole picture.
DECODE_ERRORS = (OSError, ValueError)


def open_picture(
    picture: Picture, side: int | None = None, near: tuple[int, int] | None = None
) -> Image.Image:
    """The picture upright, in mode L, RGB or, if it has transparent parts, RGBa (premultiplied).

    Args:
        picture: anything that Pillow opens.
        side: the picture is shrunk to so many pixels a side.
        near: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, which is far faster, as long as
            it is no smaller than this (width, height).

    Raises:
        OSError: the file can't be read, is no picture, or ends too early.
        ValueError: it has more than MAX_PIXELS pixels, or none; or levels that aren't supported.
    """
    with as_decode_error(), open_file(picture) as file, Image.open(file) as image:
        # Of other formats getexif may decode all pixels, and draft does nothing.
        is_jpeg = image.format in ("JPEG", "MPO")
        if (side or near) and is_jpeg and image.width * image.height <= MAX_PIXELS:
            on_its_side = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            width, height = near or (side, side)
            image.draft(None, (height, width) if on_its_side else (width, height))
        return upright(image, side)


def open_file(picture: Picture) -> BinaryIO:
    """The file to read from; a pipe that nobody writes into is empty, and isn't waited for."""
    if isinstance(picture, bytes):
        return io.BytesIO(picture)
    nonblocking = getattr(os, "O_NONBLOCK", 0)
    return open(picture, "rb", opener=lambda path, flags: os.open(path, flags | nonblocking))


@contextlib.contextmanager
def as_decode_error() -> Iterator[None]:
    """Turn whatever a broken file trips Pillow's decoders into to one of DECODE_ERRORS."""
    try:
        yield
    except DECODE_ERRORS:
        raise
    except Image.DecompressionBombError:
        raise ValueError(f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:
        raise ValueError(f"cannot be decoded: {error}") from error


def upright(image: Image.Image, side: int | None = None) -> Image.Image:
    """As open_picture, for a picture that is open already."""
    with limited_memory(image):
        image = to_plain_mode(image)
        if side and max(image.size) > side:
            image.thumbnail((side, side), Image.Resampling.BILINEAR)
        elif image.width * image.height > LARGE_PIXELS:
            image = image.reduce(math.ceil(math.sqrt(image.width * image.height / LARGE_PIXELS)))
        return ImageOps.exif_transpose(image)


@contextlib.contextmanager
def limited_memory(image: Image.Image) -> Iterator[None]:
    """For the decoding of an opened picture: one of more than LARGE_PIXELS waits for the others.

    Raises:
        ValueError: it has no pixels, or more than MAX_PIXELS.
    """
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} is more than {MAX_PIXELS:,} pixels")
    if not pixels:
        raise ValueError("it has no pixels")
    with large_picture_lock if pixels > LARGE_PIXELS else contextlib.nullcontext():
        yield


def to_plain_mode(image: Image.Image) -> Image.Image:
    """The picture in mode L, RGB or, so that shrinking mixes in no unseen colours, RGBa."""
    if image.mode == "RGBa":
        return image.copy()
    if image.mode.startswith(("I", "F")):
        return to_uint8(image)
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        opaque = with_alpha.getextrema()[3] == (255, 255)  # as a browser's PNG: RGB is read faster
        return with_alpha.convert("RGB" if opaque else "RGBa")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def to_uint8(image: Image.Image) -> Image.Image:
    """A picture of mode I, I;16 or F in mode L, without Pillow's clipping at 255.

    White is 65535 for integers, as in 16-bit PNG and PGM, and for floats the first of 1, 255 and
    65535 that no pixel exceeds. Black is 0, or the lowest of negative pixels.

    Raises:
        ValueError: a pixel is above 65535 (no format says what is white there), or no number.
    """
    values = np.asarray(image.convert("F"))
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("it has pixels that are no numbers")
    whites = (1, 255, 65535) if image.mode.startswith("F") else (65535,)
    if high > whites[-1]:
        raise ValueError(f"it has pixels of {high:.0f}; scale them to 0..65535, which is white")
    white = next(white for white in whites if high <= white)
    black = min(low, 0)
    return Image.fromarray(np.round((values - black) * (255 / (white - black))).astype(np.uint8))


def on_white(image: Image.Image) -> Image.Image:
    """What open_picture gives, in mode RGB: what is transparent shows white paper."""
    if image.mode == "RGBa":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def thumbnail(image: Image.Image, side: int = THUMBNAIL) -> np.ndarray:
    """What open_picture gives, on white, no larger than a sheet shows it: uint8 [h, w, 3]."""
    image = image.copy()
    image.thumbnail((side, side))
    return np.asarray(on_white(image))


def error_reason(error: Exception) -> str:
    """Why a picture can't be read, in the user's words."""
    if isinstance(error, UnidentifiedImageError):
        return "it is no picture"
    return getattr(error, "strerror", None) or str(error)


# ---------------------------------------------------------------- resized


def open_and_resize(path: Picture, size: tuple[int, int]) -> tuple[Image.Image, np.ndarray]:
    """The picture, and what the network of (height, width) sees of it, uint8 [height, width, 3].

    Raises:
        OSError, ValueError: as open_picture.
    """
    height, width = size
    # Twice the size is as good as all, and four times as many pixels as are needed.
    picture = open_picture(path, near=(2 * width, 2 * height))
    # Antialiased, as torchvision and timm do by default: thin lines grow pale, but don't vanish.
    resized = on_white(picture).resize((width, height), Image.Resampling.BILINEAR)
    return picture, np.asarray(resized)


def decode(path: str, size: tuple[int, int]) -> np.ndarray:
    """The second of open_and_resize."""
    return open_and_resize(path, size)[1]


def decode_as_article(path: Picture, size: tuple[int, int]) -> np.ndarray:
    """The picture as Keras's generators load it, for the article's recipe: uint8 [h, w, 3].

    Raises:
        OSError, ValueError: it can't be read.
    """
    import keras  # here, since it takes seconds, and handwriting and its tests need none of it

    with (
        as_decode_error(),
        open_file(path) as file,
        Image.open(file) as image,
        limited_memory(image),
    ):
        file.seek(0)
        content = io.BytesIO(file.read())
        return np.asarray(keras.utils.load_img(content, target_size=size), np.uint8)


def open_as_article(path: Picture, size: tuple[int, int]) -> tuple[Image.Image, np.ndarray]:
    """As open_and_resize, with the pixels that the article's recipe trains on."""
    return open_picture(path), decode_as_article(path, size)


def try_decode(path: str, size: tuple[int, int], decode: Decoder = decode) -> np.ndarray | str:
    """The pixels, as decode gives them; or in a few words why the picture can't be read."""
    try:
        return decode(path, size)
    except DECODE_ERRORS as error:
        return error_reason(error)


def decoder(recipe: str) -> Decoder:
    """How files become pixels for a network of that recipe."""
    return decode_as_article if recipe == "article" else decode


def picture_opener(recipe: str) -> Callable[[str, tuple[int, int]], tuple[Image.Image, np.ndarray]]:
    """How a file becomes a picture, and the pixels of it for a network of that recipe."""
    return open_as_article if recipe == "article" else open_and_resize
