"""The emulator's own tests: kernels that are right must pass in every order and under every
sanitizer, kernels with a planted fault must be noticed by whatever is there to notice it."""

import fcntl
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CUDA = ROOT / "csrc/cuda"
EMULATOR = ROOT / "csrc/emulator"
CASES = ROOT / "tests/tools/emulator"
BUILD = ROOT / "build/emulator"
COMPILER = os.environ.get("CXX", "g++")
FLAGS = "-std=c++20 -fno-strict-aliasing -DPYDL_EMULATED -Wall -Wextra -Werror"
ORDERS = range(4)  # 0 is greedy, the others are random

# The cases of faulty.cu: what shows the fault, and who notices. G is the greedy order, R one of the
# random ones; A the address and undefined-behaviour sanitizers, T ThreadSanitizer, which are asked
# where the orders are not enough.
FAULTS = {
    "missing_barrier_up": ("wrong", "GRT"),
    "missing_barrier_down": ("wrong", "RT"),
    "missing_barrier_before_overwriting": ("wrong", "GRT"),
    "missing_syncwarp": ("wrong", "GRT"),
    "shuffle_is_no_barrier": ("data race", "T"),
    "divergent_barrier": ("__syncthreads .* the block diverged", "GR"),
    "barrier_in_branch": (
        "has ended, but thread .* waits at __syncthreads|threads of the block have ended",
        "GR",
    ),
    "early_exit": (
        "has ended, but thread .* waits at __syncthreads|threads of the block have ended",
        "GR",
    ),
    "crossed_waits": ("the block diverged|deadlock: thread", "GR"),
    "missing_lane": (
        "has ended, but thread .* waits at __shfl_xor_sync|but lane 5 has ended",
        "GR",
    ),
    "lanes_that_never_were": ("but lane 16 has ended or never was", "GR"),
    "lane_outside_its_mask": ("leaves out its own lane 0", "GR"),
    "masks_that_differ": (
        "mask 0x7fffffff, but|waits at __shfl_xor_sync .* with mask 0x7fffffff",
        "GR",
    ),
    "divergent_shuffle": ("__shfl_xor_sync .* but thread .* waits at __shfl_xor_sync", "GR"),
    "shuffle_from_nobody": ("wrong", "GR"),
    "unwritten_shared_memory": ("wrong", "GR"),
    "shared_array_overrun": ("use-after-poison", "A"),
    "dynamic_array_overrun": ("use-after-poison", "A"),
    "row_overrun": ("index 8 out of bounds", "A"),
    "global_overrun": ("heap-buffer-overflow", "A"),
    "blocks_that_race": ("wrong", "GRT"),
    "blocks_that_race_behind_barriers": ("data race", "T"),
    "lost_update": ("data race", "T"),
    "missing_release": ("data race", "T"),
    "copy_without_wait": ("wrong", "GR"),
    "copy_with_too_few_waits": ("wrong", "GR"),
    "copy_never_waited_for": ("has ended, but not waited for its asynchronous copy", "GR"),
    "copy_without_barrier": ("wrong", "GRT"),
    "copy_over_what_is_read": ("wrong", "RT"),
    "unaligned_copy": ("must be aligned to 16", "GR"),
    "assumed_alignment": ("not aligned to 16 bytes", "GR"),
    "copy_outside_shared_memory": ("in no shared array", "GR"),
    "unaligned_ldmatrix": ("not aligned to 16 bytes", "GR"),
    "missing_grid_barrier": ("wrong", "GRT"),
    "grid_barrier_in_a_plain_launch": ("a launch that is not cooperative", "GR"),
    "grid_barrier_without_all_blocks": (
        "waits at grid_barrier|threads of the grid have ended",
        "GR",
    ),
    "flag_that_nobody_raises": ("deadlock: thread .* waits for a flag", "GR"),
    "too_many_threads": ("at most 1024 threads", "GR"),
    "too_tall_a_grid": ("2147483647 x 65535 x 65535 blocks", "GR"),
    "too_long_a_grid": ("a grid of 4294967296 blocks", "GR"),
    "empty_grid": ("the grid is empty", "GR"),
    "too_much_dynamic_memory": ("at most 232448 bytes", "GR"),
    "too_much_static_memory": ("52000 bytes of static", "GR"),
    "grid_that_is_not_resident": ("this device holds 128 of them", "GR"),
}


