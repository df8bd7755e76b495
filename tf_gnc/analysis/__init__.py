"""Measurements of the loss and the noise: the paper's sections 3 and A.6.

    similarity  cosine of the mean and the full gradient       Fig. 3(b)
    spectrum    eigenvalues of the noise's covariance          Fig. 4(a)
    sharpness   losses at the workers' displaced weights       Fig. 4(b), (c)
    smoothness  range of loss and gradient along the gradient  Fig. 5, A.6
    landscape   the loss along random directions               cited in A.2

Each takes a compiled model and a global batch, `(x, y)` or `(x, y,
sample_weight)`, whose rows M divides, leaves the model and its optimizer bit
for bit as they were, and returns a dict that JSON can hold. Under a strategy
with several processes all of them make the same call, with the same batch.
"""

from tf_gnc.analysis.landscape import landscape
from tf_gnc.analysis.sharpness import sharpness
from tf_gnc.analysis.similarity import similarity
from tf_gnc.analysis.smoothness import smoothness
from tf_gnc.analysis.spectrum import spectrum

__all__ = ["landscape", "sharpness", "similarity", "smoothness", "spectrum"]
