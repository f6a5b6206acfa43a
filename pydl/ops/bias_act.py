"""Bias, residual and activation of a map: autograd, registered operators.

The epilogue of a convolution, fused into it where the kernel can, an operator of its own otherwise.
"""

from collections.abc import Callable

import torch

from pydl import backends, layout, plan
from pydl.contract.bias_act import BiasActBackward, BiasActForward
from pydl.ops import checks
from pydl.ops.derivatives import Function, apply, by_reference, needs_grad, save
from pydl.ops.registry import operator
from pydl.reference import bias_act as _definition

ACTIVATIONS = ("none", "relu", "leaky_relu", "silu")
NO_EPILOGUE = ("none", 0.0)

_forward = operator(BiasActForward)
_backward = operator(BiasActBackward)


class _BiasAct(Function):
    """Keeps what goes into the activation."""

    @staticmethod
    def forward(x, *epilogue):
        return _forward(x, None, None, *epilogue)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, *ctx.epilogue = inputs
        save(ctx, output, x)

    @staticmethod
    def backward(ctx, grad_y):
        return apply(BiasActGrad, grad_y, *ctx.saved_tensors, *ctx.epilogue), None, None, None

    @staticmethod
    def push(ctx, tangent, *_):
        return apply(BiasActGrad, tangent, *ctx.saved_tensors, *ctx.epilogue)


class _Activation(_BiasAct):
    """Keeps the result, which tells what the argument would: relu, and leaky_relu of a slope that
    is not negative. So the argument may be written over."""

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, *ctx.epilogue = inputs
        save(ctx, output, output)


class BiasActGrad(Function):
    """grad_y times the activation's derivative at ``saved``; linear in grad_y."""

    @staticmethod
    def forward(grad_y, saved, *epilogue):
        return _backward(grad_y, saved, *epilogue)

    @staticmethod
    def setup_context(ctx, inputs, output):
        grad_y, saved, *ctx.epilogue = inputs
        save(ctx, output, grad_y, saved)

    @staticmethod
    def backward(ctx, grad_grad_x):
        grad_y, saved = ctx.saved_tensors
        activation, slope, _ = ctx.epilogue
        for_grad_y = for_saved = None
        if ctx.needs_input_grad[0]:
            for_grad_y = apply(BiasActGrad, grad_grad_x, saved, *ctx.epilogue)
        if ctx.needs_input_grad[1] and activation == "silu":
            _, for_saved = by_reference(
                lambda grad_y, saved: _definition.bias_act_backward(
                    BiasActBackward(grad_y, saved, activation, slope)
                ),
                (grad_y, saved),
                (False, True),
                grad_grad_x,
            )
        return for_grad_y, for_saved, None, None, None


def bias_act(x: torch.Tensor, activation: str, slope: float, backend: str) -> torch.Tensor:
    """The activation of a map (N, C, spatial...), differentiable to any order."""
    if activation == "none":
        return x
    if needs_grad(x):
        return _BiasAct.apply(x, activation, slope, backend)
    return _forward(x, None, None, activation, slope, backend)


_PYTORCH: dict[str, Callable[..., torch.Tensor]] = {
    "relu": torch.nn.functional.relu,
    "leaky_relu": torch.nn.functional.leaky_relu,
}


def activate(
    name: str, x: torch.Tensor, slope: float, inplace: bool, backend: str | None
) -> torch.Tensor:
    """relu or leaky_relu of a tensor of any shape."""
    checks.tensor(name, "input", x)
    backend = backends.choose("activation", backend, x, arguments=(name,))
    if backend == "aten":
        rest = (inplace,) if name == "relu" else (slope, inplace)
        return plan.step(_PYTORCH[name], x, *rest)
    is_map = 3 <= x.ndim <= 5 and x.is_contiguous() and not layout.channels_last(x)
    order = list(range(x.ndim)) if is_map else layout.axes_in_memory(x)
    ordered = x.resolve_neg() if is_map else x.resolve_neg().permute(order)
    map = ordered if is_map else ordered.reshape(1, 1, -1)
    epilogue = name, float(slope), backend
    if not needs_grad(map):
        y = _forward(map, None, None, *epilogue)
    elif name == "relu" or (inplace and slope >= 0):
        y = _Activation.apply(map, *epilogue)
    else:
        y = _BiasAct.apply(map, *epilogue)
    if not is_map:
        y = y.reshape(ordered.shape).permute([order.index(axis) for axis in range(x.ndim)])
    return x.copy_(y) if inplace else y
