"""That `faster(model)` changes how long a network takes, and nothing else."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from classifier import faster as faster_module
from classifier.faster import (
    PER_IMAGE,
    SPLITS,
    Conv2D,
    Dropout,
    MaxPooling2D,
    SplitSequential,
    faster,
    used_size,
)
from mnist_keras import build_model
from setting import Setting

# Of MNIST, of the smallest pictures, of CIFAR-10, and with more outputs than one product pays for.
SIZES = [(28, 28), (18, 18), (33, 35), (44, 30)]


@pytest.fixture(autouse=True)
def float32(processor):
    """Smaller differences show than in bfloat16; on a GPU layers would stay Keras's."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("float32")
    keras.utils.set_random_seed(0)
    yield
    keras.mixed_precision.set_global_policy(before)


def sequential(size: tuple[int, int], *chain: layers.Layer) -> keras.Sequential:
    return keras.Sequential([keras.Input((*size, 3)), *chain])


def with_other_weights(model: keras.Model) -> keras.Model:
    """Biases other than 0, else the order of adding them, pooling and ReLU would not show."""
    draw = np.random.default_rng(0)
    model.set_weights([draw.normal(weights, 0.05) for weights in model.get_weights()])
    return model


def pictures(count: int, size: tuple[int, int], grayscale: bool) -> tf.Tensor:
    images = np.random.default_rng(0).random((count, *size, 1 if grayscale else 3), np.float32)
    return tf.constant(np.repeat(images, 3, -1) if grayscale else images)


def assert_computes_the_same(plain: keras.Model, fast: keras.Model, images: tf.Tensor) -> None:
    """Outputs, and the gradients of a loss in which every output has its own share."""

    @tf.function
    def step(model: keras.Model) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            outputs = model(images, training=False)
            share = tf.random.stateless_uniform(tf.shape(outputs), [1, 2])
            loss = tf.reduce_sum(share * outputs * outputs)
        return outputs, tape.gradient(loss, model.trainable_variables)

    (output, gradients), (fast_output, fast_gradients) = step(plain), step(fast)
    most = np.abs(output).max()
    np.testing.assert_allclose(fast_output, output, atol=1e-5 * most, rtol=1e-4)
    for expected, gradient in zip(gradients, fast_gradients, strict=True):
        atol = 2e-5 * np.abs(expected).max() + 1e-12
        np.testing.assert_allclose(gradient, expected, atol=atol, rtol=1e-4)


# The article's network


@pytest.mark.parametrize("grayscale", [True, False], ids=["grayscale", "colour"])
@pytest.mark.parametrize("size", SIZES)
def test_output_and_gradients_are_the_article_network_s(size, grayscale):
    plain = with_other_weights(build_model(Setting(img_height=size[0], img_width=size[1])))
    fast = faster(plain, grayscale)
    assert type(fast) is SplitSequential and fast.splits == SPLITS
    assert_computes_the_same(plain, fast, pictures(5, size, grayscale))


def test_the_article_s_network_is_computed_by_faster_layers():
    fast = faster(build_model(Setting()), grayscale=True)
    assert [type(layer) for layer in fast.layers] == [
        *(Conv2D, MaxPooling2D, Conv2D, MaxPooling2D, Conv2D),
        *(layers.Flatten, Dropout, layers.Dense, Dropout, layers.Dense),
    ]
    assert [layer.grayscale for layer in fast.layers if type(layer) is Conv2D] == [
        True,
        False,
        False,
    ]
    assert fast.used_size == (26, 26)


