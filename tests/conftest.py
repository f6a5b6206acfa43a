"""What every test runs under: an interpreter or a GPU for Triton, an emulator or a GPU for CUDA,
poisoned allocations."""

import importlib.util
import os
from pathlib import Path

import torch

# Triton decides at import whether it interprets, so this comes before anything imports it.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

import pytest

from pydl import backends, layout, native


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--emulated",
        help="run the CUDA kernels from this emulated module instead of pydl._emulated",
    )
    parser.addoption(
        "--order",
        type=int,
        default=0,
        help="the order of emulated threads: 0 greedy, any other a random one",
    )
    parser.addoption("--whole", action="store_true", help="every row in every dtype")
    parser.addoption("--first", action="append", default=[], help="run this test before others")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--whole"):
        rows = _Rows()
        taken = {item: rows.in_turn(item) for item in items}
        config.hook.pytest_deselected(items=[item for item in items if not taken[item]])
        items[:] = [item for item in items if taken[item]]
    place = {test: i for i, test in enumerate(config.getoption("--first"))}
    items.sort(key=lambda item: place.get(item.nodeid, len(place)))


_SERVING = ("server", "backend", "dtype")


class _Rows:
    """Which dtypes a row of a table runs in. Compiled kernels run in every one; what is slow and
    has no code of its own for each (the reference, PyTorch's operators, Triton's interpreter) in
    float32 and, row after row, one of the others."""

    slow = ("reference", "aten") if torch.cuda.is_available() else ("reference", "aten", "triton")

    def __init__(self) -> None:
        self.numbers: dict[tuple, dict[tuple, int]] = {}

    def in_turn(self, item: pytest.Item) -> bool:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        backend, dtype = parameters.get("backend"), parameters.get("dtype", torch.float32)
        backend = parameters["server"][0] if "server" in parameters else backend
        if backend not in self.slow:
            return True
        table = self.numbers.setdefault((item.path, item.originalname, backend), {})
        of_table = (value for name, value in parameters.items() if name not in _SERVING)
        row = tuple(map(id, of_table))
        others = (torch.float64, torch.float16, torch.bfloat16)
        return dtype in (torch.float32, others[table.setdefault(row, len(table)) % 3])


def pytest_configure(config: pytest.Config) -> None:
    if torch.cuda.is_available():
        return
    path = config.getoption("--emulated")
    spec = (
        importlib.util.spec_from_file_location("pydl._emulated", Path(path).resolve())
        if path
        else importlib.util.find_spec("pydl._emulated")
    )
    if spec is None:
        raise pytest.UsageError(
            "the emulated CUDA kernels are not built; run `make test`, or install with "
            "CMAKE_ARGS=-DPYDL_EMULATOR=ON"
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.emulator.set_order(config.getoption("--order"))
    native.emulate_cuda(module)


def pytest_report_header() -> list[str]:
    return [f"pydl backend {name}: {detail}" for name, _, detail in backends.report()]


@pytest.fixture(autouse=True)
def poisoned_allocations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results start as NaN, or as an absurd integer, so that an element nobody wrote shows."""
    allocate = layout.empty

    def poisoned(*args, **kwargs):
        out = allocate(*args, **kwargs)
        return out.fill_(float("nan") if out.is_floating_point() else 119)

    monkeypatch.setattr(layout, "empty", poisoned)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
