"""model.json and split.json: what a network is, and what its training was, for later runs."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
from tensorflow.keras.preprocessing.image import DirectoryIterator

from classifier import hardware, workers
from classifier.console import InputError, warn
from classifier.files import save
from classifier.pictures import class_folders, file_names, files_below, is_picture, load_only
from classifier.recipe import EPOCHS_OF_MANY, MANY

# What makes a training what it is. --is_restore takes it from the run that it goes on with.
CARRIED = (
    *("recipe", "precision", "img_width", "img_height", "label_nums", "epochs", "batch_size"),
    *("seed", "horizontal_flip"),
)
# What two descriptions of one network may differ in: Keras counts names up, and the precision of
# its layers, their seeds and where their code lives are not what a person means by the network.
INCIDENTAL = ("name", "dtype", "seed", "module", "registered_name", "build_config")
# A limit on what is believed of a file's word: nobody trains on larger pictures.
MOST_SIDE = 4096

SIDES = ("img_width", "img_height")
# What Python raises for JSON that is not what was written.
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
MOST_NAMED = 20  # a screen of names is enough to know what happened

Split = dict[str, list[str]]  # "training" and "validation": names of files, "<class>/<file>"


def write(
    setting: Any,
    written: dict[str, Any],
    trained_on: str,
    handwriting: bool,
    ground: tuple[float, float] | None,
    training: DirectoryIterator,
    validation: DirectoryIterator,
) -> None:
    """Write split.json, then model.json, into the Setting's checkpoint_path.

    Nothing is against a run that goes on any more: if it has more epochs now, that is said.

    Args:
        setting: of the training, with nothing left open.
        written: the network as build_model has it, as of_network gives it.
        trained_on: what the pictures are.
        handwriting: they are like MNIST's, so that a person's are to be cleaned up.
        ground: mean and spread by which the network centres its pictures.
        training: the files to learn from.
        validation: the files held out.
    """
    folder = Path(setting.checkpoint_path)
    if setting.is_restore and (folder / "model.json").exists():
        begun = read(folder).get("epochs", setting.epochs)  # older programs didn't say
        if setting.epochs > begun:
            print(
                f"{setting.epochs} epochs instead of {begun}: the learning rate goes on as in a "
                f"training of {setting.epochs}"
            )
    said = {"classes": list(training.class_indices)}
    said |= {name: getattr(setting, name) for name in CARRIED if name != "label_nums"}
    if not setting.is_given("batch_size"):
        said["batch_size"] = None  # as many as suit the set
    said |= {
        "handwriting": handwriting,
        "ground": ground,
        "trained_on": trained_on,
        "images": training.samples,
        "keras": keras.__version__,
        "network": written,
    }
    contents = {"model.json": said}
    if not setting.is_restore or read_split(folder) is None:
        split = {"training": file_names(training), "validation": file_names(validation)}
        contents = {"split.json": split} | contents  # a run that goes on keeps its own
    for name, content in contents.items():
        # A folder's name may be bytes that are no text: they are escaped, which JSON can undo.
        text = json.dumps(content, indent=2, ensure_ascii=False)
        save(folder / name, text.encode("utf-8", errors="backslashreplace"))


def of_network(model: keras.Model) -> dict[str, Any]:
    """The network in Keras's own words, without names that depend on how many were built before."""
    text = model.to_json()
    for place, layer in enumerate(json.loads(text)["config"]["layers"]):
        # A layer class of one's own whose __init__ takes no name has none in its config.
        name = layer.get("name", layer["config"].get("name"))
        text = text.replace(f'"{name}"', f'"{place}"')
    return json.loads(text)


