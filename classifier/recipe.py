"""Two ways to train: the article's, and the tuned one, which is faster and more accurate.

What was tried, and what it brought: docs/figures.md.
"""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tensorflow.keras.preprocessing.image import DirectoryIterator

from classifier import hardware, pictures, workers
from classifier.batches import evaluation_batches, inference_batch_size, training_batches
from classifier.console import InputError, warn
from classifier.muon import Muon
from classifier.opener import decode_as_article
from classifier.pictures import ImageSet, looks_like_photographs, mean_and_std
from classifier.pretrained import start_from_pretrained

# Larger batches than the article's 32 keep two cores busier.
BATCH_SIZE = 128
# Of a batch on one machine; 128 images of 224×224 took 6 GB of memory.
MAX_BATCH_PIXELS = 16 * 224 * 224
# An epoch of fewer steps teaches too little: small sets get smaller batches.
MIN_STEPS, MIN_BATCH_SIZE = 64, 16
# Half this rate gets a tenth more of MNIST's validation images wrong.
PEAK_LEARNING_RATE = 3e-3
# Of what a body of keras.applications has learned, larger steps spoil more than they teach.
FINE_TUNING_RATE = 3e-4
# The warm-up as a fraction of all steps, and Adam's beta_2. Both gain a little accuracy.
WARMUP, BETA_2 = 0.05, 0.99
WEIGHT_DECAY = 0.05
# How long Muon's steps are; in a training of fewer than FEW_STEPS each has to be longer.
FEW_STEPS, LENGTH, FEW_STEPS_LENGTH = 200, 0.2, 0.4
# Up to so many epochs strokes keep their width: the variation costs more than it teaches.
SHORT_RUN_EPOCHS = 4
# More epochs teach a set as large as MNIST nothing more; in smaller sets an epoch has fewer steps.
LARGE_SET, LARGE_SET_EPOCHS = 40_000, 8
# Keras's loop takes up to a tenth of a step's time between two calls of TensorFlow.
STEPS_PER_EXECUTION = 8
# Epochs after which a network that can learn from its pictures has begun to.
PATIENCE = 5
# WeightAverage's power; higher for short trainings, whose weights still change fast.
AVERAGE_POWER, SHORT_RUN_POWER = 3, 12
# Validation images that the temperature is fitted on: all 12,000 of MNIST's give 0.465, these 0.47
# to 0.52 in a seventh of the time.
CALIBRATION_IMAGES = 1500
# Training batches that BatchNormalization's statistics are measured on; 40 give the same val_acc.
STATISTICS_BATCHES = 10

PHOTOGRAPHS = (
    "photographs, it seems: --pretrained MobileNetV3Small starts from a network that has seen a "
    "million; without it try --horizontal_flip and --epochs 40"
)

Batches = tf.data.Dataset | DirectoryIterator


class Recipe(NamedTuple):
    """A training's batches, its optimizer, and the options of model.compile and model.fit."""

    training: Callable[[int], Batches]  # from initial_epoch to the batches of all other epochs
    validation: Batches
    steps_per_epoch: int
    optimizer: Callable[[], keras.optimizers.Optimizer]  # called in the strategy's scope
    majority_share: float  # the val_acc of always answering with the most frequent class
    shuffle: bool = False  # Keras puts the batches into another order in every epoch
    steps_per_execution: int = 1
    average_power: int | None = None  # of WeightAverage; None for no average
    grayscale: bool = False  # red, green and blue are the same in all images
    mean_std: tuple[float, float] | None = None  # of the pixels, to normalize them; None for none
    # Sets the weights from which a new training starts; build_model's are random.
    initialize: Callable[[keras.Model], None] = lambda model: None
    # Called for the validation batches that checkpoints are calibrated on; None for no calibration.
    calibration: Callable[[], Iterable] | None = None


