"""Builds the extension modules by CMake. Everything else about the package is in pyproject.toml.

The options of CMakeLists.txt go through CMAKE_ARGS, e.g. ``CMAKE_ARGS="-DPYDL_CUDA=OFF" pip install .``.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


class CMakeExtension(Extension):
    """An extension whose sources and flags CMake knows."""

    def __init__(self, name: str) -> None:
        super().__init__(name, sources=[])


class CMakeBuild(build_ext):
    """Configures, builds and installs the extension modules beside the package's Python files."""

    def build_extension(self, extension: Extension) -> None:
        destination = Path(self.get_ext_fullpath(extension.name)).parent.resolve()
        options = shlex.split(os.environ.get("CMAKE_ARGS", ""))
        # One build folder a set of options, so that a sanitized build does not undo a plain one.
        name = "cmake" + "".join(sorted(o.replace("-D", "-").replace(",", "+") for o in options if o.startswith("-D")))
        build = ROOT / "build" / name.replace("/", "_")[:200]
        configure = ["-S", ROOT, "-B", build, "-G", "Ninja", f"-DPython_EXECUTABLE={sys.executable}"]
        subprocess.run(["cmake", *configure, *options], check=True)
        subprocess.run(["cmake", "--build", build], check=True)
        subprocess.run(["cmake", "--install", build, "--prefix", destination], check=True)


setup(
    ext_modules=[CMakeExtension("pydl._C")],
    cmdclass={"build_ext": CMakeBuild},
    # The Triton kernels live at the top of the repository and are installed inside the package.
    packages=[*find_packages(include=["pydl", "pydl.*"]), "pydl.kernels"],
    package_dir={"pydl": "pydl", "pydl.kernels": "kernels"},
    package_data={"pydl": ["**/*.html", "**/*.css", "**/*.js"]},
)