def read(folder: Path) -> dict[str, Any]:
    """What model.json says, checked, with "label_nums".

    Raises:
        InputError: it is missing or damaged.
    """
    path = folder / "model.json"
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        classes = said["classes"]
        if not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
            raise ValueError("its classes are not a list of names")
        if not all(type(said[side]) is int and 0 < said[side] <= MOST_SIDE for side in SIDES):
            raise ValueError("its image size is not a number of pixels")
        if any(name in ("", ".", "..") or Path(name).name != name for name in classes):
            raise ValueError("a class is not the name of a folder")  # evaluate would read elsewhere
        if type(said["handwriting"]) is not bool or len(classes) < 2:
            raise ValueError("it does not describe a network")
        if type(said["trained_on"]) is not str:
            raise ValueError("it does not say what the network was trained on")
        ground = said.setdefault("ground", None)
        if ground is not None and not (len(ground) == 2 and 0 <= ground[0] <= 1 >= ground[1] > 0):
            raise ValueError("ground is no mean and spread of pixels")
        if "network" in said:
            network_difference(said["network"], said["network"])  # raises unless it is one
    except (*DAMAGE, OSError) as error:
        raise InputError(f"{path}: missing or damaged ({error}); --mode train makes it") from None
    return said | {"label_nums": len(classes)}


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
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path}: damaged ({error}); it says which pictures were held out"
        ) from None
    return split


def following(setting: Any, said: dict[str, Any], names: Sequence[str], folder: Path) -> Any:
    """A copy of a Setting with the values that a run's description says.

    Args:
        setting: what is asked for now.
        said: as `read` gives it.
        names: the fields to take from there.
        folder: of the run, for the message.

    Raises:
        InputError: a value that was given contradicts one of them.
    """
    names = [name for name in names if name in said]  # older programs said less
    for name in names:
        if setting.is_given(name) and getattr(setting, name) not in (said[name], "auto"):
            there = "the default" if said[name] is None else said[name]
            raise InputError(
                f"--{name} {getattr(setting, name)}, but the network in {folder} has {there}"
            )
    try:
        return setting.replace(**{name: said[name] for name in names})
    except ValueError as error:
        raise InputError(f"{folder / 'model.json'}: damaged, {error}") from None


def settled(setting: Any) -> Any:
    """The Setting of a training with nothing left open: as the run to go on with, or by default."""
    folder = Path(setting.checkpoint_path)
    if setting.is_restore:
        workers.have_firsts_files(folder, ("model.json", "split.json"))
    if setting.is_restore and (folder / "model.json").exists():
        setting = go_on(setting, folder, class_folders(setting.train_dir))
    classes = class_folders(setting.train_dir)
    if len(classes) != setting.label_nums:
        print(f"label_nums is {len(classes)}: as many classes as there are in {setting.train_dir}")
    if has_many(setting):
        print(f"epochs is {EPOCHS_OF_MANY}: more would teach so many pictures no more")
        setting = setting.replace(epochs=EPOCHS_OF_MANY)
    precision, *_ = workers.everyones(hardware.precision(setting.precision, setting.recipe))
    return setting.replace(label_nums=len(classes), precision=precision)


def has_many(setting: Any) -> bool:
    """Whether a training whose epochs nobody has said has so many pictures that few will do."""
    if setting.is_given("epochs") or setting.initial_epoch or setting.recipe == "article":
        return False
    return sum(map(is_picture, files_below(Path(setting.train_dir)))) >= MANY


def go_on(setting: Any, folder: Path, classes: list[str]) -> Any:
    """A copy of a Setting that goes on with the training in the folder as it was begun.

    Args:
        setting: what is asked for now; its epochs may be more than the run's.
        folder: of the run.
        classes: that there are pictures of now.

    Raises:
        InputError: a value that was given contradicts the run; or the classes are others now.
    """
    said = read(folder)
    names = [name for name in CARRIED if name != "epochs"]
    setting = following(setting, said, names, folder)
    begun = said.get("epochs")
    if not (setting.is_given("epochs") and type(begun) is int and setting.epochs > begun):
        setting = following(setting, said, ["epochs"], folder)
    for what, names in (
        ("new", set(classes) - set(said["classes"])),
        ("gone", set(said["classes"]) - set(classes)),
    ):
        if names:
            raise InputError(
                f"{setting.train_dir}: classes that are {what} since the training in {folder} "
                f"began: {', '.join(sorted(names))}; it can go on only with the same ones"
            )
    return setting


