"""The layers of the classic deep-learning curriculum as hand-written kernels for PyTorch.

>>> import torch, pydl
>>> y = pydl.functional.max_pool2d(torch.randn(1, 6, 28, 28), 2)
>>> model = torch.nn.Sequential(torch.nn.LocalResponseNorm(5), torch.nn.MaxPool2d(2))
>>> model = pydl.accelerate(model)  # swap the layers of a torch.nn model in place
>>> with pydl.use_backend("cpu"):  # or backend="cpu" with a single call
...     y = model(torch.randn(1, 6, 28, 28))
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pkgutil import extend_path

# Beside a checkout that shadows an installed package (the repository's root on sys.path), the built
# parts are found in the installed one.
__path__ = extend_path(__path__, __name__)

from pydl import functional, nn
from pydl.accelerate import accelerate, report, restore
from pydl.asked import use_backend
from pydl.ops import flops

flops.install()

try:
    __version__ = version("pydl-kernels")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

__all__ = [
    "__version__",
    "accelerate",
    "functional",
    "models",
    "nn",
    "report",
    "restore",
    "use_backend",
]


def __getattr__(name: str) -> object:
    if name == "models":  # imported when it is asked for
        return import_module("pydl.models")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
