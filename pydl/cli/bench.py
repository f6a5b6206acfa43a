"""``pydl bench``: a front to the repository's benchmark."""

import typer

CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def bench(context: typer.Context) -> None:
    """Measure the operators against stock PyTorch; arguments are those of bench/run.py (--help
    lists them).

    The benchmark lives in the repository, not in the installed package.
    """
    import subprocess
    import sys
    from pathlib import Path

    import pydl

    script = Path(pydl.__file__).resolve().parents[1] / "bench" / "run.py"
    if not script.is_file():
        raise FileNotFoundError(
            f"{script} is not there: the benchmark comes with the repository, run it from a "
            "checkout"
        )
    raise typer.Exit(
        subprocess.run([sys.executable, str(script), *context.args], check=False).returncode
    )
