"""Builds the extension modules by CMake. Everything else about the package is in pyproject.toml.

The options of CMakeLists.txt go through CMAKE_ARGS, e.g. ``CMAKE_ARGS="-DPYDL_CUDA=OFF" pip install
.``.
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


OPTIONS = shlex.split(os.environ.get("CMAKE_ARGS", ""))
MODULES = ["pydl._C"] + (["pydl._emulated"] if "-DPYDL_EMULATOR=ON" in OPTIONS else [])


class CMakeBuild(build_ext):
    """Configures, builds and installs all extension modules at once; CMake knows their sources and
    flags."""

    def build_extensions(self) -> None:
        compiler = os.environ.get("CXX", "c++")
        if shutil.which(shlex.split(compiler)[0]) is None:
            raise SystemExit(
                f"pydl compiles its kernels, and there is no C++ compiler {compiler}: install "
                "g++ 12 or later (Debian and Ubuntu: apt install g++), or name yours in CXX"
            )
        destination = Path(self.get_ext_fullpath(MODULES[0])).parent.resolve()
        # One build folder, so that objects are compiled once whatever is made of them; the
        # sanitizers' are other objects.
        sanitize = [o.partition("=")[2] for o in OPTIONS if o.startswith("-DPYDL_SANITIZE=")]
        build = ROOT / "build" / "-".join(["cmake", *sanitize]).replace(",", "+")
        # No option of an earlier build holds for this one, but its objects do, which `cmake
        # --fresh` would delete.
        (build / "CMakeCache.txt").unlink(missing_ok=True)
        configure = ["cmake", "-S", ROOT, "-B", build, "-G", "Ninja"]
        subprocess.run([*configure, f"-DPython_EXECUTABLE={sys.executable}", *OPTIONS], check=True)
        subprocess.run(["cmake", "--build", build], check=True)
        # Nothing of an earlier build with other options may stay beside this one's.
        for stale in destination.glob("_*.so"):
            stale.unlink()
        subprocess.run(["cmake", "--install", build, "--prefix", destination], check=True)


setup(
    ext_modules=[Extension(name, sources=[]) for name in MODULES],
    cmdclass={"build_ext": CMakeBuild},
    # The Triton kernels live at the top of the repository and are installed inside the package.
    packages=[*find_packages(include=["pydl", "pydl.*", "pydl_cli"]), "pydl.kernels"],
    package_dir={"pydl": "pydl", "pydl.kernels": "kernels"},
    package_data={"pydl": ["py.typed", "tables/*.json"]},
)
