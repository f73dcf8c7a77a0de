"""What --mode train, evaluate and predict promise, on a few thousand drawn digits."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.keras.preprocessing.image import ImageDataGenerator

import mnist_keras
from classifier import batches, recipe, report, run_folder, weights
from classifier.batches import augment, plain_batches, training_batches, vary_stroke
from classifier.console import InputError
from classifier.pictures import decode, load_pictures
from digits.drawn import draw
from mnist_keras import build_model, evaluate, predict, train
from setting import Setting

SCRIPT = Path(mnist_keras.__file__)


def write_digits(folder: Path, count: int, seed: int) -> None:
    images, labels = draw(count, seed)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        save(folder / str(label), f"{index}.png", image)


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A folder with train/ and test/ of drawn digits."""
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder / "train", 1500, seed=1)
    write_digits(folder / "test", 200, seed=2)
    return folder


@pytest.fixture
def data_dir(digits, tmp_path, link):
    """A data_dir of its own with the drawn digits in it."""
    for part in ("train", "test"):
        link(tmp_path / part, digits / part)
    return tmp_path


@pytest.fixture(scope="session")
def trained(digits, tmp_path_factory, link):
    """A data_dir after two epochs of the default recipe."""
    folder = tmp_path_factory.mktemp("trained")
    for part in ("train", "test"):
        link(folder / part, digits / part)
    train(Setting(data_dir=str(folder), epochs=2, precision="float32", batch_size=32))
    return folder


def copy_of(trained, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder, symlinks=True)
    return folder


def run(*arguments):
    """The script as a user runs it."""
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", env=environment
    )


def save(folder, name, array, **options):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(folder / name, **options)


# The network


def test_the_network_is_the_article_s():
    model = build_model(Setting())
    names = [type(layer).__name__ for layer in model.layers]
    assert names == [
        *("Conv2D", "MaxPooling2D", "Conv2D", "MaxPooling2D", "Conv2D"),
        *("Flatten", "Dropout", "Dense", "Dropout", "Dense"),
    ]
    assert model.count_params() == 963_466
    assert model.input_shape == (None, 28, 28, 3) and model.output_shape == (None, 10)


def test_a_picture_too_small_for_the_network_is_refused_with_the_least_size():
    assert build_model(Setting(img_width=18, img_height=18)).count_params() > 0
    with pytest.raises(InputError, match="img_width 17.*18 or more"):
        build_model(Setting(img_width=17))


def test_height_comes_before_width():
    assert build_model(Setting(img_width=40, img_height=24)).input_shape == (None, 24, 40, 3)


def test_large_pictures_do_not_make_a_network_of_hundreds_of_millions_of_weights():
    assert build_model(Setting(img_width=224, img_height=224)).count_params() < 10_000_000
    names = [
        type(layer).__name__ for layer in build_model(Setting(img_width=64, img_height=64)).layers
    ]
    assert names.count("MaxPooling2D") == 2


@pytest.mark.parametrize("size", [(28, 28), (24, 41), (33, 70), (130, 19)])
def test_training_leaves_out_only_pixels_that_the_network_never_looks_at(size):
    setting = Setting(img_height=size[0], img_width=size[1])
    whole, part = build_model(setting), build_model(mnist_keras.visible(setting))
    part.set_weights(whole.get_weights())
    images = np.random.default_rng(0).random((2, *size, 3), np.float32)
    height, width = part.input_shape[1:3]
    np.testing.assert_allclose(whole(images), part(images[:, :height, :width]), rtol=1e-4)


# The pictures


def test_a_fifth_of_each_class_is_held_out_for_validation(digits):
    training, validation = mnist_keras.data_generator(Setting(data_dir=str(digits)))
    assert (training.samples, validation.samples) == (1200, 300)
    assert np.bincount(validation.classes).tolist() == [30] * 10
    images, labels = next(training)
    assert images.shape == (128, 28, 28, 3) and images.max() <= 1 and labels.shape == (128, 10)