def choose(
    setting: Any,
    training: DirectoryIterator,
    validation: DirectoryIterator,
    digits: bool,
    own_pictures: bool,
    add_digits: Callable[[pictures.ImageSet, int], pictures.ImageSet],
) -> Recipe:
    """The recipe that the Setting names, for these pictures.

    Args:
        setting: complete, as metadata.resolved_setting returns it.
        training: the files to train on; those that can't be decoded are dropped from it.
        validation: the files held out, likewise.
        digits: the pictures are like MNIST's.
        own_pictures: they are a user's, and some may be broken.
        add_digits: called with images of digits and a seed, adds drawn ones.

    Raises:
        InputError: no picture can be read; or the article's recipe is to run on several machines.
    """
    if setting.recipe == "article":
        for iterator in (training, validation) if own_pictures else ():
            pictures.drop_unreadable(iterator, decode_as_article)
        return article(training, validation, setting.learning_rate)
    folder = Path(setting.checkpoint_path, "pixels")
    training_set, validation_set = (
        pictures.load(workers.shard(files), setting.cache_limit, cache_file=folder / name)
        for files, name in ((training, "training.bin"), (validation, "validation.bin"))
    )
    if digits and list(training.class_indices) == list("0123456789"):
        training_set = add_digits(training_set, workers.worker_seed(setting.seed))
    if setting.pretrained:
        return fine_tuned(setting, training_set, validation_set)
    if not setting.is_restore and looks_like_photographs(training_set):
        print(PHOTOGRAPHS)
    return tuned(setting, training_set, validation_set, strokes=digits)


def article(
    training: DirectoryIterator, validation: DirectoryIterator, learning_rate: float | None = None
) -> Recipe:
    """The article's recipe to the letter: rmsprop, batches as the generators load them.

    Args:
        training: batches to learn from.
        validation: batches to validate on.
        learning_rate: None for Keras's default.
    """
    if workers.strategy:
        raise InputError("--recipe article trains on one machine; TF_CONFIG must not be set")
    return Recipe(
        training=lambda done: training,
        validation=validation,
        steps_per_epoch=len(training),
        majority_share=majority_share(validation.classes),
        optimizer=lambda: keras.optimizers.RMSprop(learning_rate or 1e-3),
        shuffle=True,
    )


