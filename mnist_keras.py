"""Teach a convolutional network to recognise pictures: MNIST's digits, or your own folders.

After the article "keras 入门：卷积神经网络实现 MNIST 手写数字识别".

  --mode train      learn from DATA_DIR/train/<class>/ (MNIST is fetched if it isn't there)
  --mode evaluate   loss and accuracy on all pictures in DATA_DIR/test/<class>/
  --mode predict    say what the pictures in DATA_DIR/tmp show
  --mode draw       open a page to draw on, and read digits as you write
  --mode export     write the network for other programs to DATA_DIR/export
"""

import sys
import time
from pathlib import Path

from classifier.console import InputError, next_command, one_line_errors, parse_command_line
from classifier.console import printable, quiet_stderr
from setting import Setting

if __name__ == "__main__":
    # Before the seconds that the imports below take: help and mistakes are answered at once.
    MODE, SETTING = parse_command_line(__doc__, Setting)
    if MODE == "train":
        from classifier import cluster, pictures

        with one_line_errors():
            if cluster.check_tf_config() is None:  # of several machines each decodes its share only
                pictures.decode_ahead(SETTING)

from classifier.machine import no_garbage_collection

with quiet_stderr(unless="TF_CPP_MIN_LOG_LEVEL"), no_garbage_collection():
    import keras
from keras import layers
from tensorflow.keras.preprocessing.image import DirectoryIterator, ImageDataGenerator

import mnist_parser
from classifier import batches, hardware, metadata, opener, pictures, recipe, report, run_folder
from classifier import predictions, pretrained, trained_run, workers
from classifier.export import export_network
from classifier.extra_layers import extra_pooling, normalization, normalized
from classifier.faster import faster, limit_threads
from classifier.model_checks import BuildFn, build_checked, choose_build_fn
from classifier.predictions import Prediction, Reader
from classifier.progress_bar import ProgressBar
from digits import handwriting, reading
from digits.mnist_like import looks_like_mnist, with_drawn_digits
from web import server

# Three 3×3 convolutions and two poolings leave nothing of a smaller image.
MIN_SIZE = 18


