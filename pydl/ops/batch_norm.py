"""Batch normalisation with residual and activation: checks, autograd, registered operators."""

import math
from typing import Any

import torch

from pydl import backends, dispatch, layout, plan
from pydl.aten.batch_norm import batch_norm_stats as stats_by_pytorch
from pydl.aten.batch_norm import move
from pydl.aten.bias_act import finish
from pydl.call_key import watching
from pydl.contract.batch_norm import (
    BatchNormApply,
    BatchNormBackward,
    BatchNormForward,
    BatchNormGradInput,
    BatchNormGradSums,
    BatchNormStats,
    BatchNormTrain,
    unpack,
)
from pydl.entry import entry
from pydl.ops import checks
from pydl.ops.derivatives import Function, apply, by_reference, needs_grad, save
from pydl.ops.forward_mode import total
from pydl.ops.registry import operator
from pydl.reference import batch_norm as reference

ACTIVATIONS = ("none", "relu", "leaky_relu")

stats = operator(BatchNormStats)
apply_stats = operator(BatchNormApply)
_forward = operator(BatchNormForward)
_train = operator(BatchNormTrain)
grad_sums = operator(BatchNormGradSums)
grad_input = operator(BatchNormGradInput)
_backward = operator(BatchNormBackward)


def in_sums_dtype(
    vector: torch.Tensor | None, x: torch.Tensor, *, copy: bool = False
) -> torch.Tensor | None:
    """A weight, bias or statistic in the dtype that the kernels take: that of sums over ``x``."""
    if vector is None:
        return None
    dtype = layout.sums_dtype(x)
    if vector.dtype == dtype and vector.is_contiguous():
        return vector.clone() if copy else vector
    return vector.detach().to(dtype, copy=copy).contiguous()


def _computed(
    x,
    weight,
    bias,
    residual,
    mean,
    var,
    batches,
    training,
    momentum,
    eps,
    activation,
    slope,
    keep,
    backend,
):
    """y and mask, and in training mean and var. Inference is given these, training perhaps running
    ones and a number of batches, which it writes to."""
    affine = in_sums_dtype(weight, x), in_sums_dtype(bias, x), residual
    how = eps, activation, slope, keep, backend
    if not training:
        return apply_stats(x, mean, var, *affine, *how)
    if mean is None:
        return _forward(x, *affine, *how)
    return _train(x, *affine, mean, var, batches, momentum, *how)


class _BatchNorm(Function):
    """What is computed. All but y have no gradient: they are results because the backward needs
    them."""

    @staticmethod
    def forward(*arguments):
        *arguments, backend = arguments
        return _computed(*arguments, keep=True, backend=backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, bias, _, mean, var, _, ctx.training, _, *ctx.how = inputs
        _, mask, *statistics = output
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.mark_non_differentiable(mask, *statistics)
        save(ctx, output, x, weight, *(statistics or (mean, var)), mask)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, grad_y, *_):
        if grad_y is None:
            return (None,) * 13
        x, weight, mean, var, mask = ctx.saved_tensors
        activation = ctx.how[1]
        for_x, for_weight, for_bias, for_residual, *_ = ctx.needs_input_grad
        masked = activation != "none"
        wanted = for_x, for_weight or for_bias, for_residual and masked
        grad_x, grad_residual, sum_g, sum_gx = apply(
            _BatchNormGrad, grad_y, x, weight, mean, var, mask, ctx.training, wanted, ctx.how
        )
        grads = (
            grad_x if for_x else None,
            sum_gx.to(weight.dtype) if for_weight else None,
            sum_g.to(ctx.bias_dtype) if for_bias else None,
            (grad_residual if masked else grad_y) if for_residual else None,
        )
        return *grads, *[None] * 9

    @staticmethod
    def push(ctx, for_x, for_weight, for_bias, for_residual, *_):
        """Linear in all of them, before the activation, but for x in training: there the matrix is
        symmetric, so that its gradient serves."""
        x, weight, mean, var, mask = ctx.saved_tensors
        eps, activation, slope, backend = ctx.how
        how = eps, "none", 0.0, backend
        terms = [for_residual]
        if for_x is not None and ctx.training:
            rest = x, weight, mean, var, mask, True, (True, False, False), how
            terms.append(apply(_BatchNormGrad, for_x, *rest)[0])
        elif for_x is not None:
            still = mean.new_zeros(mean.shape), var, None, False, 0.0
            terms.append(apply(_BatchNorm, for_x, weight, None, None, *still, *how)[0])
        if for_weight is not None or for_bias is not None:
            gain = for_bias.new_zeros(for_bias.shape) if for_weight is None else for_weight
            statistics = (None, None) if ctx.training else (mean, var)
            rest = *statistics, None, ctx.training, 0.0, *how
            terms.append(apply(_BatchNorm, x, gain, for_bias, None, *rest)[0])
        tangent = total(terms)
        if activation != "none":
            tangent = torch.where(unpack(mask, x), tangent, slope * tangent)
        return tangent, *[None] * (3 if ctx.training else 1)


