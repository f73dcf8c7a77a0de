"""What --mode train, evaluate and predict promise, on a few thousand drawn digits."""

import csv
import functools
import json
import re
import shutil
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from helpers import on_the_processor, run, save, write_digits
from keras import layers
from PIL import Image
from tensorflow.keras.preprocessing.image import ImageDataGenerator

import mnist_keras
from classifier import batches, charts, faster, metadata, opener, recipe, report, run_folder, sheets
from classifier.console import InputError
from classifier.faster import SplitSequential
from classifier.opener import decode
from classifier.predictions import UNSURE, load_pictures
from classifier.weights import load_weights
from digits import handwriting
from digits.drawn import draw
from digits.mnist_like import with_drawn_digits
from mnist_keras import build_model, data_generator, evaluate, predict, prepare_network, train
from setting import Setting
from tests import networks


@pytest.fixture(autouse=True)
def plain_charts(monkeypatch):
    """Charts are drawn in test_charts.py; here each would take as long as a small training."""

    def blank(*given):
        Image.new("RGB", (400, 300)).save(given[-1], format="PNG")

    monkeypatch.setattr(charts, "training_curves", blank)
    monkeypatch.setattr(charts, "confusion_matrix", blank)
    monkeypatch.setattr(sheets, "mistakes", blank)


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


def test_the_article_s_recipe_computes_the_network_as_keras_does_and_the_tuned_one_faster():
    assert (
        type(prepare_network(build_model(Setting()), Setting(recipe="article"), grayscale=True))
        is keras.Sequential
    )
    assert (
        type(prepare_network(build_model(Setting()), Setting(), grayscale=True)) is SplitSequential
    )


# The pictures


def test_a_fifth_of_each_class_is_held_out_for_validation(digits):
    training, validation = data_generator(Setting(data_dir=str(digits)))
    assert (training.samples, validation.samples) == (1200, 300)
    assert np.bincount(validation.classes).tolist() == [30] * 10
    images, labels = next(training)
    assert images.shape == (128, 28, 28, 3) and images.max() <= 1 and labels.shape == (128, 10)


def test_drawn_digits_join_pictures_of_digits_and_of_nothing_else(data_dir):
    joined = []

    def choose(digits):
        setting = Setting(data_dir=str(data_dir), seed=4)
        return recipe.choose(
            setting,
            *data_generator(setting),
            digits,
            own_pictures=False,
            add_digits=lambda images, seed: joined.append(seed) or images,
        )

    assert choose(digits=True).grayscale and joined == [4]
    choose(digits=False)
    assert joined == [4]


# train


@pytest.fixture
def narrow(monkeypatch):
    """A network of few layers and channels, for what a training does besides learning."""
    monkeypatch.setattr(mnist_keras, "build_model", networks.narrow)