def build_model(setting: Setting) -> keras.Model:
    """The article's network: images of setting.input_shape, float32 in 0..1, to probabilities.

    Change it as you like: what stands here is what is trained, evaluated and predicted with.

    Returns:
        A Sequential, or a keras.Model(inputs, outputs), with label_nums outputs that sum to 1.
    """
    if setting.pretrained:
        return pretrained.build_model(setting)
    height, width = setting.img_height, setting.img_width
    if min(height, width) < MIN_SIZE:
        raise InputError(f"img_width {width}, img_height {height}: {MIN_SIZE} or more are needed")
    return keras.Sequential(
        [
            keras.Input(setting.input_shape),
            *normalization(setting),  # none for MNIST
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(128, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(256, 3, activation="relu"),
            *extra_pooling(height, width),
            layers.Flatten(),
            layers.Dropout(0.5, seed=setting.seed),
            layers.Dense(256, activation="relu"),
            layers.Dropout(0.5, seed=setting.seed + 1),
            layers.Dense(setting.label_nums, activation="softmax", dtype="float32"),
        ]
    )


def prepare_network(
    network: keras.Model, setting: Setting, grayscale: bool, plain: bool = False
) -> keras.Model:
    """The network, in faster layers unless plain; grayscale: red, green and blue are the same."""
    model = normalized(network, setting)
    return model if plain or setting.recipe == "article" else faster(model, grayscale)


def data_generator(setting: Setting) -> tuple[DirectoryIterator, DirectoryIterator]:
    """The generators of training and validation images, as in the article; 20% are held out.

    Returns:
        Two iterators over batches (float32 [n, height, width, 3] in 0..1, one-hot float32
        [n, classes]). Folders without pictures are no classes.
    """
    classes = pictures.class_folders(setting.train_dir)
    DirectoryIterator.white_list_formats = opener.PICTURE_EXTENSIONS
    pictures.warn_ignored(setting.train_dir)
    generator = ImageDataGenerator(rescale=1 / 255, validation_split=pictures.VALIDATION_SPLIT)

    def flow(subset: str) -> DirectoryIterator:
        return generator.flow_from_directory(
            setting.train_dir,
            target_size=(setting.img_height, setting.img_width),
            batch_size=setting.batch_size,
            classes=classes,
            seed=setting.seed,
            subset=subset,
        )

    training, validation = flow("training"), flow("validation")
    pictures.split_visible(training, validation)
    return training, validation


def checkpoint_callbacks(
    setting: Setting, model: keras.Model, plan: recipe.Recipe
) -> list[keras.callbacks.Callback]:
    """Callbacks that save the best weights by val_acc, the last epoch's state, and the history."""
    folder, reports = Path(setting.checkpoint_path), Path(setting.report_dir)
    callbacks = [
        ProgressBar(),
        run_folder.BestCheckpoint(
            folder, reports, setting.epochs, setting.save_epochs, plan.calibration
        ),
        recipe.NothingLearnedWarning(plan.majority_share),
    ]
    if setting.tensorboard:
        callbacks.append(keras.callbacks.TensorBoard(reports / "tensorboard"))
    if plan.average_power:  # last: it swaps the weights back in that the others save averaged
        callbacks.append(recipe.WeightAverage(model, plan.average_power, plan.training))
    return callbacks


def train(setting: Setting, build_fn: BuildFn | None = None) -> keras.callbacks.History:
    """Train the network on setting.train_dir; the best checkpoint is left in checkpoint_path.

    Args:
        setting: of the training.
        build_fn: makes the network, here and in evaluate, predict and export; build_model if None.

    Raises:
        InputError: in one line, what is missing or wrong; evaluate, predict and export do the same.
    """
    start, build_fn = time.monotonic(), choose_build_fn(build_fn, build_model)
    setting = run_folder.checked_setting(setting)
    mnist_parser.ensure(setting.train_dir, setting.data_dir)
    source = mnist_parser.source_of(setting.train_dir, setting.data_dir)
    mnist_parser.remind_of_stand_in("the network learns from", source, setting.data_dir)
    folder, reports = Path(setting.checkpoint_path), Path(setting.report_dir)
    again = next_command("train", setting, "--is_restore")
    with run_folder.training_lock(folder, reports, setting.is_restore, again):
        setting = metadata.resolved_setting(setting)
        keras.mixed_precision.set_global_policy(setting.precision)
        history = fit(setting, source, build_fn)
    rows = run_folder.read_history(reports, setting.epochs)
    if rows:  # all epochs may have been done before, and their history be damaged
        smoothing = 0 if setting.recipe == "article" else batches.LABEL_SMOOTHING
        report.write_training_report(reports, rows, smoothing, setting.label_nums)
    print(
        f"{run_folder.best_epoch(folder)}\n"
        f"trained in {time.monotonic() - start:.0f} s; what it is worth on the test pictures:\n"
        f"  {next_command('evaluate', setting)}"
    )
    return history


def fit(setting: Setting, source: str, build_fn: BuildFn) -> keras.callbacks.History:
    """Load the images, build the network, load its initial weights, and run the epochs.

    Args:
        setting: complete, as resolved_setting returns it.
        source: what the pictures are: MNIST, drawn digits, or a folder of the user's.
        build_fn: makes the network.
    """
    folder = Path(setting.checkpoint_path)
    strategy = hardware.make_strategy()  # while TensorFlow has computed nothing yet
    setting = pretrained.find_pretrained(setting)
    network = build_checked(build_fn, setting)
    keras.utils.set_random_seed(setting.seed)
    training, validation = data_generator(setting)
    if setting.is_restore:
        config = metadata.network_config(network)
        metadata.restore_split(folder, config, source, training, validation)
    pictures.check_balance(training, validation)
    digits = looks_like_mnist(training.filepaths, (setting.img_height, setting.img_width))
    own_pictures = source == setting.train_dir  # the parser's can all be decoded
    plan = recipe.choose(setting, training, validation, digits, own_pictures, with_drawn_digits)
    if not (setting.mean_std or setting.ground):  # of a run that goes on they are known
        setting = setting.replace(mean_std=plan.mean_std)
    with strategy.scope():
        network = build_fn(setting)
        config = metadata.network_config(network)
        model = prepare_network(network, setting, plan.grayscale)
        model.compile(
            plan.optimizer(),
            loss="categorical_crossentropy",
            metrics=[keras.metrics.CategoricalAccuracy("acc")],  # "acc" is traced twice, for 0.3 s
            steps_per_execution=plan.steps_per_execution,
        )
        hardware.set_jit_compile(model, setting.epochs * plan.steps_per_epoch)
        model.optimizer.build(model.trainable_variables)
        callbacks = checkpoint_callbacks(setting, model, plan)
    done = workers.broadcast_state(model, run_folder.load_initial_weights(setting, model))
    if not (done or setting.restore_model):
        plan.initialize(model)
    model.optimizer.iterations.assign(done * plan.steps_per_epoch)
    if not setting.is_restore:
        run_folder.archive_previous_run(folder, Path(setting.report_dir))
    metadata.write_metadata(setting, config, source, digits, training, validation)
    return model.fit(
        plan.training(done),
        validation_data=plan.validation,
        steps_per_epoch=plan.steps_per_epoch,
        initial_epoch=done,
        epochs=setting.epochs,
        callbacks=callbacks,
        shuffle=plan.shuffle,
    )


def evaluate(setting: Setting, build_fn: BuildFn | None = None) -> tuple[float, float]:
    """Loss and accuracy on every picture in test_dir, printed and returned; charts in report/.

    Without any weights a network is trained first.
    """
    if trained_run.find_weights_folder(setting) is None:
        print(f"no weights in {setting.checkpoint_path}: training first")
        train(setting, build_fn)
    run = trained_run.find_run(setting)
    setting, classes = run.setting, run.metadata["classes"]
    if not Path(setting.test_dir).is_dir():
        mnist_parser.ensure(setting.train_dir, setting.data_dir)
    source = mnist_parser.source_of(setting.test_dir, setting.data_dir)
    mnist_parser.remind_of_stand_in("it is measured on", source, setting.data_dir)
    decode = opener.decoder(setting.recipe)
    test = pictures.load(trained_run.test_iterator(run), setting.cache_limit, decode)
    model, _ = load_network(run, test.grayscale, build_fn=build_fn)
    images = batches.evaluation_batches(test, len(classes))
    probabilities = model.predict(images, verbose=0, callbacks=[ProgressBar()])
    loss = float(keras.losses.SparseCategoricalCrossentropy()(test.labels, probabilities))
    acc = float((probabilities.argmax(axis=1) == test.labels).mean())
    print(f"test_loss:{loss:.5f}, test_acc:{acc:.5f} ({len(probabilities)} images)")
    report.write_evaluation_report(
        Path(setting.report_dir), classes, test.labels, probabilities, test.load_image
    )
    return loss, acc


def load_network(
    run: trained_run.TrainedRun,
    grayscale: bool,
    for_export: bool = False,
    build_fn: BuildFn | None = None,
) -> tuple[keras.Model, Path]:
    """The network that was trained, ready to predict, and the file of its weights.

    Args:
        run: what was trained.
        grayscale: red, green and blue are the same in all images.
        for_export: Keras's own layers alone, in float32: in bfloat16 most files don't run.
        build_fn: as in train.
    """
    setting = run.setting
    mnist_parser.remind_of_stand_in(
        "the network was trained on", run.metadata["trained_on"], setting.data_dir
    )
    precision = hardware.choose_precision(setting.precision, setting.recipe)
    keras.mixed_precision.set_global_policy("float32" if for_export else precision)
    build_fn = choose_build_fn(build_fn, build_model)
    network = build_checked(build_fn, setting)
    model = prepare_network(network, setting, grayscale, plain=for_export)
    weights = trained_run.load_run(model, metadata.network_config(network), run)
    print(f"weights: {printable(str(weights))}")
    return model, weights


def load_reader(
    setting: Setting, build_fn: BuildFn | None
) -> tuple[trained_run.TrainedRun, Reader]:
    """The network that the setting means, and a function from pictures to its predictions."""
    run = trained_run.find_run(setting)
    model, _ = load_network(run, grayscale=reading.cleans_up(run), build_fn=build_fn)
    return run, reading.reader(run, model)


def predict(
    setting: Setting, files: list[str] | None = None, build_fn: BuildFn | None = None
) -> list[Prediction]:
    """Say what each picture in imp_dir shows; report/ gets a table and sheets of the answers.

    Pictures that can't be read are named on stderr and are not in the list that is returned.

    Args:
        setting: where the pictures and the weights are.
        files: the pictures; by default those in imp_dir.
        build_fn: as in train.
    """
    files = files or pictures.list_pictures(setting.imp_dir)
    run, read = load_reader(setting, build_fn)
    rows = predictions.read_in_batches(read, files, run.image_size, report.print_prediction)
    if rows:
        report.write_prediction_report(Path(setting.report_dir), rows, run.metadata["classes"])
    return rows


def draw(setting: Setting, build_fn: BuildFn | None = None) -> None:
    """Serve a page to draw on until Ctrl-C; what is drawn there is read as predict reads it."""
    run, read = load_reader(setting, build_fn)
    draws_digits = reading.cleans_up(run)
    server.serve(read, Path(setting.imp_dir), draws_digits, setting.host, setting.port)


def export(setting: Setting, build_fn: BuildFn | None = None) -> Path:
    """Write the network for other programs to DATA_DIR/export/; returns what it was written to."""
    run = trained_run.find_run(setting)
    model, _ = load_network(run, grayscale=False, for_export=True, build_fn=build_fn)
    folder, classes = Path(setting.data_dir, "export"), run.metadata["classes"]
    note = handwriting.EXPECTED if run.metadata["handwriting"] else ""
    as_article = run.setting.recipe == "article"
    return export_network(model, setting.format, folder, classes, setting.half, note, as_article)


def main() -> None:
    """Do what the command line says."""
    with one_line_errors(), hardware.one_line_errors():
        to_read = {"evaluate": SETTING.test_dir, "predict": SETTING.imp_dir}.get(MODE)
        if to_read and trained_run.find_weights_folder(SETTING):  # else evaluate trains first
            hardware.hide_gpus_for_few(to_read)
        if MODE == "draw":
            hardware.hide_gpus()  # to start one takes longer than to read a hundred drawings
        if MODE == "train":
            if SETTING.recipe == "tuned" and hardware.runs_on_cpu():
                limit_threads()
            workers.run_on_workers(train, SETTING)
        elif MODE == "predict":
            files = pictures.list_pictures(SETTING.imp_dir)
            if len(predict(SETTING, files)) < len(files):
                sys.exit(1)
        else:
            {"evaluate": evaluate, "draw": draw, "export": export}[MODE](SETTING)


if __name__ == "__main__":
    main()
