"""Losses that Keras doesn't have, a file each."""

from tf_gnc.losses.smoothed_crossentropy import SmoothedCrossentropy

__all__ = ["SmoothedCrossentropy"]
