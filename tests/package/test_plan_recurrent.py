"""Launch plans of recurrent layers and cells: whole calls of modules, their weights among the
arguments."""

import contextlib
from collections.abc import Callable

import pytest
import torch
from planned_calls import random
from torch.nn.utils import prune
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from pydl import nn, plan
from pydl.ops import rnn_cell, rnn_layers

LAYERS = (
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu", "bias": False}),
    ("LSTM", {}),
    ("LSTM", {"proj_size": 3}),
    ("LSTM", {"num_layers": 2, "bidirectional": True}),
    ("LSTM", {"peephole": True}),
    ("LSTM", {"layer_norm": True, "bidirectional": True}),
    ("GRU", {}),
    ("GRU", {"num_layers": 2, "batch_first": True}),
    ("GRU", {"reset_after": False}),
    ("GRU", {"layer_norm": True}),
    ("RNNCell", {}),
    ("RNNCell", {"nonlinearity": "relu", "bias": False}),
    ("LSTMCell", {}),
    ("LSTMCell", {"peephole": True}),
    ("GRUCell", {}),
    ("GRUCell", {"reset_after": False}),
)
IDS = ["-".join((name, *(f"{key}={value}" for key, value in of.items()))) for name, of in LAYERS]


def made(name: str, options: dict, **more: object) -> torch.nn.Module:
    torch.manual_seed(1)
    return getattr(nn, name)(4, 6, **options, **more, backend="cpu")


def tensors(results: object) -> list[torch.Tensor]:
    if isinstance(results, torch.Tensor):
        return [results]
    if isinstance(results, PackedSequence):
        return [results.data]
    return [one for each in results for one in tensors(each)]


def given(layer: torch.nn.Module, states: bool) -> list:
    """A module's arguments, wanting gradients."""
    name = type(layer).__name__
    if name.endswith("Cell"):
        x, sizes = random(2, 4), 2 * [(2, 6)]
    else:
        x = random(5, 3, 4)
        count = layer.num_layers * (2 if layer.bidirectional else 1)
        sequences = 5 if layer.batch_first else 3
        sizes = [(count, sequences, layer.proj_size or 6), (count, sequences, 6)]
    x.requires_grad_()
    if not states:
        return [x]
    h, c = (random(*size).requires_grad_() for size in sizes)
    return [x, (h, c) if name.startswith("LSTM") else h]


def outcome(layer: torch.nn.Module, args: list, training: bool) -> list[torch.Tensor]:
    """Outputs, last states and all gradients."""
    with contextlib.nullcontext() if training else torch.no_grad():
        results = tensors(layer(*args))
    if not training:
        return results
    wanted = [*tensors(args), *layer.parameters()]
    grads = [torch.arange(one.numel()).view(one.shape) / one.numel() for one in results]
    return [*results, *torch.autograd.grad(results, wanted, grads)]


