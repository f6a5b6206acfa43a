"""Tests the tests: takes each barrier, wait, mask and bound out of each CUDA kernel in turn and
expects the suite to fail.

    python tests/tools/mutants.py                 every kernel (`make mutants`)
    python tests/tools/mutants.py conv --only 109 one file, one line of it
    python tests/tools/mutants.py roi --kind barrier,mask --every 4
                                            every fourth of these kinds of mutants of a file
    python tests/tools/mutants.py --list          what would be tried

A mutant is one small change to one `.cu`, or to a header that belongs to one family (`conv_*.h`,
`pool_*.h`, `rnn_*.h`):

    barrier      __syncthreads(), __syncwarp(), grid_barrier() taken out
    wait         cp_async_wait<n>() taken out, or one group short
    mask         a *_sync call's mask without its highest lane
    guard        the condition of an `if` taken out: what it held back always happens
    bound        < becomes <=, <= becomes <, > becomes >=, >= becomes >
    clip         min(a, b) or max(a, b) becomes a, and b

Arguments of `check(...)`, which refuse calls on the host, are left alone (the tests of bad input
answer for them), and so are those of `static_assert(...)`. Only the changed file, or what includes
it, is compiled, into an emulated module of its own, on which the family's tests run: first in the
greedy order of threads, then in a random one, then under AddressSanitizer, until something fails. A
mutant that hangs is killed when its processor time is spent and counts as noticed.

Exits with 1 if a mutant survives that is not in EQUIVALENT.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "csrc/cuda"
BUILD = ROOT / "build/mutants"
KEEN = 16  # the tests that noticed earlier mutants and are asked first
PATIENCE = 5  # times as long as the unchanged kernels' tests take, and half a minute

_EITHER_PATH = "At the limit itself the tensor cores and the direct kernels are both right."
_ANY_TILE = "Sums do not depend on the tile; the choice is one of speed."
# Mutants that compute the same: (file, words of the statement, what became of them) and why.
EQUIVALENT: dict[tuple[str, str, str], str] = {
    ("conv.cu", "x.size[0] < longest", "x.size[0] <= longest"): _EITHER_PATH,
    ("conv.cu", "x.size[1] < longest", "x.size[1] <= longest"): _EITHER_PATH,
    ("conv.cu", "y.size[1] < longest", "y.size[1] <= longest"): _EITHER_PATH,
    ("conv.cu", "x.size[axis + 2] < longest", "x.size[axis + 2] <= longest"): _EITHER_PATH,
    ("conv.cu", "y.size[axis + 2] < longest", "y.size[axis + 2] <= longest"): _EITHER_PATH,
    ("conv.cu", "padding[axis] < longest", "padding[axis] <= longest"): _EITHER_PATH,
    ("conv.cu", "stride[axis] < longest", "stride[axis] <= longest"): _EITHER_PATH,
    ("conv.cu", "dilation[axis] < longest", "dilation[axis] <= longest"): _EITHER_PATH,
    ("conv.cu", "< longest / window", "<= longest / window"): _EITHER_PATH,
    ("conv.cu", "weight.size[4] < longest", "weight.size[4] <= longest"): _EITHER_PATH,
    (
        "conv.cu",
        "window.groups > 1",
        "window.groups >= 1",
    ): "One channel in one group is depthwise too, with one channel.",
    (
        "conv_direct.cu",
        "from < count;",
        "from <= count;",
    ): "The last part is empty where the parts come out even, and an empty part adds 0.",
    (
        "conv_direct.cu",
        "i < filters_per_block; ++i) {",
        "i <= filters_per_block; ++i) {",
    ): "The line below passes over the turn too many: no block has more than filters_per_block.",
    (
        "conv_direct.cu",
        "if (threadIdx.x == 0) grad_bias.at",
        "if (true) grad_bias.at",
    ): "All threads of the block store the same value.",
    ("conv_gemm.cu", "columns > 64", "columns >= 64"): _ANY_TILE,
    ("conv_gemm.cu", ">= enough_blocks", "> enough_blocks"): _ANY_TILE,
    ("conv_gemm_weight.cu", "filters > 64", "filters >= 64"): _ANY_TILE,
    ("conv_gemm_weight.cu", "columns > 64", "columns >= 64"): _ANY_TILE,
    (
        "lrn.cu",
        "args.size > 2 * channels",
        "args.size >= 2 * channels",
    ): "A window of 2 C channels already holds all that one of 2 C + 1 does.",
    (
        "lrn.cu",
        "if (output.channels_last()) {",
        "if (true) {",
    ): "Either strip gives the same bits; the choice is one of speed.",
    (
        "rnn_persistent.cu",
        "first > second ? first : second",
        "first >= second ? first : second",
    ): "Where both are the same it does not matter which.",
    (
        "unpool.cu",
        "x.numel() > 0",
        "x.numel() >= 0",
    ): "The operator refuses axes of no elements, and without images there is no result either.",
    (
        "pool_window.h",
        "skipped = start < 0",
        "skipped = start <= 0",
    ): "At 0 nothing is skipped: (dilation - 1) / dilation is 0.",
    (
        "pool_window.h",
        "reach > span",
        "reach >= span",
    ): "At the span itself the first window is 0: (stride - 1) / stride is 0.",
    (
        "pool.cu",
        "if (tap_d < 0) continue;",
        "if (false) continue;",
    ): "A tap of -1 along the outermost axis makes a negative number, which is no window's index.",
    (
        "pool_window.h",
        "if (dilation == 1) return distance;",
        "if (false) return distance;",
    ): "The shortcut for a dilation of 1: the division by 1 finds the same tap.",
}


@dataclass(frozen=True)
class Mutant:
    file: str
    line: int
    kind: str
    before: str  # the statement as it stands, on one line
    after: str
    source: str  # the whole mutated file

    @property
    def family(self) -> str:
        """conv of conv_gemm.cu: the longest beginning of the name that has tests."""
        family = Path(self.file).stem
        while not tests_of(family):
            family = family.rpartition("_")[0]
        return family

    @property
    def compiled(self) -> list[str]:
        """The file itself, or those that include it."""
        if self.file.endswith(".cu"):
            return [self.file]
        quoted = f'#include "{self.file}"'
        return [path.name for path in KERNELS.glob("*.cu") if quoted in path.read_text()]

    @property
    def equivalent(self) -> tuple[str, str, str] | None:
        """The entry of EQUIVALENT that is this mutant."""
        for entry in EQUIVALENT:
            file, words, became = entry
            mutated = self.before.replace(words, became, 1)
            if file == self.file and words in self.before and mutated == self.after:
                return entry
        return None


def sources() -> list[Path]:
    """What is mutated."""
    headers = (path for family in ("conv", "pool", "rnn") for path in KERNELS.glob(f"{family}_*.h"))
    return sorted([*KERNELS.glob("*.cu"), *headers])


def tests_of(family: str) -> list[str]:
    """The tests of the family's CUDA kernels alone, which notice sooner, and all the family's."""
    files = (f"tests/grid/test_{family}_cuda.py", f"tests/grid/test_{family}.py")
    return [file for file in files if (ROOT / file).exists()]


def closing(text: str, opening: int) -> int:
    """Where the bracket closes that opens at `opening`."""
    depth = 0
    for position in range(opening, len(text)):
        depth += (text[position] in "([{") - (text[position] in ")]}")
        if depth == 0:
            return position
    raise ValueError(f"unbalanced brackets after {text[opening : opening + 40]!r}")


def first_argument(text: str, opening: int) -> int:
    """Where the first argument ends of the call whose bracket opens at `opening`."""
    depth = 0
    for position in range(opening, len(text)):
        depth += (text[position] in "([{") - (text[position] in ")]}")
        if (depth == 1 and text[position] == ",") or depth == 0:
            return position
    raise ValueError(f"unbalanced brackets after {text[opening : opening + 40]!r}")


def code_only(text: str) -> str:
    """The text with comments, strings, directives, `check(...)` and `static_assert(...)` blanked
    out, every character in its place."""

    def blank(match: re.Match) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    text = re.sub(
        r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|^#[^\n]*',
        blank,
        text,
        flags=re.DOTALL | re.MULTILINE,
    )
    for call in re.finditer(r"\b(?:check|static_assert)(?=\()", text):
        end = closing(text, call.end())
        text = text[: call.start()] + re.sub(r"[^\n]", " ", text[call.start() : end]) + text[end:]
    return text


def changes(code: str):
    """Every change as (kind, start, end, what stands there instead)."""
    for match in re.finditer(r"\b(?:__syncthreads|__syncwarp|grid_barrier)(?=\()", code):
        yield "barrier", match.start(), closing(code, match.end()) + 1, ""
    for match in re.finditer(r"\bcp_async_wait<([^<>]+)>\(\)", code):
        yield "wait", match.start(), match.end(), ""
        yield "wait", match.start(1), match.end(1), f"({match[1]} + 1)"
    for match in re.finditer(r"\b__\w+_sync(?=\()", code):
        start, end = match.end() + 1, first_argument(code, match.end())
        yield "mask", start, end, f"({code[start:end]}) & 0x7fffffffu"
    for match in re.finditer(r"\bif (?=\()", code):
        end = closing(code, match.end()) + 1
        # What follows either is held back by the condition or, leaving, holds back the rest.
        leaves = re.match(r"\s*(?:return|continue|break)\b", code[end:]) is not None
        yield "guard", match.end(), end, "(false)" if leaves else "(true)"
    for match in re.finditer(r"(?<= )(?:<=|>=|<|>)(?= )", code):
        shifted = match[0][0] if len(match[0]) == 2 else match[0] + "="
        yield "bound", match.start(), match.end(), shifted
    for match in re.finditer(r"(?<![\w:.])(?:min|max)(?=\()", code):
        end, comma = closing(code, match.end()), first_argument(code, match.end())
        yield "clip", match.start(), end + 1, f"({code[match.end() + 1 : comma].strip()})"
        yield "clip", match.start(), end + 1, f"({code[comma + 1 : end].strip()})"


def statement(code: str, start: int, end: int) -> tuple[int, int]:
    """Where the whole lines begin and end that hold the statement around code[start:end]."""
    breaks = [match.end() for match in re.finditer(r"(?:[;{}:]|^)[ ]*$\n?", code, re.MULTILINE)]
    first = max((at for at in breaks if at <= start), default=0)
    return first, min(at for at in breaks if at >= end) - 1


def mutants_of(path: Path) -> list[Mutant]:
    text = path.read_text()
    code = code_only(text)
    out = []
    for kind, start, end, instead in changes(code):
        first, last = statement(code, start, end)
        before, after = text[first:last], text[first:start] + instead + text[end:last]
        line = text.count("\n", 0, start) + 1
        source = text[:start] + instead + text[end:]
        out.append(
            Mutant(path.name, line, kind, " ".join(before.split()), " ".join(after.split()), source)
        )
    return sorted(out, key=lambda mutant: mutant.line)


class Build:
    """The emulated module with or without sanitizers, built once; a mutant replaces one of its
    objects."""

    def __init__(self, sanitize: str) -> None:
        self.folder = BUILD / (sanitize.replace(",", "+") or "plain")
        # Without much optimisation: a mutant is compiled more often than it runs.
        options = [
            "-DPYDL_CUDA=OFF",
            "-DPYDL_EMULATOR=ON",
            "-DCMAKE_CXX_FLAGS_RELEASE=-O1",
            f"-DPYDL_SANITIZE={sanitize}",
        ]
        configure = [
            "cmake",
            "-S",
            ROOT,
            "-B",
            self.folder,
            "-G",
            "Ninja",
            f"-DPython_EXECUTABLE={sys.executable}",
            *options,
        ]
        subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(
            ["cmake", "--build", self.folder, "--target", "_emulated"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        self.module = next(self.folder.glob("_emulated*.so"))
        listed = ["ninja", "-C", self.folder, "-t", "commands", self.module.name]
        self.commands = subprocess.run(
            listed, check=True, capture_output=True, text=True
        ).stdout.splitlines()
        # Unbuffered, so that the name of a test that crashes or hangs arrives.
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
        if sanitize:
            self.environment["LD_PRELOAD"] = " ".join(
                map(library, ("libasan.so", "libstdc++.so.6"))
            )
            self.environment["ASAN_OPTIONS"] = "detect_leaks=0"
            self.environment["UBSAN_OPTIONS"] = "halt_on_error=1"
        self.limit, self.longest = 1200.0, 0.0  # seconds
        # The tests that noticed earlier mutants, the latest first: they notice most others too.
        self.keen: list[str] = []

    def mutated(self, mutant: Mutant, folder: Path) -> Path | None:
        """The module with this mutant; None if it does not compile."""
        module = folder / self.module.name
        link = next(command for command in self.commands if f"-o {self.module.name}" in command)
        link = link.replace(f"-o {self.module.name}", f"-o {module}")
        (folder / mutant.file).write_text(f'#line 1 "{KERNELS / mutant.file}"\n{mutant.source}')
        for name in mutant.compiled:
            source, object_file = folder / name, folder / f"{name}.o"
            if not source.exists():  # beside the mutated header, which it thus finds first
                shutil.copy(KERNELS / name, source)
            compiled = next(
                command
                for command in self.commands
                if f"csrc/cuda/{name}.o" in command and " -c " in command
            )
            words = without_options(shlex.split(compiled), "-MT", "-MF")
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

    def notices(self, module: Path, family: str, order: int) -> bool:
        """Whether the family's tests fail with this module and this order of threads."""
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-v",
            "-p",
            "no:cacheprovider",
            *tests_of(family),
        ]
        command += [f"--emulated={module}", f"--order={order}", "-k", "cuda-cpu or _cuda"]
        command += [f"--first={test}" for test in self.keen]
        # The limit is one of processor time, which other work on the machine does not use up.
        limited = ["bash", "-c", f'ulimit -t {self.limit:.0f}; exec "$@"', "--", *map(str, command)]
        done = subprocess.run(limited, cwd=ROOT, env=self.environment, capture_output=True)
        if done.returncode in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED):
            raise RuntimeError(
                f"{shlex.join(map(str, command))}: {done.stdout.decode()} {done.stderr.decode()}"
            )
        if done.returncode:
            self.remember(done.stdout)
        return done.returncode != 0

    def remember(self, output: bytes) -> None:
        """Puts the test that ran last first in the next run."""
        tests = re.findall(
            r"^(tests/\S+?::.+?) *(?:[A-Z]+ *\[ *\d+%\])?$", output.decode(), re.MULTILINE
        )
        if tests:
            self.keen = [tests[-1], *(test for test in self.keen if test != tests[-1])][:KEEN]


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


