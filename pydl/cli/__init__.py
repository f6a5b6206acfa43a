"""``pydl ...``: what is here, who serves what, what a network costs, a demonstration, training, a
benchmark.

A command's module imports what it needs when the command runs, so that ``pydl --help`` is quick.
"""

import sys

import typer

from pydl.cli import bench, demo, explain, info, summary, train

app = typer.Typer(
    name="pydl",
    help="The layers of the classic deep-learning curriculum as hand-written kernels for PyTorch.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("info")(info.info)
app.command("explain")(explain.explain)
app.command("summary")(summary.summary)
app.command("demo")(demo.demo)
app.add_typer(train.app, name="train")
app.command("bench", context_settings=bench.CONTEXT)(bench.bench)


def main() -> None:
    """Runs the command line; a mistake of the user's ends in one sentence and exit status 2."""
    try:
        app()
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        from rich.console import Console

        Console(stderr=True).print(
            f"[bold red]pydl:[/] {type(error).__name__}:", error, markup=True, highlight=False
        )
        sys.exit(2)
