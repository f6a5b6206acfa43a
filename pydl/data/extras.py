"""What is needed beyond the package's own requirements, asked for where it is used."""

import importlib.util

_PACKAGES = {"sklearn": "scikit-learn", "PIL": "Pillow"}


class MissingExtraError(RuntimeError):
    """An optional package is not installed; the message says what to install."""


def require(*modules: str) -> None:
    """Raises :class:`MissingExtraError` where one of these modules is missing."""
    missing = [_PACKAGES[name] for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"{' and '.join(missing)} missing: pip install 'pydl-kernels[data]'"
        )
