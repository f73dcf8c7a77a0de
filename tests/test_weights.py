"""A weights file is written whole, and read with suspicion."""

import os

import fuzz
import h5py
import keras
import numpy as np
import pytest

from classifier import run_folder
from classifier.console import InputError
from classifier.weights import load_weights, save_weights, seed_generator_states, without_optimizer

needs_limits = pytest.mark.skipif(
    not fuzz.CAN_LIMIT, reason="only Linux limits a process's time and memory"
)


# Written


def test_what_is_saved_is_what_is_loaded_with_the_optimizer_and_the_draws_of_dropout(
    tmp_path, processor
):
    one, other = fuzz.small_network(), fuzz.small_network()
    images, labels = np.random.default_rng(0).random((9, 6, 6, 3)), np.eye(3)[np.arange(9) % 3]
    one.fit(images, labels, epochs=2, verbose=0)
    save_weights(one, tmp_path / "a.weights.h5", epoch=7)
    assert load_weights(other, tmp_path / "a.weights.h5") == 7
    for model in (one, other):  # one more epoch draws and steps alike
        model.fit(images, labels, epochs=1, verbose=0, shuffle=False)
    for mine, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def drawing_network() -> keras.Model:
    inner = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.RandomFlip(seed=1)])
    wrapped = keras.layers.TimeDistributed(keras.layers.Dropout(0.5, seed=2))
    layers = [inner, wrapped, keras.layers.Flatten(), keras.layers.Dropout(0.5, seed=3)]
    return keras.Sequential([keras.Input((6, 6, 3)), *layers])


def test_the_draws_of_random_wrapped_and_nested_layers_are_saved(tmp_path, processor):
    one, other = drawing_network(), drawing_network()
    images = np.random.default_rng(0).random((9, 6, 6, 3)).astype("f4")
    one(images, training=True)
    save_weights(one, tmp_path / "a.weights.h5", epoch=1)
    load_weights(other, tmp_path / "a.weights.h5")
    mine, theirs = (model(images, training=True) for model in (one, other))
    np.testing.assert_array_equal(mine, theirs)


def test_after_a_file_that_lacks_some_draws_no_layer_draws_the_same_again(tmp_path):
    model, path = drawing_network(), tmp_path / "a.weights.h5"
    save_weights(model, path, epoch=1)
    with h5py.File(path, "r+") as file:
        file.attrs["drawn"] = [12]
    load_weights(model, path)
    assert [int(state[1]) for state in seed_generator_states(model)] == [12, 12, 12]


def test_without_the_optimizer_the_file_has_none_of_its_state_and_both_kinds_load(tmp_path):
    model, path = fuzz.small_network(), tmp_path / "a.weights.h5"
    for saved, expected in ((model, True), (without_optimizer(model), False)):
        save_weights(saved, path, 3)
        with h5py.File(path) as file:
            assert ("optimizer" in file) is expected
        assert load_weights(without_optimizer(model), path) == 3


def test_what_keras_saved_is_loaded_too(tmp_path):
    one, other = fuzz.small_network(), without_optimizer(fuzz.small_network())
    without_optimizer(one).save_weights(tmp_path / "a.weights.h5")
    assert load_weights(other, tmp_path / "a.weights.h5") == 0
    np.testing.assert_array_equal(other.get_weights()[0], one.get_weights()[0])


def test_weights_are_float32_whatever_the_precision(tmp_path):
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    half = without_optimizer(fuzz.small_network())
    keras.mixed_precision.set_global_policy(before)
    save_weights(half, tmp_path / "a.weights.h5", 1)
    with h5py.File(tmp_path / "a.weights.h5") as file:
        arrays = []
        file.visititems(lambda _, item: arrays.append(item) if hasattr(item, "dtype") else None)
        assert {array.dtype for array in arrays if array.dtype.kind == "f"} == {np.dtype("f4")}
    whole = without_optimizer(fuzz.small_network())
    assert load_weights(whole, tmp_path / "a.weights.h5") == 1
    np.testing.assert_array_equal(whole.get_weights()[0], half.get_weights()[0])


# Another network's


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (
            [keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(4)],
            r"layer dense has \(64, 4\) and \(4,\) where the file has \(64, 3\) and \(3,\)",
        ),
        (
            [keras.layers.Conv2D(4, 3, use_bias=False), keras.layers.Flatten()],
            r"layer conv2d has \(3, 3, 3, 4\) where the file has \(3, 3, 3, 4\) and \(4,\)",
        ),
        ([keras.layers.Flatten(), keras.layers.Dense(3)], "layer dense has"),
        (
            [keras.layers.Conv2D(4, 3), keras.layers.Flatten()],
            r"layer dense has nothing where the file has \(64, 3\) and \(3,\)",
        ),
    ],
)
def test_weights_of_another_network_are_called_so_and_not_damaged(tmp_path, layers, said):
    model = keras.Sequential([keras.Input((6, 6, 3)), *layers])
    before = model.get_weights()
    for backup in (False, True):
        saved = fuzz.small_network()
        save_weights(saved if backup else without_optimizer(saved), tmp_path / "a.weights.h5", 3)
        with pytest.raises(InputError) as refused:
            load_weights(model, tmp_path / "a.weights.h5")
        assert refused.match(rf"a.weights.h5: not the weights of this network, whose {said}")
        assert refused.match("was build_model changed since?")
        assert "damaged" not in str(refused.value)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_backup_of_another_optimizer_is_refused(tmp_path):
    model, other = fuzz.small_network(), fuzz.small_network()
    other.compile("rmsprop", loss="categorical_crossentropy")
    other.optimizer.build(other.trainable_variables)
    save_weights(other, tmp_path / run_folder.LAST_EPOCH, 3)
    with pytest.raises(InputError, match="optimizer"):
        load_weights(model, tmp_path / run_folder.LAST_EPOCH)


