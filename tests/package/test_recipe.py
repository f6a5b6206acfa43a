"""CONTRIBUTING's recipe, followed: an operator is added to a copy of the tree, built and run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "csrc").is_dir())
RECIPE = Path(__file__).parent / "recipe"  # the files of the new operator, where they would be
# The lines in tables that exist: the file, a line of it, and what comes after that.
LINES = (
    ("pydl/contract/__init__.py", '    "lrn",\n', '    "gain",\n'),
    (
        "pydl/functional/__init__.py",
        "from pydl.functional.lrn import local_response_norm\n",
        "from pydl.functional.gain import gain\n",
    ),
    (
        "pydl/nn/__init__.py",
        "from pydl.nn.lrn import LocalResponseNorm\n",
        "from pydl.nn.gain import Gain\n",
    ),
    ("csrc/families.h", '#include "lrn.h"\n', '#include "gain.h"\n'),
    ("csrc/families.h", "  ROW(lrn,           true, true)  \\\n", "  ROW(gain, true, true) \\\n"),
    (
        "csrc/families.h",
        "  ROW(lrn_forward,            LrnForward,           MapKernel)   \\\n",
        "  ROW(gain_forward, GainForward, PlainKernel) \\\n",
    ),
)


def test_the_recipe_names_every_file():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = {row.replace("lrn", "gain") for row in re.findall(r"^\| `(\S*lrn\S*)` \|", text, re.M)}
    files = {str(file.relative_to(RECIPE)) for file in RECIPE.rglob("*") if file.is_file()}
    assert files == named
    for table in {path for path, _, _ in LINES}:
        assert f"`{table}`" in text


def _copy(tree: Path) -> None:
    ignored = shutil.ignore_patterns(".*", "build", "demo", "*.so", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, tree, ignore=ignored, symlinks=True)
    shutil.copytree(RECIPE, tree, dirs_exist_ok=True)
    if not (tree / "pydl/kernels").exists():  # which an installation makes of the folder
        (tree / "pydl/kernels").symlink_to("../kernels")
    for path, line, added in LINES:
        text = (tree / path).read_text()
        assert text.count(line) == 1, (path, line)
        (tree / path).write_text(text.replace(line, line + added))


def _alone(tree: Path) -> None:
    """Takes the other operators' native code away, which would take a quarter of an hour to
    build."""
    for folder, kept in {
        "csrc/bindings": "module|watch|gain",
        "csrc/cpu": "gain",
        "csrc/cpu/calls": "isa|gain",
        "csrc/cuda": "gain",
    }.items():
        for file in (tree / folder).iterdir():
            if file.suffix in (".cpp", ".cu") and not re.fullmatch(kept, file.stem):
                file.unlink()
    families = tree / "csrc/families.h"
    text = re.sub(r"  ROW\((?!gain).*\n", "", families.read_text())
    families.write_text(text.replace("  ROW(gain, true, true) \\\n", "  ROW(gain, true, true)\n"))
    text = families.read_text()
    families.write_text(text.replace("PlainKernel) \\\n", "PlainKernel)\n"))


@pytest.mark.slow
def test_an_operator_is_added_by_the_recipe(tmp_path):
    tree = tmp_path / "pydl"
    _copy(tree)
    _alone(tree)
    configure = ["cmake", "-S", tree, "-B", tree / "build", "-G", "Ninja"]
    configure += [f"-DPython_EXECUTABLE={sys.executable}", "-DPYDL_CUDA=OFF", "-DPYDL_EMULATOR=ON"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(tree)}

    def run(*command: object) -> None:
        done = subprocess.run(
            list(map(str, command)), cwd=tree, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]

    run(*configure, "-DCMAKE_CXX_FLAGS_RELEASE=-O0")
    run("cmake", "--build", tree / "build", "--target", "_C", "_emulated", "-j", 1)
    for module in (tree / "build").glob("*.so"):
        shutil.copy(module, tree / "pydl")
    rooms = ["tests/package/test_package.py", "tests/grid/test_contract.py"]
    named = "gain"
    pytest_alone = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    check = "import pydl; assert pydl.__file__.startswith({!r}), pydl.__file__"
    run(sys.executable, "-c", check.format(str(tree)))
    run(sys.executable, *pytest_alone, "tests/grid/test_gain.py")
    run(sys.executable, *pytest_alone, *rooms, "-k", named)
