"""What a person may hand in, and that the digit on it comes out as MNIST's makers would have it."""

import contextlib
import io
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from classifier.opener import MAX_PIXELS
from digits import finder, handwriting
from digits.drawn import draw
from digits.handwriting import NoInkError

# a 2 with a flourish: neither symmetric nor centred, so that no flip or turn goes unnoticed
TWO = [(0.15, 0.25), (0.4, 0.05), (0.7, 0.2), (0.6, 0.45), (0.15, 0.95), (0.95, 0.85)]


def written(size=200, pen=0.08, ink="black", paper="white", box=(0.2, 0.15, 0.75, 0.85)):
    """A 2 written with a pen of a share of the picture's side into a box of shares of it."""
    image = Image.new("RGB", (size, size), paper)
    left, top, right, bottom = (share * size for share in box)
    points = [(left + x * (right - left), top + y * (bottom - top)) for x, y in TWO]
    width = max(1, round(pen * size))
    pencil = ImageDraw.Draw(image)
    pencil.line(points, fill=ink, width=width, joint="curve")
    if width > 2:
        for x, y in points:
            pencil.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], fill=ink)
    return image


def alike(a, b):
    """The cosine between two results a little blurred: 1 for the same, about 0.5 for others."""
    a, b = (ndimage.gaussian_filter(np.asarray(x, float), 1) for x in (a, b))
    return (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())


def shaded(image, shade):
    return Image.fromarray((np.asarray(image) * shade[..., None]).astype(np.uint8))