def picture_files(folder):
    """Pictures of every kind that Keras reads, of many sizes."""
    noise = np.random.default_rng(3)
    colour = noise.integers(0, 256, (40, 31, 3), np.uint8)
    save(folder / "a", "colour.png", colour)
    save(folder / "a", "photo.JPG", colour[:25], quality=80)
    save(folder / "a" / "deeper", "colour.bmp", colour[:, :7])
    save(folder / "a", "alpha.png", noise.integers(0, 256, (9, 50, 4), np.uint8))
    save(folder / "b", "grey.tif", colour[..., 0])
    save(folder / "b", "deep.png", noise.integers(0, 65536, (28, 24), np.uint16))
    Image.fromarray(colour).quantize(16).save(folder / "b" / "palette.png")
    save(folder / "b", "exact.ppm", noise.integers(0, 256, (24, 28, 3), np.uint8))


def test_the_pixels_are_those_that_the_article_s_generator_loads(tmp_path):
    picture_files(tmp_path / "train")
    setting = Setting(train_dir=str(tmp_path / "train"), img_width=28, img_height=24, label_nums=2)
    iterator = ImageDataGenerator().flow_from_directory(
        setting.train_dir, target_size=(24, 28), shuffle=False, batch_size=8
    )
    images, labels = next(iterator)
    pictures = load_pictures(iterator, setting)
    assert len(images) == 8
    np.testing.assert_array_equal(pictures.pixels, images)
    np.testing.assert_array_equal(pictures.labels, labels.argmax(axis=1))
    batch, _ = next(iter(plain_batches(pictures, setting, (24, 28))))
    np.testing.assert_allclose(batch, images / 255, rtol=1e-6)


def test_grey_pictures_take_a_third_of_the_memory_and_stay_exact(digits):
    setting = Setting(data_dir=str(digits))
    iterator = mnist_keras.data_generator(setting)[1]
    pictures = load_pictures(iterator, setting)
    assert pictures.pixels.shape == (300, 28, 28, 1)
    with Image.open(pictures.paths[7]) as image:
        np.testing.assert_array_equal(pictures.pixels[7, ..., 0], np.asarray(image))


def test_pictures_beyond_the_memory_limit_are_read_from_disk_and_give_the_same_batches(
    digits, capsys
):
    setting = Setting(data_dir=str(digits), epochs=1)
    cached = load_pictures(mnist_keras.data_generator(setting)[0], setting)
    setting.cache_limit = 1
    streamed = load_pictures(mnist_keras.data_generator(setting)[0], setting)
    assert streamed.pixels is None and "read from disk in every epoch" in capsys.readouterr().out
    for one, other in zip(
        training_batches(cached, setting, 128, 9, (26, 26)),
        training_batches(streamed, setting, 128, 9, (26, 26)),
        strict=True,
    ):
        np.testing.assert_allclose(one[0], other[0], atol=1e-6)
        np.testing.assert_array_equal(one[1], other[1])


def test_a_broken_picture_among_the_training_files_is_named_and_left_out(tmp_path, capsys):
    write_digits(tmp_path / "train", 100, seed=1)
    broken = tmp_path / "train" / "3" / "broken.png"
    broken.write_bytes(b"no picture")
    cut = tmp_path / "train" / "4" / "cut.png"
    cut.write_bytes(next((tmp_path / "train" / "4").glob("*.png")).read_bytes()[:90])
    setting = Setting(data_dir=str(tmp_path))
    iterator = ImageDataGenerator().flow_from_directory(setting.train_dir)
    pictures = load_pictures(iterator, setting)
    assert len(pictures.paths) == len(pictures.labels) == len(pictures.pixels) == 100
    assert str(broken) not in pictures.paths and str(cut) not in pictures.paths
    errors = capsys.readouterr().err
    assert f"{broken}: left out" in errors and f"{cut}: left out" in errors


