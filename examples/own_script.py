"""Trains a small convolutional network on scikit-learn's handwritten digits.

Run: python FILE [EPOCHS]
"""

import sys

import keras
import tensorflow as tf
from sklearn.datasets import load_digits

import tf_gnc

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
keras.utils.set_random_seed(0)

images, labels = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8, 1).astype("float32") / 16
train = tf.data.Dataset.from_tensor_slices((images[:1437], labels[:1437]))
train = train.shuffle(1437, seed=0).batch(256, drop_remainder=True)
test = tf.data.Dataset.from_tensor_slices((images[1437:], labels[1437:]))
test = test.batch(120)

inputs = keras.Input((8, 8, 1))
x = keras.layers.Conv2D(32, 3, activation="relu")(inputs)
x = keras.layers.Conv2D(32, 3, activation="relu")(x)
x = keras.layers.Flatten()(x)
outputs = keras.layers.Dense(10)(x)
model = tf_gnc.GNCModel(inputs, outputs)

settings = {
    "optimizer": keras.optimizers.SGD(0.2, momentum=0.9),
    "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "metrics": ["accuracy"],
}
model.compile(**settings, noise=tf_gnc.GradientNoise(alpha=0.1), num_workers=16)
model.fit(train, epochs=epochs, verbose=2)
loss, accuracy = model.evaluate(test, verbose=0)
print(f"test accuracy {accuracy:.4f}")
