"""Runs the native and the emulated kernels' tests under sanitizers: ``make sanitize``.

AddressSanitizer and UBSan over everything native (a read one element outside a tensor aborts),
ThreadSanitizer over the emulated kernels, whose CUDA threads it sees as threads of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = [
    f"tests/test_{family}.py"
    for family in (
        "conv",
        "conv_cuda",
        "depthwise",
        "bias_act",
        "local",
        "pool",
        "pool_lp",
        "pool_adaptive",
        "unpool",
        "lrn",
    )
]


def library(name: str) -> str:
    found = subprocess.run(
        ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return os.path.realpath(found)


def run(sanitizer: str, runtime: list[str], options: dict[str, str], select: str) -> int:
    """Installs an instrumented build into a folder of its own and runs the tests from there."""
    site = ROOT / "build" / f"site-{sanitizer.replace(',', '+')}"
    environment = {
        **os.environ,
        "CMAKE_ARGS": f"-DPYDL_CUDA=OFF -DPYDL_EMULATOR=ON -DPYDL_SANITIZE={sanitizer}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--quiet",
        "install",
        "--upgrade",
    ]
    subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--target", site, ROOT],
        check=True,
        env=environment,
    )
    environment |= {
        "PYTHONPATH": str(site),
        "LD_PRELOAD": " ".join(map(library, runtime)),
        "OMP_NUM_THREADS": "2",
        **options,
    }
    # The instrumented package must be the one that runs, so pytest starts without the repository's
    # root on its path.
    pytest = [
        str(Path(sys.executable).parent / "pytest"),
        "-q",
        "-x",
        "-n",
        "2",
        "-p",
        "no:cacheprovider",
        "-k",
        select,
    ]
    print(f"==== {sanitizer}: {' '.join(FILES)} ====", flush=True)
    return subprocess.run([*pytest, *FILES], cwd=ROOT, env=environment).returncode


def main() -> int:
    failed = run(
        "address,undefined",
        ["libasan.so", "libstdc++.so.6"],
        # Python itself leaks by design; and a sanitizer's report must end the run, not be read
        # past.
        {
            "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
            "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        },
        "cpu-cpu or cuda-cpu or test_conv_cuda or test_depthwise",
    )
    return failed or run(
        "thread",
        ["libtsan.so", "libstdc++.so.6"],
        # PyTorch's own threads are not instrumented, and would be reported.
        {
            "TSAN_OPTIONS": "halt_on_error=1:ignore_noninstrumented_modules=1",
            "OMP_NUM_THREADS": "1",
        },
        "cuda-cpu and float32 and test_against_reference",
    )


if __name__ == "__main__":
    sys.exit(main())
