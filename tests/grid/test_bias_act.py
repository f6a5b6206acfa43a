"""Bias, residual and activation of a map: every backend against the reference."""

import pytest
import torch
from contract import DTYPES, INSTRUCTION_SETS, hold, instruction_set, laid_out, opcheck, servers

from pydl import backends, layout, native
from pydl.ops import bias_act as ops

# shape, how x lies, how residual and gradient lie, and why
SHAPES = (
    ((2, 5, 7), "contiguous", "contiguous"),  # one axis, odd
    ((3, 17, 5, 6), "contiguous", "channels_last"),  # the two layouts meet
    ((3, 17, 5, 6), "channels_last", "contiguous"),
    ((1, 3, 4, 3, 2), "sliced", "channels_last"),  # three axes, a view
    ((2, 3, 40, 41), "contiguous", "sliced"),  # more than a block or a vector of each row
    ((0, 3, 4, 4), "contiguous", "contiguous"),  # no images
    # 16 bytes at a time on a GPU: planes of whole vectors and not of whole bytes of a mask; more
    # images than a thread takes; the last quarter of the elements short, and none of it there
    ((5, 3, 6, 20), "contiguous", "contiguous"),
    ((9, 16, 3, 3), "channels_last", "channels_last"),
    ((1, 9, 8), "contiguous", "contiguous"),
    ((1, 3, 8), "contiguous", "contiguous"),
    ((5, 3, 6, 20), "offset", "contiguous"),  # as many, whose addresses do not permit it
)
EPILOGUES = (("none", 0.0), ("relu", 0.0), ("leaky_relu", 0.125), ("silu", 0.0))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("epilogue", EPILOGUES, ids=[name for name, _ in EPILOGUES])
@pytest.mark.parametrize("server", servers("bias_act"))
def test_against_reference(server, epilogue, dtype):
    backend, device = server

    def call(name, who, *operands):
        return backends.function(who, f"bias_act_{name}")(*operands, *epilogue)

    for shape, view, other_view in SHAPES:
        x = laid_out(torch.randn(shape).to(dtype).to(device), view)
        residual = laid_out(torch.randn(shape).to(dtype).to(device), other_view)
        bias = torch.randn(shape[1]).to(dtype).to(device)
        for operands in (
            (x, bias, residual),
            (x, None, residual),
            (x, bias, None),
            (x, None, None),
        ):
            double = [None if t is None else t.double() for t in operands]
            ours, theirs = call("forward", backend, *operands), call("forward", "aten", *operands)
            hold(ours, theirs, call("forward", "reference", *double), f"y of {shape}")
            if backend not in ("aten", "reference"):
                assert layout.memory_format(ours) == layout.memory_format(x)
        operands = residual, x
        double = [t.double() for t in operands]
        ours, theirs = call("backward", backend, *operands), call("backward", "aten", *operands)
        hold(ours, theirs, call("backward", "reference", *double), f"grad_x of {shape}")


@pytest.mark.parametrize("epilogue", EPILOGUES, ids=[name for name, _ in EPILOGUES])
@pytest.mark.parametrize("server", servers("bias_act"))
def test_edges(server, epilogue):
    """NaN stays NaN, 0 belongs to the side that the contract says, infinities have their limits,
    and a gradient that relu stops is 0 even where it is infinite."""
    backend, device = server
    inf = torch.inf
    x = torch.tensor([[-inf, -200.0, -2, -0.0, 0, 3, 200, inf, torch.nan]], device=device)[None]
    y, expected = (
        backends.function(who, "bias_act_forward")(x, None, None, *epilogue)
        for who in (backend, "aten")
    )
    if epilogue[0] == "silu":  # the product of -inf and 0 is PyTorch's NaN; the limit is 0
        x, y, expected = x[..., 1:], y[..., 1:], expected[..., 1:]
    torch.testing.assert_close(y, expected, equal_nan=True, rtol=1e-5, atol=1e-30)
    finite = x[..., :-2] if epilogue[0] == "silu" else x
    grad_y = torch.full_like(finite, inf if epilogue[0] == "relu" else 2.0)
    ours, theirs = (
        backends.function(who, "bias_act_backward")(grad_y, finite, *epilogue)
        for who in (backend, "aten")
    )
    torch.testing.assert_close(ours, theirs, equal_nan=True, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("server", servers("bias_act"))
def test_operators_are_registered_correctly(server):
    backend, device = server
    x = torch.randn(2, 3, 4, 5, device=device)
    for view in (x, x.contiguous(memory_format=torch.channels_last)):
        forward = (view, torch.randn(3, device=device), view.clone(), "silu", 0.0, backend)
        opcheck(torch.ops.pydl.bias_act_forward.default, forward)
        backward = (view, view.clone(), "silu", 0.0, backend)
        opcheck(torch.ops.pydl.bias_act_backward.default, backward)


@pytest.mark.parametrize("epilogue", EPILOGUES, ids=[name for name, _ in EPILOGUES])
@pytest.mark.parametrize("server", servers("bias_act"))
def test_derivatives(server, epilogue):
    backend, device = server
    x = torch.randn(2, 3, 4, dtype=torch.float64, device=device, requires_grad=True)

    def function(x):
        return ops.bias_act(x, *epilogue, backend)

    torch.autograd.gradcheck(function, x, fast_mode=True)
    torch.autograd.gradgradcheck(function, x, fast_mode=True)


@pytest.mark.native
@pytest.mark.parametrize("name", ("cpu", "cuda"))
def test_in_place_and_refusals(name):
    row = backends.BACKENDS[name]
    if row.missing is not None:
        pytest.skip(row.missing)
    library = native.library(name)
    x = torch.randn(2, 3, 300, device=row.devices[0])
    wanted = torch.relu(x)
    library.call("bias_act_forward", x, None, None, x, "relu", 0.0, on=x)
    assert torch.equal(x, wanted)
    with pytest.raises(ValueError, match="none, relu, leaky_relu or silu, got gelu"):
        library.call("bias_act_forward", x, None, None, x, "gelu", 0.0, on=x)
    with pytest.raises(ValueError, match=r"residual|one dtype and shape"):
        library.call("bias_act_forward", x, None, x[:1], x, "relu", 0.0, on=x)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("epilogue", EPILOGUES, ids=[name for name, _ in EPILOGUES])
def test_every_instruction_set(isa, epilogue):
    with instruction_set(isa):
        for dtype in DTYPES:
            test_against_reference(("cpu", "cpu"), epilogue, dtype)
        test_edges(("cpu", "cpu"), epilogue)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_results_past_the_caches(isa):
    """Results of 16 MB and more are streamed, unless they overwrite what they are made from or
    begin between two lines of the cache."""
    memory = torch.randn((4 << 20) + 4100)
    with instruction_set(isa):
        for x in (memory, memory[1:]):
            x = x.view(1, 1, -1)
            grad = torch.where(x > 0.5, 1.0, -2.0)
            y, grad_x = (torch.empty_like(memory)[-x.numel() :].view_as(x) for _ in range(2))
            library = native.library("cpu")
            library.call("bias_act_forward", x, None, None, y, "relu", 0.0, on=x)
            library.call("bias_act_backward", grad, x, grad_x, "relu", 0.0, on=x)
            assert torch.equal(y, x.relu()) and torch.equal(grad_x, grad * (x > 0))
        library.call("bias_act_forward", x, None, None, x, "relu", 0.0, on=x)
        assert torch.equal(x, y)
