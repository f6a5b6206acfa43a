"""Running statistics of batch normalisation, which each backend moves in a step of training."""

import pytest
import torch
from contract import hold, servers

import pydl


@pytest.mark.gpu
@pytest.mark.parametrize("runs", (1, 2), ids=("one run of pixels", "several"))
@pytest.mark.parametrize("momentum", (0.0, 0.3, 0.75, 1.0, None), ids=str)
@pytest.mark.parametrize(
    ("dtype", "kept"),
    (
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float16),
    ),
    ids=str,
)
@pytest.mark.parametrize("server", servers("batch_norm"))
def test_running_statistics(server, dtype, kept, momentum, runs):
    """Of a layer that counts its batches; the same numbers whether something is kept for a backward
    or not."""
    backend, device = server
    more = {"momentum": momentum, "device": device, "affine": False}
    ours, without = (pydl.nn.BatchNorm2d(5, **more, dtype=kept, backend=backend) for _ in "12")
    theirs, same = (torch.nn.BatchNorm2d(5, **more, dtype=dtype) for dtype in (torch.float64, kept))
    for step in range(3):
        shape = (2, 5, 3, 4) if runs == 1 else (3, 5, 33, 29)
        x = (torch.randn(shape, device=device) + step).to(dtype)
        y = ours(x.clone().requires_grad_())
        assert torch.equal(without(x), y) and y.requires_grad
        theirs(x.double()), same(x)
    counts = {int(one.num_batches_tracked) for one in (ours, without, theirs)}
    versions = {one.num_batches_tracked._version for one in (ours, without, theirs)}
    assert counts == {3} and len(versions) == 1
    for name in ("running_mean", "running_var"):
        value, exact = getattr(ours, name), getattr(theirs, name)
        assert value.dtype == kept and torch.equal(getattr(without, name), value)
        hold(value, getattr(same, name), exact, name)


@pytest.mark.parametrize("server", servers("batch_norm"))
def test_running_statistics_in_inference_mode(server):
    """Where tensors have no versions, and those made outside of it still do."""
    backend, device = server
    x = torch.randn(3, 4, 5, 5, device=device)
    outside = pydl.nn.BatchNorm2d(4, device=device, backend=backend)
    with torch.inference_mode():
        inside, stock = (
            one(4, device=device) for one in (torch.nn.BatchNorm2d, torch.nn.BatchNorm2d)
        )
        pydl.accelerate(inside, backend)
        for layer in (outside, inside, stock):
            layer(x), layer(x + 1)
    for layer in (outside, inside):
        torch.testing.assert_close(layer.state_dict(), stock.state_dict())
    assert not outside.num_batches_tracked.is_inference()


@pytest.mark.parametrize("server", servers("batch_norm"))
def test_running_statistics_that_no_kernel_writes_to(server):
    """Every other number of some memory, a count on a layer that has none, and of another dtype."""
    backend, device = server
    x = torch.randn(3, 4, 5, 5, device=device)
    for batches in (None, torch.tensor(0, dtype=torch.int32, device=device)):
        layers = pydl.nn.BatchNorm2d(4, backend=backend), torch.nn.BatchNorm2d(4)
        for layer in layers:
            layer.running_mean = torch.zeros(8, device=device)[::2]
            layer.running_var = torch.ones(8, device=device)[::2]
            layer.num_batches_tracked = None if batches is None else batches.clone()
            layer.to(device)(x)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            torch.testing.assert_close(*(getattr(layer, name) for layer in layers))
