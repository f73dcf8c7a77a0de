"""A trained network: found, checked against the Setting, and loaded."""

from pathlib import Path
from typing import Any, NamedTuple

import keras
from tensorflow.keras.preprocessing.image import DirectoryIterator, ImageDataGenerator

from classifier import hardware, opener, pictures
from classifier.console import InputError, warn
from classifier.metadata import check_network, read_metadata, select_held_out, with_metadata
from classifier.run_folder import archived_weights, checkpoints, load_first_usable

PROGRAM = Path(__file__).resolve().parents[1]


class TrainedRun(NamedTuple):
    """A network that was trained, not loaded yet."""

    setting: Any  # the Setting asked for, with all that build_model needs of the run's
    metadata: dict[str, Any]  # what model.json says
    weights: list[Path]  # the files of its weights, best first

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the network's input."""
        return self.setting.img_height, self.setting.img_width


def find_weights_folder(setting: Any) -> Path | None:
    """Where the weights are: restore_model's folder, the run's own, else the one that ships.

    The last is looked for beside the program, too: its user may be in another folder.
    """
    if setting.restore_model:
        return Path(setting.restore_model).parent
    shipped = Path(setting.data_dir, "shipped")
    for folder in (Path(setting.checkpoint_path), shipped, PROGRAM / shipped):
        if checkpoints(folder):
            return folder
    return None


def find_run(setting: Any) -> TrainedRun:
    """The network that the setting means.

    Raises:
        InputError: there is none, or the setting contradicts model.json.
    """
    if setting.restore_model and not Path(setting.restore_model).is_file():
        raise InputError(f"--restore_model {setting.restore_model}: no such file")
    folder = find_weights_folder(setting)
    own = Path(setting.checkpoint_path)
    archived = archived_weights(own)
    earlier = f"; an earlier training's are {archived} (--restore_model)" if archived else ""
    if folder is None:
        raise InputError(f"{own}: no weights here; --mode train makes them{earlier}")
    if earlier and folder != own and not setting.restore_model:
        warn(f"{own}: no weights here{earlier}")
    metadata = read_metadata(folder)
    names = ("pretrained", "img_width", "img_height", "label_nums", "recipe", "mean_std", "ground")
    setting = with_metadata(setting, metadata, names, folder)
    if setting.precision == "auto" and metadata.get("precision") == "float32":
        setting = setting.replace(precision="float32")  # so that val_acc is what evaluate finds
    weights = [Path(setting.restore_model)] if setting.restore_model else checkpoints(folder)
    return TrainedRun(setting, metadata, weights)


def test_iterator(run: TrainedRun) -> DirectoryIterator:
    """The test pictures of the network's classes; without a test folder, those it has held out."""
    setting, classes = run.setting, run.metadata["classes"]
    DirectoryIterator.white_list_formats = opener.PICTURE_EXTENSIONS
    folder = setting.test_dir
    if Path(folder).is_dir():
        pictures.check_classes(folder, classes)
    else:
        print(f"{folder}: no such folder; measuring on the pictures held out in training")
        folder = setting.train_dir
    iterator = ImageDataGenerator().flow_from_directory(
        folder, run.image_size, classes=classes, shuffle=False
    )
    pictures.drop_hidden(iterator)
    if folder == setting.train_dir:
        select_held_out(iterator, run.weights[0].parent)
    return iterator


def load_run(model: keras.Model, network_config: dict[str, Any], run: TrainedRun) -> Path:
    """Load the first of the weights that can be used.

    Args:
        model: the network as it is to be used.
        network_config: of build_model's network.
        run: as `find_run` gives it.

    Returns:
        The file.

    Raises:
        InputError: build_model makes another network now, or none of the files can be used.
    """
    folder = run.weights[0].parent
    check_network(run.metadata, network_config, folder)
    hardware.set_jit_compile(model, steps=0)
    loaded = load_first_usable(model, run.weights)
    if loaded is None:
        raise InputError(
            f"{folder}: none of the weights here can be used; --mode train makes new ones"
        )
    return loaded[0]
