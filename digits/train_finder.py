"""Train the finder on pages that the program draws.

  python -m digits.train_finder --mnist ../shared/mnist     makes mnist_data/shipped/finder.npz anew

An hour on two cores with AVX512_BF16, and 6 GB of memory: 24,000 pages are drawn and each is seen
seven times. The same command gives the same weights on one machine.
"""

import functools
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from classifier import idx
from classifier.console import ArgumentParser, one_line_errors
from classifier.files import prepare_file
from classifier.machine import cpu_count
from digits.drawn_pages import SIDE, DrawnPage, draw_page
from digits.drawn_shapes import SIGN, draw_shapes
from digits.finder import (
    INK_STRIDE,
    OFFSET,
    SHIPPED,
    STRIDE,
    Maps,
    build_finder,
    load_finder,
    save_finder,
)
from digits.finding import Mark, features, marked, peaks_of

PAGES, STEPS, BATCH = 24_000, 11_000, 16
PART, SHAPES = 250, 1200  # pages that a process draws at a time, from so many shapes
CELLS, PIXELS = SIDE // STRIDE, SIDE // INK_STRIDE
FITTED, OTHER_SEED = 2_000, 10_000  # pages for Finder.weights, of another seed: not learned from
FAINT, MATCHED = 0.1, 0.4  # heat of a mark there; of its box and a digit's both share so much
PEAK_LEARNING_RATE, WARM_UP = 2e-3, 300  # steps
BRIGHTNESS = (0.85, 1.1)
EVERY = 200  # steps between two lines that say how it goes


def draw_pages(count: int, seed: int, images: np.ndarray, labels: np.ndarray) -> list[DrawnPage]:
    """Draw pages with all cores.

    Args:
        count: how many, a multiple of PART.
        seed: the same seed and images give the same pages, whatever the number of cores.
        images: MNIST's training images, uint8 [n, 28, 28].
        labels: int [n].
    """
    parts = range(count // PART)
    shares = [(images[part :: len(parts)], labels[part :: len(parts)]) for part in parts]
    # a process that has TensorFlow's threads must not be forked
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cpu_count(), spawn) as pool:
        seeds = (1000 * seed + part for part in parts)
        draw = functools.partial(_draw_part, PART, SHAPES)
        drawn = pool.map(draw, seeds, *zip(*shares, strict=True))
        return [page for part in drawn for page in part]


def _draw_part(
    count: int, shapes: int, seed: int, images: np.ndarray, labels: np.ndarray
) -> list[DrawnPage]:
    rng = np.random.default_rng(seed)
    drawn = draw_shapes(shapes, rng, images, labels)
    return [draw_page(rng, drawn) for _ in range(count)]


