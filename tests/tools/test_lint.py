"""The hooks before a commit are what `make lint` runs."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_hooks_are_the_commands_of_make_lint():
    makefile = (ROOT / "Makefile").read_text()
    (recipe,) = re.findall(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    lint = [line.strip() for line in recipe.splitlines()]
    lint = [line.replace("$(BIN)", ".venv/bin").replace("$$", "$") for line in lint]
    hooks = []
    for entry in re.findall(
        r"^ +entry: (.+)$", (ROOT / ".pre-commit-config.yaml").read_text(), re.MULTILINE
    ):
        words = shlex.split(entry)
        hooks.append(words[2] if words[:2] == ["bash", "-c"] else entry)
    assert hooks == lint and len(hooks) >= 4