def check_network(said: dict[str, Any], written: dict[str, Any], folder: Path) -> None:
    """Raise InputError if the run's network is not the one that is written in build_model now."""
    if "network" not in said:  # older programs didn't say
        return
    changed = network_difference(said["network"], written)
    if changed:
        raise InputError(
            f"{folder}: not trained with the network that build_model makes now ({changed}); train "
            "that one, or change build_model back"
        )


def same_run(
    folder: Path,
    written: dict[str, Any],
    training: DirectoryIterator,
    validation: DirectoryIterator,
) -> None:
    """Have the iterators load the files that the run in the folder has, held out as they were.

    Pictures that came since are left out, and those that are gone are named, on stderr.

    Raises:
        InputError: build_model's network, as of_network gives it, is not the run's any more.
    """
    if not (folder / "model.json").exists():  # the run was stopped before it had begun
        return
    check_network(read(folder), written, folder)
    split = read_split(folder)
    if split is None:
        return
    there = {*file_names(training), *file_names(validation)}
    known = {*split["training"], *split["validation"]}
    if there - known:
        warn(f"{training.directory}: pictures that came since, left out: {len(there - known)}")
    if known - there:
        some = ", ".join(sorted(known - there)[:MOST_NAMED])
        more = ", …" if len(known - there) > MOST_NAMED else ""
        warn(f"{training.directory}: pictures that are gone: {len(known - there)} ({some}{more})")
    for iterator, part in ((training, "training"), (validation, "validation")):
        load_only(iterator, [name for name in split[part] if name in there])


def only_held_out(iterator: DirectoryIterator, folder: Path) -> None:
    """Have the iterator over all training pictures load only those that the run has held out.

    Raises:
        InputError: none of them is left, or the run doesn't say which they were.
    """
    split = read_split(folder)
    if split is None:
        raise InputError(
            f"{folder}: it is not known which pictures were held out; make a test folder"
        )
    there = set(file_names(iterator))
    held_out = [name for name in split["validation"] if name in there]
    if not held_out:
        raise InputError(f"{iterator.directory}: none of the pictures held out in training is here")
    if len(held_out) < len(split["validation"]):
        gone = len(split["validation"]) - len(held_out)
        warn(f"{iterator.directory}: pictures held out in training that are gone: {gone}")
    load_only(iterator, held_out)


def network_difference(then: dict[str, Any], now: dict[str, Any]) -> str | None:
    """In what two networks, as of_network gives them, differ first; None if they don't."""
    there, here = then["config"]["layers"], now["config"]["layers"]
    if len(there) != len(here):
        return f"it had {len(there)} layers, now {len(here)}"
    for place, (old, new) in enumerate(zip(there, here, strict=True)):
        layer = f"layer {place}, {old['class_name']},"
        if old["class_name"] != new["class_name"]:
            return f"{layer} is now {new['class_name']}"
        for key in sorted(old["config"].keys() & new["config"].keys() - set(INCIDENTAL)):
            before, after = essence(old["config"][key]), essence(new["config"][key])
            if before != after:
                return f"{layer} had {key} {before!r}, now {after!r}"
        if essence(old.get("inbound_nodes")) != essence(new.get("inbound_nodes")):
            return f"{layer} had other inputs"
    return None


def essence(value: Any) -> Any:
    """A value of Keras's config without what is incidental."""
    if isinstance(value, dict):
        return {k: essence(v) for k, v in value.items() if k not in INCIDENTAL}
    if isinstance(value, list):
        return [essence(v) for v in value]
    return value