def test_train_learns_and_leaves_the_best_checkpoint_a_description_and_curves(trained):
    weights = list((trained / "model_weight").glob("weights-improvement-*.weights.h5"))
    assert weights
    for path in weights:
        assert re.fullmatch(r"weights-improvement-0[12]-\d\.\d{5}\.weights\.h5", path.name)
        assert path.stat().st_size < 4e6
    model = json.loads((trained / "model_weight" / "model.json").read_text("utf-8"))
    assert model["classes"] == list("0123456789")
    assert (model["img_width"], model["img_height"]) == (28, 28)
    assert model["images"] == 1200 and model["trained_on"] == str(trained / "train")
    assert model["handwriting"] is True
    split = json.loads((trained / "model_weight" / "split.json").read_text("utf-8"))
    assert [len(split[part]) for part in ("training", "validation")] == [1200, 300]
    with open(trained / "report" / "history.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["val_acc"]) > 0.5
    with Image.open(trained / "report" / "training_curves.png") as image:
        assert image.width > 300


def test_what_is_trained_is_described_so_that_it_is_known_again(trained):
    saved = metadata.read_metadata(trained / "model_weight")["network"]
    assert (
        metadata.config_difference(saved, metadata.network_config(build_model(Setting()))) is None
    )


def test_train_says_what_it_left_and_what_comes_next(data_dir, narrow, capsys):
    train(Setting(data_dir=str(data_dir), epochs=1, batch_size=100))
    best = run_folder.checkpoints(data_dir / "model_weight")[0]
    val_acc = run_folder.CHECKPOINT_PATTERN.fullmatch(best.name)[2]
    *_, result, seconds, command = capsys.readouterr().out.splitlines()
    assert result == f"best epoch 01, val_acc {val_acc}: {best}"
    assert re.fullmatch(r"trained in \d+ s; what it is worth on the test pictures:", seconds)
    assert command == f"  python mnist_keras.py --mode evaluate --data_dir {data_dir}"


def test_tensorboard_s_files_are_written_beside_the_reports(tmp_path, few_digits, narrow):
    pytest.importorskip("tensorboard")
    files = {"data_dir": tmp_path, "train_dir": few_digits / "train"}
    train(Setting(**files, epochs=1, batch_size=40, tensorboard=True))
    assert list(tmp_path.glob("report/tensorboard/*/events.out.tfevents.*"))


def test_a_network_that_is_passed_is_trained_evaluated_and_predicted_with(data_dir, few_digits):
    setting = Setting(
        data_dir=str(data_dir), train_dir=str(few_digits / "train"), epochs=1, batch_size=40
    )
    train(setting, networks.narrow)
    _, acc = evaluate(setting, networks.narrow)
    assert 0 <= acc <= 1
    assert predict(setting, [str(next((data_dir / "test" / "3").iterdir()))], networks.narrow)
    with pytest.raises(InputError, match="not trained with the network that build_model makes"):
        evaluate(setting)


def test_what_is_learned_does_not_depend_on_the_memory_there_is(
    tmp_path, few_digits, narrow, processor
):
    """Nor on the disk: decoded in every epoch, digits are still grey, and joined by drawn ones."""

    def learned(name, cache_limit):
        setting = Setting(
            data_dir=str(tmp_path / name),
            train_dir=str(few_digits / "train"),
            epochs=5,  # enough for strokes that vary
            precision="float32",
            batch_size=20,
            cache_limit=cache_limit,
        )
        train(setting)
        with h5py.File(tmp_path / name / "model_weight" / run_folder.LAST_EPOCH) as file:
            return file.attrs["sha256"]

    assert learned("on disk", 0) == learned("in memory", None)


def test_a_build_model_that_a_notebook_defines_but_does_not_pass_is_refused(data_dir, monkeypatch):
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "build_model", networks.narrow, raising=False)
    with pytest.raises(InputError, match="build_fn=build_model"):
        train(Setting(data_dir=str(data_dir)))


def test_a_new_training_moves_what_the_last_one_left_and_keeps_it(copy, few_digits, narrow):
    before = {path.name: path.read_bytes() for path in (copy / "model_weight").glob("[!.]*")}
    train_dir = str(few_digits / "train")
    train(Setting(data_dir=str(copy), train_dir=train_dir, epochs=1, batch_size=40))
    (previous,) = (copy / "model_weight" / "previous").iterdir()
    for name, content in before.items():
        assert (previous / name).read_bytes() == content
    assert (previous / "history.csv").exists() and (previous / "split.json").exists()