def test_every_epoch_shows_every_picture_once_in_another_order(digits):
    setting = Setting(data_dir=str(digits), epochs=2)
    pictures = load_pictures(mnist_keras.data_generator(setting)[1], setting)
    pictures = pictures._replace(labels=np.arange(300, dtype=np.int32))
    setting.label_nums = 300
    batches = training_batches(pictures, setting, 100, 3, (26, 26))
    order = [int(label) for _, labels in batches for label in np.argmax(labels, axis=1)]
    assert sorted(order[:300]) == sorted(order[300:]) == list(range(300))
    assert order[:300] != order[300:] != list(range(300))


def test_augmented_digits_are_bent_but_never_mirrored():
    ramp = tf.tile(tf.linspace(0.0, 1.0, 28)[None, None, :, None], [50, 28, 1, 1])
    size, seed = (28, 28), tf.constant([0, 1], tf.int64)
    plain = augment(ramp, seed, size, flip=False)
    assert not np.allclose(plain, ramp, atol=0.05)
    rising = np.sign(np.mean(plain[:, :, 20] - plain[:, :, 8], axis=(1, 2)))
    assert (rising == 1).all()
    flipped = augment(ramp, seed, size, flip=True)
    rising = np.sign(np.mean(flipped[:, :, 20] - flipped[:, :, 8], axis=(1, 2)))
    assert (rising == 1).sum() == (rising == -1).sum() == 25


def test_strokes_become_thicker_and_thinner_but_stay_strokes():
    digit = np.zeros((200, 28, 28, 1), np.float32)
    digit[:, 4:24, 12:16] = 1
    ink = np.sum(vary_stroke(digit, tf.constant([0, 1], tf.int64)), axis=(1, 2, 3))
    assert ink.min() < 65 < 80 < 95 < ink.max()
    blank = np.zeros((2, 28, 28, 1), np.float32)
    assert not np.any(vary_stroke(blank, tf.constant([0, 1], tf.int64)))


def test_small_sets_are_trained_in_small_batches_unless_the_user_says_otherwise(
    data_dir, monkeypatch
):
    steps = []
    monkeypatch.setattr(
        keras.Sequential,
        "fit",
        lambda model, batches, **given: steps.append(given["steps_per_epoch"]),
    )
    setting = Setting(data_dir=str(data_dir), checkpoint_path=str(data_dir))
    iterators = mnist_keras.data_generator(setting)
    mnist_keras.fit(setting, *iterators)
    mnist_keras.fit(setting.replace(label_nums=10), *iterators)
    mnist_keras.fit(setting.replace(batch_size=100), *iterators)
    # 1200 digits and 37 drawn ones: 65 batches of 19, the last for no whole call; 12 of 100
    assert steps == [64, 64, 12]


# train


