"""AdamW, with orthogonalized updates of convolutions' kernels (Muon: Jordan et al. 2024).

A gradient has few large directions, which drown its many small ones. An orthogonal step goes
equally far in all of them, so that 8 epochs teach MNIST what takes AdamW 20 (docs/figures.md).
Keras's own Muon takes the kernels of dense layers only; those AdamW trains better, and they have
most of the arithmetic.
"""

import keras
import tensorflow as tf

# On a GPU TensorFlow keeps ten bits of the factors of float32 products unless told otherwise; of a
# kernel with few strong directions the orthogonal step is then twice as long as it should be. What
# is in bfloat16 stays as fast. Said here, so that evaluate computes as the training did.
tf.config.experimental.enable_tensor_float_32_execution(False)

MOMENTUM = 0.95  # Jordan's
# In so many turns x ← ax + bx³ + cx⁵ brings nearly all of 0..1 close to 1 (Jordan's figures).
A, B, C, ITERATIONS = 3.4445, -4.7750, 2.0315, 5


class Muon(keras.optimizers.AdamW):
    """AdamW, but a step of a convolution's kernel is made orthogonal first.

    The kernel, [height, width, in, out], is taken as one matrix of height · width · in rows. It
    does not decay: its steps have a length of their own.

    Args:
        length: how far a step goes in each direction: the learning rate, times this, times the root
            of the matrix's longer side. AdamW's steps are about as long with 0.2 (Liu et al. 2025).
    """

    def __init__(self, *args, length: float, **kwargs):
        super().__init__(*args, **kwargs)
        self.length = length

    def build(self, variables: list[keras.Variable]) -> None:
        self.exclude_from_weight_decay([v for v in variables if is_convolution_kernel(v)])
        super().build(variables)
        self.for_muon = [is_convolution_kernel(variable) for variable in variables]

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        index = self._get_variable_index(variable)
        if not self.for_muon[index]:
            super().update_step(gradient, variable, learning_rate)
            return
        momentum = self._momentums[index]
        self.assign_add(momentum, (1 - MOMENTUM) * (gradient - momentum))
        ahead = (1 - MOMENTUM) * gradient + MOMENTUM * momentum  # Nesterov's
        matrix = tf.reshape(ahead, [-1, variable.shape[-1]])
        length = learning_rate * self.length * max(matrix.shape) ** 0.5
        self.assign_sub(variable, length * tf.reshape(orthogonalize(matrix), variable.shape))


def is_convolution_kernel(variable: keras.Variable) -> bool:
    """Whether it is the kernel of a convolution; not of a depthwise one, whose columns are one."""
    return variable.name == "kernel" and len(variable.shape) > 2 and variable.shape[-1] > 1


def orthogonalize(matrix: tf.Tensor) -> tf.Tensor:
    """The matrix with its singular values, if they are not tiny, brought close to 1.

    A turn (Newton and Schulz's) multiplies X by aI + bG + cG², where G is X·Xᵀ. All of these
    factors are found from the first G, which has the shorter side of X: X itself is read only
    twice.

    Args:
        matrix: float32 [rows, columns], in float32 since a rounded G may have negative eigenvalues,
            which the turns make huge.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return tf.transpose(orthogonalize(tf.transpose(matrix)))
    matrix /= tf.norm(matrix) + 1e-7  # then none is above 1; a gradient may be all zeros
    product = identity = tf.eye(matrix.shape[0])
    square = tf.matmul(matrix, matrix, transpose_b=True)
    for _ in range(ITERATIONS):
        factor = A * identity + B * square + C * tf.matmul(square, square)
        product = tf.matmul(factor, product)
        square = tf.matmul(tf.matmul(factor, square), factor)
    return tf.matmul(product, matrix)