def test_a_run_that_was_interrupted_ends_with_the_weights_of_one_that_was_not(
    tmp_path, few_digits, narrow, capsys, processor
):
    def weights_after(folder, **given):
        setting = Setting(
            data_dir=str(folder),
            epochs=2,
            precision="float32",
            batch_size=10,  # 16 steps: several are one call
            train_dir=str(few_digits / "train"),
            **given,
        )
        train(setting)
        with h5py.File(folder / "model_weight" / run_folder.LAST_EPOCH) as file:
            return file.attrs["sha256"]

    class Interrupt(run_folder.BestCheckpoint):
        def on_train_batch_begin(self, batch, logs=None):
            if len(self.rows) == 1 and batch >= 3:
                raise KeyboardInterrupt

    whole = weights_after(tmp_path / "one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder, "BestCheckpoint", Interrupt)
        with pytest.raises(KeyboardInterrupt):
            weights_after(tmp_path / "two")
    assert capsys.readouterr().err.endswith(
        f"interrupted; finished epochs are saved in {tmp_path / 'two' / 'model_weight'}; to go on: "
        f"python mnist_keras.py --mode train --is_restore --data_dir {tmp_path / 'two'} "
        f"--train_dir {few_digits / 'train'}\n"
    )
    assert weights_after(tmp_path / "two", is_restore=True) == whole
    with open(tmp_path / "two" / "report" / "history.csv", encoding="utf-8") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]


def test_a_short_run_can_be_continued_as_a_longer_one(
    tmp_path, few_digits, narrow, monkeypatch, capsys
):
    monkeypatch.setattr(recipe, "SHORT_RUN_EPOCHS", 1)
    train_dir = str(few_digits / "train")
    setting = Setting(data_dir=str(tmp_path), train_dir=train_dir, epochs=1, batch_size=40)
    train(setting)
    train(setting.replace(epochs=2, is_restore=True))
    captured = capsys.readouterr()
    assert "passed over" not in captured.err and "2 epochs instead of 1: the" in captured.out
    with open(tmp_path / "report" / "history.csv", encoding="utf-8") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]


def test_a_run_that_is_refused_is_not_said_to_go_on(tmp_path, few_digits, narrow, capsys):
    train_dir = str(few_digits / "train")
    setting = Setting(data_dir=str(tmp_path), train_dir=train_dir, epochs=1, batch_size=40)
    train(setting)
    for path in (tmp_path / "model_weight").glob("*.weights.h5"):
        path.write_bytes(b"damaged")
    with pytest.raises(InputError, match="go on from any weights here"):
        train(setting.replace(epochs=2, is_restore=True))
    assert "instead of" not in capsys.readouterr().out


def test_the_step_of_a_training_is_traced_once(tmp_path, few_digits, narrow, monkeypatch):
    traced, step = [], keras.Model.train_step
    monkeypatch.setattr(keras.Model, "train_step", lambda *a: traced.append(a) or step(*a))
    train_dir = str(few_digits / "train")
    train(Setting(data_dir=str(tmp_path), train_dir=train_dir, epochs=1, batch_size=40))
    assert len(traced) == 1


def test_restore_model_starts_from_those_weights(copy, few_digits):
    best = run_folder.checkpoints(copy / "model_weight")[0]
    setting = Setting(data_dir=str(copy), restore_model=str(best), initial_epoch=2, epochs=3)
    history = train(setting.replace(train_dir=str(few_digits / "train"), batch_size=32))
    assert history.epoch == [2]
    assert history.history["acc"][0] > 0.6


def test_a_missing_folder_of_the_user_s_is_never_filled_with_mnist(tmp_path):
    with pytest.raises(InputError, match="flowers.train: no such folder.*one folder a class"):
        train(Setting(data_dir=str(tmp_path / "flowers")))
    assert not (tmp_path / "flowers").exists()


def test_too_few_pictures_to_validate_on_are_refused(tmp_path):
    write_digits(tmp_path / "train", 20, seed=1)
    with pytest.raises(InputError, match="at least one class must have five"):
        train(Setting(data_dir=str(tmp_path)))