def ninja_file() -> str:
    """The run-time once, uninstrumented; the cases plain and under each sanitizer; the cases by
    nvcc."""
    cases = [CASES / "main.cpp", CASES / "right.cu", CASES / "faulty.cu"]
    lines = [
        "rule compile",
        f"  command = {COMPILER} {FLAGS} $flags -MD -MF $out.d -c -x c++ $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        f"  command = {COMPILER} $flags $in -o $out",
        "rule nvcc",
        "  command = nvcc -std=c++20 -O1 -gencode=arch=compute_80,code=sm_80 "
        "-gencode=arch=compute_90a,code=sm_90a "
        "-Xcompiler=-Wall -MD -MF $out.d -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
    ]
    run_time = [source for source in sorted(EMULATOR.glob("*.cpp")) if source.stem != "bindings"]
    for source in run_time:
        lines += [f"build {source.stem}.o: compile {source}", "  flags = -O2"]
    run_time_objects = " ".join(f"{source.stem}.o" for source in run_time)
    # Under the sanitizers the compiler takes twice as long for -O1 and finds no more.
    variants = {
        "plain": "-O1",
        "address": "-O0 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined",
        "thread": "-O0 -g -fsanitize=thread",
    }
    for variant, flags in variants.items():
        for source in cases:
            lines += [f"build {variant}_{source.stem}.o: compile {source}", f"  flags = {flags}"]
        objects = " ".join(f"{variant}_{source.stem}.o" for source in cases)
        lines += [f"build {variant}: link {objects} {run_time_objects}", f"  flags = {flags}"]
    for source in cases[1:]:
        lines.append(f"build nvcc_{source.stem}.o: nvcc {source}")
    lines.append(f"default {' '.join(variants)}")
    return "\n".join(lines) + "\n"


def make(*targets: str) -> subprocess.CompletedProcess:
    """Brings these targets up to date; several test processes may ask at once."""
    import ninja

    BUILD.mkdir(parents=True, exist_ok=True)
    with open(BUILD / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (BUILD / "build.ninja").write_text(ninja_file())
        command = [Path(ninja.BIN_DIR) / "ninja", "-j2", "-C", BUILD, *targets]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(variant: str, cases: str, orders=(0,)) -> str:
    command = [BUILD / variant, cases, *map(str, orders)]
    # A data race alone must not end the run: all cases are to be heard.
    environment = {**os.environ, "TSAN_OPTIONS": "halt_on_error=0"}
    done = subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.stdout


@pytest.fixture(scope="module")
def built():
    if shutil.which(COMPILER) is None:
        pytest.skip(f"no {COMPILER} to compile the kernels with")
    made = make()
    assert made.returncode == 0, made.stdout


@pytest.fixture(scope="module")
def outcomes(built) -> dict[tuple[str, int], str]:
    lines = run("plain", "faulty", ORDERS).splitlines()
    return {
        (name, int(order)): what for name, order, what in (line.split(maxsplit=2) for line in lines)
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "orders"),
    [("plain", range(8)), ("address", range(2)), ("thread", range(1))],
    ids=lambda value: str(value),
)
def test_right_kernels_are_found_right(built, variant, orders):
    lines = run(variant, "right", orders).splitlines()
    assert len(lines) >= 25 * len(orders)
    assert [line for line in lines if not line.endswith(" right")] == []


def test_every_planted_fault_is_in_the_table(outcomes):
    assert {name for name, _ in outcomes} == set(FAULTS)


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_show_in_some_order(outcomes, name):
    sign, noticed_by = FAULTS[name]
    shown = [re.search(sign, outcomes[name, order]) is not None for order in ORDERS]
    assert shown[0] == ("G" in noticed_by), outcomes[name, 0]
    assert any(shown[1:]) == ("R" in noticed_by), [outcomes[name, order] for order in ORDERS]


@pytest.mark.parametrize("letter", "AT")
def test_sanitizers_notice_planted_faults(built, letter):
    variant, sign = {"A": ("address", None), "T": ("thread", "data race")}[letter]
    names = [name for name, (_, noticed_by) in FAULTS.items() if letter in noticed_by]
    with ThreadPoolExecutor(2) as pool:
        reports = dict(
            zip(names, pool.map(lambda name: run(variant, f"faulty:{name}"), names), strict=True)
        )
    missed = {
        name: report
        for name, report in reports.items()
        if not re.search(sign or FAULTS[name][0], report)
    }
    assert missed == {}


@pytest.mark.parametrize("name", ["divergent_barrier", "early_exit", "missing_lane"])
def test_what_a_fault_leaves_behind_is_no_race(built, name):
    """A launch that was broken off leaves threads behind; freeing their memory must not race
    with them."""
    report = run("thread", f"faulty:{name}")
    assert "fault:" in report
    assert "free" not in report and "operator delete" not in report


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("__shared__ float x[32];", "write SHARED"),
        ("atomicAdd(y, 1.f);", "no floating-point atomics"),
    ],
)
def test_what_must_not_compile(built, line, message, tmp_path):
    source = tmp_path / "kernel.cu"
    source.write_text(
        f'#include "{CUDA}/device.h"\n__global__ void kernel(float* y) {{ {line} y[0] = 0; }}\n'
    )
    command = [COMPILER, *FLAGS.split(), "-fsyntax-only", "-x", "c++", str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert message in done.stderr


@pytest.mark.parametrize("source", ["right", "faulty"])
def test_the_same_kernels_compile_for_a_gpu(source):
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc here")
    made = make(f"nvcc_{source}.o")
    assert made.returncode == 0, made.stdout


@pytest.mark.parametrize(
    "source", sorted(path.name for path in CUDA.iterdir() if path.name != "device.h")
)
def test_kernels_keep_to_what_device_h_offers(source):
    text = re.sub(r"//.*", "", (CUDA / source).read_text())
    assert (
        re.findall(
            r"<<<|\basm\b|\b__shared__\b|cuda_runtime|cooperative_groups|#include <cuda.*>", text
        )
        == []
    )
