"""Launch plans: that a call goes by one, that nothing passes for another call, and when they go."""

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from planned_calls import CALLS, EACH, Twice, call, random, x_of
from torch.overrides import TorchFunctionMode

import pydl
from pydl import backends, dispatch, functional, layout, native, plan, recorder
from pydl.plan import Plans

# of a function of the test's own


@pytest.fixture
def twice() -> Twice:
    return Twice()


def test_the_third_call_goes_by_a_plan(twice):
    for _ in range(3):
        x = x_of()
        assert torch.equal(twice(x), 2 * x)
    assert twice.whole == 2
    y, z = twice(x), twice(x)
    assert y.data_ptr() != z.data_ptr()


def test_a_setting_that_is_read_counts(twice):
    of_pytorch = [False]
    twice.find_out = lambda x: plan.setting(lambda: of_pytorch[0])
    x = x_of()
    for value in (False, True, False):
        of_pytorch[0] = value
        for _ in range(2):
            twice(x)
        assert twice.goes_by_a_plan(x)
        of_pytorch[0] = not value
        assert not twice.goes_by_a_plan(x)


READS = {
    "item": lambda x: x[0, 0, 0, 0].item(),
    "tolist": torch.Tensor.tolist,
    "bool": lambda x: bool(x[0, 0, 0, 0]),
    "numpy": lambda x: x.numpy(),
    "sum": torch.sum,
    "data": lambda x: x.data,
    "write": lambda x: x.mul_(1),
    "an effect": lambda x: plan.never(),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_what_looks_into_a_tensor_has_no_plan(read):
    twice = Twice(read)
    for _ in range(4):
        x = x_of()
        assert torch.equal(twice(x), 2 * x)
    assert twice.whole == 4


def test_an_unknown_tensor_has_no_place_in_a_plan():
    kept = x_of()
    plans = Plans(lambda x: plan.step(torch.add, x, kept))
    for _ in range(4):
        x = x_of()
        assert torch.equal(plans.call((x,), {}), x + kept)
    assert not any(isinstance(one, plan.Plan) for one in plans.known.values())


def test_arguments_that_share_memory_do_not_make_a_plan_for_others_that_do_not():
    plans = Plans(lambda x, y: plan.step(torch.sub, x, y))
    x, y = x_of(), x_of()
    for _ in range(3):
        assert torch.equal(plans.call((x, x), {}), x - x)
    for _ in range(3):
        assert torch.equal(plans.call((x, y), {}), x - y)
    assert torch.equal(plans.call((y, y), {}), y - y)


def test_views_of_arguments_and_results_are_made_again():
    def function(x: torch.Tensor) -> torch.Tensor:
        y = layout.empty(x.shape, x)
        plan.step(torch.neg, x.flatten(1)[:, 3:9], out=y.flatten(1)[:, 3:9])
        return y.flatten(1)[:, 3:9].view(2, 2, 3)

    plans = Plans(function)
    whole = x_of(300)
    for start in (0, 8, 16, 24, 32):
        x = whole[start : start + 96].view(2, 3, 4, 4)
        y = plans.call((x,), {})
        assert torch.equal(y, -x.flatten(1)[:, 3:9].view(2, 2, 3))
    assert any(isinstance(one, plan.Plan) for one in plans.known.values())


def test_plans_are_bounded(twice):
    for size in range(1, plan.LIMIT + 10):
        twice(torch.empty(size))
    assert len(twice.plans.known) == plan.LIMIT


def test_a_plan_that_went_serves_nothing_and_keeps_no_other(twice):
    for size in (1, 2, 1, 2, 1, 2, 1):
        twice(torch.empty(size))
    gone = twice.plans.last
    for size in range(3, plan.LIMIT + 3):
        twice(torch.empty(size))
    assert gone not in twice.plans.known.values() and gone.next is gone
    assert gone.run(torch.empty(1)) is gone.run_if_it_fits(torch.empty(1)) is recorder.STALE
    assert not twice.goes_by_a_plan(torch.empty(1))


def test_two_calls_are_expected_after_one(twice, monkeypatch):
    x, y = x_of(), x_of(3, 3)
    calls = (x, x, y, y, x)
    for _ in range(3):
        for one in calls:
            twice(one)
    whole = twice.whole
    monkeypatch.setattr(plan, "key_of", None)
    for one in (*calls, *calls):
        assert torch.equal(twice(one), 2 * one)
    assert twice.whole == whole


def test_what_is_recorded_does_not_meet_the_plans_of_its_parts(twice):
    plans = Plans(lambda x: plan.step(torch.neg, twice(twice(x))))
    for _ in range(3):
        twice(x_of())
    for _ in range(4):
        x = x_of()
        assert torch.equal(plans.call((x,), {}), -4 * x)
    assert any(isinstance(one, plan.Plan) for one in plans.known.values())


def test_an_error_leaves_no_plan(twice):
    def refuse(x: torch.Tensor) -> None:
        raise ValueError("no")

    twice.find_out = refuse
    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            twice(x_of())
    assert plan.recording() is None
    twice.find_out = lambda x: None
    twice(x_of())
    assert twice.goes_by_a_plan(x_of())


def test_threads_share_plans_and_do_not_mix_their_calls():
    plans, wrong = Plans(lambda x, k: plan.step(torch.mul, x, k)), []

    def work(number: int) -> None:
        for i in range(300):
            x = torch.full((1 + i % 7,), float(number))
            if not torch.equal(plans.call((x, i % 5), {}), x * (i % 5)):
                wrong.append((number, i))
            if i % 50 == number:
                plan.forget()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert recorder.recorders == {}


def test_a_call_that_was_recorded_while_plans_were_forgotten_has_none(twice):
    twice.find_out = lambda x: plan.forget()
    for _ in range(4):
        twice(x_of())
    assert twice.whole == 4


X = x_of(1, 4, 6, 6)
KEY = dispatch.key("pool", X, "max_pool_forward", None, ())
CHANGES = {
    "a measurement": lambda: dispatch.remember("pool", KEY, "aten"),
    "measurements forgotten": dispatch.forget,
    "a table": lambda: dispatch.use("cpu", []),
    "the instruction set": lambda: native.use_isa(native.library("cpu").functions.isa()),
    "other functions": lambda: native.serve("cuda", native.library("cuda").functions),
    "pydl.benchmark": lambda: setattr(pydl, "benchmark", True),
    "pydl.tune": lambda: pydl.tune(torch.nn.Identity(), X, save=False),
}


@pytest.fixture
def not_benchmarking() -> Iterator[None]:
    yield
    pydl.benchmark = False


@pytest.mark.usefixtures("not_benchmarking")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_forgets_plans(twice, change):
    x = x_of()
    for _ in range(3):
        twice(x)
    change()
    assert twice.plans.known == {}


# of the package's functions


# Whose kernels cannot say that a class is out of bounds: the targets are read first.
READS_TARGETS = [("cross_entropy", "triton")]


def outcome(family: str, backend: str, device: str, training: bool) -> list[torch.Tensor]:
    """The result, its gradients, and the arguments after the call."""
    function, args, wanted = call(family, device)
    for one in wanted:
        one.requires_grad_(training)
    y = function(*args, backend=backend)
    grads = torch.autograd.grad(y, wanted, torch.ones_like(y)) if training else ()
    return [y.detach(), *grads, *(one.detach() for one in args if isinstance(one, torch.Tensor))]


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize(("family", "backend", "device"), EACH)
def test_a_plan_does_what_the_whole_way_does(family, backend, device, training, monkeypatch):
    torch.manual_seed(1)
    expected = outcome(family, backend, device, training)
    for _ in range(2):
        outcome(family, backend, device, training)
    whole = []
    if (family, backend) not in READS_TARGETS:
        monkeypatch.setattr(backends, "choose", lambda *args, **kwargs: whole.append(args))
        monkeypatch.setattr(backends, "implementation", lambda *args: whole.append(args))
    torch.manual_seed(1)
    found = outcome(family, backend, device, training)
    assert whole == []
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other) and one.stride() == other.stride()


