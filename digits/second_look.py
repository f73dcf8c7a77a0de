"""A network that looks again at digits of which it is unsure."""

import keras
import tensorflow as tf

from classifier.faster import InParts

# Of MNIST's 11,996 held out 1.6% have less; they hold nearly all that a second look can mend. Where
# it is 0.6, or all are looked at again, as many are wrong.
SURE = 0.7
# Up, down, left and right by a pixel: no further than in training. What leaves at one side comes in
# at the other, and is black.
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))


@keras.saving.register_keras_serializable("digits")
class SecondLook(InParts):
    """An InParts which, where its answer is unsure, takes the mean of five looks, when not trained.

    Each of the others is from a pixel further to one side: poolings see other pixels together
    then. Of MNIST's 11,996 held out 49 are wrong without, 45 with it (the mean of 19 trainings).
    """

    def call(self, images: tf.Tensor, training: bool | None = None, mask=None) -> tf.Tensor:
        chances = super().call(images, training=training)
        if training:
            return chances
        unsure = tf.where(tf.reduce_max(chances, -1) < SURE)

        def look_again() -> tf.Tensor:
            again = tf.gather(images, unsure[:, 0])
            moved = tf.concat([tf.roll(again, move, (1, 2)) for move in MOVES], 0)
            looks = [tf.gather(chances, unsure[:, 0])]
            looks += tf.split(super(SecondLook, self).call(moved), len(MOVES))
            return tf.tensor_scatter_nd_update(chances, unsure, tf.add_n(looks) / len(looks))

        return tf.cond(tf.size(unsure) > 0, look_again, lambda: chances)
