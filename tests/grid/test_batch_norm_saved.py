"""What batch norm keeps for a backward. Its running statistics move before that: what autograd
saved must not be affected, whichever backend serves which call. A ReLU's mask is one bit per
element."""

import itertools

import pytest
import torch
from contract import servers

from pydl import functional
from pydl.contract.batch_norm import mask as empty_mask
from pydl.contract.batch_norm import pack, unpack

SIZES = {"small": (2, 4, 6, 6), "large": (8, 4, 64, 64)}
WHO = ("auto", "cpu", "reference", "aten")


def _running(dtype=torch.float64):
    return torch.full((4,), 0.5, dtype=dtype), torch.full((4,), 2.0, dtype=dtype)


@pytest.mark.parametrize("first, second", itertools.product(WHO, WHO))
@pytest.mark.parametrize("sizes", itertools.product(SIZES, SIZES), ids="-".join)
def test_two_batches_in_one_backward(first, second, sizes):
    running, expected_running = _running(torch.float32), _running(torch.float32)
    xs = [torch.randn(SIZES[size]) for size in sizes]
    weight = torch.rand(4)
    results = []
    for who, statistics in (((first, second), running), ((None, None), expected_running)):
        leaves = [x.clone().requires_grad_() for x in xs]
        affine = weight.clone().requires_grad_()
        total = 0
        for leaf, backend in zip(leaves, who, strict=True):
            where = (
                torch.nn.functional.batch_norm
                if backend is None
                else lambda *a, backend=backend: functional.batch_norm(*a, backend=backend)
            )
            total = total + where(leaf, *statistics, affine, None, True).sin().mean()
        results.append(torch.autograd.grad(total, [*leaves, affine]))
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(running, expected_running)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("evaluation, training", itertools.product(WHO, WHO))
def test_evaluation_then_training_then_one_backward(evaluation, training, size):
    """By our own kernels the gradient of an evaluation is by the statistics of its forward."""
    running = _running()
    mean, var = (r.clone() for r in running)
    x = torch.randn(SIZES[size], dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    y = functional.batch_norm(leaf, *running, backend=evaluation)
    z = functional.batch_norm(leaf.detach(), *running, None, None, True, backend=training)
    assert not running[0].equal(mean) and not z.requires_grad
    (grad,) = torch.autograd.grad(y.sum() + z.sum(), leaf)
    if evaluation in ("auto", "aten"):  # PyTorch's own, which goes by what they are by now
        mean, var = running
    scale = (var + 1e-5).rsqrt().reshape(1, 4, 1, 1)
    torch.testing.assert_close(grad, scale.expand_as(grad))


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("backend", WHO)
def test_a_saved_statistic_keeps_its_version(backend, dtype):
    running = _running(dtype)
    versions = [r._version for r in running]
    x = torch.randn(8, 4, 64, 64).to(dtype)
    functional.batch_norm(x, *running, None, None, True, backend=backend)
    assert [r._version for r in running] == versions
    assert not running[0].eq(0.5).any()


@pytest.mark.parametrize("momentum", (0.1, None))
def test_compiled_training_moves_the_buffers(momentum):
    from pydl import nn

    layers = [where.BatchNorm2d(4, momentum=momentum) for where in (nn, torch.nn)]
    compiled = torch.compile(layers[0], backend="aot_eager", fullgraph=True)
    for shape in (SIZES["large"], (9, 4, 64, 64)):
        x = torch.randn(shape)
        torch.testing.assert_close(compiled(x), layers[1](x), rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(layers[0].buffers(), layers[1].buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    "server", [server for server in servers("batch_norm") if server.values[0][0] != "aten"]
)
def test_training_keeps_a_bit_an_element(server):
    backend, device = server
    x = torch.randn(2, 3, 5, 5, device=device, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        functional.batch_norm_act(x, None, None, training=True, backend=backend)
    assert sorted((str(t.dtype), t.numel()) for t in saved) == [
        ("torch.float32", 3),
        ("torch.float32", 3),
        ("torch.float32", 150),
        ("torch.uint8", 2 * 3 * 4),
    ]


def test_masks_pack_and_unpack():
    for shape in ((2, 3, 5), (2, 3, 1), (2, 13, 3, 4), (1, 1, 9, 1)):
        x = torch.randn(shape)
        maps = [x] if x.ndim < 4 else [x, x.contiguous(memory_format=torch.channels_last)]
        for map in maps:
            mask = pack(map > 0, map)
            assert mask.shape == empty_mask(map).shape
            assert torch.equal(unpack(mask, map), map > 0)
    bits = torch.tensor([[[True, False, True] + [False] * 6]])
    assert pack(bits, torch.zeros(1, 1, 9))[0].tolist() == [[5, 0]]