def test_files_of_weights_fit_both(tmp_path):
    plain = with_other_weights(build_model(Setting()))
    fast = faster(build_model(Setting()), grayscale=False)
    plain.save_weights(tmp_path / "plain.weights.h5")
    fast.load_weights(tmp_path / "plain.weights.h5")
    for one, other in zip(plain.get_weights(), fast.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    fast.save_weights(tmp_path / "fast.weights.h5")
    build_model(Setting()).load_weights(tmp_path / "fast.weights.h5")


def test_it_can_be_written_by_keras_and_read_again(tmp_path):
    fast = faster(with_other_weights(build_model(Setting())), grayscale=True)
    fast.save(tmp_path / "a.keras")
    again = keras.saving.load_model(tmp_path / "a.keras")
    assert (again.splits, tuple(again.used_size)) == (fast.splits, fast.used_size)
    images = pictures(3, (28, 28), grayscale=True)
    np.testing.assert_array_equal(again(images), fast(images))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_batch_may_have_fewer_pictures_than_parts(count):
    plain = with_other_weights(build_model(Setting()))
    fast = faster(plain, grayscale=True)
    fast.splits = 2  # also where there is one core
    images = pictures(count, (28, 28), grayscale=True)
    np.testing.assert_allclose(fast.predict(images, verbose=0), plain(images), atol=1e-5)


# Any network

# Chains that were written to hurt: what stands beside what decides what may be exchanged.
EDITS = {
    "gelu before a pooling": [
        layers.Conv2D(4, 3, activation="gelu"),
        layers.MaxPooling2D(2),
    ],
    "ReLU without a pooling": [layers.Conv2D(4, 3, activation="relu"), layers.Conv2D(4, 3)],
    "ReLU before an average": [layers.Conv2D(4, 3, activation="relu"), layers.AveragePooling2D(2)],
    "ReLU before something between": [
        layers.Conv2D(4, 3, activation="relu"),
        layers.Dropout(0.5),
        layers.MaxPooling2D(2),
    ],
    "ReLU before a padded pooling": [
        layers.Conv2D(4, 3, activation="relu"),
        layers.MaxPooling2D(3, strides=2, padding="same"),
    ],
    "two poolings": [
        layers.Conv2D(4, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.MaxPooling2D(2),
    ],
    "pooling of what may be negative": [layers.MaxPooling2D(2), layers.Conv2D(4, 3)],
    "strides and padding": [layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")],
    "padding alone": [layers.Conv2D(4, 3, padding="same", activation="relu")],
    "holes": [layers.Conv2D(4, 3, dilation_rate=2, activation="relu")],
    "groups": [layers.Conv2D(6, 3, groups=3, activation="relu")],
    "few outputs with holes": [layers.MaxPooling2D(4), layers.Conv2D(4, 2, dilation_rate=2)],
    "few outputs with strides": [layers.MaxPooling2D(3), layers.Conv2D(4, 3, strides=2)],
    "few outputs": [layers.MaxPooling2D(3), layers.Conv2D(4, (3, 5))],
    "a row and a column": [layers.Conv2D(4, (1, 5)), layers.Conv2D(4, (5, 1))],
    "no bias": [layers.Conv2D(4, 3, use_bias=False, activation="relu"), layers.MaxPooling2D(2)],
    "5×5 with strides": [layers.Conv2D(4, 5, strides=3), layers.Conv2D(4, 2, strides=2)],
    "zeros around": [layers.ZeroPadding2D(2), layers.Conv2D(4, 3, strides=2)],
    "cut": [layers.Cropping2D(((1, 2), (0, 3))), layers.Conv2D(4, 3)],
    "normalised over pictures": [layers.Conv2D(4, 3), layers.BatchNormalization()],
    "normalised over channels and pixels": [
        layers.Conv2D(4, 3),
        layers.GroupNormalization(2),
        layers.MaxPooling2D(2),
    ],
    # Over all of it: of three equal channels alone nothing but rounding would be left.
    "normalised in one picture": [
        layers.LayerNormalization(axis=(1, 2, 3)),
        layers.Conv2D(4, 3, strides=2),
    ],
    "a mean of all pixels": [layers.Conv2D(4, 3, strides=2), layers.GlobalAveragePooling2D()],
    "separable": [layers.SeparableConv2D(4, 3, activation="relu"), layers.MaxPooling2D(2)],
    "depthwise": [layers.DepthwiseConv2D(3), layers.MaxPooling2D(2)],
    "larger": [layers.Conv2D(4, 3, strides=2), layers.UpSampling2D(2), layers.MaxPooling2D(3)],
    "transposed": [layers.Conv2DTranspose(4, 3, strides=2), layers.MaxPooling2D(2)],
    "rescaled": [layers.Rescaling(2.0, -1.0), layers.Conv2D(4, 3, strides=2)],
    "a leaky layer": [layers.Conv2D(4, 3), layers.LeakyReLU(0.2), layers.MaxPooling2D(2)],
    "a layer as an activation": [
        layers.Conv2D(4, 3, activation=layers.LayerNormalization(axis=(1, 2, 3))),
        layers.MaxPooling2D(2),
    ],
    "an array as scale": [
        layers.Rescaling(np.linspace(1, 2, 20 * 17).reshape(20, 17, 1)),
        layers.MaxPooling2D(3),
    ],
    "an array as offset": [
        layers.Rescaling(1.0, np.linspace(0, 1, 17).reshape(17, 1)),
        layers.MaxPooling2D(3),
    ],
    "channels with scales of their own": [
        layers.Rescaling([1.0, 2.0, 3.0], [0.0, 0.1, 0.2]),
        layers.Conv2D(4, 3, strides=3),
    ],
    "coins for maps": [layers.Conv2D(4, 3), layers.Dropout(0.5), layers.SpatialDropout2D(0.5)],
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_network_computes_the_same(name):
    chain = [type(layer).from_config(layer.get_config()) for layer in EDITS[name]]
    plain = with_other_weights(sequential((20, 17), *chain, layers.Flatten(), layers.Dense(3)))
    assert_computes_the_same(
        plain, faster(plain, grayscale=True), pictures(4, (20, 17), grayscale=True)
    )


def drawn_network(seed: int) -> keras.Sequential:
    """A network as people write them: layers, and what is said of each, as chance will have it."""
    draw = np.random.default_rng(seed)

    def one_of(*choices):
        return choices[draw.integers(len(choices))]

    def convolution() -> layers.Layer:
        kind = one_of(layers.Conv2D, layers.Conv2D, layers.SeparableConv2D)
        # Where strides exceed the kernel, TensorFlow's own gradient corrupts its memory.
        kernel, strides = one_of((1, 1), (2, 2), (3, 1), (3, 2), ((3, 2), 1), (5, 1), (5, 3))
        activation = one_of("relu", "relu", "gelu", "tanh", None)
        return kind(6, kernel, strides, one_of("valid", "valid", "same"), activation=activation)

    def pooling() -> layers.Layer:
        kind = one_of(layers.MaxPooling2D, layers.MaxPooling2D, layers.AveragePooling2D)
        return kind(one_of(2, 3, (3, 2)), one_of(None, 1, 2), one_of("valid", "valid", "same"))

    def other() -> layers.Layer:
        return one_of(
            layers.Dropout(one_of(0.2, 0.5)),
            layers.BatchNormalization(),
            layers.GroupNormalization(3),
            layers.LeakyReLU(0.1),
            layers.Activation("elu"),
            layers.Rescaling(2.0, -1.0),
        )

    size = (int(draw.integers(15, 30)), int(draw.integers(15, 30)))
    chain = []
    while len(chain) < 7:
        layer = one_of(convolution, pooling, convolution, pooling, other)()
        if type(layer) in (layers.Rescaling, layers.GroupNormalization) and not chain:
            continue  # three channels are no two groups of three
        chain.append(layer)
        if min(sequential(size, *chain).output_shape[1:3]) < 5:
            break
    ends = (layers.Flatten, layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)
    chain += [one_of(*ends)(), layers.Dense(4, activation=one_of(None, "softmax"))]
    return with_other_weights(sequential(size, *chain))


@pytest.mark.parametrize("seed", range(5))
def test_a_drawn_network_computes_the_same(seed):
    plain = drawn_network(seed)
    grayscale = bool(seed % 2)
    images = pictures(3, plain.input_shape[1:3], grayscale)
    assert_computes_the_same(plain, faster(plain, grayscale), images)


def test_a_functional_network_is_left_to_keras():
    given = keras.Input((20, 20, 3))
    here = layers.Conv2D(3, 3, padding="same", activation="relu")(given)
    model = keras.Model(given, layers.Flatten()(layers.Add()([given, here])))
    assert faster(model, grayscale=True) is model


def test_parts_are_computed_apart_only_if_no_picture_looks_at_another(monkeypatch):
    alone = sequential((20, 20), layers.Conv2D(4, 3), layers.LayerNormalization(), layers.Flatten())
    assert faster(alone, grayscale=False).splits == SPLITS
    together = sequential((20, 20), layers.Conv2D(4, 3), layers.BatchNormalization())
    regular = sequential((20, 20), layers.Conv2D(4, 3, activity_regularizer="l2"))
    unknown = sequential((20, 20), layers.Lambda(lambda images: images - tf.reduce_mean(images)))
    softmax = sequential((20, 20), layers.Softmax(axis=0))
    for model in (together, regular, unknown, softmax):
        assert faster(model, grayscale=False).splits == 1
    assert layers.BatchNormalization not in PER_IMAGE


def test_batch_normalization_learns_from_the_whole_batch():
    plain = sequential((12, 12), layers.Conv2D(4, 3), layers.BatchNormalization())
    images = pictures(6, (12, 12), grayscale=False)
    fast = faster(keras.models.clone_model(plain), grayscale=False)
    fast.set_weights(plain.get_weights())
    np.testing.assert_allclose(fast(images, training=True), plain(images, training=True), atol=1e-5)
    for one, other in zip(plain.get_weights(), fast.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-6)


def test_activity_is_regularised_after_the_activation():
    plain = sequential((12, 12), layers.Conv2D(4, 3, activation="relu", activity_regularizer="l1"))
    plain = with_other_weights(sequential((12, 12), *plain.layers, layers.MaxPooling2D(2)))
    fast, images = faster(plain, grayscale=False), pictures(4, (12, 12), grayscale=False)
    expected, said = (model(images) is not None and sum(model.losses) for model in (plain, fast))
    np.testing.assert_allclose(said, expected, rtol=1e-4)


def test_activity_is_regularised_of_pixels_that_a_pooling_drops_too():
    convolution = layers.Conv2D(4, 3, activation="relu", activity_regularizer="l1")
    plain = with_other_weights(sequential((13, 13), convolution, layers.MaxPooling2D(2)))
    fast, images = faster(plain, grayscale=False), pictures(4, (13, 13), grayscale=False)
    expected, actual = (model(images) is not None and sum(model.losses) for model in (plain, fast))
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_a_noise_shape_that_names_rows_is_given_all_rows():
    noise = layers.Dropout(0.5, noise_shape=(None, 20, 17, 1))
    fast = faster(sequential((20, 17), noise, layers.MaxPooling2D(3)), grayscale=False)
    assert fast(pictures(4, (20, 17), False), training=True).shape == (4, 6, 5, 3)


def test_on_a_gpu_layers_stay_keras_s_and_only_unseen_pixels_are_left_out(monkeypatch):
    monkeypatch.setattr(faster_module, "runs_on_cpu", lambda: False)
    plain = build_model(Setting())
    fast = faster(plain, grayscale=True)
    assert fast.layers == plain.layers and fast.splits == 1 and fast.used_size == (26, 26)


def reversed_maps(maps):
    return tf.reverse(maps, [1, 2])


def test_a_function_of_the_user_s_own_that_sees_a_whole_map_is_given_all_of_it():
    for layer in (layers.Conv2D(4, 3, activation=reversed_maps), layers.Activation(reversed_maps)):
        chain = [layer, layers.MaxPooling2D(4), layers.Flatten(), layers.Dense(3)]
        plain = with_other_weights(sequential((21, 18), *chain))
        fast = faster(plain, grayscale=False)
        assert_computes_the_same(plain, fast, pictures(4, (21, 18), grayscale=False))


# The pixels that are looked at


@pytest.mark.parametrize(
    ("chain", "seen"),
    [
        ([layers.Conv2D(1, 3)], (20, 17)),
        ([layers.Conv2D(1, 3, strides=3)], (18, 15)),
        ([layers.Conv2D(1, 3, strides=3, dilation_rate=1), layers.MaxPooling2D(2)], (18, 12)),
        ([layers.MaxPooling2D(4)], (20, 16)),
        ([layers.MaxPooling2D((3, 2), strides=4)], (19, 14)),
        ([layers.Conv2D(1, 3, dilation_rate=2), layers.AveragePooling2D(5)], (19, 14)),
        ([layers.Rescaling(2.0), layers.MaxPooling2D(3), layers.ReLU()], (18, 15)),
        ([layers.MaxPooling2D(3), layers.Flatten()], (18, 15)),
        ([layers.MaxPooling2D(3, padding="same")], (20, 17)),
        ([layers.MaxPooling2D(3), layers.UpSampling2D(2)], (20, 17)),
        ([layers.GlobalMaxPooling2D()], (20, 17)),
    ],
)
def test_pixels_that_are_never_looked_at_are_known(chain, seen):
    chain = [type(layer).from_config(layer.get_config()) for layer in chain]
    assert used_size(sequential((20, 17), *chain)) == seen


@pytest.mark.parametrize("size", [(28, 28), (24, 41), (33, 70), (130, 19)])
def test_the_article_s_network_looks_at_all_that_is_seen_and_at_nothing_else(size):
    model = build_model(Setting(img_height=size[0], img_width=size[1]))
    height, width = used_size(model)
    images = tf.Variable(pictures(1, size, grayscale=False))
    with tf.GradientTape() as tape:
        score = tf.reduce_sum(with_other_weights(model)(images) ** 2)
    looked_at = np.any(np.asarray(tape.gradient(score, images))[0] != 0, axis=-1)
    rows, columns = np.flatnonzero(looked_at.any(axis=1)), np.flatnonzero(looked_at.any(axis=0))
    assert height - 3 <= rows.max() + 1 <= height and width - 3 <= columns.max() + 1 <= width


# Dropout


def test_dropout_keeps_half_of_the_values_and_doubles_them():
    dropout, ones = Dropout(0.5, seed=0), tf.ones([1000, 40])
    first, second = (dropout(ones, training=True).numpy() for _ in range(2))
    assert set(np.unique(first)) == {0, 2}
    # 40,000 coins: within four standard deviations of half, and the columns like the rows.
    assert abs((first == 2).mean() - 0.5) < 0.01
    assert np.ptp((first == 2).mean(axis=0)) < 0.13
    assert abs((first == second).mean() - 0.5) < 0.01
    assert np.array_equal(dropout(ones), ones)


def test_dropout_lets_the_gradient_through_where_it_kept_the_value():
    dropout, ones = Dropout(0.5, seed=0), tf.ones([10, 40])
    with tf.GradientTape() as tape:
        tape.watch(ones)
        kept = dropout(ones, training=True)
    assert np.array_equal(tape.gradient(kept, ones), kept)


@pytest.mark.parametrize(
    ("dropout", "share"),
    [
        (layers.Dropout(0.5), 0.5),
        (layers.Dropout(0.2), 0.8),
        (layers.Dropout(0.5, noise_shape=(None, 1)), 0.5),
    ],
)
def test_dropout_keeps_the_share_that_was_written(dropout, share):
    fast = faster(sequential((20, 20), layers.Flatten(), dropout), grayscale=False)
    kept = fast(tf.ones([200, 20, 20, 3]), training=True).numpy()
    assert np.unique(kept).tolist() == pytest.approx([0, 1 / share])
    assert (kept != 0).mean() == pytest.approx(share, abs=0.15 if dropout.noise_shape else 0.01)
    assert (np.ptp(kept, axis=1) == 0).all() == (dropout.noise_shape is not None)


def own_activation(values):
    return keras.ops.relu(values) * 2


def test_a_function_of_the_reader_s_own_is_computed_as_written():
    chain = [
        layers.Conv2D(4, 3, activation=own_activation),
        layers.MaxPooling2D(2),
        layers.Conv2D(4, 3, activation=lambda values: values + 1),
        *(layers.Flatten(), layers.Dense(3)),
    ]
    plain = with_other_weights(sequential((20, 17), *chain))
    fast = faster(plain, grayscale=False)
    assert_computes_the_same(plain, fast, pictures(4, (20, 17), grayscale=False))
    assert fast.splits == 1  # it might look at the whole batch


def test_threads_stay_as_they_are_where_tensorflow_has_computed_before():
    tf.constant(1.0) + 1.0
    before = tf.config.threading.get_intra_op_parallelism_threads()
    faster_module.limit_threads()
    assert tf.config.threading.get_intra_op_parallelism_threads() == before