def test_train_learns_and_leaves_the_best_checkpoint_a_description_and_curves(trained):
    weights = list((trained / "model_weight").glob("weights-improvement-*.weights.h5"))
    assert weights
    for path in weights:
        assert re.fullmatch(r"weights-improvement-0[12]-\d\.\d{5}\.weights\.h5", path.name)
    description = json.loads((trained / "model_weight" / "model.json").read_text("utf-8"))
    assert description["classes"] == list("0123456789")
    assert (description["img_width"], description["img_height"]) == (28, 28)
    assert description["images"] == 1200 and description["trained_on"] == str(trained / "train")
    assert description["handwriting"] is True
    with open(trained / "report" / "history.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["val_acc"]) > 0.5
    with Image.open(trained / "report" / "training_curves.png") as image:
        assert image.width > 300


def test_the_article_s_recipe_is_the_article_s(data_dir, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        keras.Sequential,
        "fit",
        lambda model, batches, **given: seen.update(given, m=model, b=batches),
    )
    setting = Setting(data_dir=str(data_dir), recipe="article", checkpoint_path=str(data_dir))
    mnist_keras.fit(setting, *mnist_keras.data_generator(setting))
    assert type(seen["m"].optimizer).__name__ == "RMSprop"
    assert seen["m"].input_shape == (None, 28, 28, 3)
    assert keras.mixed_precision.global_policy().name == "float32"
    assert seen["b"].batch_size == 32
    assert type(seen["b"]) is type(seen["validation_data"]) is mnist_keras.DirectoryIterator


def test_a_new_training_moves_what_the_last_one_left_and_keeps_it(trained, tmp_path):
    folder = copy_of(trained, tmp_path)
    before = {path.name: path.read_bytes() for path in (folder / "model_weight").glob("[!.]*")}
    (folder / "model_weight" / "notes.txt").write_text("the user's own")
    run_folder.move_earlier_run(Setting(data_dir=str(folder)))
    assert (folder / "model_weight" / "notes.txt").exists()
    (previous,) = (folder / "model_weight" / "previous").iterdir()
    for name, content in before.items():
        assert (previous / name).read_bytes() == content
        assert not (folder / "model_weight" / name).exists()
    assert (previous / "history.csv").exists()


def test_a_run_that_was_interrupted_ends_with_the_weights_of_one_that_was_not(data_dir, digits):
    def weights_after(folder, **given):
        setting = Setting(
            data_dir=str(folder),
            epochs=3,
            precision="float32",
            train_dir=str(digits / "train"),
            **given,
        )
        train(setting)
        with h5py.File(folder / "model_weight" / run_folder.LAST_EPOCH) as file:
            return file.attrs["sha256"]

    class Interrupt(run_folder.Checkpoint):
        def on_train_batch_begin(self, batch, logs=None):
            if len(self.rows) == 1 and batch >= 3:  # several steps are one call
                raise KeyboardInterrupt

    whole = weights_after(data_dir / "one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mnist_keras, "Checkpoint", Interrupt)
        with pytest.raises(KeyboardInterrupt):
            weights_after(data_dir / "two")
    assert weights_after(data_dir / "two", is_restore=True) == whole
    with open(data_dir / "two" / "report" / "history.csv", encoding="utf-8") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]


def test_later_weights_count_more_in_the_average_which_takes_their_place_in_validation():
    model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1, use_bias=False)])
    model.compile("adamw")
    model.optimizer.build(model.trainable_variables)
    average = recipe.Average(model, power=3)
    average.set_model(model)
    for step in range(1, 101):
        model.set_weights([np.full((1, 1), step)])
        average.on_train_batch_end(step)
    average.on_test_begin()
    assert 79 < model.get_weights()[0] < 81  # 4 / 5 of the way, if steps count as their cube
    average.on_epoch_end(0)
    assert model.get_weights()[0] == 100


def test_the_checkpoint_has_the_val_acc_of_its_name(data_dir):
    setting = Setting(data_dir=str(data_dir), epochs=2, precision="float32")
    train(setting)
    (data_dir / "test").unlink()  # so that evaluate measures on what was held out
    best = run_folder.checkpoints(data_dir / "model_weight")[0]
    assert f"{evaluate(setting)[1]:.5f}" == run_folder.CHECKPOINT_NAME.fullmatch(best.name)[2]


def test_a_short_run_can_be_continued_as_a_longer_one(data_dir, monkeypatch, capsys):
    monkeypatch.setattr(recipe, "SHORT_RUN", 1)
    setting = Setting(data_dir=str(data_dir), epochs=1, batch_size=100)
    train(setting)
    train(setting.replace(epochs=2, is_restore=True))
    assert "going on from the best checkpoint" not in capsys.readouterr().err
    with open(data_dir / "report" / "history.csv", encoding="utf-8") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]


def test_restore_model_starts_from_those_weights(trained, tmp_path):
    folder = copy_of(trained, tmp_path)
    best = run_folder.checkpoints(folder / "model_weight")[0]
    setting = Setting(data_dir=str(folder), restore_model=str(best), initial_epoch=2, epochs=3)
    history = train(setting.replace(batch_size=32))
    assert history.epoch == [2]
    assert history.history["acc"][0] > 0.6


@pytest.mark.parametrize("shared", ["model_weight", "report"])
def test_a_second_training_in_the_same_place_stops(trained, tmp_path, shared):
    folder = copy_of(trained, tmp_path)
    with (
        mnist_keras.filelock.FileLock(folder / shared / ".train.lock"),
        pytest.raises(InputError, match=f"{shared}: another training"),
    ):
        train(Setting(data_dir=str(folder)))


