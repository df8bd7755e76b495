"""Keras callbacks that change the noise while a model trains."""

from tf_gnc.callbacks.noise import AlphaSchedule, SwitchNoise

__all__ = ["AlphaSchedule", "SwitchNoise"]
