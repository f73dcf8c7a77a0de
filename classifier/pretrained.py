"""Networks that begin with what a body of keras.applications has learned from ImageNet.

ImageNet has over a million photographs of a thousand classes. Only a new training reads the body's
weights: what it saves is all of the network.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from classifier.console import InputError
from classifier.faster import faster
from classifier.progress import progress

STORAGE = "https://storage.googleapis.com/tensorflow/keras-applications"
MOBILE = f"{STORAGE}/mobilenet_v3/weights_mobilenet_v3"
# Keras's own limit: the bodies halve the size five times.
MIN_SIZE = 32
# How the dense layer learns from features. With that Dropout 0.737 of photographs are told apart,
# without it 0.720 (docs/figures.md).
DROPOUT, LEARNING_RATE, WEIGHT_DECAY = 0.5, 1e-3, 0.1
BATCH_SIZE, MIN_STEPS, MIN_EPOCHS = 64, 1000, 10


class Weights(NamedTuple):
    """Where Keras has a body's weights, without those of the last layer."""

    url: str
    md5: str  # Keras's own


# The smallest first.
BODIES = {
    "MobileNetV3Small": Weights(
        f"{MOBILE}_small_224_1.0_float_no_top_v2.h5", "d3e8ec802a04aa4fc771ee12a9a9b836"
    ),
    "MobileNetV3Large": Weights(
        f"{MOBILE}_large_224_1.0_float_no_top_v2.h5", "07fb09a5933dd0c8eaafa16978110389"
    ),
    "EfficientNetV2B0": Weights(
        f"{STORAGE}/efficientnet_v2/efficientnetv2-b0_notop.h5", "893217f2bb855e2983157299931e43ff"
    ),
    "EfficientNetV2S": Weights(
        f"{STORAGE}/efficientnet_v2/efficientnetv2-s_notop.h5", "af0682fb74e8c54910f2d4393339c070"
    ),
}


def build_model(setting: Any) -> keras.Model:
    """The body that setting.pretrained names, and a dense layer for the classes on its features."""
    return keras.Sequential(
        [
            keras.Input(setting.input_shape),
            *pretrained_body(setting),
            layers.Dropout(0.2, seed=setting.seed),
            layers.Dense(setting.label_nums, activation="softmax", dtype="float32"),
        ]
    )


def pretrained_body(setting: Any) -> list[layers.Layer]:
    """Layers from images in 0..1 to the features of the body that setting.pretrained names.

    Its weights are random: start_from_pretrained loads them. BatchNormalization is frozen, or the
    small batches of a small set would spoil its statistics.

    Returns:
        A Rescaling, and the body: float32 [n, channels], the mean over all places in the image.

    Raises:
        InputError: the images are too small for it.
    """
    height, width = setting.img_height, setting.img_width
    if min(height, width) < MIN_SIZE:
        raise InputError(
            f"img_width {width}, img_height {height}: --pretrained needs {MIN_SIZE} or more"
        )
    make = getattr(keras.applications, setting.pretrained)
    body = make(include_top=False, weights=None, input_shape=setting.input_shape, pooling="avg")
    for layer in body.layers:
        layer.trainable = type(layer) is not layers.BatchNormalization
    body.is_per_image = True  # for classifier/faster.py
    return [layers.Rescaling(255), body]


def find_pretrained(setting: Any) -> Any:
    """The Setting of a training with a body's name where --pretrained may be a file of its weights.

    What a new training needs is fetched now, before the pictures are decoded.

    Raises:
        InputError: there is no such body or file, or no connection; or the recipe is the article's.
    """
    name = setting.pretrained
    if not name:
        return setting
    if setting.recipe == "article":
        raise InputError("--pretrained has a recipe of its own; leave out --recipe article")
    if name in BODIES:
        if not (setting.is_restore or setting.restore_model):
            fetch(name)
        return setting
    if not Path(name).is_file():
        raise InputError(f"--pretrained {name}: no such file, and none of {', '.join(BODIES)}")
    for body_name in BODIES:
        named = setting.replace(pretrained=body_name, pretrained_weights=name)
        try:
            load_weights(pretrained_body(named)[-1], name)
        except InputError as error:
            reason = error
        else:
            return named
    raise reason


