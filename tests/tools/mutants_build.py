"""Emulated modules: of the kernels as they are, of all their mutants at once, of one mutant."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from mutants_source import HEADER, KERNELS, ROOT, SWITCH, Mutant, alone, switched

BUILD = ROOT / "build/mutants"


class Build:
    """The emulated module with or without sanitizers; with `mutants`, all of them behind a
    switch."""

    def __init__(self, sanitize: str, mutants: list[Mutant] | None = None) -> None:
        self.folder = BUILD / (sanitize.replace(",", "+") or "plain")
        self.tree = ROOT
        if mutants is not None:
            self.folder = self.folder.with_name(f"{self.folder.name}-all")
            self.tree = switched_tree(mutants)
        options = [
            "-DPYDL_CUDA=OFF",
            "-DPYDL_EMULATOR=ON",
            # -w: a mutant may well compare what it should not. A loop that leaves its array must
            # not be taken for one that cannot.
            "-DCMAKE_CXX_FLAGS=-w -fno-aggressive-loop-optimizations",
            "-DCMAKE_CXX_FLAGS_RELEASE=-O1",
            f"-DPYDL_SANITIZE={sanitize}",
            f"-DPython_EXECUTABLE={sys.executable}",
        ]
        configure = ["cmake", "-S", self.tree, "-B", self.folder, "-G", "Ninja", *options]
        subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
        build = ["cmake", "--build", self.folder, "--target", "_emulated"]
        built = subprocess.run(build, capture_output=True, text=True)
        if built.returncode:
            raise RuntimeError(built.stdout + built.stderr)
        self.module = next(self.folder.glob("_emulated*.so"))
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        if sanitize:
            self.environment["LD_PRELOAD"] = " ".join(
                map(library, ("libasan.so", "libstdc++.so.6"))
            )
            self.environment["ASAN_OPTIONS"] = "detect_leaks=0"
            self.environment["UBSAN_OPTIONS"] = "halt_on_error=1"

    def mutated(self, mutant: Mutant, folder: Path) -> Path | None:
        """The module with this one mutant compiled in; None if it does not compile."""
        listed = ["ninja", "-C", self.folder, "-t", "commands", self.module.name]
        commands = subprocess.run(
            listed, check=True, capture_output=True, text=True
        ).stdout.splitlines()
        folder.mkdir(parents=True, exist_ok=True)
        module = folder / self.module.name
        link = next(command for command in commands if f"-o {self.module.name}" in command)
        link = link.replace(f"-o {self.module.name}", f"-o {module}")
        (folder / mutant.file).write_text(f'#line 1 "{mutant.path}"\n{mutant.source}')
        for name in compiled(mutant):
            source, object_file = folder / name, folder / f"{name}.o"
            if not source.exists():  # beside the mutated header, which it thus finds first
                shutil.copy(KERNELS / name, source)
            command = next(
                command
                for command in commands
                if f"csrc/cuda/{name}.o" in command and " -c " in command
            )
            words = without_options(shlex.split(command), "-MT", "-MF")
            link = link.replace(words[words.index("-o") + 1], str(object_file))
            words[words.index("-o") + 1] = str(object_file)
            words[words.index("-c") + 1] = str(source)
            # The copies include the other headers from beside the original.
            words.append(f"-iquote{KERNELS}")
            if subprocess.run(words, cwd=self.folder, capture_output=True).returncode:
                return None
        # Ninja's command goes on to strip the module; the first part is the link.
        link = next(part for part in link.split(" && ") if f"-o {module}" in part)
        subprocess.run(shlex.split(link), cwd=self.folder, check=True, capture_output=True)
        return module


def switched_tree(mutants: list[Mutant]) -> Path:
    """A copy of the sources with every mutant that a switch can choose. What is as it was before
    is not written again: it need not be compiled again."""
    tree = BUILD / "sources"
    kept = [ROOT / "CMakeLists.txt", *(ROOT / "cmake").rglob("*"), *(ROOT / "csrc").rglob("*")]
    texts = {path: path.read_text() for path in kept if path.is_file()}
    for path in {mutant.path for mutant in mutants}:
        own = [mutant for mutant in mutants if mutant.path == path and not alone(mutant)]
        texts[path] = switched(path, own)
    texts[KERNELS / "mutants.h"] = HEADER
    texts[ROOT / "csrc/emulator/mutants.cpp"] = SWITCH.format(size=len(mutants) + 1)
    copies = {tree / path.relative_to(ROOT): text for path, text in texts.items()}
    for path in tree.rglob("*"):
        if path.is_file() and path not in copies:
            path.unlink()
    for path, text in copies.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    return tree


def compiled(mutant: Mutant) -> list[str]:
    """The mutated file itself, or those that include it."""
    if mutant.file.endswith(".cu"):
        return [mutant.file]
    including = re.compile(f'#include "{re.escape(mutant.file)}"')
    return [path.name for path in KERNELS.glob("*.cu") if including.search(path.read_text())]


def without_options(words: list[str], *options: str) -> list[str]:
    """The words without these options and the word after each."""
    return [
        word
        for i, word in enumerate(words)
        if word not in options and (i == 0 or words[i - 1] not in options)
    ]


def library(name: str) -> str:
    found = subprocess.run(
        ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return os.path.realpath(found)
