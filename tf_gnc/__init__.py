"""Gradient noise convolution (GNC) for Keras."""

from tf_gnc._version import __version__

__all__ = ["__version__"]
