"""``pydl bench``."""

import typer


def bench(context: typer.Context) -> None:
    """Measure the operators against stock PyTorch, and show it on one page (--html); --help lists
    the arguments.

    The files go to pydl-bench in the current directory, if --out names no other folder.
    """
    from pydl.bench.run import main

    raise typer.Exit(main(context.args))
