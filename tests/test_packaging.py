"""What people install: a wheel that works in and out of the repository's root, without triton,
without CUDA."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
USE = (
    "import pydl, torch, pydl._C, pydl.kernels\n"
    "x = torch.randn(1, 3, 8, 8)\n"
    "y = pydl.functional.max_pool2d(x, 2, backend='cpu')\n"
    "assert torch.equal(y, torch.nn.functional.max_pool2d(x, 2))\n"
    "print(pydl.__file__, pydl._C.__file__)\n"
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The package as pip installs it from its wheel, built without build isolation and without the
    emulator."""
    folder = tmp_path_factory.mktemp("wheel")
    tools = Path(sys.executable).parent
    environment = {
        **os.environ,
        "CMAKE_ARGS": "",
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
    }
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT]
    subprocess.run(wheel, check=True, env=environment)
    (built,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", built], check=True)
    return folder


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_beside_it(installed):
    (built,) = installed.glob("*.whl")
    names = zipfile.ZipFile(built).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top.split("-")[0] for top in tops} == {"pydl"}, (
        "a top-level `kernels` would clash with another package"
    )
    assert "pydl/kernels/lrn.py" in names
    assert any(name.startswith("pydl/_C.") for name in names) and not any(
        "_emulated" in name for name in names
    )


@pytest.mark.slow
@pytest.mark.parametrize("folder", (ROOT, Path("/")), ids=("in the root", "elsewhere"))
def test_the_installed_wheel_works(installed, folder):
    """``python -c`` puts the current folder first on the path, so in the root the checkout shadows
    the package."""
    environment = {**os.environ, "PYTHONPATH": str(installed / "site")}
    ran = subprocess.run(
        [sys.executable, "-c", USE], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    if folder != ROOT:
        assert ran.stdout.startswith(str(installed))


def test_importing_loads_neither_triton_nor_a_gpu():
    code = (
        "import sys, pydl; "
        "print('triton' in sys.modules, sys.modules['torch'].cuda.is_initialized())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False"]


def test_works_without_triton():
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'triton' else find(name, *a)\n"
        "import torch, pydl; from pydl import backends\n"
        "print(dict((n, d) for n, _, d in backends.report())['triton'])\n"
        "try: pydl.functional.local_response_norm(torch.ones(1, 3, 4), 3, backend='triton')\n"
        "except RuntimeError as error: print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = ran.stdout.strip().splitlines()
    assert (
        first.startswith("triton is not installed")
        and "backend 'triton' is not available" in second
    )
