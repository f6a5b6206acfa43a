"""The layers of the classic deep-learning curriculum as hand-written kernels for PyTorch.

>>> import torch, pydl
>>> y = pydl.functional.max_pool2d(torch.randn(1, 6, 28, 28), 2)
>>> changes = pydl.accelerate(model)       # swap the layers of a torch.nn model in place
>>> with pydl.use_backend("triton"): ...   # or backend="triton" with a single call
"""

from importlib.metadata import PackageNotFoundError, version
from pkgutil import extend_path

# Beside a checkout that shadows an installed package (the repository's root on sys.path), the built
# parts are found in the installed one.
__path__ = extend_path(__path__, __name__)

from pydl import functional, models, nn
from pydl.accelerate import accelerate, restore
from pydl.asked import use_backend

try:
    __version__ = version("pydl")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__", "accelerate", "functional", "models", "nn", "restore", "use_backend"]
