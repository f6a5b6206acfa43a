"""``pydl ...``: what is here, who serves what, what a network costs, a demonstration, recipes,
training, a benchmark.

This is a package of its own, because importing most modules of ``pydl`` imports PyTorch, which
takes seconds. A command's module imports what it needs when the command runs, so that ``pydl
--help`` is quick.
"""

import gc
import importlib.metadata
import sys
from typing import Annotated

import typer

from pydl_cli import (
    bench,
    compare,
    demo,
    explain,
    info,
    predict,
    roofline,
    run,
    scripts,
    summary,
    train,
    tune,
)

app = typer.Typer(
    name="pydl",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        try:
            typer.echo(f"pydl {importlib.metadata.version('pydl-kernels')}")
        except importlib.metadata.PackageNotFoundError:
            typer.echo("pydl 0+unknown, a checkout that is not installed")
        raise typer.Exit()


@app.callback()
def _pydl(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """The layers of the classic deep-learning curriculum as hand-written kernels for PyTorch."""


app.command("info")(info.info)
app.command("explain")(explain.explain)
app.command("summary")(summary.summary)
app.command("compare")(compare.compare)
app.command("tune")(tune.tune)
app.command("demo")(demo.demo)
app.command("run")(run.run)
app.add_typer(train.app, name="train")
app.command("predict")(predict.predict)
app.command("bench", context_settings=scripts.CONTEXT)(bench.bench)
app.command("roofline", context_settings=scripts.CONTEXT)(roofline.roofline)


def main() -> None:
    """Runs the command line; a mistake of the user's ends in one sentence and exit status 2."""
    try:
        app()
    except (ValueError, TypeError, RuntimeError, OSError, IndexError, ImportError) as error:
        from rich.console import Console

        Console(stderr=True).print(
            f"[bold red]pydl:[/] {type(error).__name__}:", error, markup=True, highlight=False
        )
        sys.exit(2)
    finally:
        # Or the interpreter, as it ends, looks for cycles among all objects of PyTorch. Triton's
        # must go with them: it prints a page about each that is left.
        if "triton" not in sys.modules:
            gc.freeze()
