"""What max and average pooling refuse, and in which words."""

import pytest
import torch

from pydl import backends, functional

X = torch.randn(1, 3, 8, 8)
BAD = (
    ("max_pool2d", ([1.0], 2), {}, TypeError, "argument 'input' must be Tensor, not list"),
    ("max_pool2d", (X[0, 0], 2), {}, RuntimeError, "non-empty 3D or 4D \\(batch mode\\) tensor"),
    ("max_pool2d", (X, 0), {}, RuntimeError, "stride should not be zero"),
    ("max_pool2d", (X, (2, 2, 2)), {}, RuntimeError, "kernel_size must either be a single int"),
    ("max_pool2d", (X, 2.0), {}, TypeError, "argument 'kernel_size' .*must be"),
    ("max_pool2d", (X, 2, 0), {}, RuntimeError, "stride should not be zero"),
    ("max_pool2d", (X, 2, -1), {}, RuntimeError, "stride should be greater than zero"),
    (
        "max_pool2d",
        (X, 2, 2, 2),
        {},
        RuntimeError,
        "pad should be at most half of effective kernel size",
    ),
    ("max_pool2d", (X, 2, 2, -1), {}, RuntimeError, "pad must be non-negative, but got pad: -1"),
    ("max_pool2d", (X, 2, 2, 0, 0), {}, RuntimeError, "dilation should be greater than zero"),
    ("max_pool2d", (X, 9), {}, RuntimeError, "Output size is too small"),
    ("max_pool2d", (X[:, :0], 2), {}, RuntimeError, "optional 0 dim batch size"),
    ("max_pool2d", (X.long(), 2), {}, RuntimeError, "serves float32.*got torch.int64"),
    ("avg_pool2d", (X, 9), {}, RuntimeError, "Output size is too small"),
    ("avg_pool2d", (X, 2, 2, 2), {}, RuntimeError, "pad should be at most half"),
    ("avg_pool2d", (X, 2), {"divisor_override": 0}, RuntimeError, "divisor must be not zero"),
)


@pytest.mark.parametrize("name, arguments, keywords, error, message", BAD)
def test_bad_input(name, arguments, keywords, error, message):
    for backend in ("reference", "cpu", "triton", "cuda"):
        if backends.BACKENDS[backend].devices in ((), ("cpu",)):
            with pytest.raises(error, match=message):
                getattr(functional, name)(*arguments, **keywords, backend=backend)
