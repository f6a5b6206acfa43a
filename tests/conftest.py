"""What every test runs under: an interpreter or a GPU for Triton, an emulator or a GPU for CUDA,
poisoned allocations."""

import contextlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

# Triton decides at import whether it interprets, so this comes before anything imports it.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# What this machine was tuned to does not decide what the tests see.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="pydl-tests-")

import gpu_selection
import known_table
import pytest
from torch.overrides import has_torch_function
from torch.utils._pytree import tree_map

from pydl import backends, dispatch, layout, native, plan
from pydl.emulation import emulate_cuda

# Where there is no such device, torch.manual_seed keeps the call for later, with a stack trace for
# each: 3 ms a call, two thirds of test_opinfo's time.
for _devices in (torch.cuda, torch.mtia, torch.xpu):
    if not _devices.is_available():
        _devices.manual_seed_all = lambda seed: None

# A tree of its own, which package/test_recipe.py lays over a copy of this one.
collect_ignore = ["package/recipe"]


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
    parser.addoption("--isa", help="hold the CPU kernels to this instruction set, e.g. avx2")
    parser.addoption("--planned", action="store_true", help="every call by a plan, if it has one")
    parser.addoption("--whole", action="store_true", help="every row in every dtype")
    parser.addoption(
        "--gpu", type=int, metavar="ROWS", help="of each table only what a GPU is held to"
    )
    parser.addoption(
        "--launches", type=Path, help="write what Triton's kernels are launched with in this folder"
    )
    parser.addoption("--first", action="append", default=[], help="run this test before others")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--gpu") is not None:
        _keep(config, items, gpu_selection.chosen(items, config.getoption("--gpu")))
    elif not config.getoption("--whole"):
        left_out = _out_of_turn(items)
        _keep(config, items, [item for item in items if item not in left_out])
    place = {test: i for i, test in enumerate(config.getoption("--first"))}
    # Files with slow tests come first, or one of these is left when the other workers are through.
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (place.get(item.nodeid, len(place)), item.path not in slow))


def _keep(config: pytest.Config, items: list[pytest.Item], kept: list[pytest.Item]) -> None:
    """These alone, in this order."""
    config.hook.pytest_deselected(items=list(set(items).difference(kept)))
    items[:] = kept


_SLOW = ("reference", "aten") if torch.cuda.is_available() else ("reference", "aten", "triton")


def _out_of_turn(items: list[pytest.Item]) -> set[pytest.Item]:
    """What the suite leaves out. Compiled kernels run each row of a table in every dtype; what is
    slow and has no code of its own for each (the reference, PyTorch's operators, Triton's
    interpreter) in one of them, another from row to row. So do tests marked ``in_turns`` with the
    parameters that they name, whoever serves."""
    tables: dict[tuple, dict[tuple, list[pytest.Item]]] = {}
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        server = parameters.get("server", (parameters.get("backend"),))[0]
        turning = {name for mark in item.iter_markers("in_turns") for name in mark.args}
        if server in _SLOW and "dtype" in parameters:
            turning.add("dtype")
        if not turning:
            continue
        table = tables.setdefault((item.path, item.originalname, server, frozenset(turning)), {})
        turning |= {"server", "backend"}
        others = (v for name, v in parameters.items() if name not in turning)
        table.setdefault(tuple(map(id, others)), []).append(item)
    return {
        item
        for table in tables.values()
        for number, row in enumerate(table.values())
        for item in row
        if item is not row[number % len(row)]
    }


@pytest.fixture(autouse=True)
def _known_table() -> None:
    """``auto`` chooses by the same table wherever the tests run, and knows no call that an earlier
    test has measured."""
    dispatch.forget()
    dispatch.use("cpu", known_table.ROWS)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--isa"):
        native.use_isa(config.getoption("--isa"))
    # PyTorch lets convolutions and recurrent layers round float32, and the tests' bounds are
    # float32's: a test of TF32 asks for it.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if config.getoption("--launches"):
        _record_launches(config.getoption("--launches"))
    if torch.cuda.is_available():
        return
    if importlib.util.find_spec("triton") is not None:
        # Imports Triton, so not before TRITON_INTERPRET is set.
        import interpreter

        interpreter.spare()
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
    emulate_cuda(module)


def _record_launches(folder: Path) -> None:
    """A file of this process, and none of an earlier run's that would have its name."""
    from launches import recorded
    from pydl.kernels import runtime

    name = os.environ.get("PYTEST_XDIST_WORKER", "main")
    runtime.launch = recorded(runtime.launch, folder / f"{name}.json")


def pytest_report_header() -> list[str]:
    return [f"pydl backend {name}: {detail}" for name, _, detail in backends.report()]


@pytest.fixture(autouse=True)
def poisoned_allocations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results start as NaN, or as an absurd integer, so that an element which was not written
    shows."""
    # Names of its own: of the modules named conftest, torch.compile may look into another.
    allocate, step, fill = layout.empty, plan.step, torch.Tensor.fill_

    def poisoned(*args, **kwargs):
        out = allocate(*args, **kwargs)
        return step(fill, out, float("nan") if out.is_floating_point() else 119)

    monkeypatch.setattr(layout, "empty", poisoned)


@pytest.fixture(autouse=True)
def planned(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``--planned``, each call is made with copies until it has a plan, or none."""
    if not request.config.getoption("--planned"):
        return
    likely, by_key = plan.Plans.likely, plan.Plans.by_key

    def fourth(plans, args, kwargs, surroundings):
        result = likely(plans, args, kwargs, surroundings)
        own = plan.recording() or dispatch.on_miss or has_torch_function((*args, *kwargs.values()))
        if result is plan.STALE and not own:
            generator = torch.get_rng_state()
            for _ in range(3):
                with contextlib.suppress(Exception):
                    by_key(plans, *tree_map(_copied, (args, kwargs)), surroundings)
            torch.set_rng_state(generator)
            result = likely(plans, args, kwargs, surroundings)
        return result

    monkeypatch.setattr(plan.Plans, "likely", fourth)


def _copied(value: object) -> object:
    """A tensor that lies as this one does, in memory of its own."""
    if type(value) not in (torch.Tensor, torch.nn.Parameter) or value.layout != torch.strided:
        return value
    with torch.no_grad():
        copy = value.new_empty(0).set_(
            value.untyped_storage().clone(), value.storage_offset(), value.shape, value.stride()
        )
    return copy.requires_grad_(value.requires_grad)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def threads_given_back() -> Iterator[None]:
    """A command that a test runs in this process sets the threads of PyTorch: the next test has
    those that the suite began with."""
    threads = torch.get_num_threads()
    yield
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
