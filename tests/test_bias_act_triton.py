"""Bias, residual and activation of a map in Triton, against the reference and PyTorch."""

import pytest
import torch
from contract import DTYPES, Case, hold, operand

from pydl import layout
from pydl.aten import bias_act as theirs
from pydl.kernels import bias_act as ours
from pydl.reference import bias_act as exact

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASES = (
    # the reason, shape, view, values; bias, residual, activation, slope
    (Case("all of it", (2, 5, 4, 3)), True, True, "relu", 0.0),
    (
        Case("leaky, channels last", (2, 5, 4, 3), {}, "channels_last"),
        True,
        True,
        "leaky_relu",
        0.1,
    ),
    (Case("a negative slope", (2, 3, 7)), True, False, "leaky_relu", -0.3),
    (Case("a slope float32 cannot hold", (1, 3, 4, 5, 2)), False, True, "leaky_relu", 0.1),
    (Case("silu over three axes", (1, 3, 4, 5, 2)), True, True, "silu", 0.0),
    (
        Case("silu of large values", (1, 3, 8, 5), {}, "contiguous", "large"),
        False,
        False,
        "silu",
        0.0,
    ),
    (Case("NaN stays under relu", (2, 3, 8, 9), {}, "contiguous", "nan"), True, True, "relu", 0.0),
    (
        Case("NaN stays under leaky", (2, 3, 8, 9), {}, "sliced", "nan"),
        True,
        True,
        "leaky_relu",
        0.2,
    ),
    (Case("NaN stays under silu", (2, 3, 8, 9), {}, "offset", "nan"), True, False, "silu", 0.0),
    (Case("no activation", (2, 3, 5, 4), {}, "sliced"), True, False, "none", 0.0),
    (Case("more than one program", (1, 3, 40, 30)), True, True, "silu", 0.0),
    (Case("an empty batch", (0, 3, 4, 4)), True, True, "relu", 0.0),
)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("row", CASES, ids=lambda row: str(row[0]))
def test_triton_against_reference(row, dtype):
    case, with_bias, with_residual, *epilogue = row
    x = operand(case, dtype, DEVICE)
    bias = operand(case, dtype, DEVICE, case.shape[1:2], seed=2) if with_bias else None
    residual = operand(case, dtype, DEVICE, seed=3) if with_residual else None
    wide = [None if t is None else t.double() for t in (x, bias, residual)]
    y = ours.bias_act_forward(x, bias, residual, *epilogue)
    z = exact.bias_act_forward(*wide, "none", 0.0)
    hold(
        y,
        theirs.bias_act_forward(x, bias, residual, *epilogue),
        exact.bias_act_forward(*wide, *epilogue),
        "y",
    )
    assert layout.memory_format(y) == layout.memory_format(x)
    saved, grad_y = z.to(dtype), operand(case, dtype, DEVICE, seed=4).nan_to_num()
    hold(
        ours.bias_act_backward(grad_y, saved, *epilogue),
        theirs.bias_act_backward(grad_y, saved, *epilogue),
        exact.bias_act_backward(grad_y.double(), saved.double(), *epilogue),
        "grad_x",
    )


def test_triton_reads_each_operand_in_its_own_layout():
    case = Case("mixed", (2, 4, 5, 3))
    x, residual = operand(case, torch.float32, DEVICE), operand(case, torch.float32, DEVICE, seed=1)
    last = residual.contiguous(memory_format=torch.channels_last)
    y = ours.bias_act_forward(x, None, residual, "relu", 0.0)
    assert torch.equal(y, ours.bias_act_forward(x, None, last, "relu", 0.0))
    grad_x = ours.bias_act_backward(x, residual, "silu", 0.0)
    assert torch.equal(grad_x, ours.bias_act_backward(x, last, "silu", 0.0))
