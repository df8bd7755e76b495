"""A model and data of one's own, for the command line.

In this folder, or with it on PYTHONPATH:

    tf-gnc train --model_fn=mymodel:build --data_fn=mymodel:load
"""

import keras
import numpy as np
from sklearn.datasets import load_digits

Arrays = tuple[np.ndarray, np.ndarray]


def build() -> keras.Model:
    """Returns a small convolutional network that gives logits, uncompiled."""
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(32, 3, activation="relu")(inputs)
    x = keras.layers.Conv2D(32, 3, activation="relu")(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(10)(x))


def load() -> tuple[Arrays, Arrays]:
    """Returns scikit-learn's digits: `(x_train, y_train), (x_test, y_test)`.

    Pictures are float32 from 0 to 1, `(n, 8, 8, 1)`; labels are 0 to 9, `(n,)`.
    """
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype("float32") / 16
    return (images[:1437], labels[:1437]), (images[1437:], labels[1437:])
