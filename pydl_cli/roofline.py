"""``pydl roofline``: a front to the repository's count of machine instructions."""

import typer

from pydl_cli import scripts

SCRIPT = scripts.ROOT / "tests" / "machine_code.py"


def roofline(context: typer.Context) -> None:
    """Count what the compiled CUDA kernels execute, without a GPU, and say which times an H100
    cannot go below; arguments are those of tests/machine_code.py (--help lists them).

    The count lives in the repository, not in the installed package, and reads what `make nvcc`
    compiled.
    """
    scripts.run("the count", SCRIPT, context)
