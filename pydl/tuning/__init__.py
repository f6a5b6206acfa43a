"""Who is fastest at a call on this machine: measured, remembered in the process, kept in a file.

``auto`` asks what was measured before it asks its table (dispatch.py). A call is measured where it
is made (misses.py, when_new.py), by every backend that can serve it (tuner.py), with the operands
that it was given and against the reference (call.py); all calls of a model in one run of it
(model.py). What was found is kept for later processes (file.py).

A graph that ``torch.compile`` makes uses what is known when it is traced. Nothing is measured while
a graph is made or a CUDA graph is captured, under torch.func, or in forward mode.
"""

from pydl.tuning.file import clear, folder, load, write
from pydl.tuning.model import calls_of, tune
from pydl.tuning.tuner import Choice, Tuner
from pydl.tuning.when_new import benchmark, benchmarking, measuring

__all__ = [
    "Choice",
    "Tuner",
    "benchmark",
    "benchmarking",
    "calls_of",
    "clear",
    "folder",
    "load",
    "measuring",
    "tune",
    "write",
]
