"""Train the finder on pages that the program draws.

  python -m digits.train_finder --mnist ../shared/mnist     makes mnist_data/shipped/finder.npz anew

An hour on two cores with AVX512_BF16, and 6 GB of memory: 24,000 pages are drawn and each is seen
seven times. The same command gives the same weights on one machine.
"""

import argparse
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from classifier import idx
from classifier.files import atomic_file
from classifier.machine import cpu_count
from digits.drawn_pages import SIDE, DrawnPage, draw_page
from digits.drawn_shapes import SIGN, draw_shapes
from digits.finder import INK_STRIDE, OFFSET, SHIPPED, STRIDE, build_finder

PAGES, STEPS, BATCH = 24_000, 11_000, 16
PART, SHAPES = 250, 1200  # pages that a process draws at a time, from so many shapes
CELLS, PIXELS = SIDE // STRIDE, SIDE // INK_STRIDE
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
    with ProcessPoolExecutor(cpu_count()) as pool:
        seeds = (1000 * seed + part for part in parts)
        drawn = pool.map(_draw_part, seeds, *zip(*shares, strict=True))
        return [page for part in drawn for page in part]


def _draw_part(seed: int, images: np.ndarray, labels: np.ndarray) -> list[DrawnPage]:
    rng = np.random.default_rng(seed)
    shapes = draw_shapes(SHAPES, rng, images, labels)
    return [draw_page(rng, shapes) for _ in range(PART)]


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
    """Images, their brightness, both of `targets`, and owners, without end."""
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


def save_finder(network, path: Path) -> None:
    """Write the finder's weights as load_finder reads them, in float16."""
    weights = {f"{n:03}": w.astype(np.float16) for n, w in enumerate(network.get_weights())}
    with atomic_file(path) as partial:
        np.savez(partial, **weights)


def main() -> None:
    """Make the finder's file anew."""
    parser = argparse.ArgumentParser(
        prog="python -m digits.train_finder", description="Train the finder of digits."
    )
    parser.add_argument("--mnist", type=Path, required=True, help="folder of MNIST's IDX files")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="(default: %(default)s)")
    options = parser.parse_args()
    images, labels = (np.asarray(part) for part in idx.decode_part(options.mnist, "train"))
    pages = draw_pages(PAGES, options.seed, images, labels)
    save_finder(train_finder(pages, STEPS, options.seed), options.out)
    print(f"{options.out}: {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
