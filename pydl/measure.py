"""Timing callables against each other, so that the figures can be believed.

All are measured in one process, in turns, so that whatever else the machine does affects them
equally; each is called before it is timed; each result is a minimum, a median, a 20th and an 80th
percentile of many samples, in seconds per call. The time of one copy of the input, taken in the
same loop, is the yardstick for whatever is bound by memory: see :func:`copier`.
"""

import contextlib
import gc
import importlib
import importlib.metadata
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

Action = Callable[[], object]

_SAMPLE_SECONDS = (
    50e-6  # a CPU sample lasts at least this long, a thousand times what reading the clock costs
)
_WARM_UP_CALLS = 3
_HEAD_START_CYCLES = (
    1_000_000  # about half a millisecond, in which the CPU launches what is to be timed
)


@dataclass(frozen=True)
class Times:
    """How long one call takes, in seconds, over ``samples`` samples of ``calls`` calls each."""

    minimum: float
    p20: float
    median: float
    p80: float
    samples: int
    calls: int

    @classmethod
    def of(cls, seconds: Sequence[float], calls: int = 1) -> "Times":
        """From the duration of each sample, divided by its calls already."""
        ordered = sorted(seconds)

        def quantile(q: float) -> float:
            position = q * (len(ordered) - 1)
            low = math.floor(position)
            high = min(low + 1, len(ordered) - 1)
            return ordered[low] + (position - low) * (ordered[high] - ordered[low])

        return cls(ordered[0], quantile(0.2), quantile(0.5), quantile(0.8), len(ordered), calls)


def copier(x: torch.Tensor) -> Action:
    """A callable that copies ``x`` once into memory of its own: it reads and writes each byte of
    ``x`` once."""
    target = torch.empty_like(x)
    return lambda: target.copy_(x)


def interleave(
    actions: Mapping[str, Action],
    *,
    device: torch.device | str = "cpu",
    seconds: float = 1.0,
    rounds: tuple[int, int] = (9, 400),
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Times]:
    """Time several callables in turns.

    On a CPU by the monotonic clock, each sample of as many calls (the same number for all) as make
    the fastest last 50 us. On a CUDA device one call per sample between two events, the L2 cache
    overwritten before, and with the GPU kept busy while the CPU launches the call: what counts is
    the time on the device.

    Args:
        actions: by name, callables without arguments; on CUDA they work on the current stream of
            ``device``.
        device: where they work.
        seconds: how long to measure all of them together, roughly, beyond warming up.
        rounds: the least and the most samples of each, whatever ``seconds`` says.
        clock: of the CPU; ``time.thread_time``, for what works in this thread alone, does not go on
            while the processor does something else.

    Returns:
        The times of one call, by the names given.

    Raises:
        ValueError: there is nothing to time, or the device is neither a CPU nor CUDA.
    """
    device = torch.device(device)
    if not actions:
        raise ValueError("nothing to time: actions is empty")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {device}")
    for action in actions.values():
        for _ in range(_WARM_UP_CALLS):
            action()
    with _no_collection():
        if device.type == "cpu":
            return _interleave_cpu(actions, seconds, rounds, clock)
        with torch.cuda.device(device):
            return _interleave_cuda(actions, seconds, rounds)


@contextlib.contextmanager
def settled() -> Iterator[None]:
    """For many measurements: each begins by collecting what is unreachable, and in here it need not
    look at all that was imported before, which takes tenths of a second."""
    if gc.get_freeze_count():  # so it is around this block already
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Without Python's garbage collector."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _rounds(budget: float, one_round: float, limits: tuple[int, int]) -> int:
    return max(limits[0], min(limits[1], int(budget / max(one_round, 1e-9))))


def _in_turns(actions: Mapping[str, Action], rounds: int) -> Iterator[tuple[int, str, Action]]:
    """Each action once per round; every round begins with another, so that none always follows the
    same one."""
    items = list(actions.items())
    for i in range(rounds):
        first = i % len(items)
        for name, action in items[first:] + items[:first]:
            yield i, name, action


def _interleave_cpu(
    actions: Mapping[str, Action],
    seconds: float,
    limits: tuple[int, int],
    clock: Callable[[], float],
) -> dict[str, Times]:
    def sample(action: Action, calls: int) -> float:
        start = clock()
        for _ in range(calls):
            action()
        return (clock() - start) / calls

    estimates = [min(sample(action, 1) for _ in range(3)) for action in actions.values()]
    calls = max(1, math.ceil(_SAMPLE_SECONDS / max(min(estimates), 1e-9)))
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for _, name, action in _in_turns(actions, _rounds(seconds, calls * sum(estimates), limits)):
        taken[name].append(sample(action, calls))
    return {name: Times.of(durations, calls) for name, durations in taken.items()}


def _interleave_cuda(
    actions: Mapping[str, Action], seconds: float, limits: tuple[int, int]
) -> dict[str, Times]:
    cache = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
    overwritten = torch.empty(max(4 * cache, 1 << 26), dtype=torch.uint8, device="cuda")

    def sample(action: Action) -> tuple[torch.cuda.Event, torch.cuda.Event]:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        overwritten.zero_()
        torch.cuda._sleep(_HEAD_START_CYCLES)
        start.record()
        action()
        end.record()
        return start, end

    torch.cuda.synchronize()
    began = time.perf_counter()
    for action in actions.values():
        sample(action)
    torch.cuda.synchronize()
    rounds = _rounds(seconds, time.perf_counter() - began, limits)
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for _, name, action in _in_turns(actions, rounds):
        start, end = sample(action)
        end.synchronize()
        taken[name].append(start.elapsed_time(end) / 1e3)
    return {name: Times.of(durations) for name, durations in taken.items()}


def pin_to_one_core() -> int | None:
    """Let this process, with one thread for PyTorch, run on one core only: the last it may use.

    Returns:
        The core's number, or None where the system cannot pin.
    """
    torch.set_num_threads(1)
    if not hasattr(os, "sched_setaffinity"):
        return None
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def device_name(device: torch.device | str = "cpu") -> str:
    """The name of the GPU, or of the processor as the system gives it."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def extension() -> tuple[str, str]:
    """The instruction set of the CPU kernels in use and the GPU architectures built in; empty where
    not built."""
    try:
        module = importlib.import_module("pydl._C")
    except ImportError:
        return "", ""
    return module.cpu.isa() if hasattr(module, "cpu") else "", module.architectures.strip()


def versions(device: torch.device | str = "cpu") -> dict[str, str]:
    """What a figure measured here depends on: versions, and PyTorch's settings. A value is empty
    where something is absent."""
    device = torch.device(device)
    isa, architectures = extension()
    found = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": _version("numpy"),
        "triton": _version("triton"),
        "pydl": _version("pydl-kernels"),
        "system": f"{platform.system()} {platform.machine()}",
        "torch_isa": torch.backends.cpu.get_cpu_capability(),
        "pydl_isa": isa,
        "pydl_cuda": architectures,
    }
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        found |= {
            "cuda": torch.version.cuda or "",
            "cudnn": str(torch.backends.cudnn.version() or ""),
            "capability": f"{major}.{minor}",
            "cudnn_benchmark": str(torch.backends.cudnn.benchmark),
            "tf32_conv": str(torch.backends.cudnn.allow_tf32),
        }
    return found
