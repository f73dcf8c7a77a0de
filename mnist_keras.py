"""Teach a convolutional network to recognise pictures: MNIST's digits, or your own folders.

After the article "keras 入门：卷积神经网络实现 MNIST 手写数字识别".

  --mode train      learn from DATA_DIR/train/<class>/ (MNIST is fetched if it isn't there)
  --mode evaluate   loss and accuracy on all pictures in DATA_DIR/test/<class>/
  --mode predict    say what the pictures in DATA_DIR/tmp show
"""

import json
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from classifier.console import (
    InputError,
    command_line,
    one_line_errors,
    printable,
    quiet_stderr,
    warn,
)
from setting import Setting

if __name__ == "__main__":
    # Before the seconds that the imports below take: help and mistakes are answered at once.
    MODE, SETTING = command_line(__doc__)

import filelock
import numpy as np
from PIL import Image

import mnist_parser

with quiet_stderr(unless="TF_CPP_MIN_LOG_LEVEL"):
    import keras
    import tensorflow as tf
from keras import layers
from tensorflow.keras.preprocessing.image import DirectoryIterator, ImageDataGenerator

from classifier import charts
from classifier.batches import as_input, inference_batch, plain_batches, training_batches
from classifier.files import whole_file
from classifier.hardware import on_processor, speed_up, use_devices, use_precision, use_threads
from classifier.pictures import (
    DECODE_ERRORS,
    Pictures,
    class_folders,
    decode,
    known_grey,
    leave_out_broken,
    list_pictures,
    load_picture,
    load_pictures,
    reason,
    resized,
    small,
)
from classifier.recipe import (
    AVERAGE_POWER,
    LEAST_BATCH,
    LEAST_STEPS,
    SHORT_RUN,
    SHORT_RUN_POWER,
    STEPS_A_CALL,
    Average,
    compile_model,
    set_steps,
)
from classifier.report import UNSURE, write_predictions, write_report
from classifier.run_folder import (
    CHECKPOINT_NAME,
    Checkpoint,
    checkpoints,
    move_earlier_run,
    read_description,
    read_history,
    start_from,
    what_is_saved,
)
from classifier.weights import load_weights
from digits import drawn, handwriting

# Three 3×3 convolutions and two poolings leave nothing of a smaller picture.
LEAST_SIZE = 18
# The third convolution's output for 64×64 pictures. Beyond it the first dense layer would outgrow
# the rest of the network a hundredfold (177 million weights at 224×224), so it is pooled to this.
MOST_SIDE_FLATTENED = 12


