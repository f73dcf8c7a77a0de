"""The judge: a small network that says whether a picture of MNIST's kind shows one whole digit.

The article's network has no such answer: it calls a cat a 3 for sure. The judge learns the ten
digits and an eleventh class, what is no digit (not_digits.py); only that class is asked for. It
stands beside the network that reads, whichever that is, and changes nothing of it.

  python -m digits.judge --mnist ../shared/mnist     makes mnist_data/shipped/judge.npz anew
"""

import argparse
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from classifier import idx
from classifier.files import atomic_file
from classifier.machine import cpu_count
from digits import drawn, not_digits

SHIPPED = Path(__file__).parent.parent / "mnist_data" / "shipped" / "judge.npz"
DTYPE = "float32"  # whatever the reading network's is: so small a one gains nothing from less
NO_DIGIT = 10  # the class after the ten digits
# Where the judge's 60,000 MNIST images stand beside what else it learns from.
DRAWN, MET, NONE = 20_000, 50_000, 60_000
PART = 2_500  # shapes that a process draws at a time
EPOCHS, BATCH, PEAK_LEARNING_RATE = 6, 256, 3e-3


def build_judge():
    """The network: float32 [n, 28, 28, 1] in 0..1 to the chances of ten digits and of none.

    47,099 weights, an eighteenth of the article's: it is to add little to the reading's time.
    """
    from keras import Input, Sequential, layers

    return Sequential(
        [
            Input((28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu", dtype=DTYPE),
            layers.MaxPooling2D(2, dtype=DTYPE),
            layers.Conv2D(32, 3, activation="relu", dtype=DTYPE),
            layers.MaxPooling2D(2, dtype=DTYPE),
            layers.Conv2D(48, 3, activation="relu", dtype=DTYPE),
            layers.Flatten(dtype=DTYPE),
            layers.Dropout(0.2, dtype=DTYPE),
            layers.Dense(64, activation="relu", dtype=DTYPE),
            layers.Dense(NO_DIGIT + 1, activation="softmax", dtype=DTYPE),
        ]
    )


def load_judge(path: str | os.PathLike = SHIPPED) -> Callable[[np.ndarray], np.ndarray]:
    """The trained judge: uint8 [n, 28, 28] to the chance, float32 [n], that each is one digit.

    Raises:
        OSError, ValueError: the file is missing or is not the judge's.
    """
    import tensorflow as tf

    network = build_judge()
    with np.load(path) as file:
        network.set_weights([file[name] for name in sorted(file.files)])

    @tf.function(reduce_retracing=True)
    def chance(images):
        return 1 - network(tf.cast(images[..., None], tf.float32) / 255)[:, NO_DIGIT]

    return lambda images: chance(tf.constant(images)).numpy()


def training_set(
    images: np.ndarray, labels: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """What the judge learns from: MNIST, drawn digits, digits as a page has them, and no digits.

    Args:
        images: MNIST's training images, uint8 [n, 28, 28].
        labels: int [n].
        seed: the same seed gives the same set, whatever the number of processes.

    Returns:
        uint8 [m, 28, 28] and int [m], NO_DIGIT for what is none.
    """
    more, more_labels = drawn.draw(DRAWN, seed)
    images = np.concatenate([images, more])
    labels = np.concatenate([labels, more_labels]).astype(np.int32)
    with ProcessPoolExecutor(cpu_count()) as pool:
        met, none = (
            list(pool.map(draw, *zip(*_shares(count, images, labels, first), strict=True)))
            for draw, count, first in ((_met, MET, 2 * seed), (_none, NONE, 2 * seed + 1))
        )
    return (
        np.concatenate([images, *(part for part, _ in met), *none]),
        np.concatenate([labels, *(part for _, part in met), np.full(NONE, NO_DIGIT)]),
    )


def _shares(count, images, labels, seed):
    """Every process's share of the images with their labels, and a seed of its own."""
    parts = count // PART
    for part in range(parts):
        yield images[part::parts], labels[part::parts], 1000 * seed + part


def _met(images, labels, seed):
    return not_digits.draw_digits(PART, seed, images, labels)


def _none(images, _, seed):
    return not_digits.draw(PART, seed, images)


def train_judge(images: np.ndarray, labels: np.ndarray, seed: int):
    """A judge that has learned from training_set's images and labels."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    network = build_judge()
    steps = EPOCHS * (len(images) // BATCH)
    schedule = keras.optimizers.schedules.CosineDecay(PEAK_LEARNING_RATE, steps)
    network.compile(
        keras.optimizers.AdamW(schedule, weight_decay=0.01),
        "sparse_categorical_crossentropy",
        metrics=["acc"],
    )
    batches = (
        tf.data.Dataset.from_tensor_slices((images, labels))
        .shuffle(len(images), seed=seed)
        .batch(BATCH, drop_remainder=True)
        .map(lambda x, y: (tf.cast(x[..., None], tf.float32) / 255, y))
    )
    network.fit(batches, epochs=EPOCHS, shuffle=False, verbose=2)
    return network


def save_judge(network, path: Path) -> None:
    """Write the judge's weights as load_judge reads them."""
    weights = {f"{n:02}": value for n, value in enumerate(network.get_weights())}
    with atomic_file(path) as partial:
        np.savez(partial, **weights)


def main() -> None:
    """Make the judge's file anew."""
    parser = argparse.ArgumentParser(
        prog="python -m digits.judge", description="Train the judge of what is one digit."
    )
    parser.add_argument("--mnist", type=Path, required=True, help="folder of MNIST's IDX files")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="(default: %(default)s)")
    options = parser.parse_args()
    import tensorflow as tf

    # With more threads sums are added in another order: the file would depend on the machine.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    images, labels = idx.decode_part(options.mnist, "train")
    learned = training_set(np.asarray(images), np.asarray(labels), options.seed)
    save_judge(train_judge(*learned, options.seed), options.out)
    print(f"{options.out}: {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
