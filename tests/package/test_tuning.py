"""``pydl.tune`` and ``pydl.benchmark``, by a clock that the tests set, so that the choice is proved
and not only the plumbing. The CUDA kernels are emulated ones."""

import functools
import threading
from collections.abc import Callable, Mapping

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

import pydl
from pydl import backends, dispatch, functional, tuning
from pydl.measure import Times
from pydl.models.calls import choosing, served
from pydl.tuning import file, misses, tuner, when_new

pytestmark = pytest.mark.usefixtures("nothing_known")
X = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(0))


def clock(**seconds: float) -> Callable[..., Mapping[str, Times]]:
    """Says that each backend takes so long, one that is not named ten seconds; without noise."""

    def times(actions: Mapping[str, Callable], **_: object) -> dict[str, Times]:
        for action in actions.values():
            action()
        return {name: Times.of([seconds.get(name, 10.0)] * 5) for name in actions}

    return times


def tuned(function: Callable[[], object], **seconds: float) -> list[tuning.Choice]:
    found: list[tuning.Choice] = []
    with tuning.measuring(tuning.Tuner(keep=found.append, clock=clock(**seconds))):
        function()
    return found


def pool(x: torch.Tensor = X, size: object = 3) -> torch.Tensor:
    return functional.max_pool2d(x, size, 2)


def server(x: torch.Tensor = X, size: object = 3) -> str:
    """Who serves ``pool`` under auto."""
    arguments = size, 2, 0, 1, False, False
    return backends.choose("pool", None, x, "max_pool_forward", arguments=arguments)


@pytest.mark.parametrize("fastest", ("aten", "cpu", "cuda", "triton"))
def test_auto_goes_to_whoever_was_fastest(fastest: str) -> None:
    (choice,) = tuned(pool, **{fastest: 1.0})
    assert choice.backend == fastest and set(choice.microseconds) == set(misses.CANDIDATES)
    assert server() == fastest
    assert torch.equal(pool(), torch.nn.functional.max_pool2d(X, 3, 2))


def test_pytorch_keeps_what_wins_by_no_more_than_the_noise() -> None:
    def noisy(actions: Mapping[str, Callable], **_: object) -> dict[str, Times]:
        return {
            name: Times.of([1.0, 1.2, 1.2, 1.2, 1.2] if name == "aten" else [0.9] * 5)
            for name in actions
        }

    with tuning.measuring(tuning.Tuner(clock=noisy)):
        pool()
    assert server() == "aten"
    assert tuner.wins(Times.of([0.9] * 5), Times.of([1.0] * 5))
    assert not tuner.wins(Times.of([0.99] * 5), Times.of([1.0] * 5))


def test_what_is_wrong_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    implementation = backends.implementation

    def one_off(backend: str, name: str) -> Callable:
        served = implementation(backend, name)
        if backend != "cpu":
            return served
        return lambda call: tuple(
            one + 1 if one.is_floating_point() else one for one in served(call)
        )

    monkeypatch.setattr(backends, "implementation", one_off)
    (choice,) = tuned(pool, cpu=1.0, aten=2.0)
    assert choice.backend == "aten" and "reference" in choice.left_out["cpu"]


def test_what_runs_out_of_memory_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    implementation = backends.implementation

    def exhausted(backend: str, name: str) -> Callable:
        def run(call: object) -> object:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

        return run if backend == "cuda" else implementation(backend, name)

    monkeypatch.setattr(backends, "implementation", exhausted)
    (choice,) = tuned(pool, cuda=1.0, cpu=2.0)
    assert choice.backend == "cpu" and choice.left_out["cuda"] == "ran out of memory"


def test_only_the_very_call_is_known() -> None:
    tuned(pool, cuda=1.0)
    assert server() == "cuda"
    others = {
        "shape": lambda: server(X[:1]),
        "layout": lambda: server(X.contiguous(memory_format=torch.channels_last)),
        "dtype": lambda: server(X.double()),
        "pass": lambda: server(X.clone().requires_grad_()),
        "window": lambda: server(size=2),
    }
    assert {name: ask() for name, ask in others.items()} == dict.fromkeys(others, "aten")
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert server() == "aten"
    finally:
        torch.set_num_threads(threads)
    with torch.autocast("cpu", torch.bfloat16):
        assert server() == "aten"
    assert server() == "cuda"


def test_a_list_means_what_a_tuple_means() -> None:
    tuned(lambda: pool(size=[3, 3]), cuda=1.0)
    assert server(size=[3, 3]) == server(size=(3, 3)) == "cuda"


