"""torch.func, forward mode and batched derivatives of every call: PyTorch's values under ``auto``,
small and large; by name the same, and forward mode refused in words."""

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from calls import CALLS, named

from pydl import backends


def _loss(f):
    return lambda x: f(x).sin().sum()  # of squares normalisations know the sum


def _dual(f, x):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(forward_ad.make_dual(x, torch.ones_like(x)))).tangent


def _is_grads_batched(f, x):
    x = x.detach().requires_grad_()
    y = f(x)
    waves = torch.arange(2 * y.numel(), dtype=y.dtype).cos()  # sums to 0 for no normalisation
    directions = waves.reshape(2, *y.shape)
    return torch.autograd.grad(y, x, directions, is_grads_batched=True)[0]


def _double(f, x):
    x = x.detach().requires_grad_()
    (first,) = torch.autograd.grad(_loss(f)(x), x, create_graph=True)
    return torch.autograd.grad(first.square().sum(), x)[0]


def _linearize(f, x):
    _, push = torch.func.linearize(f, x)
    return push(torch.ones_like(x))


func = torch.func
FORWARD = {
    "jvp": lambda f, x: func.jvp(f, (x,), (torch.ones_like(x),))[1],
    "dual tensors": _dual,
    "linearize": _linearize,
}
REVERSE = {
    "grad": lambda f, x: func.grad(_loss(f))(x),
    "is_grads_batched": _is_grads_batched,
    "double backward": _double,
}
BATCHED = {
    "vmap": lambda f, x: func.vmap(f)(torch.stack([x, x + 1])),
    "vmap of grad": lambda f, x: func.vmap(func.grad(_loss(f)))(torch.stack([x, x + 1])),
}
# Too much for a large input.
WHOLE = {
    "jacfwd": lambda f, x: func.jacfwd(f)(x),
    "hessian": lambda f, x: func.hessian(_loss(f))(x),
    "functional.hessian": lambda f, x: torch.autograd.functional.hessian(
        _loss(f), x, vectorize=True
    ),
}
JACREV = {
    "jacrev": lambda f, x: func.jacrev(f)(x),
    "jacrev of jacrev": lambda f, x: func.jacrev(func.jacrev(_loss(f)))(x),
}


def _held(call, x, backend, transforms):
    for name, transform in transforms.items():
        expected = transform(call.theirs, x)
        ours = transform(lambda x: call.ours(x, backend=backend), x)
        torch.testing.assert_close(ours, expected, msg=lambda said, name=name: f"{name}: {said}")


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_under_auto(call):
    x = torch.randn(call.small, dtype=torch.float64)
    _held(call, x, "auto", FORWARD | REVERSE | BATCHED | WHOLE | JACREV)


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_large_under_auto(call):
    x = torch.randn(call.large)
    for name, transform in (FORWARD | REVERSE | BATCHED).items():
        expected = transform(call.theirs, x)
        tiny = 1e-4 * expected.abs().max().item()
        ours = transform(call.ours, x)
        torch.testing.assert_close(
            ours, expected, rtol=1e-3, atol=tiny, msg=lambda said, name=name: f"{name}: {said}"
        )


BY_NAME = [
    pytest.param(call, backend, id=f"{call}-{backend}") for call in CALLS for backend in named(call)
]


@pytest.mark.parametrize("call, backend", BY_NAME)
def test_by_name(call, backend):
    x = torch.randn(call.small, dtype=torch.float64)
    if backend in ("triton", "cuda"):  # an interpreter and an emulator; one image, once each way
        x = x[:1] if x.ndim > 2 else x
        _held(call, x, backend, {"grad": REVERSE["grad"]})
    else:
        _held(call, x, backend, REVERSE | BATCHED | JACREV)


@pytest.mark.parametrize("call, backend", BY_NAME)
def test_forward_mode_by_name_is_refused(call, backend):
    x = torch.randn(call.small)
    if call.name in ("dropout", "nll loss"):  # nothing dropped; plain arithmetic of PyTorch's
        _held(call, x, backend, {name: FORWARD[name] for name in ("jvp", "dual tensors")})
        return
    for transform in FORWARD.values():
        with pytest.raises((NotImplementedError, RuntimeError), match="forward mode"):
            transform(lambda x: call.ours(x, backend=backend), x)


def test_large_is_ours_and_small_is_not():
    """The rows above see both sides of the dispatch table."""
    ours = {"depthwise", "batch_norm", "batch_norm_act", "softmax_short_rows", "softmax_columns"}
    ours |= {"cross_entropy", "dropout", "conv_bias_act", "local"}
    for call in CALLS:
        assert (backends.choose(call.family, None, torch.empty(call.large)) != "aten") == (
            call.family in ours
        ), call
