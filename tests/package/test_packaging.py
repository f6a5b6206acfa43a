"""What people install: a wheel that works in and out of the repository's root, without triton,
without CUDA; the sdist that it is built from; the name it goes by."""

import fcntl
import filecmp
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from pydl import native

ROOT = Path(__file__).parents[2]
NAME, VERSION = re.search(
    r'^name = "(.+)"\nversion = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
).groups()
SMOKE = Path(__file__).with_name("smoke.py").read_text()


def build_and_install(source: Path, folder: Path, cmake_args: str = "") -> Path:
    """The package as pip installs it from the wheel of ``source``, built without build isolation
    and without the emulator."""
    tools = Path(sys.executable).parent
    environment = {
        **os.environ,
        # As `make` builds, so that what it has compiled is taken.
        "CMAKE_ARGS": f"-DPYDL_COMPILE_SECONDS=ON {cmake_args}",
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
    }
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source]
    subprocess.run(wheel, check=True, env=environment)
    (built,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", built], check=True)
    return folder


def used(installed: Path, folder: Path) -> dict[str, str]:
    """Uses the installed package in this folder, and returns what ``smoke.py`` prints of it."""
    environment = {**os.environ, "PYTHONPATH": str(installed / "site")}
    ran = subprocess.run(
        [sys.executable, "-c", SMOKE], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return dict(line.split(" ", 1) for line in ran.stdout.splitlines())


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    (ROOT / "build").mkdir(exist_ok=True)
    with open(ROOT / "build" / "lock", "w") as lock:  # several test processes may ask at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        return build_and_install(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_beside_it(installed):
    (built,) = installed.glob("*.whl")
    names = zipfile.ZipFile(built).namelist()
    tops = {name.split("/")[0] for name in names}
    (about,) = (top for top in tops if top.endswith(".dist-info"))
    assert about.startswith(f"{NAME.replace('-', '_')}-")
    # A top-level `kernels` would clash with another package.
    assert tops == {"pydl", "pydl_cli", about}
    assert "pydl/kernels/lrn.py" in names and "pydl/py.typed" in names
    assert any(name.startswith("pydl/_C.") for name in names) and not any(
        "_emulated" in name for name in names
    )


@pytest.mark.slow
@pytest.mark.parametrize("folder", (ROOT, Path("/")), ids=("in the root", "elsewhere"))
def test_the_installed_wheel_works(installed, folder):
    """``python -c`` puts the current folder first on the path, so in the root the checkout shadows
    the package."""
    found = used(installed, folder)
    assert found["package"].startswith(str(ROOT if folder == ROOT else installed))
    assert found["version"] == VERSION


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """What the wheel holds, without compiling: the files that setuptools puts into it, and the
    extension as it is."""
    folder = tmp_path_factory.mktemp("site")
    make = [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", folder]
    subprocess.run(make, cwd=ROOT, check=True)
    for built in Path(native.library("cpu").functions.__file__).parent.glob("_C.*"):
        (folder / "pydl" / built.name).symlink_to(built)
    return folder


def test_the_benchmark_runs_where_there_is_no_checkout(site, tmp_path):
    assert {path.name for path in site.iterdir()} == {"pydl", "pydl_cli"}
    quick = "bench --cases lenet5.pool2,alexnet.lrn2 --passes forward --batch 1 --seconds 0.005"
    quick += " --html page.html"
    code = "import pydl_cli, pydl.bench as b; print(b.__file__, flush=True); pydl_cli.main()"
    ran = subprocess.run(
        [sys.executable, "-c", code, *quick.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(str(site / "pydl" / "bench"))
    (table,) = tmp_path.glob("pydl-bench/cpu-*/results.csv")
    assert "2 rows, 0 wrong or broken" in ran.stdout and "alexnet.lrn2" in table.read_text()
    assert "alexnet.lrn2" in (tmp_path / "page.html").read_text()


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """The sdist, unpacked. It is made of a copy of the checkout, for where one was made before,
    setuptools packs what it listed then."""
    folder = tmp_path_factory.mktemp("sdist")
    passing = (".git", ".venv", "build", "dist", "demo", "*.egg-info", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, folder / "copy", ignore=shutil.ignore_patterns(*passing, "*.so"))
    make = "from setuptools import build_meta; build_meta.build_sdist('..')"
    subprocess.run([sys.executable, "-c", make], cwd=folder / "copy", check=True)
    (packed,) = folder.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    return folder / packed.name.removesuffix(".tar.gz")


@pytest.mark.parametrize(
    "part",
    ("bench", "cmake", "csrc", "docs", "kernels", "pydl", "pydl_cli", "requirements", "tests"),
)
def test_the_sdist_holds_all_that_builds_and_tests_it(sdist, part):
    def files(root: Path) -> list[str]:
        names = [path.relative_to(root) for path in (root / part).rglob("*") if path.is_file()]
        return sorted(str(n) for n in names if n.suffix != ".so" and "__pycache__" not in n.parts)

    names = [*files(ROOT), "CMakeLists.txt", "Makefile", "README.md", "pyproject.toml", "setup.py"]
    assert files(sdist) == files(ROOT)
    assert filecmp.cmpfiles(ROOT, sdist, names, shallow=False) == (names, [], [])


# What the kernels compute is tested elsewhere, and the sdist's sources are the checkout's, byte for
# byte (the test above). So a kernel's file is preprocessed, which finds or misses all that it
# includes, and what the checkout's build compiled of it is taken; the rest is compiled without
# optimisation and linked.
LAUNCHER = """
import os, shutil, subprocess, sys
checkout, compiler, *words = sys.argv[1:]
made = words[words.index("-o") + 1] if "-o" in words else ""
there = os.path.join(checkout, made)
if "cpu_" in made and os.path.isfile(there):
    words[words.index("-o") + 1] = os.devnull
    words[words.index("-c")] = "-E"
    failed = subprocess.run([compiler, *words]).returncode
    if not failed:
        shutil.copyfile(there, made)
else:
    failed = subprocess.run([compiler, *words, "-O0"]).returncode
sys.exit(failed)
"""


@pytest.mark.slow
def test_a_wheel_builds_from_the_sdist_alone(sdist, installed, tmp_path):
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    launcher = sys.executable, "-I", tmp_path / "launcher.py", ROOT / "build" / "cmake"
    options = (
        "-DPYDL_CUDA=OFF",
        "-DCMAKE_INTERPROCEDURAL_OPTIMIZATION=OFF",
        f"-DCMAKE_CXX_COMPILER_LAUNCHER={';'.join(map(str, launcher))}",
    )
    built = build_and_install(sdist, tmp_path, shlex.join(options))
    found = used(built, Path("/"))
    assert all(found[part].startswith(str(tmp_path)) for part in ("package", "extension"))
    assert found["version"] == VERSION


def test_a_released_wheel_is_tested_by_a_file_that_is_there():
    """What cibuildwheel runs, in whose container no test of this suite is."""
    (command,) = re.findall(
        r'^test-command = "python \{project\}/(.+)"$',
        (ROOT / "pyproject.toml").read_text(),
        re.MULTILINE,
    )
    assert (ROOT / command).read_text() == SMOKE


def test_messages_and_metadata_say_the_name_of_the_distribution():
    """The import name is another: on PyPI that belongs to another project."""
    looked_up = re.compile(r"""pip install '?([\w-]+)\[|version\(["'](pydl[\w-]*)["']""")
    said = []
    for folder in ("pydl", "pydl_cli", "bench", "kernels"):
        for path in (ROOT / folder).rglob("*.py"):
            said += looked_up.findall(path.read_text())
    assert len(said) >= 5 and {one or other for one, other in said} == {NAME}


def test_importing_loads_neither_triton_nor_a_gpu():
    code = (
        "import sys, pydl.nn; "
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