class _BatchNormGrad(Function):
    """The gradients as a function of their own: of x and the residual, the sums that are those of
    bias and weight. Its derivative is that of the reference's formula."""

    @staticmethod
    def forward(grad_y, x, weight, mean, var, mask, training, wanted, how):
        *how, backend = how
        for_x, for_affine, for_residual = wanted
        mask = None if how[1] == "none" else mask
        weight = in_sums_dtype(weight, x)
        operands = grad_y, x, mean, var
        if training and (for_x or for_residual):
            return _backward(*operands, weight, mask, *how, for_residual, backend)
        sums = layout.nothing(x), layout.nothing(x)
        if for_affine:
            sums = grad_sums(*operands, mask, *how, backend)
        grads = layout.nothing(x), layout.nothing(x)
        if for_x or for_residual:
            rest = None, None, 1.0, *how, for_residual, backend
            grads = grad_input(*operands, weight, mask, *rest)
        return *grads, *sums

    @staticmethod
    def setup_context(ctx, inputs, output):
        *tensors, training, wanted, how = inputs
        save(ctx, output, *tensors)
        ctx.arguments = training, wanted, how

    @staticmethod
    def backward(ctx, *grad_results):
        grad_y, x, weight, mean, var, mask = ctx.saved_tensors
        training, wanted, (eps, activation, slope, _) = ctx.arguments
        how = eps, activation, slope

        def gradients(grad_y, x, weight=None):
            raised = None if weight is None else weight.to(mean.dtype)
            if training:
                operands = grad_y, x, *reference.batch_norm_stats(BatchNormStats(x)), raised, mask
                call = BatchNormBackward(*operands, *how, wanted[2])
                made = reference.batch_norm_backward(call)
            else:
                rest = None, None, 1.0, *how, wanted[2]
                made = (
                    *reference.batch_norm_grad_input(
                        BatchNormGradInput(grad_y, x, mean, var, raised, mask, *rest)
                    ),
                    *reference.batch_norm_grad_sums(
                        BatchNormGradSums(grad_y, x, mean, var, mask, *how)
                    ),
                )
            # What the forward did not make has a gradient of no elements.
            return tuple(
                one if one.shape == grad.shape else one.new_empty(0)
                for one, grad in zip(made, grad_results, strict=True)
            )

        tensors = (grad_y, x) if weight is None else (grad_y, x, weight)
        needed = ctx.needs_input_grad[: len(tensors)]
        grads = by_reference(gradients, tensors, needed, *grad_results)
        return *grads, *[None] * (9 - len(grads))


