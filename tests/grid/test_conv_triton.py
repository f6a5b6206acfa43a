"""What only the Triton kernels of convolution have: offsets beyond 32 bits, and float32's precision
on the tensor cores."""

import math
from functools import partial

import pytest
import torch
from contract import hold, nearest_tf32
from pydl.kernels import conv_tiles, runtime

from pydl import backends

triton = partial(backends.function, "triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
REACH = 2**31

WINDOW = [1, 1], [1, 1], [1, 1]
STRIDED = [2, 2], [1, 1], [1, 1]
LOCAL = [2, 2], [1, 1], [0, 0], [1, 1]
MAP, FILTERS, TAPS = (3, 17, 3, 4), (4, 17, 3, 3), (3, 3)
FEW, DEPTHWISE = (3, 5, 4, 3), (5, 1, 3, 3)
CALLS = {
    "dense forward": (
        lambda x, w, r: triton("conv_forward")(x, w, None, r, *WINDOW, 1, "relu", 0.0),
        (MAP, FILTERS, (3, 4, 3, 4)),
    ),
    "merged forward": (
        lambda x, w: triton("conv_forward")(x, w, None, None, *WINDOW, 1, "none", 0.0),
        (FEW, (4, 5, 3, 3)),
    ),
    "grad input": (
        lambda g, w: triton("conv_grad_input")(g, w, (5, 7), *STRIDED, 1),
        (MAP, (17, 4, 3, 3)),
    ),
    "grad weight": (
        lambda g, x: triton("conv_grad_weight")(g, x, TAPS, *WINDOW, 1),
        ((3, 4, 3, 4), MAP),
    ),
    "grad bias": (triton("conv_grad_bias"), (MAP,)),
    "depthwise forward": (
        lambda x, w, r: triton("conv_forward")(x, w, None, r, *WINDOW, 5, "relu", 0.0),
        (FEW, DEPTHWISE, FEW),
    ),
    "depthwise grad input": (
        lambda g, w: triton("conv_grad_input")(g, w, (7, 5), *STRIDED, 5),
        (FEW, DEPTHWISE),
    ),
    "depthwise grad weight": (
        lambda g, x: triton("conv_grad_weight")(g, x, TAPS, *WINDOW, 5),
        (FEW, FEW),
    ),
    "bias_act forward": (
        lambda x, r: triton("bias_act_forward")(x, None, r, "relu", 0.0),
        (FEW, FEW),
    ),
    "bias_act backward": (
        lambda g, s: triton("bias_act_backward")(g, s, "relu", 0.0),
        (FEW, FEW),
    ),
    "local forward": (
        lambda x, w, b: triton("local_forward")(x, w, b, *LOCAL),
        ((3, 3, 4, 4), (4, 12, 3, 3), (4, 3, 3)),
    ),
    "local grad input": (
        lambda g, w: triton("local_grad_input")(g, w, (4, 4), *LOCAL),
        ((3, 4, 3, 3), (4, 12, 3, 3)),
    ),
    "local grad weight": (
        lambda g, x: triton("local_grad_weight")(g, x, *LOCAL),
        ((3, 4, 3, 3), (3, 3, 4, 4)),
    ),
}


@pytest.fixture(scope="module")
def expanse() -> torch.Tensor:
    """More than 2^31 elements, of which the tests write a few: a CPU commits no others."""
    return torch.empty(REACH + 2**20, dtype=torch.float16, device=DEVICE)


def _far(values: torch.Tensor, axis: int, expanse: torch.Tensor, place: int) -> torch.Tensor:
    """The same values with one axis' stride, itself within 32 bits, so large that the last element
    lies beyond them."""
    size = values.shape[axis]
    if size < 3:
        return values
    others = [1 if i == axis else n for i, n in enumerate(values.shape)]
    strides = [math.prod(others[i + 1 :]) for i in range(values.ndim)]
    strides[axis] = REACH // (size - 1) + 1
    return expanse.as_strided(values.shape, strides, place * 2**16).copy_(values)


@pytest.mark.parametrize("axis", (0, 1, 2))
@pytest.mark.parametrize("name", CALLS)
def test_offsets_beyond_32_bits(name, axis, expanse):
    """The same numbers, bit for bit, as from compact operands."""
    function, shapes = CALLS[name]
    operands = [torch.randn(shape, device=DEVICE).half() for shape in shapes]
    far = [_far(operand, axis, expanse, i) for i, operand in enumerate(operands)]
    assert runtime.wide(*far) and not runtime.wide(*operands)
    assert torch.equal(function(*far), function(*operands))


def test_float32_multiplies_as_pytorchs_flags_say(monkeypatch):
    precisions = []
    monkeypatch.setattr(
        runtime, "launch", lambda *_, **named: precisions.append(named["INPUT_PRECISION"])
    )

    def launched(dtype: torch.dtype) -> str:
        x, weight = torch.ones(1, 4, 5, 5, dtype=dtype), torch.ones(17, 4, 3, 3, dtype=dtype)
        y = triton("conv_forward")(x, weight, None, None, *WINDOW, 1, "none", 0.0)
        triton("conv_grad_input")(y, weight, (5, 5), *WINDOW, 1)
        triton("conv_grad_weight")(y, x, TAPS, *WINDOW, 1)
        (precision,) = {precisions.pop() for _ in range(3)}
        return precision

    for allow, precision in ((True, "tf32"), (False, "ieee")):
        with torch.backends.cudnn.flags(allow_tf32=allow):
            assert launched(torch.float32) == precision
            assert launched(torch.float16) == launched(torch.float64) == "ieee"
    newer = getattr(torch.backends.cudnn, "conv", None)
    if hasattr(newer, "fp32_precision"):
        before = newer.fp32_precision
        try:
            for precision in ("ieee", "tf32"):  # "ieee" sets it apart from RNNs' flag
                newer.fp32_precision = precision
                assert launched(torch.float32) == precision
        finally:
            newer.fp32_precision = before


@pytest.mark.parametrize("channels", (16, 3), ids=("dense", "merged"))
def test_tf32_is_rounded_to_the_nearest(channels):
    """The tensor cores would cut off what TF32 has no place for."""
    x, weight = torch.randn(1, channels, 5, 5), torch.randn(16, channels, 3, 3)
    grad_y = torch.randn(1, 16, 5, 5)

    def three(backend, x, weight, grad_y):
        run = partial(backends.function, backend)
        return (
            run("conv_forward")(x, weight, None, None, *WINDOW, 1, "none", 0.0),
            run("conv_grad_input")(grad_y, weight, (5, 5), *WINDOW, 1),
            run("conv_grad_weight")(grad_y, x, TAPS, *WINDOW, 1),
        )

    operands = [operand.to(DEVICE) for operand in (x, weight, grad_y)]
    with torch.backends.cudnn.flags(allow_tf32=True):
        ours = three("triton", *operands)
    exact = three("reference", *(nearest_tf32(operand).double() for operand in operands))
    for what, got, wanted in zip(("y", "grad_x", "grad_weight"), ours, exact, strict=True):
        hold(got, None, wanted, what, terms=8 * wanted.abs().max().item())


def test_the_table_has_a_row_for_every_problem():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for problem in ("dense", "merged", "depthwise"):
            for last in (True, False):
                rows = conv_tiles.rows(dtype, problem, last)
                assert [row.block_n for row in rows] == sorted({row.block_n for row in rows})
