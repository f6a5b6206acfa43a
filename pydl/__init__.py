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

try:
    __version__ = version("pydl-kernels")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

__all__ = [
    "__version__",
    "accelerate",
    "array",
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


# Where each of these is, unless it is a module of its own.
_FOUND_IN = {
    "accelerate": "swap",
    "explain": "explanation",
    "report": "swap",
    "restore": "swap",
    "tune": "tuning",
    "use_backend": "asked",
}

if TYPE_CHECKING:
    from pydl import array, models
    from pydl.explanation import explain
# Where PyTorch is, all that most programs need comes at once, and with it the operators that an
# exported graph calls. Elsewhere every part comes when it is asked for, so that arrays do without.
if TYPE_CHECKING or "torch" in sys.modules:
    from pydl import functional, nn
    from pydl.asked import use_backend
    from pydl.swap import accelerate, report, restore
    from pydl.tuning import tune


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = import_module(f"{__name__}.{_FOUND_IN.get(name, name)}")
    if name in _FOUND_IN:
        found = getattr(found, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """This package, with a setting among its attributes."""

    @property
    def benchmark(self) -> bool:
        """Whether the first call of each new shape is measured, and goes from then on to whichever
        backend was fastest, as :data:`torch.backends.cudnn.benchmark`; until the process ends.
        What :func:`tune` found is kept for later processes."""
        from pydl import tuning

        return tuning.benchmarking()

    @benchmark.setter
    def benchmark(self, on: bool) -> None:
        from pydl import tuning

        tuning.benchmark(on)


sys.modules[__name__].__class__ = _Package
