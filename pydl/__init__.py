"""The layers of the classic deep-learning curriculum as hand-written kernels for PyTorch.

>>> import torch, pydl
>>> y = pydl.functional.max_pool2d(torch.randn(1, 6, 28, 28), 2)
>>> model = torch.nn.Sequential(torch.nn.LocalResponseNorm(5), torch.nn.MaxPool2d(2))
>>> model = pydl.accelerate(model)  # swap the layers of a torch.nn model in place
>>> with pydl.use_backend("cpu"):  # or backend="cpu" with a single call
...     y = model(torch.randn(1, 6, 28, 28))
>>> found = pydl.tune(model, torch.randn(1, 6, 28, 28), save=False)  # who is fastest here?
"""

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pkgutil import extend_path
from types import ModuleType
from typing import TYPE_CHECKING

# Beside a checkout that shadows an installed package (the repository's root on sys.path), the built
# parts are found in the installed one.
__path__ = extend_path(__path__, __name__)

from pydl import functional, nn, tuning
from pydl.accelerate import accelerate, report, restore
from pydl.asked import use_backend
from pydl.ops import flops
from pydl.tuning import tune

if TYPE_CHECKING:
    from pydl.explanation import explain

flops.install()
tuning.load()

try:
    __version__ = version("pydl-kernels")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

__all__ = [
    "__version__",
    "accelerate",
    "benchmark",
    "explain",
    "functional",
    "models",
    "nn",
    "report",
    "restore",
    "tune",
    "use_backend",
]


def __getattr__(name: str) -> object:
    # What needs the models is imported when it is asked for.
    if name == "models":
        return import_module("pydl.models")
    if name == "explain":
        return import_module("pydl.explanation").explain
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """This package, with a setting among its attributes."""

    @property
    def benchmark(self) -> bool:
        """Whether the first call of each new shape is measured, and goes from then on to whichever
        backend was fastest, as :data:`torch.backends.cudnn.benchmark`; until the process ends.
        What :func:`tune` found is kept for later processes."""
        return tuning.benchmarking()

    @benchmark.setter
    def benchmark(self, on: bool) -> None:
        tuning.benchmark(on)


sys.modules[__name__].__class__ = _Package