def build_model(setting: Setting) -> keras.Sequential:
    """The article's network: pictures of setting.input_shape, float 0..1, to label_nums chances.

    Raises:
        InputError: the pictures are too small for it.
    """
    height, width = setting.img_height, setting.img_width
    if min(height, width) < LEAST_SIZE:
        raise InputError(
            f"img_width {width}, img_height {height}: the network needs {LEAST_SIZE} or more"
        )
    return keras.Sequential(
        [
            keras.Input(setting.input_shape),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(128, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(256, 3, activation="relu"),
            *pooled_above_64(height, width),
            layers.Flatten(),
            layers.Dropout(0.5, seed=setting.seed),
            layers.Dense(256, activation="relu"),
            layers.Dropout(0.5, seed=setting.seed + 1),
            layers.Dense(setting.label_nums, activation="softmax", dtype="float32"),
        ]
    )


def sizes_inside(size: int) -> tuple[int, int]:
    """What the network makes of a side of that many pixels: after the second and third convolution.

    The second is given without the row that the pooling behind it drops if the number is odd.
    """
    second = ((size - 2) // 2 - 2) // 2 * 2
    return second, second // 2 - 2


def pooled_above_64(height: int, width: int) -> list[layers.Layer]:
    side = max(sizes_inside(height)[1], sizes_inside(width)[1])
    pool = -(-side // MOST_SIDE_FLATTENED)
    pools = [min(pool, sizes_inside(size)[1]) for size in (height, width)]
    return [layers.MaxPooling2D(pools)] if pool > 1 else []


def data_generator(setting: Setting) -> tuple[DirectoryIterator, DirectoryIterator]:
    """The training pictures and the 20% held out for validation, as the article loads them.

    Batches are (float32 [n, height, width, 3] in 0..1, float32 one-hot [n, classes]). Classes
    without pictures are left out.

    Raises:
        InputError: there are no pictures to train on.
    """
    classes = class_folders(setting.train_dir)
    generator = ImageDataGenerator(rescale=1 / 255, validation_split=0.2)

    def flow(subset: str) -> DirectoryIterator:
        return generator.flow_from_directory(
            setting.train_dir,
            target_size=(setting.img_height, setting.img_width),
            batch_size=setting.batch_size,
            classes=classes,
            seed=setting.seed,
            subset=subset,
        )

    return flow("training"), flow("validation")


def visible(setting: Setting) -> Setting:
    """The setting of a network whose input lacks the rows and columns that the poolings drop.

    Of 28×28 pixels the article's network looks at the upper left 26×26: the second pooling drops
    the last row and column of 11×11. A network for 26×26 has the same weights and gives the same
    output, with a sixth of the arithmetic saved.
    """
    height, width = (
        2 * (sizes_inside(size)[0] + 2) + 2 for size in (setting.img_height, setting.img_width)
    )
    return setting.replace(img_height=height, img_width=width)


# Drawn digits among the training pictures, one to 32 of them: they have what MNIST's writers
# hardly ever wrote but others do, flagged and footed 1s, crossed 7s, angular 6s and 9s.
DRAWN_SHARE = 1 / 32


def drawable(pictures: Pictures) -> bool:
    """Whether drawn digits can be put among the pictures: grey, in memory, and of their size."""
    return known_grey(pictures) and pictures.pixels.shape[1:3] == (28, 28)


def with_drawn_digits(pictures: Pictures, setting: Setting) -> Pictures:
    """The pictures, which are of MNIST's kind, and DRAWN_SHARE as many drawn by the program."""
    count = int(DRAWN_SHARE * len(pictures.labels))
    images, labels = drawn.draw(count, setting.seed)
    return Pictures(
        np.append(pictures.paths, [""] * count),
        np.append(pictures.labels, labels.astype(np.int32)),
        np.append(pictures.pixels, images[..., None], axis=0),
    )


def describe(setting: Setting, classes: list[str], handwriting: bool, images: int) -> None:
    """Write model.json: what evaluate and predict would otherwise have to guess."""
    description = {
        "classes": classes,
        "img_width": setting.img_width,
        "img_height": setting.img_height,
        "handwriting": handwriting,
        "recipe": setting.recipe,
        "epochs": setting.epochs,
        "seed": setting.seed,
        "trained_on": data_source(setting),
        "images": images,
        "keras": keras.__version__,
    }
    with whole_file(Path(setting.checkpoint_path, "model.json")) as partial:
        # A folder's name may be bytes that are no text: they are escaped, which JSON can undo.
        content = json.dumps(description, indent=2, ensure_ascii=False)
        partial.write_text(content, encoding="utf-8", errors="backslashreplace")


def ensure_data(setting: Setting) -> None:
    """Have MNIST parsed if the training folder is missing.

    Raises:
        InputError: the missing folder is not MNIST's but the user's.
    """
    data_dir = Path(setting.data_dir)
    if (data_dir / mnist_parser.READY).exists():  # a parser was killed at its last step
        mnist_parser.parse(data_dir)
    if not Path(setting.train_dir).exists():
        own = Path(setting.train_dir) != data_dir / "train"
        if own or not (data_dir.resolve().name == "mnist_data" or (data_dir / "raw").is_dir()):
            raise InputError(
                f"{setting.train_dir}: no such folder; what is expected is one folder a class, as "
                f"in {setting.train_dir}/cat/1.png and {setting.train_dir}/dog/2.png (for MNIST: "
                f"python mnist_parser.py --data_dir {setting.data_dir})"
            )
        mnist_parser.parse(data_dir)


def data_source(setting: Setting) -> str:
    """What the pictures are: the name that mnist_parser gave them, or the folder of the user's."""
    if Path(setting.train_dir) == Path(setting.data_dir, "train"):
        source = mnist_parser.read_source(setting.data_dir)
        if source:
            return source["name"]
    return setting.train_dir


def remind_of_stand_in(source: str) -> None:
    if source == mnist_parser.DRAWN:
        warn(f"NOTE: the network knows {source}; python mnist_parser.py fetches the real ones")


def looks_like_mnist(paths: list[str], setting: Setting) -> bool:
    """Whether the pictures are what handwriting.to_mnist makes: MNIST's digits, not photographs.

    A hundred of them, evenly spread, are put through it; MNIST's come back as they were.
    """
    alike = 0
    for index in np.linspace(0, len(paths) - 1, 100).astype(int):
        try:
            picture = decode(paths[index], setting)
            clean = handwriting.to_mnist(Image.fromarray(picture), *picture.shape[:2])
        except (handwriting.NoInkError, *DECODE_ERRORS):
            continue
        # MNIST's differ by less than one grey level of 255 on average; clothes and cats by dozens.
        alike += np.abs(picture - clean[..., None].astype(float)).mean() < 4
    return bool(alike >= 90)


# Who always answers the larger of two such classes is right ten times in eleven.
UNEVEN = 10


def train(setting: Setting) -> keras.callbacks.History:
    """Train the network on setting.train_dir; the best checkpoint is left in checkpoint_path.

    Returns:
        Keras's history of the epochs that were run.

    Raises:
        InputError: there is nothing to train on, or another run is at work in checkpoint_path.
    """
    start = time.monotonic()
    ensure_data(setting)
    remind_of_stand_in(data_source(setting))
    use_precision(setting)
    keras.utils.set_random_seed(setting.seed)
    training, validation = data_generator(setting)
    check_balance(setting, training, validation)
    classes = list(training.class_indices)
    if len(classes) != setting.label_nums:
        print(f"label_nums is {len(classes)}: as many classes as there are in {setting.train_dir}")
        setting = setting.replace(label_nums=len(classes))
    folder, reports = Path(setting.checkpoint_path), Path(setting.data_dir, "report")
    folder.mkdir(parents=True, exist_ok=True)
    reports.mkdir(parents=True, exist_ok=True)
    try:
        with (
            filelock.FileLock(folder / ".train.lock", timeout=0),
            filelock.FileLock(reports / ".train.lock", timeout=0),
        ):
            for path in folder.glob(".partial-*"):  # a training that was killed left them
                path.unlink()
            history = fit(setting, training, validation)
    except filelock.Timeout as error:
        place = Path(error.lock_file).parent
        raise InputError(f"{place}: another training is at work here") from None
    except OSError as error:
        raise InputError(
            f"{error.filename or folder}: {error.strerror or error}; {what_is_saved(folder)}"
        ) from None
    except (KeyboardInterrupt, SystemExit):
        warn(f"interrupted; {what_is_saved(folder)}")
        raise
    rows = read_history(setting, setting.epochs)
    if rows:  # all epochs may have been done before, and their history be damaged
        with whole_file(Path(setting.data_dir, "report", "training_curves.png")) as partial:
            charts.training_curves(rows, partial)
    if not checkpoints(folder):
        raise InputError(f"{folder}: all epochs are done, but their checkpoints are gone")
    best = checkpoints(folder)[0]
    epoch, val_acc = CHECKPOINT_NAME.fullmatch(best.name).groups()
    print(
        f"best epoch {epoch}, val_acc {val_acc}: {printable(str(best))}\n"
        f"trained in {time.monotonic() - start:.0f} s; what it is worth on the test pictures:\n"
        f"  python mnist_keras.py --mode evaluate{same_folder(setting)}"
    )
    return history


def check_balance(
    setting: Setting, training: DirectoryIterator, validation: DirectoryIterator
) -> None:
    """Say so if some classes have far fewer pictures than others.

    Raises:
        InputError: there are too few for any to be held out for validation.
    """
    if not validation.samples:
        raise InputError(
            f"{setting.train_dir}: too few pictures; a fifth of each class is held out for "
            "validation, so at least one class must have five"
        )
    names = list(training.class_indices)
    counts = np.bincount([*training.classes, *validation.classes], minlength=len(names))
    few, many = counts.argmin(), counts.argmax()
    if counts[many] >= UNEVEN * counts[few]:
        warn(
            f"{setting.train_dir}: very uneven, {counts[few]} pictures of {names[few]}, "
            f"{counts[many]} of {names[many]}; expect the small classes to be read badly"
        )


def same_folder(setting: Setting) -> str:
    """The flag with which the next command finds this run."""
    different = setting.data_dir != Setting.data_dir
    return f" --data_dir {printable(setting.data_dir)}" if different else ""


def fit(
    setting: Setting, training: DirectoryIterator, validation: DirectoryIterator
) -> keras.callbacks.History:
    """Build the network, start it from where the setting says, and run the epochs."""
    strategy = use_devices()
    tuned = setting.recipe == "tuned"
    classes = list(training.class_indices)
    digits = looks_like_mnist(training.filepaths, setting)
    if tuned:
        pictures, held_out = load_pictures(training, setting), load_pictures(validation, setting)
        images = len(pictures.labels)
        if digits and classes == list("0123456789") and drawable(pictures):
            pictures = with_drawn_digits(pictures, setting)
        batch_size = min(setting.batch_size, len(pictures.labels))
        if not setting.is_given("batch_size"):
            batch_size = min(batch_size, max(LEAST_BATCH, len(pictures.labels) // LEAST_STEPS))
        steps = len(pictures.labels) // batch_size  # those left over are others in every epoch
        if steps >= LEAST_STEPS:
            steps -= steps % STEPS_A_CALL
    else:
        if data_source(setting) == setting.train_dir:  # the parser's own pictures are whole
            leave_out_broken(training, setting)
            leave_out_broken(validation, setting)
        images, steps = training.samples, len(training)
    with strategy.scope():
        model = build_model(visible(setting) if tuned else setting)
        compile_model(model, setting, steps)
        parts = 1
        if tuned and on_processor():
            parts = speed_up(model, grey=known_grey(pictures) and known_grey(held_out))
        model.optimizer.build(model.trainable_variables)
        power = SHORT_RUN_POWER if setting.epochs <= SHORT_RUN else AVERAGE_POWER
        average = [Average(model, power)] if tuned else []
        done = start_from(model, setting)
        set_steps(model, done * steps, parts)
    if not setting.is_restore or setting.restore_model:
        move_earlier_run(setting)
    describe(setting, classes, digits, images)
    if tuned:
        size = model.input_shape[1:3]
        training = training_batches(pictures, setting, batch_size, steps, size, done, digits)
        validation = plain_batches(held_out, setting, size)
    return model.fit(
        training,
        validation_data=validation,
        steps_per_epoch=steps,
        initial_epoch=done,
        epochs=setting.epochs,
        callbacks=[Checkpoint(setting, read_history(setting, done)), *average],
        shuffle=not tuned,
        verbose=1 if sys.stdout.isatty() else 2,
    )


def evaluate(setting: Setting) -> tuple[float, float]:
    """Loss and accuracy on every picture in test_dir, printed and returned; pictures in report/.

    Without any weights a network is trained first.

    Raises:
        InputError: no picture to measure on, or weights that can't be used.
    """
    if not weights_folder(setting):
        print(f"no weights in {setting.checkpoint_path}: training first")
        train(setting)
    model, setting, description, weights = trained_network(setting)
    if not Path(setting.test_dir).is_dir():
        ensure_data(setting)
    remind_of_stand_in(data_source(setting))
    pictures = load_pictures(test_iterator(setting, description["classes"]), setting)
    chances = model.predict(
        plain_batches(pictures, setting, (setting.img_height, setting.img_width)), verbose=0
    )
    right = chances[np.arange(len(chances)), pictures.labels]
    loss = float(-np.log(np.maximum(right, 1e-7)).mean())  # Keras's own bound on the logarithm
    acc = float((chances.argmax(axis=1) == pictures.labels).mean())
    print(f"weights: {printable(str(weights))}")
    print(f"test_loss:{loss:.5f}, test_acc:{acc:.5f} ({len(chances)} images)")
    write_report(setting, description["classes"], pictures, chances)
    return loss, acc


def test_iterator(setting: Setting, classes: list[str]) -> DirectoryIterator:
    """The test pictures of these classes; without a test folder, those held out for validation."""
    if not Path(setting.test_dir).is_dir():
        print(f"{setting.test_dir}: no such folder; measuring on the pictures held out in training")
        return data_generator(setting)[1]
    here = set(class_folders(setting.test_dir))
    for what, names in (("not taught", here - set(classes)), ("not here", set(classes) - here)):
        if names:
            warn(f"{setting.test_dir}: classes that are {what}: {', '.join(sorted(names))}")
    return ImageDataGenerator().flow_from_directory(
        setting.test_dir,
        target_size=(setting.img_height, setting.img_width),
        classes=classes,
        shuffle=False,
    )


def weights_folder(setting: Setting) -> Path | None:
    """Where the weights are: the run's own, else those that ship with the program."""
    if setting.restore_model:
        return Path(setting.restore_model).parent
    for folder in (Path(setting.checkpoint_path), Path(setting.data_dir, "shipped")):
        if checkpoints(folder):
            return folder
    return None


def trained_network(setting: Setting) -> tuple[keras.Sequential, Setting, dict[str, Any], Path]:
    """The network that model.json describes, with restore_model's or the best checkpoint's weights.

    Returns:
        The network; the setting with its image size and number of classes; what model.json says;
        the weights file.

    Raises:
        InputError: there are none, none can be used, or the setting contradicts model.json.
    """
    folder = weights_folder(setting)
    if folder is None:
        raise InputError(f"{setting.checkpoint_path}: no weights here; --mode train makes them")
    description = read_description(folder / "model.json")
    trained = {name: description[name] for name in ("img_width", "img_height")}
    trained["label_nums"] = len(description["classes"])
    for name, value in trained.items():
        if setting.is_given(name) and getattr(setting, name) != value:
            raise InputError(
                f"--{name} {getattr(setting, name)}, but the network in {folder} has {value}"
            )
    setting = setting.replace(**trained)
    use_precision(setting)
    model = build_model(setting)
    paths = [Path(setting.restore_model)] if setting.restore_model else checkpoints(folder)
    for path in paths:
        try:
            load_weights(model, path)
            return model, setting, description, path
        except InputError as error:
            warn(f"{error}; passed over")
    raise InputError(f"{folder}: none of the weights here can be used; --mode train makes new ones")


class Prediction(NamedTuple):
    """What the network says of a picture."""

    file: str
    label: str
    confidence: float


def predict(setting: Setting) -> list[Prediction]:
    """Say what each picture in imp_dir shows; report/ gets a table and sheets of the answers.

    Pictures that can't be read are named on stderr and are not in the list that is returned.

    Raises:
        InputError: there is no picture, or no network.
    """
    files = list_pictures(setting.imp_dir)
    model, setting, description, _ = trained_network(setting)
    remind_of_stand_in(description["trained_on"])
    rows, drawn = [], []
    batch = inference_batch(setting)
    for start in range(0, len(files), batch):
        answered = predict_batch(model, files[start : start + batch], setting, description)
        rows += answered
        # The sheets show the least sure; the pictures of others need not stay in memory.
        drawn = sorted(drawn + answered, key=lambda row: row["confidence"])
        for row in drawn[charts.MOST_DRAWN :]:
            row["given"] = row["seen"] = None
        del drawn[charts.MOST_DRAWN :]
    for row in rows:
        print(f"{printable(row['file'])}\n预测结果为：{printable(row['label'])}")
        if row["confidence"] < UNSURE:
            warn(
                f"{row['file']}: unsure, {row['label']} ({row['confidence']:.0%}) or "
                f"{row['second_guess']} ({row['second_confidence']:.0%})"
            )
    if rows:
        write_predictions(setting, rows)
    return [Prediction(row["file"], row["label"], row["confidence"]) for row in rows]


def see(file: str, setting: Setting, clean: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """The picture, small, and as the network sees it, cleaned up if it is to be.

    Both uint8 [height, width, 3]. None, and a line on stderr, if it can't be read.
    """
    try:
        if not clean:
            picture = load_picture(file)
            return small(picture), resized(picture, setting)
        picture = handwriting.open_picture(file)
        digit = handwriting.to_mnist(picture, setting.img_height, setting.img_width)
        return small(picture), np.repeat(digit[..., None], 3, axis=-1)
    except DECODE_ERRORS as error:
        warn(f"{file}: not predicted, {reason(error)}")
        return None


def predict_batch(
    model: keras.Sequential, files: list[str], setting: Setting, description: dict[str, Any]
) -> list[dict[str, Any]]:
    """A row for each picture that can be read: what predictions.csv says, "given" and "seen"."""
    clean = description["handwriting"] if setting.handwriting is None else setting.handwriting
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pictures = list(pool.map(lambda file: see(file, setting, clean), files))
    read = [(file, *both) for file, both in zip(files, pictures, strict=True) if both is not None]
    if not read:
        return []
    images = tf.cast(np.stack([seen for _, _, seen in read]), tf.float32) / 255
    rows = []
    answers = model.predict_on_batch(as_input(images))
    for (file, given, seen), chances in zip(read, answers, strict=True):
        first, second = np.argsort(chances)[:-3:-1]
        rows.append(
            {
                "file": file,
                "label": description["classes"][first],
                "confidence": float(chances[first]),
                "second_guess": description["classes"][second],
                "second_confidence": float(chances[second]),
                "given": given,
                "seen": small(Image.fromarray(seen)),
            }
        )
    return rows


def main() -> None:
    with one_line_errors():
        try:
            if MODE == "train" and SETTING.recipe == "tuned" and on_processor():
                use_threads()
            run(MODE, SETTING)
        except tf.errors.OpError as error:
            # Among TensorFlow's many lines one says what happened, such as a picture that is gone.
            said = re.search(r"\w+(?:Error|Exception): (.*)", error.message)
            raise InputError(said[1] if said else error.message.split("\n")[0]) from None


def run(mode: str, setting: Setting) -> None:
    if mode == "train":
        train(setting)
    elif mode == "evaluate":
        evaluate(setting)
    elif len(predict(setting)) < len(list_pictures(setting.imp_dir)):
        sys.exit(1)


if __name__ == "__main__":
    main()