# Damaged


def test_a_missing_file_is_called_missing(tmp_path):
    with pytest.raises(InputError, match="a.weights.h5: no such file"):
        load_weights(fuzz.small_network(), tmp_path / "a.weights.h5")


def test_a_whole_file_by_another_name_is_not_called_damaged(tmp_path):
    model = without_optimizer(fuzz.small_network())
    save_weights(model, tmp_path / "a.weights.h5", 1)
    (tmp_path / "a.weights.h5").rename(tmp_path / "a.h5")
    with pytest.raises(InputError, match=r"a.h5: the name .* must end in \.weights\.h5$"):
        load_weights(model, tmp_path / "a.h5")


@pytest.mark.parametrize("damage", ["empty", "truncated", "foreign", "flipped", "other array"])
def test_a_damaged_file_is_called_damaged(tmp_path, damage):
    model, path = without_optimizer(fuzz.small_network()), tmp_path / "a.weights.h5"
    save_weights(model, path, 3)
    content = path.read_bytes()
    at = content.index(model.get_weights()[0].tobytes())
    flipped = bytearray(content)
    flipped[at] ^= 0x10
    if damage == "other array":
        with h5py.File(path, "r+") as file:
            file["layers/dense/vars/1"][0] = 1
    else:
        damaged = {"empty": b"", "truncated": content[:-500], "foreign": b"x" * 999}
        path.write_bytes(damaged.get(damage, bytes(flipped)))
    with pytest.raises(InputError, match=r"a.weights.h5: damaged \(.+\)$"):
        load_weights(model, path)


@pytest.fixture
def weights(tmp_path):
    """A network, and a file of its weights without a checksum."""
    model = without_optimizer(fuzz.small_network())
    path = tmp_path / "a.weights.h5"
    model.save_weights(path)
    return model, path


def replace_an_array(path, put):
    with h5py.File(path, "r+") as file:
        folder = file["layers/dense/vars"]
        shape = folder["0"].shape
        del folder["0"]
        put(folder, shape)


def linked_softly(folder, shape):
    folder.file["elsewhere"] = np.zeros(shape, np.float32)
    folder["0"] = h5py.SoftLink("/elsewhere")


def linked_to_another_file(folder, shape):
    folder["0"] = h5py.ExternalLink("victim.h5", "x")


def stored_in_another_file(folder, shape):
    folder.create_dataset("0", shape, "f4", external=[("victim.raw", 0, h5py.h5f.UNLIMITED)])


def stored_in_a_pipe(folder, shape):
    os.mkfifo("pipe")
    folder.create_dataset("0", shape, "f4", external=[("pipe", 0, h5py.h5f.UNLIMITED)])


def put_together_from_another_file(folder, shape):
    layout = h5py.VirtualLayout(shape, "f4")
    layout[...] = h5py.VirtualSource("victim.h5", "x", shape)
    folder.create_virtual_dataset("0", layout)


@pytest.mark.parametrize(
    ("put", "said"),
    [
        # visititems passes over links: what is left doesn't fit.
        (linked_softly, "not the weights of this network"),
        (linked_to_another_file, "not the weights of this network"),
        (stored_in_another_file, "lies in another file"),
        pytest.param(
            *(stored_in_a_pipe, "lies in another file"),  # reading it would wait for ever
            marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here"),
        ),
        (put_together_from_another_file, "lies in another file"),
    ],
)
def test_weights_that_lead_out_of_their_file_are_refused(weights, put, said, tmp_path, monkeypatch):
    model, path = weights
    before = model.get_weights()
    monkeypatch.chdir(tmp_path)
    with h5py.File("victim.h5", "w") as victim:
        victim["x"] = np.ones((64, 3), np.float32)
    (tmp_path / "victim.raw").write_bytes(bytes(64 * 3 * 4))
    replace_an_array(path, put)
    with pytest.raises(InputError, match=rf"a.weights.h5: .*{said}"):
        load_weights(model, path)
    np.testing.assert_array_equal(model.get_weights()[2], before[2])


def array_of_a_terabyte(folder, shape):
    folder.create_dataset("0", (2**38,), "f4")


def a_thousand_names_for_all_of_it(folder, shape):
    for index in range(1000, 2000):
        folder.create_dataset(str(index), (1000,), "f4")


def chunk_of_two_gigabytes(folder, shape):
    folder.create_dataset(
        "0", (4,), "f4", chunks=(2**29,), maxshape=(None,), compression="gzip"
    ).id.write_direct_chunk((0,), b"x")


@needs_limits
@pytest.mark.parametrize(
    "put", [array_of_a_terabyte, a_thousand_names_for_all_of_it, chunk_of_two_gigabytes]
)
def test_weights_that_promise_more_than_their_file_holds_are_refused(weights, put):
    model, path = weights
    replace_an_array(path, put)
    with fuzz.limits(), pytest.raises(InputError, match="its arrays promise"):
        load_weights(model, path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(weights, value):
    model, path = weights
    replace_an_array(
        path, lambda folder, shape: folder.create_dataset("0", data=np.full(shape, value))
    )
    with pytest.raises(InputError, match="is not finite"):
        load_weights(model, path)


@pytest.mark.parametrize("epoch", [-1, 2**62])
def test_weights_of_an_epoch_that_never_was_are_refused(weights, epoch):
    model, path = weights
    with h5py.File(path, "r+") as file:
        file.attrs["epoch"] = epoch
    with pytest.raises(InputError, match="no run has"):
        load_weights(model, path)
