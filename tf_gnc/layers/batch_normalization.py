"""Keras's batch normalization on TensorFlow's fused kernel."""

from typing import Any

import keras
import tensorflow as tf

FUSED_TYPES = ("float32", "bfloat16", "float16")


@keras.saving.register_keras_serializable(package="tf_gnc")
class BatchNormalization(keras.layers.BatchNormalization):
    r"""`keras.layers.BatchNormalization`, quicker in training.

    Keras spells the training call out in a dozen small operations, each of
    which reads and writes all activations. This layer calls TensorFlow's
    fused kernel for the same formula,

    .. math:: y = \gamma (x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta,

    with mean :math:`\mu` and biased variance :math:`\sigma^2` of each channel
    in float32, whatever the type of the activations. Moving statistics are
    updated as Keras does: the kernel's own variance is the unbiased one,
    :math:`n / (n - 1)` times what Keras keeps for n values a channel.

    The kernel serves inputs of shape `(N, H, W, C)` in float32, bfloat16 or
    float16 that are normalized over their last axis. Everything else is
    Keras's own code: other ranks, axes and types, masks, `renorm`,
    `synchronized`, a frozen layer, inference.

    Arguments, weights, their names and the configuration are Keras's, so
    weights go from one layer to the other. `tf_gnc.layers.fuse_batch_norm`
    puts this layer into a finished model.

    Example:
        >>> layer = BatchNormalization()
        >>> x = np.array([1.0, 3.0], "float32").reshape(2, 1, 1, 1)
        >>> y = layer(x, training=True)
        >>> np.round(np.ravel(y), 3)
        array([-1.,  1.], dtype=float32)
        >>> round(float(layer.moving_mean[0]), 6)  # 0.99 * 0 + 0.01 * 2
        0.02
    """

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> Any:
        """Returns the normalized inputs; see `keras.layers.Layer.call`."""
        if not (training and self._can_be_fused(inputs, mask)):
            return super().call(inputs, training=training, mask=mask)
        channels = inputs.shape[-1]
        outputs = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma.value if self.scale else tf.ones([channels]),
            offset=self.beta.value if self.center else tf.zeros([channels]),
            mean=tf.zeros([0]),
            variance=tf.zeros([0]),
            epsilon=self.epsilon,
            is_training=True,
        )
        values = tf.cast(tf.size(inputs) // channels, tf.float32)
        biased = tf.maximum(values - 1, 1) / values
        self._move(self.moving_mean, outputs.batch_mean)
        self._move(self.moving_variance, outputs.batch_variance * biased)
        return tf.cast(outputs.y, self.compute_dtype)

    def _can_be_fused(self, inputs: Any, mask: Any) -> bool:
        """Tells whether the kernel does what Keras would."""
        return (
            keras.backend.standardize_dtype(inputs.dtype) in FUSED_TYPES
            and keras.backend.standardize_dtype(self.variable_dtype)
            == "float32"
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and mask is None
            and self.trainable
            and not getattr(self, "renorm", False)  # from Keras 3.14 on
            and not self.synchronized
        )

    def _move(self, statistic: keras.Variable, value: tf.Tensor) -> None:
        statistic.assign(
            statistic * self.momentum + value * (1.0 - self.momentum)
        )