@pytest.mark.parametrize("backend", ["cpu", "auto"])
def test_errors_are_still_raised_after_a_call_that_was_right(backend):
    x = x_of(1, 4, 6, 6)
    for _ in range(3):
        functional.max_pool2d(x, 2, backend=backend)
        functional.conv2d(x, random(4, 1, 3, 3), groups=4, backend=backend)
    with pytest.raises(TypeError, match="tuple of ints"):
        functional.max_pool2d(x, 2.0, backend=backend)
    with pytest.raises(TypeError):
        functional.max_pool2d(x, True, backend=backend)
    with pytest.raises(RuntimeError, match="zero"):
        functional.max_pool2d(x, 0, backend=backend)
    with pytest.raises(RuntimeError, match="pad should be"):
        functional.max_pool2d(x, 2, padding=2, backend=backend)
    with pytest.raises(RuntimeError, match="type"):
        functional.conv2d(x, random(4, 1, 3, 3).double(), groups=4, backend=backend)
    with pytest.raises(ValueError, match="backend must be one of"):
        functional.max_pool2d(x, 2, backend="gpu")


def test_a_block_of_use_backend_counts():
    x, seen = x_of(1, 4, 6, 6), []
    for name in ("cpu", "aten", "cpu", "reference"):
        with pydl.use_backend(name):
            for _ in range(4):
                y = functional.local_response_norm(x, 3)
        seen.append(y)
    with pydl.use_backend("cuda", strict=False) as block:
        for _ in range(4):
            functional.softmax(x, 1)
    assert list(block.left) == ["softmax"]
    for y in seen:
        torch.testing.assert_close(y, seen[0])


