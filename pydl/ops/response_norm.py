"""What both response normalisations are to autograd: one tensor, four constants, and a gradient
whose own derivative is that of the reference's formula."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from pydl import layout
from pydl.contract.call import Call
from pydl.contract.lrn import LrnBackward, LrnForward
from pydl.contract.spatial_norm import SpatialNormBackward, SpatialNormForward
from pydl.ops.derivatives import Function, apply, by_reference, needs_grad, save
from pydl.ops.registry import operator
from pydl.reference import lrn, spatial_norm


class _Norm(NamedTuple):
    forward: Callable
    backward: Callable
    call: type[Call]  # of the backward
    definition: Callable  # the reference's backward


_NORMS = {
    "lrn": _Norm(operator(LrnForward), operator(LrnBackward), LrnBackward, lrn.lrn_backward),
    "spatial_norm": _Norm(
        operator(SpatialNormForward),
        operator(SpatialNormBackward),
        SpatialNormBackward,
        spatial_norm.spatial_norm_backward,
    ),
}


class _ResponseNorm(Function):
    @staticmethod
    def forward(x, family, *arguments):
        return _NORMS[family].forward(x, *arguments)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, *ctx.arguments = inputs
        save(ctx, output, x)

    @staticmethod
    def backward(ctx, grad_y):
        (x,) = ctx.saved_tensors
        grad_x = apply(_Gradient, grad_y, x, *ctx.arguments)
        return layout.as_elementwise(grad_x, grad_y), *[None] * 6


class _Gradient(Function):
    @staticmethod
    def forward(grad_y, x, family, *arguments):
        return _NORMS[family].backward(grad_y, x, *arguments)

    @staticmethod
    def setup_context(ctx, inputs, output):
        grad_y, x, *ctx.arguments = inputs
        save(ctx, output, grad_y, x)

    @staticmethod
    def backward(ctx, grad_grad_x):
        family, *constants, _ = ctx.arguments
        norm = _NORMS[family]
        grads = by_reference(
            lambda grad_y, x: norm.definition(norm.call(grad_y, x, *constants)),
            ctx.saved_tensors,
            ctx.needs_input_grad[:2],
            grad_grad_x,
        )
        return *grads, *[None] * 6


def normalised(
    family: str, maps: torch.Tensor, constants: tuple[int, float, float, float], backend: str
) -> torch.Tensor:
    """The maps normalised, their arguments checked: size, alpha, beta, k."""
    arguments = *constants, backend
    if needs_grad(maps):
        return _ResponseNorm.apply(maps, family, *arguments)
    return _NORMS[family].forward(maps, *arguments)
