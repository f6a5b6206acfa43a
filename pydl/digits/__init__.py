"""LeNet-5 learns handwritten digits: what ``pydl demo`` does, step by step.

``dataset`` loads the images, ``training`` trains, ``operators`` compares every operator with
the reference and with PyTorch's time, ``plots`` and ``page`` show it all.
"""

import importlib.util

_EXTRAS = {"sklearn": "scikit-learn", "matplotlib": "matplotlib"}


class MissingExtraError(RuntimeError):
    """An optional package is not installed; the message says what to install."""


def require_extras() -> None:
    """Raises :class:`MissingExtraError` where scikit-learn (the images) or matplotlib (the plots)
    is missing."""
    missing = [name for module, name in _EXTRAS.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise MissingExtraError(
            f"{' and '.join(missing)} missing: pip install 'pydl-kernels[data,plots]'"
        )
