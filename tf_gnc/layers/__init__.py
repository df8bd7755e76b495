"""Layers of Keras, made quicker; a file each."""

from tf_gnc.layers.batch_normalization import BatchNormalization
from tf_gnc.layers.fuse import fuse_batch_norm

__all__ = ["BatchNormalization", "fuse_batch_norm"]