@pytest.mark.parametrize("how", ["tuned", "article"])
def test_pictures_are_learned_from_as_the_recipe_sees_them(tmp_path, how):
    """Black ink on what is transparent: nothing but black to Keras, and to the article's recipe."""
    for index, (image, label) in enumerate(zip(*draw(300, seed=1), strict=True)):
        ink = np.zeros((28, 28, 4), np.uint8)
        ink[..., 3] = image
        save(tmp_path / "train" / f"{label % 2}", f"{index}.png", ink)
    setting = Setting(data_dir=str(tmp_path), recipe=how, epochs=1)
    training, validation = data_generator(setting)
    plan = recipe.choose(
        setting, training, validation, False, own_pictures=True, add_digits=with_drawn_digits
    )
    images, labels = next(iter(plan.validation))
    assert np.ptp(images) == (0 if how == "article" else 1)
    if how == "tuned":
        assert plan.grayscale and np.mean(images) > 0.5  # white paper


# evaluate


def test_evaluate_measures_all_test_pictures_with_the_best_weights(trained, capsys):
    loss, acc = evaluate(Setting(data_dir=str(trained)))
    printed = capsys.readouterr().out
    assert f"test_loss:{loss:.5f}, test_acc:{acc:.5f} (200 images)" in printed
    assert str(run_folder.checkpoints(trained / "model_weight")[0]) in printed
    with open(trained / "report" / "classes.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == [*"0123456789", "accuracy", "macro avg"]
    assert float(rows[-2]["f1"]) == pytest.approx(acc)
    for name in ("confusion.png", "mistakes.png"):
        with Image.open(trained / "report" / name) as image:
            assert image.width > 200


def test_loss_and_accuracy_are_keras_s_own(trained, processor):
    setting = Setting(data_dir=str(trained), precision="float32")
    loss, acc = evaluate(setting)
    model = build_model(setting)
    load_weights(model, run_folder.checkpoints(trained / "model_weight")[0])
    model.compile(loss="categorical_crossentropy", metrics=["acc"])
    batches = ImageDataGenerator(rescale=1 / 255).flow_from_directory(
        setting.test_dir, target_size=(28, 28)
    )
    assert model.evaluate(batches, verbose=0) == pytest.approx([loss, acc], rel=1e-4)


def test_without_weights_evaluate_says_so_and_trains_first(data_dir, narrow, capsys):
    _, acc = evaluate(Setting(data_dir=str(data_dir), epochs=1, batch_size=64))
    assert "no weights" in capsys.readouterr().out and acc > 0.1


def test_without_a_test_folder_evaluate_measures_on_the_validation_part(copy, capsys):
    (copy / "test").unlink()
    evaluate(Setting(data_dir=str(copy)))
    printed = capsys.readouterr().out
    assert "held out" in printed and "(300 images)" in printed


def test_pictures_that_came_since_are_not_measured_on_as_if_they_were_held_out(
    copy, digits, capsys
):
    (copy / "test").unlink()
    (copy / "train").unlink()
    shutil.copytree(digits / "train", copy / "train")
    for index in range(50):
        save(copy / "train" / "3", f"!{index}.png", np.zeros((28, 28), np.uint8))
    _, acc = evaluate(Setting(data_dir=str(copy)))
    best = run_folder.checkpoints(copy / "model_weight")[0]
    assert f"{acc:.5f}" == run_folder.CHECKPOINT_PATTERN.fullmatch(best.name)[2]
    assert "(300 images)" in capsys.readouterr().out


def test_classes_that_differ_between_training_and_test_are_named(trained, tmp_path, capsys):
    write_digits(tmp_path / "test", 100, seed=3)
    (tmp_path / "test" / "9").rename(tmp_path / "test" / "ten")
    evaluate(Setting(data_dir=str(trained), test_dir=str(tmp_path / "test")))
    captured = capsys.readouterr()
    assert "not taught: ten" in captured.err and "not here: 9" in captured.err
    assert "(90 images)" in captured.out


def test_weights_saved_in_one_precision_serve_in_another(trained):
    for precision in ("float32", "mixed_bfloat16"):
        _, acc = evaluate(Setting(data_dir=str(trained), precision=precision))
        assert acc > 0.5


# predict


def test_predict_prints_the_article_s_two_lines_in_natural_order(trained, tmp_path, capsys):
    images, labels = draw(12, seed=5)
    for index, image in enumerate(images):
        save(tmp_path / "tmp", f"{index}.png", image)
    answers = predict(Setting(data_dir=str(trained), imp_dir=str(tmp_path / "tmp")))
    files = [str(tmp_path / "tmp" / f"{index}.png") for index in range(12)]
    assert [answer.file for answer in answers] == files
    weights, *lines = capsys.readouterr().out.splitlines()
    assert weights == f"weights: {run_folder.checkpoints(trained / 'model_weight')[0]}"
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
    images, _ = draw(40, seed=5)
    for index in range(20):  # two digits, one over the other
        save(tmp_path / "tmp", f"{index}.png", np.maximum(images[index], images[20 + index]))
    setting = Setting(data_dir=str(trained), imp_dir=str(tmp_path / "tmp"), handwriting=False)
    answers = predict(setting)
    errors = capsys.readouterr().err
    unsure = [answer for answer in answers if answer.confidence < UNSURE]
    assert unsure and errors.count(": unsure, ") == len(unsure)
    assert re.search(r"\d\.png: unsure, \d \(\d+%\) or \d \(\d+%\)", errors)


def test_only_the_files_that_are_named_are_predicted(trained, tmp_path):
    for index, image in enumerate(draw(3, seed=5)[0]):
        save(tmp_path, f"{index}.png", image)
    (answer,) = predict(Setting(data_dir=str(trained)), [str(tmp_path / "1.png")])
    assert answer.file == str(tmp_path / "1.png")


def test_of_many_pictures_only_those_on_the_sheets_stay_in_memory(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "INFERENCE_PIXELS", 5 * 28 * 28)
    monkeypatch.setattr(sheets, "SHEET_SIZE", 2)
    monkeypatch.setattr(sheets, "MAX_DRAWN", 4)
    for index, image in enumerate(draw(12, seed=5)[0]):
        save(tmp_path / "tmp", f"{index}.png", image)
    with monkeypatch.context() as patch:
        drawn = []
        patch.setattr(
            report, "write_prediction_report", lambda folder, rows, classes: drawn.extend(rows)
        )
        predict(Setting(data_dir=str(trained), imp_dir=str(tmp_path / "tmp")))
    least_sure = sorted(row.sureness for row in drawn)[:4]
    assert sorted(row.sureness for row in drawn if row.original is not None) == least_sure
    assert all((r.original is None) == (r.network_input is None) for r in drawn)
    predict(Setting(data_dir=str(trained), imp_dir=str(tmp_path / "tmp")))  # they can be drawn


def test_a_picture_is_cleaned_up_for_the_network_or_taken_as_it_is(tmp_path, finder, to_mnist):
    pixels = np.zeros((90, 200, 4), np.uint8)
    pixels[20:70, 20:100] = (200, 0, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    file = str(tmp_path / "1.png")
    save(tmp_path, "1.png", pixels, exif=exif)
    (clean,), (plain,) = (
        load_pictures([file], functools.partial(look, size=(28, 28)))
        for look in (
            functools.partial(handwriting.open_as_mnist, finder=finder),
            opener.open_and_resize,
        )
    )
    for seen in (clean, plain):
        assert seen.file == file and seen.original.shape == (84, 38, 3)
        np.testing.assert_array_equal(seen.original[[20, -20], 19], [(200, 0, 0), (255, 255, 255)])
    np.testing.assert_array_equal(plain.pixels, decode(file, (28, 28)))
    np.testing.assert_array_equal(clean.pixels[..., 0], to_mnist(file))
    assert clean.pixels.shape == (28, 28, 3)


def test_predict_and_evaluate_see_a_picture_in_the_same_way(trained, tmp_path):
    """Any picture: transparent ink, dark on white as people draw, and nothing is cleaned up."""
    for index, (image, label) in enumerate(zip(*draw(40, seed=8), strict=True)):
        ink = np.zeros((28, 28, 4), np.uint8)
        ink[..., 3] = image
        save(tmp_path / "test" / f"{label}", f"{index}.png", ink)
    setting = Setting(data_dir=str(trained), test_dir=str(tmp_path / "test"), handwriting=False)
    _, acc = evaluate(setting)
    files = sorted(str(path) for path in (tmp_path / "test").rglob("*.png"))
    answers = predict(setting, files)
    right = [answer.label == Path(answer.file).parent.name for answer in answers]
    assert np.mean(right) == pytest.approx(acc)


def test_predict_sees_the_pixels_that_the_article_s_recipe_has_trained_on(
    few_digits, tmp_path, narrow
):
    """Resized by the nearest pixel, which differs from what the tuned recipe sees."""
    setting = Setting(
        data_dir=str(tmp_path),
        train_dir=str(few_digits / "train"),
        recipe="article",
        epochs=1,
        handwriting=False,
    )
    train(setting)
    noise = np.random.default_rng(0).integers(0, 256, (61, 47, 3), np.uint8)
    save(tmp_path, "noise.png", noise)
    (row,) = predict(setting, [str(tmp_path / "noise.png")])
    expected = opener.decode_as_article(row.file, (28, 28))
    assert np.array_equal(row.network_input, expected)
    assert not np.array_equal(expected, decode(row.file, (28, 28)))


def test_predict_without_weights_says_what_makes_them(tmp_path):
    save(tmp_path / "tmp", "1.png", np.zeros((28, 28), np.uint8))
    with pytest.raises(InputError, match="no weights here; --mode train makes them"):
        predict(Setting(data_dir=str(tmp_path)))


# Other pictures than digits


def test_a_folder_of_coloured_shapes_is_learned_and_its_class_names_are_the_answers(
    tmp_path, narrow, capsys
):
    draw = np.random.default_rng(0)
    for name, colour in (
        ("rote Kreise", (220, 30, 30)),
        ("蓝色", (30, 30, 220)),
        ("зелёный", (30, 200, 30)),
    ):
        for index in range(30):
            picture = draw.integers(0, 60, (30, 36, 3), np.uint8)
            picture[5:25, 8:28] = colour
            save(tmp_path / "train" / name, f"{index}.png", picture)
    setting = Setting(data_dir=str(tmp_path), img_width=36, img_height=30, epochs=4, batch_size=12)
    train(setting)
    assert "label_nums is 3" in capsys.readouterr().out
    model = json.loads((tmp_path / "model_weight" / "model.json").read_text("utf-8"))
    assert model["handwriting"] is False
    setting = Setting(data_dir=str(tmp_path), imp_dir=str(tmp_path / "train" / "蓝色"))
    assert {answer.label for answer in predict(setting)} == {"蓝色"}
    assert "预测结果为：蓝色" in capsys.readouterr().out


# What build_model says is what is trained, and what is evaluated


def chain(*own):
    """A build_model of these layers, few and narrow so that it takes a second, and an end."""

    def build(setting):
        configs = [layer.get_config() for layer in own]
        for config in configs:
            del config["name"]
        fresh = [type(layer).from_config(c) for layer, c in zip(own, configs, strict=True)]
        end = layers.Dense(setting.label_nums, activation="softmax", dtype="float32")
        return keras.Sequential([keras.Input(setting.input_shape), *fresh, end])

    return build


CONVOLUTION = layers.Conv2D(12, 3, activation="relu")
POOL, FLAT = layers.MaxPooling2D(2), layers.Flatten()
ARTICLE = [CONVOLUTION, POOL, CONVOLUTION, FLAT, layers.Dropout(0.5, seed=0)]


def edited(place: int, **changes):
    """The article's network, narrower and shorter, of which one layer is another."""
    layer = ARTICLE[place]
    other = type(layer).from_config(layer.get_config() | changes)
    return chain(*ARTICLE[:place], other, *ARTICLE[place + 1 :])


def skipping(setting):
    given = keras.Input(setting.input_shape)
    first = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(given)
    second = layers.Conv2D(8, 3, padding="same", activation="relu")(first)
    flat = layers.Flatten()(layers.MaxPooling2D(2)(layers.Add()([first, second])))
    end = layers.Dense(setting.label_nums, activation="softmax", dtype="float32")(flat)
    return keras.Model(given, end)


EDITS = {
    "none": chain(*ARTICLE),
    "Dropout(0.2)": edited(4, rate=0.2),
    "second convolution strides and padding": edited(2, strides=2, padding="same"),
    "BatchNormalization, AveragePooling2D, no Dropout": chain(
        CONVOLUTION, layers.BatchNormalization(), layers.AveragePooling2D(2), FLAT
    ),
    "Rescaling": chain(layers.Rescaling(2.0, -1.0), CONVOLUTION, POOL, FLAT),
    "a skip connection": skipping,
}


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory):
    """A train/ of 200 drawn digits."""
    folder = tmp_path_factory.mktemp("few")
    write_digits(folder / "train", 200, seed=1)
    return folder


def history_and_names(few_digits, folder, **given):
    """The losses of a training, the val_acc in its checkpoint's name, and what evaluate reads."""
    setting = Setting(
        data_dir=str(folder), train_dir=str(few_digits / "train"), epochs=1, batch_size=40, **given
    )
    history = train(setting).history
    _, measured = evaluate(setting)
    best = run_folder.checkpoints(folder / "model_weight")[0]
    named = run_folder.CHECKPOINT_PATTERN.fullmatch(best.name)[2]
    return history["loss"], named, f"{measured:.5f}"


def build_in_one_part(patch, name):
    """Have that network built, and its batches not halved: test_faster.py has them halved."""
    patch.setattr(mnist_keras, "build_model", EDITS[name])
    patch.setattr(faster, "SPLITS", 1)


@pytest.fixture(scope="session")
def unedited_loss(few_digits, tmp_path_factory):
    with on_the_processor(), pytest.MonkeyPatch.context() as patch:
        build_in_one_part(patch, "none")
        return history_and_names(few_digits, tmp_path_factory.mktemp("unedited"))[0]


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_network_is_trained_as_written_and_evaluated_as_its_checkpoint_says(
    name, few_digits, unedited_loss, tmp_path, monkeypatch, processor
):
    build_in_one_part(monkeypatch, name)
    loss, named, measured = history_and_names(few_digits, tmp_path)
    assert measured == named
    assert (loss == unedited_loss) is (name == "none")


@pytest.mark.parametrize(("size", "precision"), [(20, "float32"), (33, "mixed_bfloat16")])
def test_at_any_size_and_precision_evaluate_reads_what_the_checkpoint_says(
    size, precision, few_digits, tmp_path, monkeypatch
):
    monkeypatch.setattr(mnist_keras, "build_model", chain(*ARTICLE))
    sizes = {"img_width": size, "img_height": size}
    _, named, measured = history_and_names(few_digits, tmp_path, precision=precision, **sizes)
    assert measured == named


def test_with_another_optimizer_loss_and_metrics_too(few_digits, tmp_path, monkeypatch):
    compiled = keras.Sequential.compile

    def compile_otherwise(model, _, **given):
        compiled(model, "sgd", **given | {"loss": "mse", "metrics": ["acc", "mae"]})

    monkeypatch.setattr(SplitSequential, "compile", compile_otherwise)
    monkeypatch.setattr(mnist_keras, "build_model", chain(CONVOLUTION, POOL, FLAT))
    _, named, measured = history_and_names(few_digits, tmp_path)
    assert measured == named


# The command line


def test_an_error_is_one_line_on_stderr_and_status_1(tmp_path):
    done = run("--mode", "train", "--data_dir", tmp_path / "flowers")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert f"{Path('flowers', 'train')}: no such folder" in done.stderr
