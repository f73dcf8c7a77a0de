"""model.json and split.json: a network, the settings of its training, and its files."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
from tensorflow.keras.preprocessing.image import DirectoryIterator

from classifier import hardware, workers
from classifier.console import InputError, warn
from classifier.files import write_file
from classifier.pictures import class_folders, file_names, files_below, is_picture, select_files
from classifier.recipe import LARGE_SET, LARGE_SET_EPOCHS

# The fields that a training is repeated with: --is_restore takes them from the run.
SAVED_FIELDS = (
    *("recipe", "precision", "img_width", "img_height", "label_nums", "epochs", "batch_size"),
    *("seed", "horizontal_flip", "learning_rate", "mean_std", "ground"),
    *("pretrained", "pretrained_weights"),
)
# Keys in which configs of the same network may differ: Keras numbers names, and precision, seeds
# and module paths don't change the network.
INCIDENTAL = ("name", "dtype", "seed", "module", "registered_name", "build_config")
SIDES = ("img_width", "img_height")
# What Python raises for JSON that is not what was written.
JSON_ERRORS = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
MAX_NAMES = 20  # a screen of names is enough to know what happened

Split = dict[str, list[str]]  # "training" and "validation": names of files, "<class>/<file>"


def write_metadata(
    setting: Any,
    network_config: dict[str, Any],
    trained_on: str,
    handwriting: bool,
    training: DirectoryIterator,
    validation: DirectoryIterator,
) -> None:
    """Write split.json, then model.json, into the Setting's checkpoint_path.

    It is called when all checks have passed. A resumed run that has more epochs now says so.

    Args:
        setting: complete, as resolved_setting returns it.
        network_config: of the network that build_model makes.
        trained_on: what the pictures are.
        handwriting: they are like MNIST's: predict cleans up a person's pictures.
        training: the files to learn from.
        validation: the files held out.
    """
    folder = Path(setting.checkpoint_path)
    if setting.is_restore and (folder / "model.json").exists():
        begun = read_metadata(folder).get("epochs", setting.epochs)  # older programs didn't say
        if setting.epochs > begun:
            change = f"{setting.epochs} epochs instead of {begun}"
            if setting.recipe == "tuned":  # the article's learning rate is the same throughout
                change += f": the learning rate goes on as in a training of {setting.epochs}"
            print(change)
    metadata = {"classes": list(training.class_indices)}
    metadata |= {name: getattr(setting, name) for name in SAVED_FIELDS if name != "label_nums"}
    metadata |= {
        "batch_size": setting.chosen("batch_size"),
        "handwriting": handwriting,
        "trained_on": trained_on,
        "images": training.samples,
        "keras": keras.__version__,
        "network": network_config,
    }
    contents = {"model.json": metadata}
    if not setting.is_restore or read_split(folder) is None:
        split = {"training": file_names(training), "validation": file_names(validation)}
        contents = {"split.json": split} | contents  # a run that goes on keeps its own
    for name, content in contents.items():
        # A folder's name may be bytes that are no text: they are escaped, which JSON can undo.
        text = json.dumps(content, indent=2, ensure_ascii=False)
        write_file(folder / name, text.encode("utf-8", errors="backslashreplace"))


def network_config(model: keras.Model) -> dict[str, Any]:
    """Keras's config of the network, with layers' indices for names, which Keras numbers on."""
    return with_indices(json.loads(model.to_json()))


def with_indices(config: dict[str, Any]) -> dict[str, Any]:
    """A network's config that refers to layers by their indices, in the networks in it as well.

    Keras refers to what comes out of a layer by a list: the layer's name and two numbers.
    """
    nested = config["config"]["layers"]
    layers = [with_indices(layer) if "layers" in layer["config"] else layer for layer in nested]
    # A layer class of one's own whose __init__ takes no name has none in its config.
    names = [layer.get("name", layer["config"].get("name")) for layer in layers]

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: renamed(item) for key, item in value.items()}
        if not isinstance(value, list):
            return value
        if len(value) == 3 and isinstance(value[0], str) and value[0] in names:
            return [str(names.index(value[0])), *value[1:]]
        return [renamed(item) for item in value]

    return renamed(config | {"config": config["config"] | {"layers": layers}})


def read_metadata(folder: Path) -> dict[str, Any]:
    """What model.json says, checked, with "label_nums".

    Raises:
        InputError: it is missing or damaged.
    """
    path = folder / "model.json"
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        classes = metadata["classes"]
        if not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
            raise ValueError("its classes are not a list of names")
        if not all(type(metadata[side]) is int and metadata[side] > 0 for side in SIDES):
            raise ValueError("its image size is not a number of pixels")
        if any(name in ("", ".", "..") or Path(name).name != name for name in classes):
            raise ValueError("a class is not the name of a folder")  # evaluate would read elsewhere
        if type(metadata["handwriting"]) is not bool or len(classes) < 2:
            raise ValueError("it does not describe a network")
        if type(metadata["trained_on"]) is not str:
            raise ValueError("it does not say what the network was trained on")
        # Older programs had some of them only.
        metadata = (
            dict.fromkeys(("mean_std", "ground", "pretrained", "pretrained_weights")) | metadata
        )
        for name in ("mean_std", "ground"):
            if metadata[name] is not None:
                mean, std = metadata[name] = tuple(metadata[name])
                if not 0 <= mean <= 1 >= std > 0:
                    raise ValueError(f"{name} is no mean and standard deviation of pixels")
        if "network" in metadata:
            config_difference(metadata["network"], metadata["network"])  # raises unless it is one
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; --mode train writes it beside the weights, and where they are "
            "copied to, it must be copied with them"
        ) from None
    except (*JSON_ERRORS, OSError) as error:
        raise InputError(f"{path}: damaged ({error}); copy it anew, or train anew") from None
    return metadata | {"label_nums": len(classes)}


def read_split(folder: Path) -> Split | None:
    """The files that the run was trained and validated on; None if an older program ran it.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / "split.json"
    try:
        split = json.loads(path.read_text(encoding="utf-8"))
        for part in ("training", "validation"):
            if not all(
                type(name) is str and re.fullmatch(r"[^/]+/.+", name) for name in split[part]
            ):
                raise ValueError("it does not name files of classes")
    except FileNotFoundError:
        return None
    except (*JSON_ERRORS, OSError) as error:
        raise InputError(
            f"{path}: damaged ({error}); it says which pictures were held out"
        ) from None
    return split


