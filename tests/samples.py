"""The ten pictures in mnist_data/tmp, which a newcomer's first `--mode predict` reads.

    python -m tests.samples    # write them anew

The even digits are as MNIST has them. The odd ones are as people hand them in: photographed,
drawn in Paint, cut out, written in chalk.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from digits.drawn import draw
from tests.test_handwriting import photograph

FOLDER = Path(__file__).resolve().parents[1] / "mnist_data" / "tmp"


def samples() -> dict[str, Image.Image]:
    """The pictures by the names of their files, of which the first character is the digit."""
    images, labels = draw(200, seed=20)

    def written(digit: int, number: int) -> np.ndarray:
        return images[labels == digit][number]

    as_mnist = {0: 2, 2: 7, 4: 0, 6: 9, 8: 2}
    return {
        **{f"{digit}.png": Image.fromarray(written(digit, n)) for digit, n in as_mnist.items()},
        "1.jpg": photograph(written(1, 9), np.random.default_rng(37)),  # a shadow, squared paper
        "3.png": painted(written(3, 9), (640, 480), "black", "white"),
        "5.jpg": photograph(written(5, 2), np.random.default_rng(24)),  # a red pen, pink paper
        "7.png": painted(written(7, 14), (300, 400), "mediumblue", "#00000000"),
        "9.png": painted(written(9, 1), (360, 360), "white", "black"),
    }


def painted(digit: np.ndarray, size: tuple[int, int], ink: str, paper: str) -> Image.Image:
    """The digit, uint8 [28, 28], as a brush of one colour leaves it on a sheet of another.

    By Pillow's whole-number arithmetic alone, so that every machine makes the same pixels.
    """
    side = min(size)
    brush = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    brush = brush.filter(ImageFilter.BoxBlur(side // 60)).point(lambda value: 255 * (value > 110))
    sheet = Image.new("RGBA", size, paper)
    sheet.paste(ink, ((size[0] - side) // 2, (size[1] - side) // 2), brush)
    return sheet if sheet.getextrema()[3][0] < 255 else sheet.convert("RGB")


def main() -> None:
    for name, picture in samples().items():
        # A JPEG is written with the quality that the photograph has.
        picture.save(FOLDER / name, **({"quality": "keep"} if name.endswith(".jpg") else {}))


if __name__ == "__main__":
    main()
