"""How results and gradients of pooling and normalisation lie in memory: as PyTorch's do, for every
layout of the input and every backend."""

import pytest
import torch
from contract import servers

from pydl import functional


@pytest.fixture(autouse=True)
def default_device():
    yield
    torch.set_default_device(None)


SIZES = {1: (8,), 2: (8, 6), 3: (4, 3, 5)}
LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def last(*shape):
    """A map of this shape whose channels are neighbours, whatever the number of its axes."""
    n, c, *spatial = shape
    return torch.rand(n, *spatial, c).movedim(-1, 1)


def views(axes: int) -> dict[str, torch.Tensor]:
    n, c, size = 2, 4, SIZES[axes]
    ones = [1] * axes
    backwards = (0, 1, *range(axes + 1, 1, -1))
    return {
        "contiguous": torch.rand(n, c, *size),
        "sliced": torch.rand(n, c + 2, *size)[:, 1:-1],
        "every second column": torch.rand(n, c, *size[:-1], 2 * size[-1])[..., ::2],
        "batch and channels swapped": torch.rand(c, n, *size).transpose(0, 1),
        "spatial axes swapped": torch.rand(n, c, *size[::-1]).permute(backwards),
        "one channel": torch.rand(n, 1, *size),
        "one pixel": torch.rand(n, c, *ones),
        "unbatched": torch.rand(c, *size),
        "expanded over the batch": torch.rand(1, c, *size).expand(n, c, *size),
        "expanded over the channels": torch.rand(n, 1, *size).expand(n, c, *size),
        "one number": torch.rand(1).view(1, 1, *ones).expand(n, c, *size),
        "no images": torch.rand(0, c, *size),
        "channels last": last(n, c, *size),
        "channels last, one image": last(1, c, *size),
        "channels last, one channel": last(n, 1, *size),
        "channels last, one pixel": last(n, c, *ones),
        "channels last, one row": last(n, c, *size[:-1], 2)[..., :1],
        "channels last, every second channel": last(n, 2 * c, *size)[:, ::2],
        "channels last, half of the channels": last(n, 2 * c, *size)[:, :c],
        "channels last, every second column": last(n, c, *size[:-1], 2 * size[-1])[..., ::2],
        "channels last, one of its channels": last(n, c, *size)[:, :1],
        "channels last, expanded": last(1, c, *size).expand(n, c, *size),
        "channels last, no images": last(0, c, *size),
        "channels last, unbatched": last(1, c, *size)[0],
    }


def unpool(axes):
    def call(where, x, **backend):
        plane = x.shape[-axes:]
        places = torch.arange(plane.numel()).view(plane).expand(x.shape).contiguous()
        return getattr(where, f"max_unpool{axes}d")(x, places, 1, **backend)

    return call


def named(name, *arguments, **options):
    return lambda where, x, **backend: getattr(where, name)(x, *arguments, **options, **backend)


def of_axes(axes: int) -> dict:
    pool = named(f"max_pool{axes}d", 2, 1, 1)
    return {
        "max pool": pool,
        "max pool with indices": named(f"max_pool{axes}d", 2, 1, 1, return_indices=True),
        "average pool": named(f"avg_pool{axes}d", 2, 1, 1),
        "adaptive average": named(f"adaptive_avg_pool{axes}d", 3),
        "adaptive average of whole windows": named(f"adaptive_avg_pool{axes}d", 2),
        "global average": named(f"adaptive_avg_pool{axes}d", 1),
        "adaptive maximum": named(f"adaptive_max_pool{axes}d", 3, return_indices=True),
        "adaptive maximum of whole windows": named(f"adaptive_max_pool{axes}d", 2),
        "Lp pool": named(f"lp_pool{axes}d", 2, 1),
        "Lp pool of an infinite power": named(f"lp_pool{axes}d", float("inf"), 1),
        "unpool": unpool(axes),
        "local response normalisation": named("local_response_norm", 3),
    }


OPERATORS = [(axes, name) for axes in (1, 2, 3) for name in of_axes(1)]
FAMILY = {"unpool": "unpool", "local response normalisation": "lrn"}
# The other backends run as Python or emulated, thousands of times slower, and lay their results
# alike.
SLOW = ("contiguous", "channels last", "channels last, every second channel", "one pixel")


def gradients(y: torch.Tensor) -> dict[str, torch.Tensor]:
    kinds = {
        "contiguous": torch.rand(y.shape),
        "like the result": torch.rand_like(y),
        "expanded": torch.ones(()).expand(y.shape),
    }
    if y.ndim in (4, 5):
        values = torch.rand(y.shape)
        kinds["channels last"] = values.contiguous(memory_format=LAST[y.ndim - 2])
    return kinds


def strides(y: torch.Tensor) -> list[int]:
    """How ``y`` lies. Those of axes with one element say so too, but not to operators on lines."""
    return [step for step, n in zip(y.stride(), y.shape, strict=True) if n > 1 or y.ndim > 3]


def outcome(call, where, x, **backend):
    """The results of a call, and the gradients of the first for each kind of its gradient."""
    with torch.no_grad():
        plain = call(where, x, **backend)
    x = x.detach().requires_grad_()
    results = call(where, x, **backend)
    y = results[0] if isinstance(results, tuple) else results
    torch.manual_seed(0)
    grads = {
        f"gradient, {kind}": torch.autograd.grad(y, x, grad, retain_graph=True)[0]
        for kind, grad in gradients(y).items()
    }
    flat = [*(plain if isinstance(plain, tuple) else [plain])]
    flat += results if isinstance(results, tuple) else [results]
    return {**{f"result {i}": one for i, one in enumerate(flat)}, **grads}


@pytest.mark.parametrize("axes, operator", OPERATORS, ids=str)
@pytest.mark.parametrize("server", servers("pool"))
def test_layouts_are_pytorchs(server, axes, operator):
    backend, device = server
    torch.set_default_device(device)
    call = of_axes(axes)[operator]
    for view, x in views(axes).items():
        if view not in SLOW and backend not in ("aten", "cpu"):
            continue
        try:
            expected = outcome(call, torch.nn.functional, x)
        except (RuntimeError, ValueError):
            continue  # PyTorch has no such view of this operator
        for what, mine in outcome(call, functional, x, backend=backend).items():
            other = expected[what]
            case = f"{operator}, {axes} axes, {view}, {what}"
            torch.testing.assert_close(mine, other, equal_nan=True, msg=case)
            if other.numel():
                assert strides(mine) == strides(other), case


@pytest.mark.parametrize("server", servers("spatial_norm"))
@pytest.mark.parametrize("axes", (1, 2, 3))
def test_spatial_norm_lies_as_its_arithmetic_says(server, axes):
    """PyTorch has no such operator; this is it in PyTorch's arithmetic."""
    backend, device = server
    torch.set_default_device(device)
    call = named("spatial_response_norm", 3)
    for view, x in views(axes).items():
        if x.ndim != axes + 2 or (view not in SLOW and backend not in ("aten", "cpu")):
            continue
        expected = outcome(call, functional, x, backend="aten")
        for what, mine in outcome(call, functional, x, backend=backend).items():
            torch.testing.assert_close(mine, expected[what], msg=f"{view}, {what}")
            if "result" in what and mine.numel():
                assert strides(mine) == strides(expected[what]), f"{axes} axes, {view}, {what}"
