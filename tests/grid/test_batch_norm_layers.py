"""Batch normalisation layers: running statistics, compiling."""

import copy
import inspect

import pytest
import torch
from contract import servers
from torch import nn

import pydl

LAYERS = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d")
OPTIONS = (
    {},
    {"momentum": None},
    {"momentum": 0.7, "eps": 0.1},
    {"affine": False},
    {"bias": False},
    {"track_running_stats": False},
)


def map_for(name: str, step: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(3, 4, *[5] * int(name[-2]), generator=generator) * 2 + 1


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("server", servers("batch_norm"))
def test_several_steps_and_inference(server, name, options):
    """The same outputs, gradients and state after steps of training as torch.nn's."""
    backend, device = server
    ours = getattr(pydl.nn, name)(4, **options, backend=backend).to(device)
    theirs = getattr(nn, name)(4, **options).to(device)
    optimizers = [
        torch.optim.SGD(m.parameters(), 0.1) if list(m.parameters()) else None
        for m in (ours, theirs)
    ]
    for step in range(4):
        seen = []
        for layer, optimizer in zip((ours, theirs), optimizers, strict=True):
            x = map_for(name, step).to(device).requires_grad_()
            y = layer(x)
            y.square().mean().backward()
            seen.append((y.detach(), x.grad))
            if optimizer is not None:
                optimizer.step()
                optimizer.zero_grad()
        torch.testing.assert_close(*seen)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    ours.eval(), theirs.eval()
    x = map_for(name, 9).to(device)
    torch.testing.assert_close(ours(x), theirs(x))


def test_ranks_are_checked_in_pytorchs_words():
    for name, x, said in (
        ("BatchNorm1d", torch.randn(2, 4, 3, 3), "expected 2D or 3D input"),
        ("BatchNorm2d", torch.randn(2, 4, 3), "expected 4D input"),
        ("BatchNorm3d", torch.randn(2, 4, 3, 3), "expected 5D input"),
        ("BatchNormAct2d", torch.randn(2, 4, 3), "expected 4D input"),
        ("BatchNormAct3d", torch.randn(2, 4, 3, 3), "expected 5D input"),
        ("SyncBatchNorm", torch.randn(4), "expected at least 2D input"),
    ):
        with pytest.raises(ValueError, match=said):
            getattr(pydl.nn, name)(4)(x)


@pytest.mark.parametrize("name", LAYERS)
def test_lazy_layers_become_their_counterparts(name):
    layer = getattr(pydl.nn, f"Lazy{name}")(momentum=0.3, backend="cpu")
    twin = getattr(nn, f"Lazy{name}")(momentum=0.3)
    for step in range(2):
        torch.testing.assert_close(layer(map_for(name, step)), twin(map_for(name, step)))
    assert type(layer) is getattr(pydl.nn, name) and layer.backend == "cpu"
    torch.testing.assert_close(layer.state_dict(), twin.state_dict())


@pytest.mark.parametrize("backend", [p.values[0][0] for p in servers("batch_norm")])
def test_batch_norm_act_is_its_parts(backend):
    for activation, part in (
        ("none", nn.Identity()),
        ("relu", nn.ReLU()),
        ("leaky_relu", nn.LeakyReLU(0.3)),
    ):
        layer = pydl.nn.BatchNormAct2d(
            4, momentum=None, activation=activation, negative_slope=0.3, backend=backend
        )
        norm = nn.BatchNorm2d(4, momentum=None)
        x, residual = map_for("BatchNorm2d"), map_for("BatchNorm2d", 1)
        for _ in range(2):
            torch.testing.assert_close(layer(x), part(norm(x)))
            torch.testing.assert_close(layer(x, residual), part(norm(x) + residual))
        norm.load_state_dict(layer.state_dict())
        layer.eval(), norm.eval()
        torch.testing.assert_close(layer(x, residual), part(norm(x) + residual))


def test_batch_norm_act_survives_what_looks_for_batch_norm():
    layer = pydl.nn.BatchNormAct2d(4)
    assert not isinstance(layer, nn.modules.batchnorm._BatchNorm)
    model = nn.Sequential(layer)
    assert nn.SyncBatchNorm.convert_sync_batchnorm(model)[0] is layer
    assert pydl.nn.SyncBatchNorm.convert_sync_batchnorm(model)[0] is layer
    assert str(layer) == (
        "BatchNormAct2d(4, eps=1e-05, momentum=0.1, affine=True, bias=True, "
        "track_running_stats=True, activation='relu')"
    )
    assert set(layer.state_dict()) == set(nn.BatchNorm2d(4).state_dict())


@pytest.mark.parametrize("backend", ("auto", *(p.values[0][0] for p in servers("batch_norm"))))
def test_compiles_whole(backend):
    """No graph break, forward and backward, with the buffers moved; momentum=None too."""
    model = nn.Sequential(
        pydl.nn.BatchNorm2d(4),
        pydl.nn.BatchNormAct2d(4, momentum=None),
    )
    twin, x = copy.deepcopy(model), map_for("BatchNorm2d")
    torch._dynamo.reset()  # or the backends before this one count towards its limit
    with pydl.use_backend(backend):
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        for _ in range(2):
            y, expected = compiled(x), twin(x)
            grad = torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view_as(y)
            y.backward(grad)
            expected.backward(grad)
            torch.testing.assert_close(y, expected)
        model.eval(), twin.eval()
        torch.testing.assert_close(compiled(x), twin(x))
    torch.testing.assert_close(model.state_dict(), twin.state_dict())
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_sync_batch_norm_alone_is_batch_norm():
    layer, twin = pydl.nn.SyncBatchNorm(4), nn.BatchNorm2d(4)
    x = map_for("BatchNorm2d")
    torch.testing.assert_close(layer(x), twin(x))
    layer.eval(), twin.eval()
    torch.testing.assert_close(layer(x), twin(x))
    torch.testing.assert_close(layer.state_dict(), twin.state_dict())


def test_converting_keeps_parameters_and_buffers():
    for module, backend in (
        (nn.BatchNorm2d(3, affine=False), None),
        (pydl.nn.BatchNorm1d(3, backend="cpu").eval(), "cpu"),
        (pydl.accelerate(nn.BatchNorm2d(3), "reference"), "reference"),
    ):
        made = pydl.nn.SyncBatchNorm.convert_sync_batchnorm(module)
        assert type(made) is pydl.nn.SyncBatchNorm and made.training == module.training
        assert made.weight is module.weight and made.running_var is module.running_var
        assert made.backend == backend


def test_sync_batch_norm_shows_the_constructor_of_torch_nn():
    """Of which it is no subclass, or DistributedDataParallel would refuse it on a CPU."""
    theirs = inspect.signature(nn.SyncBatchNorm).parameters
    assert [*inspect.signature(pydl.nn.SyncBatchNorm).parameters] == [*theirs, "backend"]
    group = object()
    arguments = 4, 1e-3, 0.2, True, False, group, "meta", torch.float64
    layer = pydl.nn.SyncBatchNorm(*arguments, bias=False, backend="reference")
    assert layer.process_group is group and layer.bias is None and layer.backend == "reference"
    assert layer.weight.is_meta and layer.weight.dtype is torch.float64
    assert str(layer).startswith(str(nn.SyncBatchNorm(*arguments, bias=False))[:-1])
    assert not isinstance(layer, nn.SyncBatchNorm)
    with pytest.raises(ValueError, match="input channels should be non-zero"):
        pydl.nn.SyncBatchNorm(0)(torch.ones(2, 0))