def noisy(image, rng, sigma):
    noise = rng.normal(0, sigma, np.asarray(image).shape)
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def as_jpeg(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def photograph(digit, rng):
    """A photo of an MNIST-like digit [28, 28] written on a page; everything else is chance.

    Paper and ink of any colour that people use, plain, ruled or squared, turned a little; a
    gradient of light or the soft edge of a shadow; noise, blur, JPEG; any size and position.
    """
    papers = [(245, 245, 245), (235, 225, 200), (190, 190, 188), (240, 200, 205), (250, 235, 130)]
    inks = [(20, 20, 25), (30, 50, 160), (180, 40, 40), (30, 110, 60), (90, 90, 95)]
    height = int(rng.uniform(120, 500))
    width = int(height * rng.uniform(0.7, 1.4))
    paper, ink = papers[rng.integers(5)], inks[rng.integers(5)]
    page = Image.new("RGB", (width, height), paper)
    ruling, spacing = rng.integers(3), int(rng.uniform(0.08, 0.3) * height)
    pencil = ImageDraw.Draw(page)
    pale = tuple(int(0.6 * p + 0.4 * i) for p, i in zip(paper, (90, 120, 180), strict=True))
    for at in range(spacing // 2, max(width, height), spacing):
        if ruling:
            pencil.line([(0, at), (width, at + width // 40)], fill=pale)
        if ruling == 2:
            pencil.line([(at, 0), (at - height // 40, height)], fill=pale)
    side = int(rng.uniform(0.25, 0.9) * min(width, height))
    stroke = Image.fromarray(digit).resize((8 * 28, 8 * 28), Image.Resampling.BICUBIC)
    stroke = stroke.point(lambda value: 255 * (value > 110)).rotate(rng.uniform(-6, 6))
    stroke = stroke.resize((side, side), Image.Resampling.BOX)
    corner = (int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1)))
    page.paste(Image.new("RGB", (side, side), ink), corner, stroke)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    angle, soft = rng.uniform(0, 2 * np.pi), rng.choice([0.05, 0.3, 1])
    across = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle) - rng.uniform(-0.2, 0.2)
    page = shaded(page, 1 - rng.uniform(0, 0.4) / (1 + np.exp(across / soft * 6)))
    page = Image.fromarray(
        ndimage.gaussian_filter(np.asarray(page), [rng.uniform(0, 1), rng.uniform(0, 1), 0])
    )
    return as_jpeg(noisy(page, rng, rng.uniform(0, 10)), int(rng.uniform(40, 95)))


@pytest.fixture(scope="module")
def plain(to_mnist):
    return to_mnist(written())


@pytest.fixture
def rng():
    return np.random.default_rng(5)


# ---------------------------------------------------------------- what comes out


def test_result_is_white_on_black_in_20_by_20_with_its_mass_in_the_middle(plain):
    assert plain.shape == (28, 28)
    assert plain.dtype == np.uint8
    rows, columns = np.nonzero(plain)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(20, abs=1)
    assert ndimage.center_of_mass(plain) == pytest.approx((13.5, 13.5), abs=0.8)
    assert plain.max() == 255
    assert plain[0].max() == plain[:, 0].max() == 0


def test_proportions_are_kept(to_mnist):
    slim = to_mnist(written(box=(0.4, 0.1, 0.6, 0.9)))
    rows, columns = np.nonzero(slim > 128)
    assert np.ptp(rows) > 2 * np.ptp(columns)


def test_size_asked_for_is_the_size_given(to_mnist):
    result = to_mnist(written(), height=40, width=32)
    assert result.shape == (40, 32)
    assert np.ptp(np.nonzero(result)[0]) + 1 == pytest.approx(32 * 20 / 28, abs=1.5)


@pytest.mark.parametrize("size", [28, 56, 280])
def test_picture_like_mnist_comes_back_as_good_as_untouched(size, to_mnist):
    for digit in draw(30, 3)[0]:
        given = Image.fromarray(digit).resize((size, size), Image.Resampling.BICUBIC)
        result = to_mnist(given).astype(int)
        assert alike(result, digit) > (0.999 if size == 28 else 0.8)


def test_mnist_like_digits_of_the_right_size_are_passed_on(to_mnist):
    digits = draw(100, 4)[0]
    same = [np.array_equal(to_mnist(Image.fromarray(digit)), digit) for digit in digits]
    assert np.mean(same) > 0.95


# ---------------------------------------------------------------- pens and places


@pytest.mark.parametrize("size", [20, 28, 100, 500, 1000, 2000])
def test_pen_of_one_pixel(plain, size, to_mnist):
    result = to_mnist(written(size, pen=0))
    assert alike(result, plain) > 0.8
    assert (result > 128).sum() > 40  # as thick as a pen's stroke in MNIST, not a hairline


@pytest.mark.parametrize("size", [20, 28, 100, 1000, 4000])
def test_brush_of_a_quarter_of_the_picture(size, to_mnist):
    brush = written(size, pen=0.24, box=(0.2, 0.15, 0.8, 0.85))
    thin = to_mnist(written(500, pen=0.15, box=(0.2, 0.15, 0.8, 0.85)))
    assert alike(to_mnist(brush), thin) > 0.75


@pytest.mark.parametrize("left", [0, 0.45, 0.89])
@pytest.mark.parametrize("top", [0, 0.45, 0.86])
def test_small_digit_anywhere_even_at_the_edge(plain, left, top, to_mnist):
    image = written(800, pen=0.012, box=(left + 0.01, top + 0.01, left + 0.1, top + 0.12))
    assert alike(to_mnist(image), plain) > 0.85


def test_digit_that_runs_into_the_border(plain, to_mnist):
    image = written(200, box=(0.2, 0.15, 0.75, 0.85)).crop((20, 24, 156, 179))
    assert alike(to_mnist(image), plain) > 0.9


def test_specks_are_not_part_of_the_digit(plain, rng, to_mnist):
    image = written()
    for x, y in rng.integers(0, 198, (12, 2)):
        image.paste("black", (x, y, x + 2, y + 2))
    assert alike(to_mnist(image), plain) > 0.95


def test_strokes_with_gaps_stay_one_digit(plain, to_mnist):
    image = written()
    for at in range(40, 170, 25):
        image.paste("white", (0, at, 200, at + 6))
    rows = np.flatnonzero(to_mnist(image).any(axis=1))
    assert np.ptp(rows) + 1 >= 18
    assert alike(to_mnist(image), plain) > 0.85


# ---------------------------------------------------------------- colours and modes


COLOURS = [
    ("black", "white"),
    ("white", "black"),
    ("navy", "khaki"),
    ("red", "white"),
    ("yellow", "darkgreen"),
    ("blue", "lightblue"),
    ("gray", "lightgray"),
    ("deeppink", "black"),
]


@pytest.mark.parametrize(("ink", "paper"), COLOURS)
def test_ink_and_paper_of_any_colour(plain, ink, paper, to_mnist):
    assert alike(to_mnist(written(ink=ink, paper=paper)), plain) > 0.98


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "RGBA", "LA", "I;16", "I", "F"])
def test_every_mode(plain, mode, to_mnist):
    image = written()
    if mode in ("I;16", "I", "F"):
        grey = np.asarray(image.convert("L"), np.uint16)
        # 16 bits that use only a part of their range, as scanners give
        image = Image.fromarray(grey * 100 + 3000).convert(mode)
    else:
        image = image.convert(mode)
    assert image.mode == mode
    assert alike(to_mnist(image), plain) > 0.97


def cut_out(ink, fringe=None):
    """A digit of one colour on nothing, perhaps with the fringe that cutting out leaves."""
    solid = written().convert("L").point(lambda value: 255 - value)
    image = Image.new("RGBA", solid.size, (0, 0, 0, 0))
    if fringe:
        wide = ndimage.maximum_filter(np.asarray(solid), 5) // 2
        image.paste(Image.new("RGBA", solid.size, fringe), (0, 0), Image.fromarray(wide))
    image.paste(Image.new("RGBA", solid.size, ink), (0, 0), solid)
    return image


@pytest.mark.parametrize(
    "image",
    [cut_out("black"), cut_out("white"), cut_out("navy", "white"), cut_out("yellow")],
    ids=["dark ink", "light ink", "white fringe", "yellow ink"],
)
def test_transparent_paper(plain, image, to_mnist):
    assert alike(to_mnist(image), plain) > 0.95


def test_page_with_transparent_corners(plain, to_mnist):
    page = written().convert("RGBA").rotate(4, expand=True)
    assert alike(to_mnist(page), plain) > 0.8


def test_palette_with_a_transparent_colour(plain, tmp_path, to_mnist):
    cut_out("black").convert("P").save(tmp_path / "2.png", transparency=0)
    picture = written().convert("P", palette=Image.Palette.ADAPTIVE, colors=2)
    picture.save(tmp_path / "2.gif", transparency=picture.getpixel((0, 0)))
    assert alike(to_mnist(tmp_path / "2.gif"), plain) > 0.95


# ---------------------------------------------------------------- photographs


def test_exif_orientation_is_obeyed(plain, tmp_path, to_mnist):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show a quarter turn clockwise
    written().rotate(90).save(tmp_path / "2.jpg", exif=exif)
    assert alike(to_mnist(tmp_path / "2.jpg"), plain) > 0.97


def test_noise_and_jpeg_blocks(plain, rng, to_mnist):
    image = as_jpeg(noisy(written(400, paper="lightgray", ink="dimgray"), rng, 8), 30)
    assert alike(to_mnist(image), plain) > 0.95


@pytest.mark.parametrize("ink", ["black", "navy"])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("line", ["lightsteelblue", "navy"])
def test_lines_and_squares_are_not_ink(plain, ink, squared, line, rng, to_mnist):
    image = Image.new("RGB", (600, 600), "ivory")
    pencil = ImageDraw.Draw(image)
    for at in range(15, 600, 60):
        pencil.line([(0, at), (600, at + 9)], fill=line, width=2)
        if squared:
            pencil.line([(at, 0), (at - 9, 600)], fill=line, width=2)
    digit = written(600, pen=0.05, ink=ink, paper="white", box=(0.3, 0.3, 0.6, 0.7))
    mask = written(600, pen=0.05, box=(0.3, 0.3, 0.6, 0.7)).convert("L").point(lambda v: 255 - v)
    image.paste(digit, (0, 0), mask)
    assert alike(to_mnist(noisy(image, rng, 3)), plain) > 0.8


def test_one_from_border_to_border_is_no_ruled_line(to_mnist):
    image = Image.new("L", (120, 120), 255)
    ImageDraw.Draw(image).line([(62, 0), (56, 120)], fill=0, width=4)
    result = to_mnist(image)
    assert result.max() == 255
    assert np.ptp(np.nonzero(result)[0]) + 1 >= 19


@pytest.mark.parametrize("edge", [0.01, 0.1, 0.5])
def test_shadow_across_the_photo(plain, edge, rng, to_mnist):
    x = np.linspace(0, 1, 400)
    shade = 1 - 0.45 / (1 + np.exp(-(x[None, :] + 0.3 * x[:, None] - 0.6) / edge * 4))
    photo = noisy(shaded(written(400, pen=0.06, paper="linen"), shade), rng, 3)
    assert alike(to_mnist(photo), plain) > 0.9


def test_crease_in_the_paper(plain, rng, to_mnist):
    x = np.linspace(0, 1, 400)
    shade = 0.9 - 0.06 * np.sign(x - 0.55)[None, :] - 0.1 * np.exp(-(((x - 0.55) / 0.01) ** 2))
    photo = noisy(shaded(written(400), np.repeat(shade, 400, axis=0)), rng, 3)
    assert alike(to_mnist(photo), plain) > 0.9


@pytest.mark.parametrize("sides", ["left", "bottom", "all"])
def test_dark_edge_at_the_border(plain, sides, rng, to_mnist):
    photo = written(400, paper="whitesmoke")
    pencil = ImageDraw.Draw(photo)
    if sides == "all":
        pencil.rectangle((0, 0, 399, 399), outline=(40, 35, 30), width=8)
    else:
        pencil.rectangle(
            (0, 0, 12, 399) if sides == "left" else (0, 385, 399, 399), fill=(40, 35, 30)
        )
    assert alike(to_mnist(noisy(photo, rng, 3)), plain) > 0.95


def test_photographed_digits_look_as_the_digits_themselves(rng, to_mnist):
    digits = draw(40, 6)[0]
    likeness = [alike(to_mnist(photograph(digit, rng)), digit) for digit in digits]
    assert np.mean(np.array(likeness) > 0.75) >= 0.95
    assert np.median(likeness) > 0.9


# ---------------------------------------------------------------- blank, odd and broken pictures


@pytest.mark.parametrize("size", [(1, 1), (28, 28), (640, 480)])
@pytest.mark.parametrize("colour", ["white", "black", "khaki"])
def test_blank_picture_has_no_ink(size, colour, to_mnist):
    with pytest.raises(NoInkError, match="no ink found"):
        to_mnist(Image.new("RGB", size, colour))


def test_picture_without_a_pixel_is_refused(to_mnist):
    with pytest.raises(ValueError, match="no pixels"):
        to_mnist(Image.new("RGB", (0, 0)))


@pytest.mark.parametrize("seed", range(6))
def test_photo_of_blank_paper_has_no_ink(seed, to_mnist):
    paper = shaded(
        Image.new("RGB", (400, 300), "ivory"), np.linspace(0.6, 1, 400)[None].repeat(300, 0)
    )
    with pytest.raises(NoInkError):
        to_mnist(noisy(paper, np.random.default_rng(seed), 5))


def test_fully_transparent_picture_has_no_ink(to_mnist):
    with pytest.raises(NoInkError):
        to_mnist(Image.new("RGBA", (50, 50), (0, 0, 0, 0)))


@pytest.mark.parametrize("size", [(30_000, 2), (2, 30_000)])
def test_strip_is_answered_one_way_or_the_other(size, to_mnist):
    strip = Image.new("L", size, 255)
    strip.paste(0, (0, 0, size[0] // 2, size[1] // 2))
    with contextlib.suppress(NoInkError):
        assert to_mnist(strip).shape == (28, 28)


def test_animated_gif_gives_its_first_frame(plain, tmp_path, to_mnist):
    other = Image.new("RGB", (200, 200), "white")
    ImageDraw.Draw(other).line([(100, 20), (100, 180)], fill="black", width=16)
    written().save(tmp_path / "2.gif", save_all=True, append_images=[other, other])
    assert alike(to_mnist(tmp_path / "2.gif"), plain) > 0.95


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tif"])
def test_truncated_file_is_an_error_not_half_a_picture(tmp_path, suffix, to_mnist):
    path = tmp_path / f"2.{suffix}"
    noisy(written(), np.random.default_rng(0), 9).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises((OSError, ValueError)) as error:
        to_mnist(path)
    assert not isinstance(error.value, NoInkError)
    assert "\n" not in str(error.value)


def test_file_that_is_no_picture_or_not_there(tmp_path, link, to_mnist):
    (tmp_path / "a.png").write_text("hello")
    (tmp_path / "empty.png").touch()
    link(tmp_path / "loop.png", tmp_path / "loop.png")
    for name in ("a.png", "empty.png", "loop.png", "none.png", "."):
        with pytest.raises(OSError):
            to_mnist(tmp_path / name)


@pytest.mark.parametrize("side", [10_100, 30_000])
def test_decompression_bomb_is_refused_in_one_line(tmp_path, side, to_mnist):
    # a header that promises more than memory holds, and nothing behind it
    Image.new("1", (1, 1)).save(tmp_path / "bomb.bmp")
    content = bytearray((tmp_path / "bomb.bmp").read_bytes())
    content[18:26] = np.array([side, side], "<i4").tobytes()
    (tmp_path / "bomb.bmp").write_bytes(content)
    with warnings.catch_warnings(record=True), pytest.raises(ValueError, match="pixels") as error:
        to_mnist(tmp_path / "bomb.bmp")
    assert f"{MAX_PIXELS:,}" in str(error.value)
    assert "\n" not in str(error.value)


def test_file_is_closed_again(tmp_path, to_mnist):
    written().save(tmp_path / "2.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "2.png").read_bytes()[:200])
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        to_mnist(tmp_path / "2.png")
        with pytest.raises(OSError):
            to_mnist(tmp_path / "bad.png")


def test_picture_passed_in_is_left_as_it_was(tmp_path, to_mnist):
    written(2000).save(tmp_path / "2.jpg")
    with Image.open(tmp_path / "2.jpg") as image:
        to_mnist(image)
        assert image.size == (2000, 2000)


def test_the_line_that_an_export_advises_can_be_run(tmp_path, monkeypatch):
    Image.fromarray(draw(1, seed=0)[0][0]).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    line = re.search(r"network: (.*)\.$", handwriting.EXPECTED)[1]
    assert eval(line, vars(handwriting) | vars(finder)).shape == (28, 28, 3)