def test_a_missing_folder_of_the_user_s_is_never_filled_with_mnist(tmp_path):
    with pytest.raises(InputError, match="flowers.train: no such folder.*one folder a class"):
        train(Setting(data_dir=str(tmp_path / "flowers")))
    assert not (tmp_path / "flowers").exists()


def test_empty_classes_are_named_and_left_out(tmp_path, capsys):
    write_digits(tmp_path / "train", 100, seed=1)
    (tmp_path / "train" / "ten").mkdir()
    (tmp_path / "train" / ".hidden").mkdir()
    (tmp_path / "train" / "ten" / "notes.txt").write_text("no picture")
    training, _ = mnist_keras.data_generator(Setting(data_dir=str(tmp_path)))
    assert list(training.class_indices) == list("0123456789")
    assert "ten" in capsys.readouterr().err


def test_too_few_pictures_to_validate_on_are_refused(tmp_path):
    write_digits(tmp_path / "train", 20, seed=1)
    with pytest.raises(InputError, match="at least one class must have five"):
        train(Setting(data_dir=str(tmp_path)))


def test_very_uneven_classes_are_named(digits, tmp_path, capsys):
    shutil.copytree(digits / "train", tmp_path / "train")
    for path in list((tmp_path / "train" / "3").iterdir())[10:]:
        path.unlink()
    setting = Setting(data_dir=str(tmp_path))
    mnist_keras.check_balance(setting, *mnist_keras.data_generator(setting))
    assert "very uneven, 10 pictures of 3, 150 of 0" in capsys.readouterr().err


def test_classes_that_differ_between_training_and_test_are_named(trained, tmp_path, capsys):
    write_digits(tmp_path / "test", 100, seed=3)
    (tmp_path / "test" / "9").rename(tmp_path / "test" / "ten")
    evaluate(Setting(data_dir=str(trained), test_dir=str(tmp_path / "test")))
    captured = capsys.readouterr()
    assert "not taught: ten" in captured.err and "not here: 9" in captured.err
    assert "(90 images)" in captured.out


def test_one_class_is_not_enough(tmp_path):
    write_digits(tmp_path / "train", 1, seed=1)
    with pytest.raises(InputError, match="1 classes; two are needed"):
        mnist_keras.data_generator(Setting(data_dir=str(tmp_path)))


def test_two_devices_train_as_one(digits, tmp_path):
    program = f"""
import tensorflow as tf
if {{devices}} == 2:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import mnist_keras
setting = mnist_keras.Setting(data_dir={{folder!r}}, train_dir={str(digits / "train")!r},
                              epochs=2, batch_size=32, precision="float32")
print("loss", mnist_keras.train(setting).history["loss"])
"""
    accuracies = []
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        done = subprocess.run(
            [sys.executable, "-c", program.format(devices=devices, folder=str(folder))],
            capture_output=True,
            text=True,
            cwd=SCRIPT.parent,
        )
        assert done.returncode == 0, done.stderr
        first, second = map(float, re.search(r"loss \[(\S+), (\S+)\]", done.stdout).groups())
        assert second < first
        best = run_folder.checkpoints(folder / "model_weight")[0]
        assert weights.load_weights(build_model(Setting()), best) in (1, 2)
        accuracies.append(float(run_folder.CHECKPOINT_NAME.fullmatch(best.name)[2]))
    assert abs(accuracies[0] - accuracies[1]) < 0.1


# evaluate