def check_parameters(
    x: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    training: bool = True,
) -> None:
    """Sizes, dtypes and devices of what goes with a map (N, C, ...), and that inference has
    statistics."""
    low = x.dtype in (torch.float16, torch.bfloat16)
    dtypes = set()
    named = {
        "running_mean": running_mean,
        "running_var": running_var,
        "weight": weight,
        "bias": bias,
    }
    for name, vector in named.items():
        if vector is None:
            if name.startswith("running") and not training:
                raise RuntimeError(f"{name} must be defined in evaluation mode")
            continue
        checks.tensor("batch_norm", name, vector)
        if name.startswith("running") and vector.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                f"batch_norm is not differentiable with respect to argument '{name}'. This input "
                "cannot have requires_grad True."
            )
        if vector.shape != x.shape[1:2]:
            raise RuntimeError(
                f"{name} should contain {x.shape[1]} elements not {vector.numel()}"
                if vector.numel() != x.shape[1]
                else f"{name} should be a vector, got shape {tuple(vector.shape)}"
            )
        if low and vector.dtype == torch.float32:
            dtypes.add(torch.float32)
            if vector.device == x.device:
                continue
        if vector.device == x.device and vector.dtype != x.dtype:
            raise RuntimeError(
                f"mixed dtype ({x.device.type.upper()}): all inputs must share same datatype, but "
                f"input is {x.dtype} and {name} is {vector.dtype}"
            )
        checks.same_device_and_dtype("batch_norm", x, name, vector)
        dtypes.add(vector.dtype)
    if len(dtypes) > 1:
        raise RuntimeError(
            "mixed dtype: weight, bias and running statistics should have one dtype, got "
            f"{', '.join(sorted(map(str, dtypes)))}"
        )
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean and running_var must either both be None or neither be None")


def check_training(size: torch.Size, training: bool, eps: float) -> None:
    if training and math.prod(size[2:], start=size[0]) == 1:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {size}"
        )
    if training and eps <= 0.0:
        raise ValueError(f"batch_norm eps must be positive during training, but got {eps}")
    if eps < 0.0:
        raise ValueError(f"batch_norm eps must be non-negative, but got {eps}")


def momentum_of(
    momentum: float | None, batches: torch.Tensor | None
) -> float | torch.Tensor | None:
    """The momentum of the batch after those counted; None: a cumulative average's, as a tensor,
    which torch.compile can follow."""
    if momentum is not None or batches is None:
        return momentum
    return (batches + 1).to(torch.float64).reciprocal()


def count_batch(batches: torch.Tensor | None) -> None:
    if batches is not None:
        plan.step(torch.Tensor.add_, batches, 1)


def _are_a_kernels(
    x: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    batches: torch.Tensor | None,
) -> bool:
    """Whether running statistics that have been checked are for a kernel to move: nothing is to see
    how, and they lie as it reads them."""
    if running_mean is None or torch.compiler.is_compiling() or watching():
        return False
    for one in (running_mean, running_var):
        if (
            type(one) is not torch.Tensor
            or not one.is_contiguous()
            or one.dtype != running_mean.dtype
        ):
            return False
    return batches is None or (
        type(batches) is torch.Tensor
        and (batches.dtype, batches.device, batches.numel()) == (torch.int64, x.device, 1)
    )


def as_map(x: torch.Tensor) -> torch.Tensor:
    """(N, C, ...) with one to three spatial axes."""
    if x.ndim == 2:
        return x.unsqueeze(2)
    return x if x.ndim <= 5 else x.flatten(4)


def _batch_norm(
    x: torch.Tensor,
    *rest: Any,
    backend: str | None,
    num_batches_tracked: torch.Tensor | None = None,
) -> torch.Tensor:
    """:func:`_normalised`. A batch that is refused counts, as with PyTorch's layers, which count
    before they look at it."""
    given: tuple[Any, ...] = x, *rest, num_batches_tracked, backend
    if num_batches_tracked is None or torch.compiler.is_compiling():
        return _normalised(*given)
    try:
        return _normalised(*given)
    except Exception:
        num_batches_tracked.add_(1)
        raise


