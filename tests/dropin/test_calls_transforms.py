"""torch.func, forward mode and batched derivatives of every call: PyTorch's values under ``auto``,
small and large, and by name."""

import functools

import pytest
import torch
from calls import _BIAS, _WEIGHT, CALLS, _like, named
from torch.nn import functional as stock
from transforms import BATCHED, EVERY, FORWARD, REVERSE, hold, normalised

from pydl import backends, functional


def _normalised(x):
    return normalised(x, *_like(x, _WEIGHT, _BIAS))


DEFINED = {
    "batch norm in training": _normalised,
    "batch norm with an activation": lambda x: stock.leaky_relu(_normalised(x), 0.2),
}


def _tangent(x):
    return torch.linspace(-1, 1, x.numel(), dtype=x.dtype).reshape(x.shape)


def _held(call, x, backend, transforms):
    ours = functools.partial(call.ours, backend=backend)
    theirs = call.theirs if backend == "auto" else DEFINED.get(call.name, call.theirs)
    hold(transforms, ours, theirs, x, _tangent(x))


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_under_auto(call):
    _held(call, torch.randn(call.small, dtype=torch.float64), "auto", EVERY)


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_large_under_auto(call):
    x = torch.randn(call.large)
    for name, transform in (FORWARD | REVERSE | BATCHED).items():
        expected = transform(call.theirs, x, _tangent(x))
        tiny = 1e-4 * expected.abs().max().item()
        hold({name: transform}, call.ours, call.theirs, x, _tangent(x), rtol=1e-3, atol=tiny)


BY_NAME = [
    pytest.param(call, backend, id=f"{call}-{backend}") for call in CALLS for backend in named(call)
]


@pytest.mark.parametrize("call, backend", BY_NAME)
def test_by_name(call, backend):
    x = torch.randn(call.small, dtype=torch.float64)
    some = "grad", "jvp", "vmap"  # the rules are the same for all backends
    if backend in ("triton", "cuda"):  # an interpreter and an emulator; one image, once each way
        x = x[:1] if x.ndim > 2 else x
    elif backend == "reference":
        some = *some, "vmap of grad", "jvp of grad", "jacrev"
    else:
        some = EVERY
    _held(call, x, backend, {name: EVERY[name] for name in some})


MANY = {
    "max_pool2d": lambda where, x: where.max_pool2d(x, 3, 2, 1),
    "avg_pool2d": lambda where, x: where.avg_pool2d(x, 3, 2, 1),
    "local_response_norm": lambda where, x: where.local_response_norm(x, 5),
}


def _served(function):
    """What it returns, and whether a native kernel was called."""
    with torch.profiler.profile() as profile:
        result = function()
    return result, any(event.name.endswith("(cpu)") for event in profile.events())


@pytest.mark.parametrize("name", MANY)
def test_many_samples_are_ours_and_few_are_not(name):
    """And whatever goes forward is PyTorch's."""
    ours, theirs = (functools.partial(MANY[name], where) for where in (functional, stock))
    batched = {"vmap": BATCHED["vmap"], "vmap of grad": BATCHED["vmap of grad"]}
    for shape, by_kernel in (((1, 96, 64, 64), True), ((1, 96, 32, 32), False)):
        x, t = torch.rand(shape), torch.rand(shape)
        for transform, apply in batched.items():
            found, native = _served(lambda apply=apply, x=x, t=t: apply(ours, x, t))
            assert native == by_kernel, (transform, shape)
            torch.testing.assert_close(found, apply(theirs, x, t), rtol=1e-4, atol=1e-5)
    x = torch.rand(4, 96, 64, 64)
    found, native = _served(lambda: FORWARD["jvp"](ours, x, x.cos()))
    assert not native
    torch.testing.assert_close(found, FORWARD["jvp"](theirs, x, x.cos()))


def test_large_is_ours_and_small_is_not():
    """The rows above see both sides of the dispatch table."""
    ours = {"depthwise", "batch_norm", "batch_norm_act", "softmax_short_rows", "softmax_columns"}
    ours |= {"cross_entropy", "dropout", "conv_bias_act", "local"}
    for call in CALLS:
        assert (backends.choose(call.family, None, torch.empty(call.large)) != "aten") == (
            call.family in ours
        ), call
