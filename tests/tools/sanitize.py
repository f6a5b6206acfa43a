"""Runs the native and the emulated kernels' tests under sanitizers: ``make sanitize``.

AddressSanitizer and UBSan over everything native (a read one element outside a tensor aborts),
ThreadSanitizer over the emulated kernels, whose CUDA threads it sees as threads of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

from mutants_build import Build, library

ROOT = Path(__file__).parents[2]
# Every family that is bound, and what else calls the kernels.
FAMILIES = sorted(path.stem for path in (ROOT / "csrc/bindings").glob("*.cpp"))
FAMILIES.remove("module")
FILES = [
    f"tests/grid/test_{name}.py"
    for name in (
        *FAMILIES,
        "batch_norm_running",
        "conv_cuda",
        "depthwise",
        "pool_refused",
        "rnn_cuda",
        "rnn_layers",
    )
]


def installed(sanitizer: str) -> Path:
    """Where an instrumented build of the package lies that was installed there."""
    site = ROOT / "build" / f"site-{sanitizer.replace(',', '+')}"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    subprocess.run(
        [*pip, "--upgrade", "--no-deps", "--no-build-isolation", "--target", site, ROOT],
        check=True,
        env={
            **os.environ,
            "CMAKE_ARGS": f"-DPYDL_CUDA=OFF -DPYDL_EMULATOR=ON -DPYDL_SANITIZE={sanitizer}",
        },
    )
    return site


def run(title: str, runtime: str, select: str, *options: str, **environment: str) -> int:
    """Runs the tests with a sanitizer's run-time library."""
    # Without the repository's root on the path: where a package is installed that is instrumented,
    # it must be the one that runs.
    pytest = [str(Path(sys.executable).parent / "pytest"), "-q", "-x", "-n", "2"]
    pytest += ["-p", "no:cacheprovider", *options, "-k", select]
    preload = " ".join(map(library, (runtime, "libstdc++.so.6")))
    print(f"==== {title}: {' '.join(FILES)} ====", flush=True)
    return subprocess.run(
        [*pytest, *FILES],
        cwd=ROOT,
        env={**os.environ, "LD_PRELOAD": preload, **environment},
    ).returncode


def main() -> int:
    # CMake and Ninja come with the environment that runs this.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    failed = run(
        "AddressSanitizer and UBSan",
        "libasan.so",
        "cpu-cpu or cuda-cpu or test_conv_cuda or test_rnn_cuda or test_depthwise",
        PYTHONPATH=str(installed("address,undefined")),
        OMP_NUM_THREADS="2",
        # Python itself leaks by design; and a sanitizer's report must end the run, not be read
        # past.
        ASAN_OPTIONS="detect_leaks=0:detect_stack_use_after_return=0",
        UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1",
    )
    return failed or run(
        "ThreadSanitizer",
        "libtsan.so",
        "cuda-cpu and float32 and test_against_reference",
        f"--emulated={Build('thread').module}",
        OMP_NUM_THREADS="1",
        # PyTorch's own threads are not instrumented, and would be reported.
        TSAN_OPTIONS="halt_on_error=1:ignore_noninstrumented_modules=1",
    )


if __name__ == "__main__":
    sys.exit(main())