class Seen(TorchFunctionMode):
    """Writes down which functions are called."""

    def __init__(self) -> None:
        super().__init__()
        self.functions: list[Callable] = []

    def __torch_function__(
        self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        self.functions.append(func)
        return func(*args, **kwargs or {})


def test_what_watches_sees_the_operators():
    x = x_of(1, 4, 6, 6)
    for _ in range(3):
        functional.max_pool2d(x, 2, backend="cpu")
    with torch.profiler.profile() as profile:
        functional.max_pool2d(x, 2, backend="cpu")
    assert any("max_pool_forward" in event.name for event in profile.events())
    with Seen() as mode:
        functional.max_pool2d(x, 2, backend="cpu")
    assert mode.functions[0] is functional.max_pool2d
    batch = torch.rand(3, 1, 4, 6, 6)
    pooled = torch.vmap(lambda x: functional.max_pool2d(x, 2, backend="cpu"))(batch)
    assert pooled.shape == (3, 1, 4, 3, 3)


def test_a_graph_is_one_with_plans_and_without():
    x = x_of(1, 4, 6, 6, requires_grad=True)

    def net(x: torch.Tensor) -> torch.Tensor:
        y = functional.max_pool2d(x, 3, backend="cpu")
        return functional.local_response_norm(y, 3, backend="cpu").sum()

    for _ in range(3):
        (expected,) = torch.autograd.grad(net(x), x)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    for _ in range(3):
        (found,) = torch.autograd.grad(compiled(x), x)
        torch.testing.assert_close(found, expected)


# on a GPU that is none: nothing waits for it, and PyTorch alone allocates


class _Functions:
    """The extension's functions for CUDA, which take a stream and launch nothing."""

    def __init__(self) -> None:
        self.streams: list[object] = []

    def __getattr__(self, name: str) -> Callable:
        if name.startswith("keep_"):
            raise AttributeError(name)
        if name.endswith(("_runs", "_parts")):
            return lambda *arguments: 1
        return lambda *arguments: self.streams.append(arguments[-1])


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> _Functions:
    functions = _Functions()
    library = native.Library("cuda", functions, on_gpu=True)
    monkeypatch.setitem(native._libraries, "cuda", library)
    backends.implementation.cache_clear()
    plan.forget()
    monkeypatch.setattr(torch._C, "_cuda_getDevice", lambda: None, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda device: 7, raising=False)
    yield functions
    backends.implementation.cache_clear()
    plan.forget()


def test_a_kept_launch_goes_to_the_stream_of_its_gpu_and_makes_it_the_current_one():
    functions, x = native.library("cpu").functions, x_of()
    y, here, asked, moved = torch.empty_like(x), [1], [], []
    given = x, None, None, y, "relu", 0.0
    launch = functions.keep_bias_act_forward([x, y], *given, 0)

    def stream(device: int) -> int:
        asked.append(device)
        return 1  # threads, to a CPU's kernel

    def elsewhere(launch: Callable, *tensors: torch.Tensor) -> None:
        moved.append(len(tensors))
        here[0] = 1
        launch(*tensors)

    assert launch.on_stream(1, lambda: here[0], stream, elsewhere) is launch
    for current in (1, 0):
        here[0] = current
        x = x_of() - 0.5
        launch(x, y.fill_(torch.nan))
        assert torch.equal(y, x.relu())
    assert asked == [1, 1] and moved == [2]
    with pytest.raises(ValueError, match="2 tensors got"):
        launch(x, y, y)
    with pytest.raises(RuntimeError, match="has a device"):
        launch.on_stream(1, None, None, None)
    with pytest.raises(TypeError, match="on_stream expected 4"):
        functions.keep_bias_act_forward([x, y], *given, 0).on_stream(1)


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("family", [name for name in CALLS if "cuda" in backends.serving(name)])
def test_a_launch_waits_for_nothing(family, training, launches, monkeypatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a launch that waits for the GPU, or copies to it")

    for owner, names in (
        (torch, ("tensor", "as_tensor", "from_numpy", "zeros", "arange")),
        (torch.Tensor, ("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__int__")),
        (torch.cuda, ("synchronize", "current_stream", "device", "Event", "Stream")),
    ):
        for name in names:
            monkeypatch.setattr(owner, name, refuse)
    for _ in range(4):
        outcome(family, "cuda", "cpu", training)
    assert launches.streams and set(launches.streams) == {7}


# Without a GPU Triton still compiles; a driver that does nothing says what would be launched.
COMPILED = """
import no_gpu, torch, triton
from pydl import functional

launches = no_gpu.serve_triton()
x = torch.rand(1, 4, 6, 6)
for call in (
    lambda: functional.max_pool2d(x, 3, 2, 1, backend="triton"),
    lambda: functional.relu(x[:, 1:].transpose(2, 3), backend="triton"),
):
    seen = []
    for _ in range(4):
        before = launches.count
        call()
        seen.append((launches.count - before, launches.last))
    (count, first), (again, last) = seen[0], seen[-1]
    assert count == again == 1 and len(first) == len(last), seen
    # Grid, stream, what was loaded; what describes the launch to profilers; the arguments.
    for one, other in zip((*first[:6], *first[9:]), (*last[:6], *last[9:])):
        if isinstance(one, torch.Tensor):
            assert one.shape == other.shape and one.stride() == other.stride()
        else:
            assert one == other, (one, other)
seen, hooks = [], triton.knobs.runtime
hooks.launch_enter_hook.add(lambda metadata: seen.append(metadata.get()["name"]))
call()
launches.last[7](launches.last[6])  # as the launch, which does nothing here, would
assert seen == ["bias_act_forward_kernel"], seen
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_what_triton_compiled_is_launched_with_the_arguments_that_triton_gave_it():
    root = Path(__file__).parents[2]
    paths = os.pathsep.join((str(root), str(root / "bench"), *sys.path))
    env = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": paths}
    subprocess.run([sys.executable, "-c", COMPILED], env=env, check=True)
