"""A map times a number: checks, autograd, registered operator."""

import torch
from pydl.contract.gain import GainForward

from pydl import backends
from pydl.ops import checks
from pydl.ops.derivatives import Function, apply, needs_grad
from pydl.ops.registry import operator

_forward = operator(GainForward)


class _Gain(Function):
    """Linear, so its gradient is the same function of grad_y."""

    @staticmethod
    def forward(x, factor, backend):
        return _forward(x, factor, backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, *ctx.arguments = inputs

    @staticmethod
    def backward(ctx, grad_y):
        return apply(_Gain, grad_y, *ctx.arguments), None, None


def gain(x: torch.Tensor, factor: float, backend: str | None) -> torch.Tensor:
    checks.tensor("gain", "input", x)
    backend = backends.choose("gain", backend, x, "gain_forward")
    if needs_grad(x):
        return _Gain.apply(x, float(factor), backend)
    return _forward(x, float(factor), backend)