def refuse(*args: object, **kwargs: object) -> None:
    raise AssertionError("the whole way")


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets nothing go the whole way from when it is called."""

    def from_here() -> None:
        monkeypatch.setattr(rnn_layers, "_padded", refuse)
        monkeypatch.setattr(rnn_cell, "cell", refuse)

    return from_here


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("states", [False, True], ids=["zeros", "states"])
@pytest.mark.parametrize(("name", "options"), LAYERS, ids=IDS)
def test_a_module_goes_by_a_plan(name, options, states, training, planned):
    layer = made(name, options)
    for time in range(4):
        args = given(layer, states)
        with plan.observed():
            expected = outcome(layer, args, training)
        if time == 3:
            planned()
        found = outcome(layer, args, training)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)
            assert one.stride() == other.stride()


@pytest.mark.parametrize(("name", "options"), LAYERS, ids=IDS)
def test_a_planned_module_is_torchs(name, options):
    if set(options) & {"peephole", "layer_norm", "reset_after"}:
        options = {}
    layer, stock = made(name, options), getattr(torch.nn, name)(4, 6, **options)
    stock.load_state_dict(layer.state_dict())
    for _ in range(4):
        args = given(layer, True)
        for one, other in zip(outcome(layer, args, True), outcome(stock, args, True), strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["GRU", "LSTMCell"])
def test_a_plan_reads_the_weights_that_a_module_has_now(name, planned):
    layer, stock = made(name, {}), getattr(torch.nn, name)(4, 6)
    weight = "weight_hh_l0" if name == "GRU" else "weight_hh"

    def changed() -> None:
        with torch.no_grad():
            getattr(layer, weight).mul_(2)

    def replaced() -> None:
        setattr(layer, weight, torch.nn.Parameter(random(*getattr(layer, weight).shape)))

    def pruned() -> None:
        prune.l1_unstructured(layer, weight, 0.5)

    for change in (lambda: None, changed, replaced, pruned):
        change()
        held = {name: getattr(layer, name).detach().clone() for name in stock.state_dict()}
        stock.load_state_dict(held)
        for _ in range(4):
            args = given(layer, True)
            found, expected = (outcome(one, args, False) for one in (layer, stock))
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one, other)


RANDOM = (
    ("LSTM", {"recurrent_dropout": 0.5}),
    ("GRU", {"zoneout": 0.5}),
    ("LSTM", {"dropout": 0.5, "num_layers": 2}),
    ("GRUCell", {"zoneout": 0.5}),
)


@pytest.mark.parametrize(("name", "options"), RANDOM)
def test_masks_are_drawn_at_each_call(name, options):
    layer = made(name, options)
    args = given(layer, True)
    seen = []
    for seed in (1, 2, 1, 2, 1, 2):
        torch.manual_seed(seed)
        seen.append(outcome(layer, args, False)[0])
    assert not torch.equal(seen[0], seen[1])
    for one, other in zip(seen[2:], seen, strict=False):
        assert torch.equal(one, other)
    layer.eval()  # expectations, which are not drawn
    for _ in range(4):
        evaluated = outcome(layer, args, False)
    with plan.observed():
        for one, other in zip(outcome(layer, args, False), evaluated, strict=True):
            torch.testing.assert_close(one, other)


def test_what_differs_between_calls_is_told_apart():
    """The same plans serve all layers; sizes, options and kinds of input come in turns."""
    layers = [made("GRU", {}), made("GRU", {"batch_first": True}), made("LSTM", {})]
    layers += [made("GRU", {"reset_after": False}), made("LSTM", {"bidirectional": True})]
    inputs = random(5, 3, 4), random(5, 4), random(2, 3, 4)
    inputs += (pack_padded_sequence(inputs[0], torch.tensor([5, 3, 1])),)
    for _ in range(4):
        for layer in layers:
            for x in inputs:
                with plan.observed():
                    expected = layer(x)
                for one, other in zip(tensors(layer(x)), tensors(expected), strict=True):
                    torch.testing.assert_close(one, other)


def test_autocast_goes_its_own_way():
    layer, stock = made("GRU", {}), torch.nn.GRU(4, 6)
    stock.load_state_dict(layer.state_dict())
    for _ in range(4):
        args = given(layer, True)
        with torch.autocast("cpu", torch.bfloat16):
            found, expected = (layer(*args)[0], stock(*args)[0])
        torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
        assert found.dtype == expected.dtype
        found, expected = layer(*args)[0], stock(*args)[0]
        torch.testing.assert_close(found, expected)


ERRORS = (
    ("GRU", lambda: (random(5, 3, 5),), "input.size"),
    ("GRU", lambda: (random(5, 3, 4), random(1, 2, 6)), "Expected hidden size"),
    ("GRU", lambda: (random(5, 3, 4), random(3, 6)), "should also be 3-D"),
    ("GRU", lambda: (random(5, 3, 4).double(),), "does not match weight dtype"),
    ("LSTM", lambda: (random(5, 3, 4), 2 * (random(1, 3, 5),)), "Expected hidden"),
    ("GRUCell", lambda: (random(2, 5),), "inconsistent input_size"),
    ("GRUCell", lambda: (random(2, 4), random(3, 6)), "doesn't match hidden0"),
    ("LSTMCell", lambda: (random(2, 4), 2 * (random(2, 5),)), "inconsistent hidden_size"),
    ("RNNCell", lambda: (random(1, 2, 4),), "Expected input to be 1D or 2D"),
)


@pytest.mark.parametrize(("name", "wrong", "said"), ERRORS)
def test_errors_are_still_raised_after_calls_that_were_right(name, wrong, said):
    layer = made(name, {})
    for _ in range(4):
        layer(*given(layer, True))
        layer(*given(layer, False))
    for _ in range(3):
        with pytest.raises((RuntimeError, ValueError), match=said):
            layer(*wrong())


@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell"])
def test_derivatives_of_a_step_of_a_plan(name):
    layer = made(name, {}).double()
    layer = made(name, {"peephole": True}).double() if name == "LSTMCell" else layer
    args = [x.detach().double() for x in tensors(given(layer, True))]
    wanted = [*args, *(weight.detach().clone() for weight in layer.parameters())]
    names = [name for name, _ in layer.named_parameters()]

    def step(x: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, ...]:
        states = rest[: len(args) - 1]
        weights = dict(zip(names, rest[len(args) - 1 :], strict=True))
        hx = states if name == "LSTMCell" else states[0]
        return tuple(tensors(torch.func.functional_call(layer, weights, (x, hx))))

    for _ in range(3):
        step(*wanted)
    leaves = [one.requires_grad_() for one in wanted]
    torch.autograd.gradcheck(step, leaves, fast_mode=True)
    torch.autograd.gradgradcheck(step, leaves, fast_mode=True)


@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell"])
def test_which_tensors_of_a_cell_want_gradients_counts(name):
    layer = made(name, {})
    for chosen in 3 * [("x", "weight_hh"), ("h", "bias_ih"), ("weight_ih", "bias_hh"), ("x",)]:
        x, hx = given(layer, True)
        states = tensors(hx)
        named = {"x": x, "h": states[0], **dict(layer.named_parameters())}
        for key, one in named.items():
            one.requires_grad_(key in chosen)
        for one in states[1:]:
            one.requires_grad_(False)
        wanted = [named[key] for key in chosen]

        def grads() -> tuple[torch.Tensor, ...]:
            made = tensors(layer(x, hx))  # noqa: B023
            return torch.autograd.grad(sum(one.square().sum() for one in made), wanted)  # noqa: B023

        found = grads()
        with plan.observed():
            for one, other in zip(found, grads(), strict=True):
                torch.testing.assert_close(one, other)
