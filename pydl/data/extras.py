"""What is needed beyond the package's own requirements, asked for where it is used."""

import importlib.util

# By module, the package and the extra that brings it.
_PACKAGES = {
    "sklearn": ("scikit-learn", "data"),
    "PIL": ("Pillow", "data"),
    "nibabel": ("nibabel", "data"),
    "scipy": ("SciPy", "data"),
    "matplotlib": ("matplotlib", "plots"),
    "num2words": ("num2words", "sequences"),
    "statsmodels": ("statsmodels", "sequences"),
    "sacrebleu": ("sacrebleu", "sequences"),
    "babel": ("Babel", "sequences"),
    "rapidfuzz": ("RapidFuzz", "sequences"),
}


class MissingExtraError(RuntimeError):
    """An optional package is not installed; the message says what to install."""


def require(*modules: str) -> None:
    """Raises :class:`MissingExtraError` where one of these modules is missing."""
    missing = [_PACKAGES[name][0] for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        extras = ",".join(sorted({_PACKAGES[name][1] for name in modules}))
        raise MissingExtraError(
            f"{' and '.join(missing)} missing: pip install 'pydl-kernels[{extras}]'"
        )