def with_metadata(
    setting: Any, metadata: dict[str, Any], names: Sequence[str], folder: Path
) -> Any:
    """A copy of a Setting with the values of a run's metadata.

    Args:
        setting: what is asked for now.
        metadata: as `read_metadata` gives it.
        names: the fields to take from there.
        folder: of the run, for the message.

    Raises:
        InputError: a value that was given contradicts one of them.
    """
    names = [name for name in names if name in metadata]  # older programs said less
    for name in names:
        allowed = [metadata[name], "auto"]
        if name == "pretrained":
            allowed.append(metadata["pretrained_weights"])
        if setting.is_set(name) and getattr(setting, name) not in allowed:
            default = f"the default ({getattr(type(setting), name).default_text}): leave it out"
            trained_with = default if metadata[name] is None else metadata[name]
            raise InputError(
                f"--{name} {getattr(setting, name)}, but the network in {folder} has {trained_with}"
            )
    try:
        return setting.replace(**{name: metadata[name] for name in names})
    except ValueError as error:
        raise InputError(f"{folder / 'model.json'}: damaged, {error}") from None


def resolved_setting(setting: Any) -> Any:
    """The complete Setting of a training: of the run that is resumed, or by default."""
    folder = Path(setting.checkpoint_path)
    if setting.is_restore:
        workers.broadcast_files(folder, ("model.json", "split.json"))
    classes = class_folders(setting.train_dir)
    if setting.is_restore and (folder / "model.json").exists():
        setting = resumed_setting(setting, folder, classes)
    if len(classes) != setting.label_nums:
        print(f"label_nums is {len(classes)}: as many classes as there are in {setting.train_dir}")
    if is_large_set(setting):
        print(f"epochs is {LARGE_SET_EPOCHS}: more would teach so many pictures no more")
        setting = setting.replace(epochs=LARGE_SET_EPOCHS)
    precision, *_ = workers.all_gather(hardware.choose_precision(setting.precision, setting.recipe))
    return setting.replace(label_nums=len(classes), precision=precision)


def is_large_set(setting: Any) -> bool:
    """Whether epochs isn't set, and there are so many pictures that LARGE_SET_EPOCHS are enough."""
    if setting.is_set("epochs") or setting.initial_epoch or setting.recipe == "article":
        return False
    if setting.pretrained:
        return False
    return sum(map(is_picture, files_below(Path(setting.train_dir)))) >= LARGE_SET


def resumed_setting(setting: Any, folder: Path, classes: list[str]) -> Any:
    """A copy of a Setting that resumes the run in the folder with the run's settings.

    Args:
        setting: what is asked for now; its epochs may be more than the run's.
        folder: of the run.
        classes: that there are pictures of now.

    Raises:
        InputError: a value that was given contradicts the run; or the classes are others now.
    """
    metadata = read_metadata(folder)
    names = [name for name in SAVED_FIELDS if name != "epochs"]
    setting = with_metadata(setting, metadata, names, folder)
    begun = metadata.get("epochs")
    if not (setting.is_set("epochs") and type(begun) is int and setting.epochs > begun):
        setting = with_metadata(setting, metadata, ["epochs"], folder)
    now, then = set(classes), set(metadata["classes"])
    for what, names in (("new", now - then), ("gone", then - now)):
        if names:
            raise InputError(
                f"{setting.train_dir}: classes that are {what} since the training in {folder} "
                f"began: {', '.join(sorted(names))}; it can go on only with the same ones"
            )
    return setting


