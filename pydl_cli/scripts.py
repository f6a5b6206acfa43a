"""Commands that are scripts of the repository, not part of the installed package."""

from pathlib import Path

import typer

ROOT = Path(__file__).resolve().parents[1]
# Of a command that hands its arguments on.
CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def run(what: str, script: Path, context: typer.Context) -> None:
    """Runs the script with the arguments of the command, and ends with its exit status.

    Args:
        what: it is, in words.
        script: its path.
        context: of the command.

    Raises:
        FileNotFoundError: the package is installed without the repository.
    """
    import subprocess
    import sys

    if not script.is_file():
        raise FileNotFoundError(
            f"{what} is not part of the installed package: in a checkout of the repository, run "
            f"`python {script.parent.name}/{script.name}`"
        )
    raise typer.Exit(
        subprocess.run([sys.executable, str(script), *context.args], check=False).returncode
    )
