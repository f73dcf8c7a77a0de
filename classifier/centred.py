"""A network whose first step centres its pictures: what they are drawn on doesn't matter then.

Dark lines on white paper are pictures of nearly all ones; a network that begins with small random
weights sees little but paper, and of four shapes so drawn it learned nothing in 20 epochs.
"""

import keras
from keras import layers

Ground = tuple[float, float]  # mean and standard deviation of the pixels, which are 0..1


def centred(model: keras.Model, mean: float, spread: float) -> keras.Model:
    """The model, behind a layer that takes the mean from each pixel and divides by the spread."""
    first = layers.Rescaling(1 / spread, offset=-mean / spread, name="centring")
    picture = keras.Input(model.input_shape[1:])
    if type(model) is keras.Sequential:
        return keras.Sequential([picture, first, *model.layers], name=model.name)
    return keras.Model(picture, model(first(picture)), name=model.name)