def check_network(metadata: dict[str, Any], network_config: dict[str, Any], folder: Path) -> None:
    """Raise InputError if build_model's network is not the one that the run has trained."""
    if "network" not in metadata:  # older programs didn't say
        return
    # An older program wrote the names in nested networks as they were.
    changed = config_difference(with_indices(metadata["network"]), network_config)
    if changed:
        raise InputError(
            f"{folder}: not trained with the network that build_model makes now ({changed}); train "
            "that one, or change build_model back"
        )


def restore_split(
    folder: Path,
    network_config: dict[str, Any],
    source: str,
    training: DirectoryIterator,
    validation: DirectoryIterator,
) -> None:
    """Have the iterators load the files of the run in the folder, split as they were.

    Files that are not in the run's split are left out and counted, missing ones named, on stderr.

    Args:
        folder: of the run.
        network_config: of the network that is to be trained on.
        source: what the pictures are now; for pictures of a user's own, their folder.
        training: all training files there are now.
        validation: all validation files there are now.

    Raises:
        InputError: the network or the pictures are not the run's any more.
    """
    if not (folder / "model.json").exists():  # the run was stopped before it had begun
        return
    metadata = read_metadata(folder)
    check_network(metadata, network_config, folder)
    split = read_split(folder)
    if split is None:
        return
    files = {*file_names(training), *file_names(validation)}
    run_files = {*split["training"], *split["validation"]}
    new, missing = files - run_files, sorted(run_files - files)
    directory = training.directory
    replaced = source != directory and source != metadata["trained_on"]
    if replaced or len(missing) > len(run_files) / 2:
        raise InputError(
            f"{directory}: not the pictures of the training in {folder}, which were "
            f"{metadata['trained_on']} ({len(missing)} of {len(run_files)} are missing); put them "
            "back, or train anew without --is_restore"
        )
    if new:
        warn(f"{directory}: not in this run, as they are new or could not be read: {len(new)}")
    if missing:
        some = ", ".join(missing[:MAX_NAMES]) + ", …" * (len(missing) > MAX_NAMES)
        warn(f"{directory}: pictures that are gone: {len(missing)} ({some})")
    for iterator, part in ((training, "training"), (validation, "validation")):
        select_files(iterator, [name for name in split[part] if name in files])


def select_held_out(iterator: DirectoryIterator, folder: Path) -> None:
    """Have the iterator over all training pictures load only those that the run has held out.

    Raises:
        InputError: none of them is left, or the run doesn't say which they were.
    """
    split = read_split(folder)
    if split is None:
        raise InputError(
            f"{folder}: it is not known which pictures were held out; make a test folder"
        )
    present = set(file_names(iterator))
    held_out = [name for name in split["validation"] if name in present]
    if not held_out:
        raise InputError(f"{iterator.directory}: none of the pictures held out in training is here")
    if len(held_out) < len(split["validation"]):
        gone = len(split["validation"]) - len(held_out)
        warn(f"{iterator.directory}: pictures held out in training that are gone: {gone}")
    select_files(iterator, held_out)


def config_difference(then: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The first difference between two networks' configs, in words; None if there is none."""
    old_layers, new_layers = then["config"]["layers"], now["config"]["layers"]
    if len(old_layers) != len(new_layers):
        return f"it had {len(old_layers)} layers, now {len(new_layers)}"
    for index, (old, new) in enumerate(zip(old_layers, new_layers, strict=True)):
        layer = f"layer {index}, {old['class_name']},"
        if old["class_name"] != new["class_name"]:
            return f"{layer} is now {new['class_name']}"
        if "layers" in old["config"] and (inner := config_difference(old, new)):
            return f"{layer} {inner}"
        for key in sorted(old["config"].keys() & new["config"].keys() - set(INCIDENTAL)):
            before = without_incidental(old["config"][key])
            after = without_incidental(new["config"][key])
            if before != after:
                return f"{layer} had {key} {before!r}, now {after!r}"
        inputs = [without_incidental(one.get("inbound_nodes")) for one in (old, new)]
        if inputs[0] != inputs[1]:
            return f"{layer} had other inputs"
    return None


def without_incidental(value: Any) -> Any:
    """A value of Keras's config without the INCIDENTAL keys."""
    if isinstance(value, dict):
        return {k: without_incidental(v) for k, v in value.items() if k not in INCIDENTAL}
    if isinstance(value, list):
        return [without_incidental(v) for v in value]
    return value