# Who is asked: a build by its sanitizers, and an order of threads, 0 being the greedy one.
JUDGES = {"greedy order": ("", 0), "random order": ("", 1), "sanitizers": ("address,undefined", 0)}


def judges_of(mutant: Mutant) -> list[str]:
    """The likeliest to notice first: the order of threads shows what synchronises them, and the
    sanitizers what reads or writes too far."""
    last = "sanitizers" if mutant.kind in ("barrier", "wait", "mask") else "random order"
    return sorted(JUDGES, key=lambda name: (name == last, list(JUDGES).index(name)))


def judge(mutant: Mutant, builds: dict[str, Build]) -> str:
    if mutant.equivalent:
        return "equivalent"
    with tempfile.TemporaryDirectory() as folder:
        modules: dict[str, Path] = {}
        for name in judges_of(mutant):
            sanitize, order = JUDGES[name]
            if sanitize not in modules:
                own = Path(folder) / (sanitize or "plain")
                own.mkdir()
                module = builds[sanitize].mutated(mutant, own)
                if module is None:
                    return "does not compile"
                modules[sanitize] = module
            if builds[sanitize].notices(modules[sanitize], mutant.family, order):
                return name
    return "SURVIVES"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="only these, without .cu")
    parser.add_argument("--kind", type=lambda given: given.split(","), help="only these")
    parser.add_argument("--every", type=int, default=1, help="try one mutant in N")
    parser.add_argument("--only", type=int, action="append", help="only mutants of this line")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--list", action="store_true", help="print the mutants and stop")
    arguments = parser.parse_args()

    files = [path for path in sources() if not arguments.files or path.stem in arguments.files]
    mutants = [mutant for path in files for mutant in mutants_of(path)]
    stale = set(EQUIVALENT) - {
        mutant.equivalent for path in sources() for mutant in mutants_of(path)
    }
    if arguments.only:
        mutants = [mutant for mutant in mutants if mutant.line in arguments.only]
    if arguments.kind:
        mutants = [mutant for mutant in mutants if mutant.kind in arguments.kind]
    mutants = mutants[:: arguments.every]
    if arguments.list:
        for mutant in mutants:
            print(f"{mutant.file}:{mutant.line}: {mutant.kind}: {mutant.after}")
        return 0

    # CMake and Ninja come with the environment that runs this.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    builds = {sanitize: Build(sanitize) for sanitize, _ in JUDGES.values()}
    for family in sorted({mutant.family for mutant in mutants}):
        for name, (sanitize, order) in JUDGES.items():
            build = builds[sanitize]
            start = os.times().children_user
            if build.notices(build.module, family, order):
                print(f"the tests of {family} fail in {name} without any mutation")
                return 1
            build.longest = max(build.longest, os.times().children_user - start)
    for build in builds.values():
        build.limit = 30 + PATIENCE * build.longest

    columns = [*JUDGES, "does not compile", "equivalent", "SURVIVES"]
    counts: dict[str, dict[str, int]] = {}
    with ThreadPoolExecutor(arguments.jobs) as pool:
        verdicts = pool.map(lambda mutant: judge(mutant, builds), mutants)
        for mutant, verdict in zip(mutants, verdicts, strict=True):
            print(
                f"{verdict:17} {mutant.file}:{mutant.line} {mutant.kind}: {mutant.after}",
                flush=True,
            )
            counts.setdefault(f"{mutant.file} {mutant.kind}", dict.fromkeys(columns, 0))[
                verdict
            ] += 1

    print("\n" + " " * 18 + "".join(f"{column:>18}" for column in columns))
    for name, row in sorted(counts.items()):
        print(f"{name:18}" + "".join(f"{row[column]:>18}" for column in columns))
    for file, words, _ in sorted(stale):
        print(f"EQUIVALENT names what {file} no longer says, or not so: {words}")
    return 1 if stale or any(row["SURVIVES"] for row in counts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
