"""How long after a stroke its answer is on the page to draw on; and the picture of it in README."""

import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from digits.strokes import STYLES

from .runs import REPO

DESK = {"viewport": {"width": 1280, "height": 800}}
PHONE = {
    "viewport": {"width": 390, "height": 800},
    "color_scheme": "dark",
    "is_mobile": True,
    "has_touch": True,
}
# Times each stroke from its end until a frame is drawn after the answer has come.
WATCH = """
var times = [];
addEventListener("pointerup", () => {
    const end = performance.now();
    const wait = () => asking ? requestAnimationFrame(wait) : times.push(performance.now() - end);
    requestAnimationFrame(wait);
});
"""


def draw(work_dir: Path, strokes: int) -> None:
    """Print ms from the end of a stroke to the page, for one digit and for a line of ten.

    Args:
        work_dir: where the README's picture is put.
        strokes: of each.
    """
    command = [sys.executable, "mnist_keras.py", "--mode", "draw", "--imp_dir", str(work_dir)]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = next(line.split()[0] for line in server.stdout if line.startswith("http"))
            with sync_playwright() as engine:
                browser = engine.chromium.launch(
                    executable_path=shutil.which("chromium"), args=["--no-sandbox"]
                )
                page = browser.new_page(**DESK)
                page.goto(address)
                page.evaluate(WATCH)
                write(page, "8", 0.45)  # the first answer waits for TensorFlow
                for name, digits in (("one digit", 1), ("a line of ten", 10)):
                    times = measure(page, digits, strokes)
                    print(
                        f"{name}, {strokes} strokes: median {np.median(times):.0f} ms, "
                        f"95% within {np.quantile(times, 0.95):.0f} ms"
                    )
                photograph(browser, address, work_dir / "draw.png")
        finally:
            server.terminate()


def measure(page: Page, digits: int, strokes: int) -> list[float]:
    """The ms of the strokes of the last digit of each line."""
    random.seed(0)
    times = []
    while len(times) < strokes:
        page.click("#clear")
        *earlier, last = "".join(random.choices("0123456789", k=digits))
        side = 0.055 if digits > 1 else 0.12
        write(page, earlier, 0.04, side)
        page.evaluate("times = []")
        write(page, last, 0.04 + 1.6 * side * len(earlier), side)
        times += page.evaluate("times")
    return times[:strokes]


def write(page: Page, digits: str, left: float, side: float = 0.12) -> None:
    """Write digits as most people do; left and side are shares of the sheet's width."""
    sheet = page.locator("#sheet").bounding_box()
    unit = side * sheet["width"] / 70  # a digit is 100 high and some 70 wide
    top = sheet["y"] + (sheet["height"] - 100 * unit) / 2
    for number, digit in enumerate(map(int, digits)):
        start = sheet["x"] + left * sheet["width"] + 112 * unit * number
        for stroke in max(STYLES[digit])[1]:
            places = [
                [float(part) for part in place.strip("!").split(",")] for place in stroke.split()
            ]
            page.mouse.move(start + unit * places[0][0], top + unit * places[0][1])
            page.mouse.down()
            for x, y in places[1:]:
                page.mouse.move(start + unit * x, top + unit * y)
            page.mouse.up()
            page.wait_for_function("!asking")
            page.wait_for_timeout(50)


def photograph(browser, address: str, file: Path) -> None:
    """The page on a desk and on a phone, side by side, a thousand pixels wide."""
    parts = []
    for digits, left, side, device in (("3", 0.44, 0.12, DESK), ("2048", 0.1, 0.14, PHONE)):
        page = browser.new_page(locale="en-US", **device)
        page.goto(address)
        write(page, digits, left, side)
        page.wait_for_timeout(500)
        page.screenshot(path=file)
        parts.append(Image.open(file).convert("RGB"))
    both = Image.new("RGB", (sum(part.width for part in parts) + 24, 800), "white")
    both.paste(parts[0])
    both.paste(parts[1], (parts[0].width + 24, 0))
    both.thumbnail((1000, 1000), Image.Resampling.LANCZOS)
    both.quantize(128).save(file, optimize=True)
    print(f"the README's picture: {file}")
