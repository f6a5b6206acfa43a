"""Sizes whose products pass 32 bits, in every Triton kernel that takes an index apart by them.

A CPU commits no memory that nobody writes, and of each launch only the first and the last program
runs. So maps of 2^32 elements cost as much as small ones, with the same rows at both ends and zeros
between, whose results must be the same bits at both ends.
"""

from functools import partial

import pytest
import torch
from pydl.kernels import batch_norm_sums, runtime
from triton.runtime import interpreter

from pydl import backends, layout

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="of an interpreted launch")
run = partial(backends.function, "triton")
UNPOISONED = layout.empty


def _zeros(*arguments, **named):
    """Memory that nothing was written to, as a large tensor has it, for a small one too: what the
    programs between the first and the last would have written may be read."""
    made = UNPOISONED(*arguments, **named)
    return made if made.numel() >= 2**31 else made.zero_()


# More than 2^31 pixels a plane.
HEIGHT, WIDTH = 2**21 + 8, 2**10
ROWS = 4  # that are not zeros, at either end
ENDS = 64  # elements that every program writes at least
ONES, ZEROS = [1, 1, 1], [0, 0, 0]
NEAR = [1, 3, 3], ONES, [0, 1, 1], ONES  # windows that leave the size as it is
NORM = 5, 1e-4, 0.75, 2.0


def _sums(x):
    return torch.ones(x.shape[1])


def _grads(x):
    return x, x, _sums(x), _sums(x), None, None, _sums(x), _sums(x), 64.0, 1e-5, "none", 0.0, True


def _filters(x, filters=1):
    return torch.ones(filters, x.shape[1], 1, 1, 1, dtype=x.dtype)


# By the contract's name: the result, of the shape of x.
CALLS = {
    "bias_act_forward": lambda f, x: f(x, None, x, "relu", 0.0),
    "bias_act_backward": lambda f, x: f(x, x, "relu", 0.0),
    "batch_norm_apply": lambda f, x: f(
        x, _sums(x), _sums(x), None, None, x, 1e-5, "none", 0.0, False
    )[0],
    "batch_norm_grad_input": lambda f, x: f(*_grads(x))[0],
    "lrn_forward": lambda f, x: f(x, *NORM),
    "lrn_backward": lambda f, x: f(x, x, *NORM),
    "spatial_norm_forward": lambda f, x: f(x, 3, *NORM[1:]),
    "spatial_norm_backward": lambda f, x: f(x, x, 3, *NORM[1:]),
    "max_pool_forward": lambda f, x: f(x, *NEAR, x.shape[2:], "offset")[0],
    "avg_pool_forward": lambda f, x: f(x, *NEAR[:3], x.shape[2:], True, 0),
    "avg_pool_backward": lambda f, x: f(
        x, x.shape[2:], *NEAR[:3], True, 0, runtime.channels_last(x)
    ),
    "lp_pool_forward": lambda f, x: f(x, 2.0, ONES, ONES, x.shape[2:]),
    "lp_pool_backward": lambda f, x: f(x, x, x, 2.0, ONES, ONES),
    "conv_forward": lambda f, x: f(x, _filters(x), None, x, ONES, ZEROS, ONES, 1, "none", 0.0),
    "conv_grad_input": lambda f, x: f(x[:, :1], _filters(x), x.shape[2:], ONES, ZEROS, ONES, 1),
    "local_forward": lambda f, x: f(x, x, None, ONES, ONES, ZEROS, ONES),
    "local_grad_input": lambda f, x: f(x, x, x.shape[2:], ONES, ONES, ZEROS, ONES),
    "local_grad_weight": lambda f, x: f(x, x, ONES, ONES, ZEROS, ONES),
}
# Two planes (depth) of one channel, or one of two channels, which are innermost.
PLANES = {"contiguous": (1, 2), "channels last": (2, 1)}