def test_evaluate_measures_all_test_pictures_with_the_best_weights(trained, capsys):
    loss, acc = evaluate(Setting(data_dir=str(trained)))
    printed = capsys.readouterr().out
    assert f"test_loss:{loss:.5f}, test_acc:{acc:.5f} (200 images)" in printed
    assert str(run_folder.checkpoints(trained / "model_weight")[0]) in printed
    with open(trained / "report" / "classes.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == [*"0123456789", "all"]
    assert float(rows[-1]["accuracy"]) == pytest.approx(acc)
    for name in ("confusion.png", "mistakes.png"):
        with Image.open(trained / "report" / name) as image:
            assert image.width > 200


def test_loss_and_accuracy_are_keras_s_own(trained):
    setting = Setting(data_dir=str(trained), precision="float32")
    loss, acc = evaluate(setting)
    model = build_model(setting)
    weights.load_weights(model, run_folder.checkpoints(trained / "model_weight")[0])
    model.compile(loss="categorical_crossentropy", metrics=["acc"])
    batches = ImageDataGenerator(rescale=1 / 255).flow_from_directory(
        setting.test_dir, target_size=(28, 28)
    )
    assert model.evaluate(batches, verbose=0) == pytest.approx([loss, acc], rel=1e-4)


def test_the_best_checkpoint_has_the_highest_val_acc_and_of_equals_the_later_epoch(tmp_path):
    for name in ("02-0.99000", "10-0.98900", "07-0.99000", "03-0.97000"):
        (tmp_path / f"weights-improvement-{name}.weights.h5").touch()
    (tmp_path / run_folder.LAST_EPOCH).touch()
    names = [path.name[20:30] for path in run_folder.checkpoints(tmp_path)]
    assert names == ["07-0.99000", "02-0.99000", "10-0.98900", "03-0.97000"]


def test_without_weights_evaluate_says_so_and_trains_first(data_dir, capsys):
    _, acc = evaluate(Setting(data_dir=str(data_dir), epochs=1, batch_size=64))
    assert "no weights" in capsys.readouterr().out and acc > 0.1


def test_without_a_test_folder_evaluate_measures_on_the_validation_part(trained, tmp_path, capsys):
    folder = copy_of(trained, tmp_path)
    (folder / "test").unlink()
    evaluate(Setting(data_dir=str(folder)))
    printed = capsys.readouterr().out
    assert "held out" in printed and "(300 images)" in printed


@pytest.mark.parametrize("damage", ["empty", "truncated", "foreign", "flipped"])
def test_damaged_weights_are_named_and_the_next_best_are_taken(trained, tmp_path, damage, capsys):
    folder = copy_of(trained, tmp_path)
    best = run_folder.checkpoints(folder / "model_weight")[0]
    content = best.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0x10
    damaged = {
        "empty": b"",
        "truncated": content[:-5000],
        "foreign": b"x" * 999,
        "flipped": flipped,
    }
    bad = best.with_name("weights-improvement-99-1.00000.weights.h5")
    bad.write_bytes(damaged[damage])
    evaluate(Setting(data_dir=str(folder)))
    captured = capsys.readouterr()
    assert f"{bad}: damaged" in captured.err and f"weights: {best}" in captured.out
    best.unlink()
    for path in run_folder.checkpoints(folder / "model_weight")[1:]:
        path.unlink()
    with pytest.raises(InputError, match="none of the weights here can be used"):
        evaluate(Setting(data_dir=str(folder)))


def test_weights_saved_in_one_precision_load_in_another(trained):
    for precision in ("float32", "mixed_bfloat16"):
        _, acc = evaluate(Setting(data_dir=str(trained), precision=precision))
        assert acc > 0.5
    path = run_folder.checkpoints(trained / "model_weight")[0]
    with h5py.File(path) as file:
        assert file["layers/conv2d/vars/0"].dtype == np.float32
    assert path.stat().st_size < 4e6


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"classes": 3}', '{"classes": ["a"], "img_width": -1}', "\xff"]
)
def test_a_damaged_model_json_is_one_clear_error(trained, tmp_path, content):
    folder = copy_of(trained, tmp_path)
    (folder / "model_weight" / "model.json").write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match="model.json: missing or damaged"):
        evaluate(Setting(data_dir=str(folder)))


def test_a_setting_that_contradicts_the_network_is_an_error_that_names_both(trained):
    with pytest.raises(InputError, match="--img_width 32, but the network in .* has 28"):
        evaluate(Setting(data_dir=str(trained), img_width=32))


