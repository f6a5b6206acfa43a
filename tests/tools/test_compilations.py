"""How many kernels Triton compiles where only sizes vary, or a number that a user varies: each
takes a second or two of somebody's training. And that no launcher waits for a GPU.

The launchers are called on tensors of the meta device, which have no values: reading one raises.
It happens in a process of its own, as a kernel that the interpreter runs cannot be asked what would
be compiled for it.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest
import torch
from cubin_cases import HALF, layout, triton

MOST = 16
ONES, TWOS = [1, 1], [2, 2]
MAP = ONES, ONES, ONES
WINDOW = [3, 3], *MAP
OF = "relu", 0.1

# What a network does with a map x of some size (N, 64, H, W), by family and pass.
CALLS: dict[str, Callable[[torch.Tensor], object]] = {
    "conv": lambda x: triton("conv_forward")(
        x, x.new_empty(64, 64, 3, 3), None, None, *MAP, 1, *OF
    ),
    "conv, grad weight": lambda x: triton("conv_grad_weight")(x, x, [3, 3], *MAP, 1),
    "conv, grad input": lambda x: triton("conv_grad_input")(
        x, x.new_empty(64, 64, 3, 3), [2 * n for n in x.shape[2:]], TWOS, ONES, ONES, 1
    ),
    "depthwise": lambda x: triton("conv_forward")(
        x, x.new_empty(64, 1, 3, 3), None, None, *MAP, 64, *OF
    ),
    "depthwise, grad weight": lambda x: triton("conv_grad_weight")(x, x, [3, 3], *MAP, 64),
    "bias_act": lambda x: triton("bias_act_forward")(x, None, None, *OF),
    "batch_norm": lambda x: triton("batch_norm_forward")(x, None, None, None, 1e-5, *OF, True),
    "batch_norm, gradient": lambda x: triton("batch_norm_backward")(
        x, x, layout.channel_sums(x), layout.channel_sums(x), None, None, 1e-5, "none", 0.0, False
    ),
    "lrn": lambda x: triton("lrn_forward")(x, 5, 1e-4, 0.75, 2.0),
    "spatial_norm": lambda x: triton("spatial_norm_forward")(x, 3, 1e-4, 0.75, 2.0),
    "pool": lambda x: triton("max_pool_forward")(x, *WINDOW, x.shape[2:], "offset"),
    "pool, gradient": lambda x: triton("max_pool_backward")(
        x, layout.resized(x, x.shape[2:], dtype=torch.uint8), x.shape[2:], *WINDOW
    ),
    "pool_adaptive": lambda x: triton("adaptive_avg_pool_forward")(x, [7, 7]),
    "pool_adaptive, gradient": lambda x: triton("adaptive_avg_pool_backward")(
        x[:, :, :7, :7], x.shape[2:], False
    ),
    "pyramid": lambda x: triton("pyramid_pool_forward")(x, [1, 1, 2, 2, 6, 6], "max", "flat"),
    "softmax": lambda x: triton("softmax_forward")(x, 1, False),
}
# What varies with a number p between 0 and 1.
NUMBERS: dict[str, Callable[[torch.Tensor, float], object]] = {
    "dropout": lambda x, p: triton("dropout_forward")(
        x, p, torch.empty((), dtype=torch.int64, device="meta")
    ),
    "cross_entropy": lambda x, p: triton("cross_entropy_forward")(x, x, None, -100, p, "mean"),
    "bias_act": lambda x, p: triton("bias_act_forward")(x, None, None, "leaky_relu", p),
    "lrn": lambda x, p: triton("lrn_forward")(x, 5, p, p / 2, 1 + p),
    "batch_norm": lambda x, p: triton("batch_norm_forward")(x, None, None, None, p, *OF, True),
}


def _count() -> dict[str, int]:
    """Compilations by what was called."""
    from pydl.kernels import runtime
    from specialisation import specialisation

    found: set[str] = set()
    runtime.launch = lambda kernel, count, device, *arguments, **named: found.add(
        specialisation(kernel, arguments, named).key
    )
    out = {}

    def count(name: str, calls: list[Callable]) -> None:
        found.clear()
        for call in calls:
            call()
        out[name] = len(found)

    random.seed(0)
    sizes = [(random.randint(200, 400), random.randint(200, 400)) for _ in range(200)]
    maps = [torch.empty(2, 64, *size, dtype=HALF, device="meta") for size in sizes]
    for name, call in CALLS.items():
        count(name, [partial(call, x) for x in maps])
    x = torch.empty(8, 64, 9, 9, dtype=HALF, device="meta")
    for name, call in NUMBERS.items():
        count(f"{name}, a number", [partial(call, x, random.random()) for _ in range(50)])
    return out


@pytest.mark.slow
def test_sizes_and_numbers_compile_few_kernels():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    printed = subprocess.run(
        [sys.executable, __file__], env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    counts = json.loads(printed)
    assert len(counts) == len(CALLS) + len(NUMBERS)
    assert {name: count for name, count in counts.items() if not 0 < count <= MOST} == {}


if __name__ == "__main__":
    print(json.dumps(_count()))
