"""What was trained: found, checked against what is asked for now, and loaded."""

from pathlib import Path
from typing import Any, NamedTuple

import keras

from classifier import description, hardware
from classifier.console import InputError
from classifier.run_folder import checkpoints, load_first

PROGRAM = Path(__file__).resolve().parents[1]


class Trained(NamedTuple):
    """A network that was trained, not loaded yet."""

    setting: Any  # the Setting asked for, with the network's sizes, classes and recipe
    said: dict[str, Any]  # what model.json says
    weights: list[Path]  # the files of its weights, best first

    @property
    def ground(self) -> tuple[float, float] | None:
        """Mean and spread of the pixels that it was trained on, if it centres its pictures."""
        return self.said["ground"] and tuple(self.said["ground"])


def folder_of(setting: Any) -> Path | None:
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


def find(setting: Any) -> Trained:
    """The network that the setting means.

    Raises:
        InputError: there is none, or the setting contradicts model.json.
    """
    if setting.restore_model and not Path(setting.restore_model).is_file():
        raise InputError(f"--restore_model {setting.restore_model}: no such file")
    folder = folder_of(setting)
    if folder is None:
        raise InputError(f"{setting.checkpoint_path}: no weights here; --mode train makes them")
    said = description.read(folder)
    names = ("img_width", "img_height", "label_nums", "recipe")
    setting = description.following(setting, said, names, folder)
    if setting.precision == "auto" and said.get("precision") == "float32":
        setting = setting.replace(precision="float32")  # so that val_acc is what evaluate finds
    weights = [Path(setting.restore_model)] if setting.restore_model else checkpoints(folder)
    return Trained(setting, said, weights)


def load(model: keras.Model, written: dict[str, Any], trained: Trained) -> Path:
    """Load the first of the weights that can be used.

    Args:
        model: the network as it is to be used.
        written: what description.of_network says of build_model's network.
        trained: as `find` gives it.

    Returns:
        The file.

    Raises:
        InputError: build_model makes another network now, or none of the files can be used.
    """
    folder = trained.weights[0].parent
    description.check_network(trained.said, written, folder)
    hardware.choose_compiling(model, steps=0)
    found = load_first(model, trained.weights)
    if found is None:
        raise InputError(
            f"{folder}: none of the weights here can be used; --mode train makes new ones"
        )
    return found[0]
