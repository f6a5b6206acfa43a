"""Pooling, unpooling and normalisation under torch.func, forward mode, export and compilation: as
PyTorch's, small and large."""

import pytest
import torch
import torch._dynamo.testing
import transforms
from contract import servers

from pydl import functional, nn

F = torch.nn.functional
SMALL, LARGE = (2, 3, 6, 6), (2, 3, 160, 160)


def unpooled(where, x, **backend):
    plane = torch.arange(x[0, 0].numel()).view(x.shape[2:]).flip(-1)
    return where.max_unpool2d(x, plane.expand(x.shape).contiguous(), 1, **backend)


def pyramid(where, x, **backend):
    if where is functional:
        return functional.spatial_pyramid_pool(x, (1, 2), **backend)
    return torch.cat([F.adaptive_max_pool2d(x, n).flatten(1) for n in (1, 2)], 1)


def spatial_norm(where, x, **backend):
    if where is functional:
        return functional.spatial_response_norm(x, 3, 0.5, **backend)
    squares = F.avg_pool2d(F.pad(x * x, (1, 1, 1, 1)), 3, 1)
    return x * (1 + 0.5 * squares) ** -0.75


def named(name, *arguments, **options):
    return lambda where, x, **backend: getattr(where, name)(x, *arguments, **options, **backend)


OPERATORS = {
    "max_pool2d": named("max_pool2d", 3, 2, 1),
    "max_pool1d": lambda where, x, **b: where.max_pool1d(x.flatten(2), 3, 2, 1, **b),
    "max_pool3d": lambda where, x, **b: where.max_pool3d(x.unsqueeze(2), (1, 3, 3), 2, **b),
    "avg_pool2d": named("avg_pool2d", 3, 2, 1),
    "avg_pool3d": lambda where, x, **b: where.avg_pool3d(x.unsqueeze(2), (1, 3, 3), 2, **b),
    "lp_pool2d": named("lp_pool2d", 2, 2),
    "adaptive_avg_pool2d": named("adaptive_avg_pool2d", 4),
    "adaptive_max_pool2d": named("adaptive_max_pool2d", 4),
    "max_unpool2d": unpooled,
    "local_response_norm": named("local_response_norm", 3, 0.5),
    "spatial_response_norm": spatial_norm,
    "spatial_pyramid_pool": pyramid,
}
FAMILY = {
    "lp_pool2d": "pool_lp",
    "max_unpool2d": "unpool",
    "local_response_norm": "lrn",
    "spatial_response_norm": "spatial_norm",
}
EVERY = pytest.mark.parametrize("name", OPERATORS)
SHAPES = pytest.mark.parametrize("shape", (SMALL, LARGE), ids=("small", "large"))


def both(name):
    call = OPERATORS[name]
    return (lambda x, **b: call(functional, x, **b)), (lambda x: call(F, x))


@EVERY
@SHAPES
def test_transforms_under_auto(name, shape):
    x, tangent = torch.rand(shape, dtype=torch.float64) + 0.5, torch.rand(shape).double()
    some = transforms.FORWARD | transforms.REVERSE | transforms.BATCHED
    transforms.hold(transforms.EVERY if shape == SMALL else some, *both(name), x, tangent)


@EVERY
@pytest.mark.parametrize("server", servers("spatial_norm"))
def test_transforms_by_name(server, name):
    backend, device = server
    ours, theirs = both(name)
    # jacrev asks once for each result: few, where kernels are interpreted.
    interpreted = backend in ("triton", "cuda") and device == "cpu"
    shape = (1, 1, 4, 4) if interpreted else (1, 2, 6, 6)
    x, tangent = (torch.rand(shape, dtype=torch.float64, device=device) + 0.5 for _ in "xt")
    chosen = transforms.EVERY if backend == "cpu" else ("grad", "vmap", "jvp", "jacrev")
    some = {name: transforms.EVERY[name] for name in chosen}
    transforms.hold(some, lambda x: ours(x, backend=backend), theirs, x, tangent)


class Call(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@EVERY
@pytest.mark.parametrize("strict", (False, True))
@SHAPES
def test_export_with_a_dynamic_batch(name, strict, shape):
    ours, theirs = both(name)
    x, batch = torch.rand(4, *shape[1:]), torch.export.Dim("batch", min=2, max=64)
    with torch.no_grad():
        exported = torch.export.export(
            Call(ours), (x,), dynamic_shapes=({0: batch},), strict=strict
        ).module()
        for n in (2, 9):
            x = torch.rand(n, *shape[1:])
            torch.testing.assert_close(exported(x), theirs(x))


@EVERY
def test_compiled_once_for_every_batch(name):
    """With gradients; no graph is made a second time for another batch."""
    torch._dynamo.reset()
    ours, theirs = both(name)
    count = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(ours, dynamic=True, backend=count, fullgraph=True)
    first = None
    for n in (3, 5, 11):
        x = torch.rand(n, *LARGE[1:], requires_grad=True)
        torch._dynamo.mark_dynamic(x, 0)
        y = compiled(x)
        first = first or count.frame_count
        (grad,) = torch.autograd.grad(y.pow(2).sum(), x)
        expected = theirs(x)
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(grad, torch.autograd.grad(expected.pow(2).sum(), x)[0])
    assert count.frame_count == first


LAYERS = (
    (nn.MaxPool2d(2), torch.nn.MaxPool2d(2)),
    (nn.AvgPool2d(2), torch.nn.AvgPool2d(2)),
    (nn.LPPool2d(2, 2), torch.nn.LPPool2d(2, 2)),
    (nn.AdaptiveAvgPool2d(3), torch.nn.AdaptiveAvgPool2d(3)),
    (nn.AdaptiveMaxPool2d(3), torch.nn.AdaptiveMaxPool2d(3)),
    (nn.LocalResponseNorm(3), torch.nn.LocalResponseNorm(3)),
)


@pytest.mark.parametrize("ours, theirs", LAYERS, ids=lambda layer: type(layer).__name__)
def test_layers_export(ours, theirs):
    x = torch.rand(4, 3, 64, 64)
    batch = torch.export.Dim("batch", min=2, max=64)
    exported = torch.export.export(ours, (x,), dynamic_shapes=({0: batch},)).module()
    torch.testing.assert_close(exported(x[:2]), theirs(x[:2]))