# predict


def test_predict_prints_the_article_s_two_lines_in_natural_order(trained, tmp_path, capsys):
    images, labels = draw(12, seed=5)
    for index, image in enumerate(images):
        save(tmp_path / "tmp", f"{index}.png", image)
    answers = predict(Setting(data_dir=str(trained), imp_dir=str(tmp_path / "tmp")))
    files = [str(tmp_path / "tmp" / f"{index}.png") for index in range(12)]
    assert [answer.file for answer in answers] == files
    lines = capsys.readouterr().out.splitlines()
    expected = [x for a in answers for x in (a.file, f"预测结果为：{a.label}")]
    assert lines[: len(expected)] == expected
    assert np.mean([a.label == str(label) for a, label in zip(answers, labels, strict=True)]) > 0.5
    with open(trained / "report" / "predictions.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == files
    assert float(rows[0]["confidence"]) >= float(rows[0]["second_confidence"])
    with Image.open(trained / "report" / "predictions.png") as image:
        assert image.width > 300


def test_predict_takes_every_kind_of_picture_and_names_what_it_can_not_read(
    trained, tmp_path, link
):
    digit = draw(1, seed=5)[0][0]
    paper = np.full((400, 600, 3), 250, np.uint8)
    paper[100:324, 200:424] -= np.kron(digit, np.ones((8, 8), np.uint8))[..., None] // 2
    save(tmp_path, "grey.png", digit)
    save(tmp_path, "photo.jpg", paper)
    save(tmp_path, "alpha.png", np.dstack([digit * 0, digit * 0, digit * 0, digit]))
    Image.fromarray(digit).quantize(16).save(tmp_path / "palette.gif")
    save(tmp_path, "bitmap.bmp", 255 - digit)
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "cut.png").write_bytes((tmp_path / "grey.png").read_bytes()[:100])
    (tmp_path / "empty.jpg").touch()
    save(tmp_path, "blank.png", np.full((28, 28), 255, np.uint8))
    link(tmp_path / "loop.png", tmp_path / "loop.png")
    (tmp_path / ".DS_Store").write_text("hidden")
    (tmp_path / ".hidden.png").write_text("hidden")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    done = run("--mode", "predict", "--data_dir", trained, "--imp_dir", tmp_path)
    assert done.returncode == 1
    named = set(re.findall(r"(\w+\.\w+): not predicted", done.stderr))
    assert named == {"text.png", "cut.png", "empty.jpg", "blank.png", "loop.png"}
    assert "no ink found" in done.stderr and "Traceback" not in done.stderr
    read = re.findall(r"(\w+\.\w+)\n预测结果为：\d\n", done.stdout)
    assert read == ["alpha.png", "bitmap.bmp", "grey.png", "palette.gif", "photo.jpg"]


