"""The handwritten digits of scikit-learn as a tensorflow-datasets builder.

A folder of its own, because tensorflow-datasets lists the files that lie
beside a builder. Import `digits_dataset_builder` from here to use it; this
file imports nothing, so that importing the package stays quick.
"""