def targets(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the finder is to say of what stands on a page.

    Args:
        boxes: DrawnPage.boxes.

    Returns:
        float32 [CELLS, CELLS, 3]: how near a digit's, and a sign's, middle is (1 is there), and
        the digit whose middle is there, or -1.
        float32 [256, 2]: the middles, x and y in pixels; row n is that of owner n.
    """
    places = np.zeros((CELLS, CELLS, 3), np.float32)
    places[..., 2] = -1
    middles = np.zeros((256, 2), np.float32)
    across = np.arange(CELLS, dtype=np.float32)
    for owner, (left, top, right, bottom, label) in enumerate(boxes, 1):
        x, y = middles[owner] = (left + right) / 2, (top + bottom) / 2
        column, row = int(x // STRIDE), int(y // STRIDE)
        if not (0 <= row < CELLS and 0 <= column < CELLS):
            continue
        wide = max(0.7, min(right - left, bottom - top) / STRIDE / 5)
        away = (across[:, None] - row) ** 2 + (across - column) ** 2
        kind = int(label == SIGN)
        places[..., kind] = np.maximum(places[..., kind], np.exp(-away / (2 * wide**2)))
        if label != SIGN:
            places[row, column, 2] = label
    return places, middles


def batches(pages: list[DrawnPage], seed: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Images, their brightness, what `targets` gives first, owners, and middles, without end."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(pages))
        for chosen in order[: len(pages) // BATCH * BATCH].reshape(-1, BATCH):
            part = [pages[index] for index in chosen]
            places, middles = zip(*(targets(page.boxes) for page in part), strict=True)
            images = np.stack([page.image for page in part])
            brightness = rng.uniform(*BRIGHTNESS, (BATCH, 1, 1, 1)).astype(np.float32)
            owners = np.stack([page.owner for page in part])
            yield images, brightness, np.stack(places), owners, np.stack(middles)


def loss_of(outputs, places, owners, middles):
    """How far the finder's outputs are from the targets: a scalar.

    The heat maps' is CenterNet's focal loss; ink is compared by cross entropy, its offsets by
    their absolute difference.
    """
    import tensorflow as tf

    heat, labels, ink = outputs
    wanted, likely = places[..., :2], tf.sigmoid(heat)
    middle = tf.cast(wanted >= 0.999, tf.float32)
    missed = middle * (1 - likely) ** 2 * tf.nn.softplus(-heat)
    invented = (1 - middle) * (1 - wanted) ** 4 * likely**2 * tf.nn.softplus(heat)
    heat_loss = tf.reduce_sum(missed + invented) / (tf.reduce_sum(middle) + 1)

    is_digit = tf.cast(places[..., 2] >= 0, tf.float32)
    digits = tf.cast(tf.maximum(places[..., 2], 0), tf.int32)
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(digits, labels)
    label_loss = tf.reduce_sum(is_digit * entropy) / (tf.reduce_sum(is_digit) + 1)

    pixel = tf.range(PIXELS, dtype=tf.float32) * INK_STRIDE + INK_STRIDE / 2
    there = tf.gather(middles, tf.cast(owners, tf.int32), batch_dims=1)
    offsets = tf.stack([there[..., 0] - pixel, there[..., 1] - pixel[:, None]], axis=-1) / OFFSET
    is_ink = tf.cast(owners > 0, tf.float32)
    inked = tf.reduce_sum(is_ink) + 1000
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(is_ink, ink[..., 0])
    ink_loss = tf.reduce_sum(entropy) / inked
    apart = is_ink[..., None] * tf.abs(ink[..., 1:] - offsets)
    return heat_loss + 0.4 * label_loss + ink_loss + 0.5 * tf.reduce_sum(apart) / inked


def train_finder(pages: list[DrawnPage], steps: int, seed: int):
    """A finder that has learned from the pages, in so many steps of BATCH pages."""
    import keras
    import tensorflow as tf

    from classifier.hardware import choose_precision

    keras.utils.set_random_seed(seed)
    keras.mixed_precision.set_dtype_policy(choose_precision("auto", "tuned"))
    network = build_finder()
    optimizer = keras.optimizers.AdamW(PEAK_LEARNING_RATE, weight_decay=1e-3, clipnorm=5.0)
    dataset = tf.data.Dataset.from_generator(
        lambda: batches(pages, seed),
        output_signature=(
            tf.TensorSpec((BATCH, SIDE, SIDE, 3), tf.uint8),
            tf.TensorSpec((BATCH, 1, 1, 1)),
            tf.TensorSpec((BATCH, CELLS, CELLS, 3)),
            tf.TensorSpec((BATCH, PIXELS, PIXELS), tf.uint8),
            tf.TensorSpec((BATCH, 256, 2)),
        ),
    )

    @tf.function
    def step(images, brightness, *wanted):
        images = tf.cast(images, tf.float32) * brightness / 255 - 0.5
        with tf.GradientTape() as tape:
            loss = loss_of(network(images, training=True), *wanted)
        gradients = tape.gradient(loss, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
        return loss

    losses = []
    for number, batch in enumerate(dataset.take(steps).prefetch(8)):
        warm = min(1, (number + 1) / WARM_UP)
        optimizer.learning_rate = (
            PEAK_LEARNING_RATE * warm * (0.5 + 0.5 * np.cos(np.pi * number / steps))
        )
        losses.append(float(step(*batch)))
        if (number + 1) % EVERY == 0:
            print(f"{number + 1} of {steps} steps, loss {np.mean(losses[-EVERY:]):.3f}", flush=True)
    return network


def fit_weights(maps: Callable[[np.ndarray], Maps], pages: list[DrawnPage]) -> np.ndarray:
    """Finder.weights, float [3, 4], that tell best what the marks on the pages are.

    Args:
        maps: as Finder.maps.
        pages: which the network has not learned from.
    """
    values, kinds = [], []
    for page in pages:
        found = maps(page.image)
        *_, marks = marked(found, peaks_of(found, least=FAINT))
        if marks:
            values.append(features(marks))
            kinds += kinds_of(marks, page.boxes)
    values = np.concatenate(values)

    def loss(weights):
        likely = log_softmax(values @ weights.reshape(3, -1).T, axis=1)
        return -likely[np.arange(len(kinds)), kinds].mean()

    return minimize(loss, np.zeros(3 * values.shape[1])).x.reshape(3, -1)


def kinds_of(marks: list[Mark], boxes: np.ndarray) -> list[int]:
    """What each mark marks, as a row of Finder.weights: a digit, a sign, nothing or it once more.

    Args:
        marks: on a drawn page.
        boxes: DrawnPage.boxes.
    """
    rows = matches(marks, boxes, MATCHED)
    return [2 if row is None else int(boxes[row, 4] == SIGN) for row in rows]


def matches(marks: list[Mark], boxes: np.ndarray, least: float) -> list[int | None]:
    """Which row of DrawnPage.boxes each mark marks; None if none, or one that a hotter one marks.

    Args:
        marks: on a drawn page.
        boxes: its boxes, in pixels of the view.
        least: of the mark's box and the row's together both share more than that.
    """
    found: list[int | None] = [None] * len(marks)
    free = np.ones(len(boxes), bool)
    for number in np.argsort([-max(mark.heat) for mark in marks]):
        box = marks[number].box
        outer = np.maximum(box[2:], boxes[:, 2:4]) - np.minimum(box[:2], boxes[:, :2])
        inner = np.minimum(box[2:], boxes[:, 2:4]) - np.maximum(box[:2], boxes[:, :2])
        shared = np.prod(np.maximum(inner, 0), axis=1) / np.prod(outer, axis=1) * free
        if len(shared) and shared.max() > least:
            found[number] = int(shared.argmax())
            free[shared.argmax()] = False
    return found


def main() -> None:
    """Make the finder's file anew."""
    parser = ArgumentParser(
        prog="python -m digits.train_finder", description="Train the finder of digits."
    )
    parser.add_argument("--mnist", type=Path, required=True, help="folder of MNIST's IDX files")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="(default: %(default)s)")
    options = parser.parse_args()
    if options.seed < 0:
        parser.error(f"--seed is {options.seed}, and must be 0 or more")
    with one_line_errors():
        prepare_file(options.out)  # now: the rest takes an hour
        images, labels = (np.asarray(part) for part in idx.decode_part(options.mnist, "train"))
        pages = draw_pages(PAGES, options.seed, images, labels)
        network = train_finder(pages, STEPS, options.seed)
        other_pages = draw_pages(FITTED, OTHER_SEED + options.seed, images, labels)
        with TemporaryDirectory() as folder:  # weights are fitted to what it says in float16
            save_finder(network, np.zeros((3, 4)), rounded := Path(folder, "finder.npz"))
            weights = fit_weights(load_finder(rounded).maps, other_pages)
        save_finder(network, weights, options.out)
        print(f"{options.out}: {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
