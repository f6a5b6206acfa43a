"""Layers of a model that are computed together: what ``pydl.accelerate(model, fuse=True)`` binds.

Each module's own forward is followed by torch.fx (trace.py); where a convolution, a batch
normalisation, an addition and an activation follow each other, one call (steps.py) takes their
place in a forward written from the graph (chains.py); that forward is bound to the module, and runs
while everything is as it was when it was written (forwards.py). No parameter is changed: a
convolution's weight into which its normalisation is folded is a copy (folding.py), which may be
kept in the layout of the library that convolves (onednn.py).
"""

from pydl.fusion.forwards import Fused, forget, fuse, fused, parts, unfused

__all__ = ["Fused", "forget", "fuse", "fused", "parts", "unfused"]