def tuned(setting: Any, training_set: ImageSet, validation_set: ImageSet, strokes: bool) -> Recipe:
    """Muon, one cycle of the learning rate, augmented batches, averaged weights.

    Args:
        setting: complete; a batch_size that isn't set is BATCH_SIZE, or fewer if the set is small
            or the images are large.
        training_set: the images to train on; on several machines, this one's share.
        validation_set: the images held out, likewise.
        strokes: the images are like MNIST's: the strokes' width is varied, and half of the images
            stay sharp. Other images are normalized, or dark lines on white would teach nothing.
    """
    mean_std = None if strokes else mean_and_std(training_set)
    grayscale = training_set.grayscale and validation_set.grayscale
    local = (training_set.epoch_size, len(validation_set.labels), grayscale, mean_std)
    counts, validation_counts, grayscales, mean_stds = zip(*workers.all_gather(local), strict=True)
    machines = len(counts)
    count = machines * min(counts)  # each machine runs the same number of steps
    max_batch_size = machines * max(1, MAX_BATCH_PIXELS // math.prod(training_set.size))
    default = min(BATCH_SIZE, max_batch_size, max(MIN_BATCH_SIZE, count // MIN_STEPS))
    batch_size = min(setting.chosen("batch_size") or default, count)
    devices = len(hardware.device_names())
    batch_size = max(devices, batch_size - batch_size % devices)  # Keras takes no uneven shares
    steps = count // batch_size  # the images left over are others in every epoch
    if steps >= MIN_STEPS:
        steps -= steps % STEPS_PER_EXECUTION
    # With several devices steps_per_execution > 1 fails (Keras 3.15, TensorFlow 2.21).
    one_by_one = steps % STEPS_PER_EXECUTION or devices > 1
    short = setting.epochs <= SHORT_RUN_EPOCHS
    validation_steps = None  # as many as are fast
    if machines > 1:  # each machine runs the same number here, too
        largest = math.ceil(max(validation_counts) / inference_batch_size(validation_set.size))
        validation_steps = min(*validation_counts, largest)
    classes = setting.label_nums
    validation = evaluation_batches(validation_set, classes, validation_steps)
    every = max(1, len(validation_set.labels) // CALIBRATION_IMAGES)
    return Recipe(
        training=lambda done: training_batches(
            training_set,
            classes,
            batch_size // machines,
            steps,
            range(done, setting.epochs),
            workers.worker_seed(setting.seed),
            setting.horizontal_flip,
            strokes and not short,
        ),
        validation=validation,
        steps_per_epoch=steps,
        majority_share=majority_share(validation_set.labels),
        optimizer=lambda: make_optimizer(setting.epochs * steps, setting.learning_rate),
        steps_per_execution=1 if one_by_one else STEPS_PER_EXECUTION,
        average_power=SHORT_RUN_POWER if short else AVERAGE_POWER,
        grayscale=all(grayscales),
        mean_std=mean_stds[0],
        calibration=lambda: ((images[::every], labels[::every]) for images, labels in validation),
    )


def fine_tuned(setting: Any, training_set: ImageSet, validation_set: ImageSet) -> Recipe:
    """For a pretrained body: first the dense layer on its features, then all of it, gently.

    Args:
        setting: complete, as find_pretrained returns it.
        training_set: the images to train on.
        validation_set: the images held out.
    """
    gentle = setting.replace(learning_rate=setting.learning_rate or FINE_TUNING_RATE)
    plan = tuned(gentle, training_set, validation_set, strokes=False)

    def initialize(model: keras.Model) -> None:
        batches = evaluation_batches(training_set, setting.label_nums)
        start_from_pretrained(model, setting, batches, training_set.labels)
        workers.broadcast_state(model, 0)  # the first machine's, which has learned from its share

    return plan._replace(mean_std=None, initialize=initialize)


def majority_share(labels: np.ndarray) -> float:
    """The share of the most frequent label among labels, int [n]."""
    return float(np.bincount(labels).max() / len(labels))


def make_optimizer(steps: int, learning_rate: float | None) -> keras.optimizers.Optimizer:
    """Muon, or AdamW if a peak learning rate is given, with one cycle of it over all steps."""
    peak = learning_rate or PEAK_LEARNING_RATE
    schedule = TriangularSchedule(peak, steps, max(1, int(WARMUP * steps)))
    options = {"weight_decay": WEIGHT_DECAY, "beta_2": BETA_2}
    if learning_rate:
        return keras.optimizers.AdamW(schedule, **options)
    return Muon(schedule, length=FEW_STEPS_LENGTH if steps < FEW_STEPS else LENGTH, **options)


class TriangularSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A linear rise to the peak over warm_up steps, then a linear fall to 0 at the last step."""

    def __init__(self, peak: float, steps: int, warm_up: int):
        self.peak, self.steps, self.warm_up = peak, steps, warm_up

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        rising = (step + 1) / self.warm_up
        falling = (self.steps - step) / (self.steps - self.warm_up + 1)
        return self.peak * tf.maximum(0.0, tf.minimum(rising, falling))


class WeightAverage(keras.callbacks.Callback):
    """Validates and saves a running average of the weights, in which later ones count more.

    Polynomial-decay averaging (Shamir and Zhang 2013): val_acc changes less from epoch to epoch.
    The average is updated after every steps_per_execution steps, and saved with the optimizer's
    variables. It is swapped in before validation and back at the end of the epoch, so this callback
    must come after those that save.

    BatchNormalization's moving statistics belong to other weights. They are measured anew for the
    average before validation, as in SWA (Izmailov et al. 2018); training doesn't use them.

    Args:
        model: compiled.
        power: the n-th weights count as n to this power.
        training: a Recipe's training; None to leave BatchNormalization's statistics alone.
    """

    def __init__(
        self, model: keras.Model, power: int, training: Callable[[int], Batches] | None = None
    ):
        super().__init__()
        self.power, self.training = power, training
        self.normalizations = [
            layer
            for layer in model._flatten_layers()
            if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        ]
        self.statistics = [
            variable
            for layer in self.normalizations
            for variable in (layer.moving_mean, layer.moving_variance)
        ]
        self.images: list[Any] = []  # batches, loaded when they are first needed
        add = model.optimizer.add_variable_from_reference
        self.pairs = [(weights, add(weights, "average")) for weights in model.trainable_variables]
        self.count = model.optimizer.add_variable((), name="averaged")

    @tf.function
    def update_average(self) -> None:
        self.count.assign_add(1)
        share = (self.power + 1) / (self.count + self.power)
        for weights, average in self.pairs:
            average.assign_add(share * (weights - average))

    def swap(self) -> None:
        """Exchange the weights and their average."""
        for weights, average in self.pairs:
            values = weights.numpy()
            weights.assign(average)
            average.assign(values)

    def on_train_begin(self, logs=None):
        if self.count.numpy():  # a resumed run: they were saved swapped
            self.swap()

    def on_train_batch_end(self, batch, logs=None):
        self.update_average()

    def on_test_begin(self, logs=None):
        self.swap()
        if self.normalizations and self.training:
            self.measure_statistics()

    def measure_statistics(self) -> None:
        """Set each BatchNormalization's moving mean and variance to the mean over some batches."""
        strategy = self.model.distribute_strategy
        if not self.images:
            batches = self.training(0).take(STATISTICS_BATCHES)
            batches = strategy.experimental_distribute_dataset(batches)
            self.images = [images for images, _ in batches]
        totals = [0.0] * len(self.statistics)
        momenta = [layer.momentum for layer in self.normalizations]
        for layer in self.normalizations:
            layer.momentum = 0.0  # the moving statistics are then those of the last batch
        try:
            for images in self.images:
                values = [value.numpy() for value in self.batch_statistics(images)]
                totals = [sum(pair) for pair in zip(totals, values, strict=True)]
        finally:
            for layer, momentum in zip(self.normalizations, momenta, strict=True):
                layer.momentum = momentum
        for variable, total in zip(self.statistics, totals, strict=True):
            variable.assign(total / len(self.images))

    @tf.function
    def batch_statistics(self, images: Any) -> list[tf.Tensor]:
        """The statistics of a batch, as a mean over the devices that share it."""

        def forward(images: tf.Tensor) -> list[tf.Tensor]:
            self.model(images, training=True)
            return [tf.identity(variable.value) for variable in self.statistics]

        strategy = self.model.distribute_strategy
        values = strategy.run(forward, (images,))
        return [strategy.reduce("MEAN", value, axis=None) for value in values]

    def on_epoch_end(self, epoch, logs=None):
        self.swap()


class NothingLearnedWarning(keras.callbacks.Callback):
    """Warns, once, if after PATIENCE epochs val_acc is still about majority_share, as by chance."""

    def __init__(self, majority_share: float):
        super().__init__()
        self.majority_share, self.best = majority_share, 0.0

    def on_epoch_end(self, epoch, logs=None):
        self.best = max(self.best, logs["val_acc"])
        last = min(PATIENCE, self.params["epochs"]) - 1
        # A tenth of the majority's share, or of the rest if that is less.
        margin = 0.1 * min(self.majority_share, 1 - self.majority_share)
        if epoch == last and self.best < self.majority_share + margin:
            warn(
                f"NOTE: nothing is learned yet: val_acc {self.best:.3f}, always the same answer "
                f"has {self.majority_share:.3f}. {self.hint()}"
            )

    def hint(self) -> str:
        """The likeliest reason."""
        for layer in self.model._flatten_layers():
            if not layer.trainable:
                return (
                    f"Layer {layer.name} has trainable=False: does it have weights that have "
                    "learned, or random ones?"
                )
            if isinstance(layer, keras.layers.BatchNormalization) and layer.momentum > 0.9:
                return (
                    f"The statistics of {layer.name} follow the weights slowly: its momentum is "
                    f"{layer.momentum}; 0.9 follows faster."
                )
        return (
            "Can a person tell the classes apart in pictures so small? Are they in the right "
            "folders?"
        )
