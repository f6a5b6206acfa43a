"""Where the results of this checkout lie."""

from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"
SHOWN = RESULTS / "shown"  # what networks learned (shown.py)
MODEL = RESULTS / "model"  # what is predicted (model.py)


def devices() -> list[Path]:
    """The folders of the devices that were measured."""
    return sorted(one for one in RESULTS.iterdir() if one.is_dir() and one not in (SHOWN, MODEL))