@pytest.fixture
def ends(monkeypatch):
    """Launches that run the first and the last program, into memory that nothing is written to."""
    builder = interpreter.interpreter_builder
    set_size, go_to = builder.set_grid_dim, builder.set_grid_idx

    def launch(kernel, count, device, *arguments, **named):
        programs = sorted({0, count - 1})
        monkeypatch.setattr(builder, "set_grid_dim", lambda *_: set_size(count, 1, 1))
        monkeypatch.setattr(builder, "set_grid_idx", lambda x, y, z: go_to(programs[x], y, z))
        kernel[(len(programs),)](*arguments, **named)

    monkeypatch.setattr(runtime, "launch", launch)
    monkeypatch.setattr(layout, "empty", _zeros)


def _map(height: int, plane: str) -> torch.Tensor:
    channels, depth = PLANES[plane]
    shape = (1, channels, depth, height, WIDTH)
    format = torch.channels_last_3d if plane == "channels last" else torch.contiguous_format
    x = torch.empty(shape, dtype=torch.float16, memory_format=format)
    line = layout.line(x)
    values = torch.rand(2, ROWS * WIDTH, generator=torch.Generator().manual_seed(0)) + 1
    if height < HEIGHT:
        line.zero_()
    line[: ROWS * WIDTH], line[-ROWS * WIDTH :] = values.half()
    return x


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("name", CALLS)
def test_planes_of_more_pixels_than_32_bits_count(name, plane, ends):
    if plane == "channels last" and name.startswith("local"):
        pytest.skip("its results are contiguous")
    large, small = (CALLS[name](run(name), _map(height, plane)) for height in (HEIGHT, 16))
    large, small = layout.line(large), layout.line(small)
    assert torch.equal(large[:ENDS], small[:ENDS]) and torch.equal(large[-ENDS:], small[-ENDS:])
    assert small[:ENDS].count_nonzero() > 0 and small[-ENDS:].count_nonzero() > 0


def test_adaptive_bins_times_size():
    """46,000 bins of 50,000 elements, and the gradient."""
    x, y, bins = torch.randn(1, 1, 1, 50_000), torch.randn(1, 1, 1, 46_000), [1, 46_000]
    results = []
    for backend in ("triton", "reference"):
        forward = backends.function(backend, "adaptive_max_pool_forward")(x, bins, "flat")
        backward = backends.function(backend, "adaptive_max_pool_backward")
        results.append((*forward, backward(y, forward[1], x.shape[2:])))
    for ours, exact in zip(*results, strict=True):
        torch.testing.assert_close(ours, exact)


def test_pyramid_bins_times_size():
    x, levels = torch.randn(1, 1, 1, 50_000), [1, 46_000]
    ours, exact = (
        backends.function(backend, "pyramid_pool_forward")(x, levels, "max", "flat")
        for backend in ("triton", "reference")
    )
    assert all(map(torch.equal, ours, exact))


def test_moments_of_more_pixels_than_32_bits_count():
    """256 runs of 2^24 pixels: each has the same share."""
    runs, run_pixels = 256, 2**24
    parts = torch.randn(runs, 1), torch.rand(runs, 1) * run_pixels
    mean, var = torch.empty(1), torch.empty(1)
    pixels = runs * run_pixels
    runtime.launch(
        *(batch_norm_sums.batch_norm_join_moments_kernel, 1, mean.device),
        *(*parts, mean, var, None, None, None, 1, runs, pixels, run_pixels),
        momentum=0.0,
        CUMULATIVE=False,
        BLOCK=1,
    )
    means, squares = (part.double() for part in parts)
    assert mean.item() == pytest.approx(means.mean().item(), rel=1e-5)
    expected = squares.sum() / pixels + means.var(correction=0)
    assert var.item() == pytest.approx(expected.item(), rel=1e-5)


def test_positions_beyond_32_bits(ends):
    grad_y = _map(HEIGHT, "contiguous")
    places = torch.tensor([0, 5, 2**31 + 2**13, grad_y.numel() - 1])
    index = places.reshape(1, 1, 1, 1, 4)
    grad_x = run("max_unpool_backward")(grad_y, index)
    assert torch.equal(grad_x.flatten(), layout.line(grad_y)[places])