def _normalised(
    x: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    training: bool,
    momentum: float | None,
    eps: float,
    activation: str,
    slope: float,
    residual: torch.Tensor | None,
    batches: torch.Tensor | None,
    backend: str | None,
) -> torch.Tensor:
    """``momentum`` is None for the layers' cumulative average, of ``batches``."""
    checks.tensor("batch_norm", "input", x)
    if activation != "none" or residual is not None:
        check_act(x, activation, residual)
    how = training, momentum, eps, activation, slope, residual
    arguments = activation, residual is not None
    backend = backends.choose(_kind(how), backend, x, arguments=arguments)
    if backend == "aten" or x.numel() == 0:  # of nothing, PyTorch checks and says nothing
        return _by_pytorch(
            x, running_mean, running_var, weight, bias, *how, num_batches_tracked=batches
        )
    if x.ndim < 2:
        raise RuntimeError(f"batch_norm: expected an input (N, C, ...), got shape {tuple(x.shape)}")
    if momentum is None and batches is None:
        raise TypeError("batch_norm(): argument 'momentum' must be float, not NoneType")
    check_training(x.shape, training, eps)
    check_parameters(x, running_mean, running_var, weight, bias, training)
    map = as_map(x).resolve_neg()
    added = None if residual is None else as_map(residual).resolve_neg()
    wants_grad = needs_grad(x, weight, bias, residual)
    statistics: tuple[torch.Tensor | None, ...] = (None, None, None)
    if not training:
        # Copies where they are kept: training may move the originals before the backward.
        both = (in_sums_dtype(v, x, copy=wants_grad) for v in (running_mean, running_var))
        statistics = *both, None
    elif _are_a_kernels(x, running_mean, running_var, batches):
        statistics = running_mean, running_var, batches
    operands = map, weight, bias, added, *statistics
    rest: tuple[Any, ...] = training, momentum, float(eps), activation, float(slope)
    if wants_grad:
        y, _, *made = _BatchNorm.apply(*operands, *rest, backend)
    else:
        rest = *operands, *rest, False, backend
        y, _, *made = _computed(*rest)
    if training and statistics[0] is None:
        if running_mean is not None:
            count, by = x.numel() // x.shape[1], momentum_of(momentum, batches)
            plan.step(move, running_mean, running_var, *made, count, by)
        count_batch(batches)
    return y if map.shape == x.shape else y.reshape(x.shape)


def _kind(args: tuple) -> str:
    """Of a call with these arguments last, as the dispatch table has it."""
    training, _, _, activation, _, residual = args[-6:]
    if not training:
        return "batch_norm_inference"
    return "batch_norm" if activation == "none" and residual is None else "batch_norm_act"


def _by_pytorch(*arguments: Any, num_batches_tracked: torch.Tensor | None = None) -> torch.Tensor:
    """A call with the arguments of :func:`_batch_norm`, but for the backend."""
    *of_stock, activation, slope, residual = arguments
    plain = activation == "none" and residual is None
    if not plain:
        check_act(of_stock[0], activation, residual)
    of_stock[6] = momentum_of(of_stock[6], num_batches_tracked)
    if isinstance(of_stock[6], torch.Tensor):
        y = _by_tensor_momentum(*of_stock)
    else:
        y = plan.step(torch.nn.functional.batch_norm, *of_stock)
    count_batch(num_batches_tracked)
    return y if plain else finish(y, residual, activation, float(slope))


batch_norm = entry(
    "batch_norm", _batch_norm, _by_pytorch, bounds_of=lambda args: dispatch.bounds(_kind(args))
)


def _by_tensor_momentum(
    x: torch.Tensor,
    running_mean: torch.Tensor,
    running_var: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    training: bool,
    momentum: torch.Tensor,
    eps: float,
) -> torch.Tensor:
    """PyTorch's operator takes a number, which a tensor cannot become while a graph is made: there
    the statistics are moved beside it."""
    if torch.compiler.is_compiling() and x.numel() > 0:
        count = x.numel() // x.shape[1]
        mean, var = stats_by_pytorch(BatchNormStats(x.detach()))
        move(running_mean, running_var, mean, var, count, momentum)
        return torch.nn.functional.batch_norm(x, None, None, weight, bias, training, 0.0, eps)
    return torch.nn.functional.batch_norm(
        x, running_mean, running_var, weight, bias, training, float(momentum), eps
    )


def check_act(x: torch.Tensor, activation: str, residual: torch.Tensor | None) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    if residual is None:
        return
    checks.tensor("batch_norm_act", "residual", residual)
    checks.same_device_and_dtype("batch_norm_act", x, "residual", residual)
    if residual.shape != x.shape:
        raise RuntimeError(
            f"batch_norm_act: residual should have the input's shape {tuple(x.shape)}, got "
            f"{tuple(residual.shape)}"
        )
