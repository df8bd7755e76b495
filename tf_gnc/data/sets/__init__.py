"""One file for each data set, with everything that is special to it.

How it is loaded, what its pictures are, how they are augmented and normalised,
and what suits it in a run. `tf_gnc.data.registry` gives each its name. For a
data set that tensorflow-datasets prepares and that fits into memory, as
CIFAR's, a `DatasetSettings` is all there is to write.
"""