def test_an_unsure_guess_is_called_so_with_both_candidates(trained, tmp_path, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    for index in range(5):
        save(tmp_path / "tmp", f"{index}.png", np.roll(noise, index * 5, axis=1))
    setting = Setting(data_dir=str(trained), imp_dir=str(tmp_path / "tmp"), handwriting=False)
    answers = predict(setting)
    errors = capsys.readouterr().err
    unsure = [answer for answer in answers if answer.confidence < report.UNSURE]
    assert unsure and errors.count(": unsure, ") == len(unsure)
    assert re.search(r"0\.png: unsure, \d \(\d+%\) or \d \(\d+%\)", errors)


def test_an_empty_or_missing_folder_is_a_clear_error(trained, tmp_path):
    with pytest.raises(InputError, match="no pictures in it"):
        predict(Setting(data_dir=str(trained), imp_dir=str(tmp_path)))
    with pytest.raises(InputError, match="no such folder"):
        predict(Setting(data_dir=str(trained), imp_dir=str(tmp_path / "nowhere")))


def test_of_many_pictures_only_those_on_the_sheets_stay_in_memory(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "INFERENCE_PIXELS", 5 * 28 * 28)
    monkeypatch.setattr(mnist_keras.charts, "SHEET", 2)
    monkeypatch.setattr(mnist_keras.charts, "MOST_DRAWN", 4)
    for index, image in enumerate(draw(12, seed=5)[0]):
        save(tmp_path / "tmp", f"{index}.png", image)
    with monkeypatch.context() as patch:
        drawn = []
        patch.setattr(mnist_keras, "write_predictions", lambda setting, rows: drawn.extend(rows))
        predict(Setting(data_dir=str(trained), imp_dir=str(tmp_path / "tmp")))
    least_sure = sorted(row["confidence"] for row in drawn)[:4]
    assert sorted(r["confidence"] for r in drawn if r["given"] is not None) == least_sure
    assert all((r["given"] is None) == (r["seen"] is None) for r in drawn)
    predict(Setting(data_dir=str(trained), imp_dir=str(tmp_path / "tmp")))  # they can be drawn


def test_a_picture_as_given_is_upright_on_white_and_small(tmp_path):
    pixels = np.zeros((90, 200, 4), np.uint8)
    pixels[20:70, 20:100] = (200, 0, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    Image.fromarray(pixels).save(tmp_path / "1.png", exif=exif)
    setting = Setting(data_dir=str(tmp_path))
    given, seen = mnist_keras.see(str(tmp_path / "1.png"), setting, clean=True)
    assert given.shape == (84, 38, 3) and seen.shape == (28, 28, 3)
    np.testing.assert_array_equal(given[[20, -20], 19], [(200, 0, 0), (255, 255, 255)])
    given, seen = mnist_keras.see(str(tmp_path / "1.png"), setting, clean=False)
    assert given.shape == (38, 84, 3)
    np.testing.assert_array_equal(seen, decode(str(tmp_path / "1.png"), setting))


def test_predict_without_weights_says_what_makes_them(tmp_path):
    save(tmp_path / "tmp", "1.png", np.zeros((28, 28), np.uint8))
    with pytest.raises(InputError, match="no weights here; --mode train makes them"):
        predict(Setting(data_dir=str(tmp_path)))


# Other pictures than digits


def test_a_folder_of_coloured_shapes_is_learned_and_its_class_names_are_the_answers(
    tmp_path, capsys
):
    draw = np.random.default_rng(0)
    for name, colour in (
        ("rote Kreise", (220, 30, 30)),
        ("蓝色", (30, 30, 220)),
        ("зелёный", (30, 200, 30)),
    ):
        for index in range(60):
            picture = draw.integers(0, 60, (30, 36, 3), np.uint8)
            picture[5:25, 8:28] = colour
            save(tmp_path / "train" / name, f"{index}.png", picture)
    setting = Setting(data_dir=str(tmp_path), img_width=36, img_height=30, epochs=4, batch_size=16)
    train(setting)
    assert "label_nums is 3" in capsys.readouterr().out
    description = json.loads((tmp_path / "model_weight" / "model.json").read_text("utf-8"))
    assert description["handwriting"] is False
    setting = Setting(data_dir=str(tmp_path), imp_dir=str(tmp_path / "train" / "蓝色"))
    assert {answer.label for answer in predict(setting)} == {"蓝色"}
    assert "预测结果为：蓝色" in capsys.readouterr().out


# The command line


def test_help_comes_without_tensorflow():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", SCRIPT, "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "--img_width" in done.stdout
    assert "tensorflow" not in done.stderr


@pytest.mark.parametrize(
    "mistake",
    [
        ["--mode", "fly"],
        [],
        ["--mode", "train", "--epoch", "3"],
        ["--mode", "train", "--epochs", "0"],
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_and_status_2(mistake):
    done = run(*mistake)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "mnist_keras.py: " in done.stderr


def test_an_error_is_one_line_on_stderr_and_status_1(tmp_path):
    done = run("--mode", "train", "--data_dir", tmp_path / "flowers")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert f"{Path('flowers', 'train')}: no such folder" in done.stderr
