"""``pydl bench``: a front to the repository's benchmark."""

from pathlib import Path

import typer

SCRIPT = Path(__file__).resolve().parents[1] / "bench" / "run.py"
CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def bench(context: typer.Context) -> None:
    """Measure the operators against stock PyTorch; arguments are those of bench/run.py (--help
    lists them).

    The benchmark lives in the repository, not in the installed package.
    """
    import subprocess
    import sys

    if not SCRIPT.is_file():
        raise FileNotFoundError(
            "the benchmark is not part of the installed package: in a checkout of the repository, "
            "run `python bench/run.py`"
        )
    raise typer.Exit(
        subprocess.run([sys.executable, str(SCRIPT), *context.args], check=False).returncode
    )
