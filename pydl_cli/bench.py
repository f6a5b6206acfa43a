"""``pydl bench``: a front to the repository's benchmark."""

import typer

from pydl_cli import scripts

SCRIPT = scripts.ROOT / "bench" / "run.py"


def bench(context: typer.Context) -> None:
    """Measure the operators against stock PyTorch; arguments are those of bench/run.py (--help
    lists them).

    The benchmark lives in the repository, not in the installed package.
    """
    scripts.run("the benchmark", SCRIPT, context)
