"""``pydl roofline``: a front to the repository's count of machine instructions."""

from pathlib import Path

import typer

SCRIPT = Path(__file__).resolve().parents[1] / "tests" / "machine_code.py"


def roofline(context: typer.Context) -> None:
    """Count what the compiled CUDA kernels execute, without a GPU, and say which times an H100
    cannot go below; arguments are those of tests/machine_code.py (--help lists them).

    The count lives in the repository, not in the installed package, and reads what `make nvcc`
    compiled.
    """
    import subprocess
    import sys

    if not SCRIPT.is_file():
        raise FileNotFoundError(
            "the count is not part of the installed package: in a checkout of the repository, run "
            "`python tests/machine_code.py`"
        )
    raise typer.Exit(
        subprocess.run([sys.executable, str(SCRIPT), *context.args], check=False).returncode
    )