def fetch(name: str) -> str:
    """The path of a body's weights in Keras's cache; downloaded if they are not there.

    Raises:
        InputError: they can't be downloaded.
    """
    url, md5 = BODIES[name]
    cache = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
    try:
        cache.mkdir(parents=True, exist_ok=True)  # else Keras takes /tmp
        return keras.utils.get_file(
            None, url, file_hash=md5, cache_dir=cache, cache_subdir="models"
        )
    except Exception as error:  # Keras raises no other of a download
        reason = str(error).rpartition(f"{url}: ")[2].removeprefix("None -- ")
        raise InputError(
            f"--pretrained {name}: {url} can't be downloaded ({reason}); put it into "
            f"{cache / 'models'} by hand and run again"
        ) from error


def load_weights(body: keras.Model, path: str) -> None:
    """Load a body's weights: a file of Keras's, or one that body.save_weights has written.

    Raises:
        InputError: they are not this body's.
    """
    try:
        body.load_weights(path)
    except (ValueError, KeyError, OSError) as error:
        raise InputError(
            f"--pretrained {path}: not the weights of any of {', '.join(BODIES)} with "
            "include_top=False"
        ) from error


def start_from_pretrained(
    model: keras.Model, setting: Any, batches: tf.data.Dataset, labels: np.ndarray
) -> None:
    """Load the weights of the network's body, and let its dense layer learn from the features.

    These are computed once. Starting from a dense layer with random weights, the first steps would
    spoil what the body has learned.

    Args:
        model: with the layers of pretrained_body, a Dropout and a dense layer.
        setting: complete, as find_pretrained returns it.
        batches: all training images in order, as evaluation_batches makes them.
        labels: their classes, int [n].

    Raises:
        InputError: build_model has another network.
    """
    *first, _, dense = model.layers
    body = first[-1]
    if not isinstance(body, keras.Model) or type(dense) is not layers.Dense:
        raise InputError(
            "--pretrained: build_model returns a network without the body of that name"
        )
    load_weights(body, setting.pretrained_weights or fetch(setting.pretrained))
    to_features = keras.Sequential([keras.Input(model.input_shape[1:]), *first])
    extract = tf.function(faster(to_features, grayscale=False))
    shown = progress(batches, total=len(batches), desc="features", unit="batch")
    features = np.concatenate([extract(images, training=False) for images, _ in shown])
    mean = features.mean(axis=0, dtype=np.float64)
    scale = 1 / max(np.std(features - mean), keras.backend.epsilon())
    kernel, bias = learn_classes(((features - mean) * scale).astype(np.float32), labels, setting)
    dense.set_weights([kernel * scale, bias - mean @ kernel * scale])
    print(
        f"the dense layer has learned from {setting.pretrained}'s features of {len(labels)} images"
    )


def learn_classes(
    features: np.ndarray, labels: np.ndarray, setting: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The kernel and the bias of a dense layer that tells the classes, int [n], by the features.

    Args:
        features: float32 [n, channels], of a mean of 0.
        labels: the classes, int [n].
        setting: with the number of classes and the seed.
    """
    count = len(labels)
    dense = layers.Dense(setting.label_nums, activation="softmax", dtype="float32")
    dropout = layers.Dropout(DROPOUT, seed=setting.seed, dtype="float32")
    model = keras.Sequential([keras.Input(features.shape[1:]), dropout, dense])
    optimizer = keras.optimizers.AdamW(LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    dataset = tf.data.Dataset.from_tensor_slices((features, labels))
    dataset = dataset.shuffle(count, seed=setting.seed).repeat().batch(BATCH_SIZE)
    steps = max(MIN_STEPS, MIN_EPOCHS * count // BATCH_SIZE)
    model.fit(dataset, steps_per_epoch=steps, shuffle=False, verbose=0)
    return dense.get_weights()