def test_both_passes_are_measured_with_their_gradients() -> None:
    x = X.clone().requires_grad_()
    weight = torch.randn(4, 1, 3, 3, requires_grad=True)

    def conv() -> torch.Tensor:
        return functional.conv2d(x, weight, padding=1, groups=4)

    found = tuned(conv, cuda=1.0)
    assert {one.key.function for one in found} == {
        "conv_forward",
        "conv_grad_input",
        "conv_grad_weight",
    }
    assert x.grad is None and weight.grad is None
    assert tuned(conv, cpu=1.0) == []  # known
    ours = torch.autograd.grad(conv().sum(), (x, weight))
    theirs = torch.autograd.grad(
        torch.nn.functional.conv2d(x, weight, padding=1, groups=4).sum(), (x, weight)
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_each_pass_goes_to_whoever_is_fastest_at_it() -> None:
    """By a clock that sees who serves: every pass takes a second, the weight's gradient ten by our
    kernels, the others ten by PyTorch's."""
    x = X.clone().requires_grad_()
    weight = torch.randn(4, 1, 3, 3, requires_grad=True)

    def conv() -> torch.Tensor:
        return functional.conv2d(x, weight, padding=1, groups=4)

    def times(actions: Mapping[str, Callable], **_: object) -> dict[str, Times]:
        found = {}
        for name, action in actions.items():
            asked: dict[str, str] = {}

            def see(
                answer: str, _: str, __: torch.Tensor, rest: tuple, asked: dict = asked
            ) -> None:
                asked[rest[0]] = answer

            with choosing(see):
                action()
            if asked.get("conv_forward") == "aten":
                asked = dict.fromkeys(PASSES, "aten")
            found[name] = sum(
                1.0 if (asked[one] == "cpu") == (one != "conv_grad_weight") else 10.0
                for one in PASSES
            )
        return {name: Times.of([seconds] * 5) for name, seconds in found.items()}

    choices: list[tuning.Choice] = []
    with tuning.measuring(tuning.Tuner(keep=choices.append, clock=times)):
        conv()
    assert {one.key.function: one.backend for one in choices} == {
        "conv_forward": "cpu",
        "conv_grad_input": "cpu",
        "conv_grad_weight": "aten",
    }
    assert choices[2].ratio == 1.0 and choices[0].microseconds["cpu"] == 12e6
    with served() as who:
        torch.autograd.grad(conv().sum(), (x, weight))
    assert who == {"cpu", "aten"}


PASSES = ("conv_forward", "conv_grad_input", "conv_grad_weight")


class Model(torch.nn.Module):
    """Layers that ask in their own ways: a functional face, batch norm, recurrent, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(4)
        self.pool = torch.nn.MaxPool2d(3, 2)
        self.drop = torch.nn.Dropout(0.5)
        self.layer = torch.nn.GRU(16, 8, batch_first=True)
        self.cell = torch.nn.LSTMCell(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, h = self.layer(self.drop(self.pool(self.norm(x))).flatten(2))
        return self.cell(h[0])[0].sum() + y.sum()


def test_tune_finds_the_calls_of_a_model_and_leaves_it_as_it_was() -> None:
    torch.manual_seed(0)
    model = pydl.accelerate(Model())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    listed = tuning.calls_of(model, X)
    found = pydl.tune(model, X, seconds=0.0)
    assert {one.family for one in found} >= {"batch_norm", "pool", "dropout", "rnn_cell"}
    assert {(one.family, one.key) for one in found} >= set(listed)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state) and model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert tuning.calls_of(model, X) == [] and pydl.tune(model, X) == []
    # A new process knows the same.
    known = {family: dict(calls) for family, calls in dispatch.EXACT.items()}
    dispatch.forget()
    assert tuning.load() == sum(map(len, known.values()))
    assert known == dispatch.EXACT


def test_packed_sequences_are_measured_too() -> None:
    layer = pydl.nn.GRU(6, 5)
    packed = pack_padded_sequence(torch.randn(7, 3, 6), torch.tensor([7, 5, 2]))
    found = tuned(lambda: layer(packed), cuda=1.0)
    assert [one.backend for one in found] == ["cuda"]
    theirs = torch.nn.GRU(6, 5)
    theirs.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(packed)[0].data, theirs(packed)[0].data)


def test_a_model_that_raises_raises_and_what_was_found_is_kept() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        pool(x)
        raise KeyError("of the model's own")

    with pytest.raises(KeyError, match="of the model's own"):
        pydl.tune(model, X, passes=("inference",), seconds=0.0)
    assert dispatch.on_miss is None
    dispatch.forget()
    assert tuning.load() == 1


def test_a_pass_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="passes must be of inference and training, got 'both'"):
        pydl.tune(pool, X, passes=("both",))


# pydl.benchmark


def test_benchmark_measures_the_first_call_of_each_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    monkeypatch.setattr(
        tuning.Tuner, "measure", lambda self, function, *rest: measured.append(function.__name__)
    )
    pydl.benchmark = True
    assert pydl.benchmark
    pool()
    dispatch.remember("pool", known(X), "cpu")
    pool()
    pool(X[:1])
    assert measured == ["max_pool2d", "max_pool2d"]
    pydl.benchmark = False
    pool(X[:, :1])
    assert len(measured) == 2 and not file.file().exists()


def test_threads_that_measure_at_once_do_not_disturb_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each finds its own calls, and afterwards ``pydl.benchmark`` is as it was."""
    # Triton's interpreter is for one thread.
    monkeypatch.setattr(misses, "CANDIDATES", ("aten", "cpu"))
    both_measure = threading.Barrier(2, timeout=60)
    found: dict[int, list[tuning.Choice]] = {1: [], 2: []}

    def meet(actions: Mapping[str, Callable], **_: object) -> dict[str, Times]:
        both_measure.wait()
        return {name: Times.of([1.0] * 5) for name in actions}

    def tune_one(images: int) -> None:
        with tuning.measuring(tuning.Tuner(keep=found[images].append, clock=meet)):
            for channels in range(1, 4):
                pool(X[:images, :channels])

    pydl.benchmark = True
    threads = [threading.Thread(target=tune_one, args=(images,)) for images in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {images: [one.shape[:2] for one in choices] for images, choices in found.items()} == {
        images: [(images, channels) for channels in (1, 2, 3)] for images in found
    }
    assert pydl.benchmark and dispatch.on_miss is not None
    pydl.benchmark = False
    assert dispatch.on_miss is None


def test_another_thread_is_not_measured_while_one_tunes() -> None:
    found: list[tuning.Choice] = []
    with tuning.measuring(tuning.Tuner(keep=found.append, clock=clock(cuda=1.0))):
        thread = threading.Thread(target=pool)
        thread.start()
        thread.join()
    assert found == [] and dispatch.EXACT == {}


def known(x: torch.Tensor) -> dispatch.Key:
    arguments = 3, 2, 0, 1, False, False
    return dispatch.key("pool", x, "max_pool_forward", None, arguments)


def test_benchmark_gives_results_and_gradients_as_ever() -> None:
    pydl.benchmark = True
    x = X.clone().requires_grad_()
    (ours,) = torch.autograd.grad(pool(x).square().sum(), x)
    (theirs,) = torch.autograd.grad(torch.nn.functional.max_pool2d(x, 3, 2).square().sum(), x)
    torch.testing.assert_close(ours, theirs)
    torch.manual_seed(1)
    a = functional.dropout(X, 0.5)
    torch.manual_seed(1)
    assert torch.equal(a, functional.dropout(X, 0.5))  # measuring draws nothing


@pytest.mark.parametrize("how", ("compiled", "vmap", "forward mode", "captured", "by name"))
def test_benchmark_leaves_alone_what_cannot_be_measured(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pydl.benchmark = True
    monkeypatch.setattr(tuning.Tuner, "measure", lambda *_: pytest.fail("measured"))
    if how == "compiled":
        compiled = torch.compile(pool, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(X), pool_of_pytorch())
    elif how == "vmap":
        torch.testing.assert_close(torch.vmap(pool)(X.unsqueeze(0))[0], pool_of_pytorch())
    elif how == "forward mode":
        torch.func.jvp(pool, (X,), (torch.ones_like(X),))
    elif how == "captured":

        class OnGpu:
            is_cuda = True

        monkeypatch.setattr(misses, "servers", lambda *_: ["aten", "cuda"])
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        misses.here.may_stop = True
        try:
            assert misses._missed("pool", OnGpu(), ()) is None
        finally:
            misses.here.may_stop = False
    else:
        with pydl.use_backend("cpu"):
            pool()


def pool_of_pytorch() -> torch.Tensor:
    return torch.nn.functional.max_pool2d(X, 3, 2)


def test_a_compiled_graph_uses_what_is_known_when_it_is_traced() -> None:
    tuned(pool, cuda=1.0)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        y = torch.compile(pool, fullgraph=True, backend="aot_eager")(X)
    assert torch.equal(y, pool_of_pytorch())
    assert any("(cuda)" in event.key for event in profile.key_averages())


def test_the_wrapped_function_is_the_function() -> None:
    function = functools.partial(pool)
    wrapped = when_new.measured_when_new(pool)
    assert wrapped.__wrapped__ is pool and torch.equal(wrapped(X), function(X))
