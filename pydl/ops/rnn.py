"""A recurrent layer in one direction: checks, autograd, registered operators. Cells are
rnn_cell.py's.

The inputs' product and every gradient of a weight are one product over all tokens, PyTorch's; in
between stands one operator that goes through the steps.
"""

import itertools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch.nn.functional import layer_norm, linear

from pydl import backends, plan
from pydl.contract.rnn import GATES, RnnBackward, RnnForward, Three, norm_groups
from pydl.ops.checks import autocast_dtype
from pydl.ops.derivatives import Function, apply, by_reference, needs_grad, save
from pydl.ops.registry import operator
from pydl.reference import rnn as reference

Tensors = tuple[torch.Tensor, ...]
Optional = torch.Tensor | None

_forward = operator(RnnForward)
_backward = operator(RnnBackward)


class Operands(NamedTuple):
    """The tensors of an ``RnnForward``, which come first in it."""

    gates: torch.Tensor
    weight_hh: torch.Tensor
    bias_hh: Optional
    h0: torch.Tensor
    c0: Optional
    weight_hr: Optional
    peephole: Optional
    norm: Optional
    norm_c: Optional
    bias_c: Optional
    drop: Optional
    zone_h: Optional
    zone_c: Optional
    batch_sizes: Optional


_DIFFERENTIABLE = 10  # so many of them may want a gradient, the first ones


class _Rnn(Function):
    """y, h_n, c_n, and what else the backward reads of the forward."""

    @staticmethod
    def forward(*arguments):
        *operands, how, backend = arguments
        return _forward(*operands, *how, True, backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *operands, how, backend = inputs
        y, _, c_n, *kept = output
        ctx.mark_non_differentiable(*kept, *(() if how[0] == "lstm" else (c_n,)))
        save(ctx, output, y, *operands, *kept)
        ctx.how = how, backend
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, *grads):
        y, *rest = ctx.saved_tensors
        operands, kept = Operands(*rest[:14]), rest[14:]
        grads = *grads[:2], None if operands.c0 is None else grads[2]
        wanted = tuple(ctx.needs_input_grad[:_DIFFERENTIABLE])
        made = iter(apply(_RnnGrad, *grads, y, *operands, *kept, wanted, *ctx.how))
        return *(next(made) if want else None for want in wanted), *[None] * 6


class _RnnGrad(Function):
    """The gradients of those operands that are wanted, as a function of their own. Its derivative
    is that of the definition's."""

    @staticmethod
    def forward(*arguments):
        *tensors, wanted, how, backend = arguments
        grads, y, operands, kept = tensors[:3], tensors[3], Operands(*tensors[4:18]), tensors[18:]

        def steps(*given):
            return _backward(*given, backend)

        return _gradients(steps, grads, y, operands, kept, wanted, how)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *tensors, wanted, how, _ = inputs
        save(ctx, output, *tensors[:3], *tensors[4:18])
        ctx.arguments = wanted, how

    @staticmethod
    def backward(ctx, *grad_results):
        saved = ctx.saved_tensors
        wanted, how = ctx.arguments
        count = 3 + _DIFFERENTIABLE
        present = [index for index, tensor in enumerate(saved[:count]) if tensor is not None]

        def gradients(*tensors):
            given = [None] * count
            for index, tensor in zip(present, tensors, strict=True):
                given[index] = tensor
            operands = Operands(*given[3:], *saved[count:])
            y, _, _, *kept = reference.rnn_forward(RnnForward(*operands, *how, True))

            def steps(*given):
                return reference.rnn_backward(RnnBackward(*given))

            return _gradients(steps, given[:3], y, operands, kept, wanted, how)

        needed = [ctx.needs_input_grad[i if i < 3 else i + 1] for i in present]
        tensors = [saved[index] for index in present]
        made = dict(
            zip(present, by_reference(gradients, tensors, needed, *grad_results), strict=True)
        )
        grads = [made.get(index) for index in range(count)]
        # y comes between, and after the operands masks, what was kept and three that are no tensors
        return *grads[:3], None, *grads[3:], *[None] * (4 + 5 + 3)


def _gradients(steps: Callable, grads, y, operands: Operands, kept, wanted, how) -> Tensors:
    """Those of the first ten operands that are wanted; ``steps`` goes back through the steps."""
    cell, reverse = how[:2]
    weight_hh, bias_hh, c0 = operands.weight_hh, operands.bias_hh, operands.c0
    peephole, norm = operands.peephole, operands.norm
    c, activated, normalised, rstd, unprojected = kept
    has_norm = norm is not None
    saved = (
        *(y, c if c0 is not None else None, activated),
        *((normalised, rstd) if has_norm else (None, None)),
    )
    made = steps(*grads, *saved, weight_hh, *operands[3:], *how)
    for_gates, for_products, for_projected, for_h0, for_c0, for_peephole, for_norm, for_c = made
    hidden = weight_hh.shape[0] // GATES[cell]
    # The gradient of the products, gate after gate: one tensor, or r and z of one and n of another.
    if has_norm:
        parts = [for_products]
    elif cell == "gru":
        parts = [for_gates[:, : 2 * hidden], for_products]
    else:
        parts = [for_gates]
    results = []
    for name, want in zip(Operands._fields, wanted, strict=False):
        if not want:
            continue
        if name == "gates":
            grad = for_gates
        elif name == "weight_hh":
            states = _states_before(y, operands, reverse)
            if cell == "gru_reset_before":
                rz = 2 * hidden
                reset = plan.step(torch.mul, activated[:, :hidden], states)
                each = [along(parts[0][:, :rz], states), along(parts[0][:, rz:], reset)]
            else:
                each = [along(part, states) for part in parts]
            grad = joined(*each)
        elif name == "bias_hh":
            if has_norm:
                grad = for_norm[1].to(bias_hh.dtype)
            else:
                grad = joined(*(plan.step(torch.sum, part, 0) for part in parts))
        elif name == "h0":
            grad = for_h0
        elif name == "c0":
            grad = for_c0
        elif name == "weight_hr":
            grad = along(for_projected, unprojected)
        elif name == "peephole":
            grad = for_peephole.to(peephole.dtype)
        elif name == "norm":
            grad = for_norm[0].to(norm.dtype)
        else:
            grad = for_c[0 if name == "norm_c" else 1].to(norm.dtype)
        results.append(grad)
    return tuple(results)


def along(grads: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The gradient of a weight by those of its products, (S, M), with rows of (S, N): (M, N)."""
    return plan.step(torch.mm, grads.t(), rows)


def joined(*parts: torch.Tensor, axis: int = 0) -> torch.Tensor:
    """One tensor of the parts, one after the other along an axis."""
    return parts[0] if len(parts) == 1 else plan.step(_cat, axis, *parts)


def _cat(axis: int, *parts: torch.Tensor) -> torch.Tensor:
    return torch.cat(parts, axis)


def _states_before(y: torch.Tensor, operands: Operands, reverse: bool) -> torch.Tensor:
    """(S, P): the h that each token's step started from, as the product got it."""
    h0, drop, batch_sizes = operands.h0, operands.drop, operands.batch_sizes
    sequences = h0.shape[0]
    if batch_sizes is None:
        tokens = y.shape[0]
        if tokens == sequences:
            before = h0
        else:
            before = joined(*((y[sequences:], h0) if reverse else (h0, y[: tokens - sequences])))
        if drop is None:
            return before
        return plan.step(torch.mul, before.view(-1, *drop.shape), drop).view(y.shape)
    index, sequence = _index_before(batch_sizes, y.shape[0], reverse)
    before = torch.cat((y, h0))[index.to(y.device)]
    return before if drop is None else before * drop[sequence.to(y.device)]


def _index_before(
    batch_sizes: torch.Tensor, tokens: int, reverse: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each token: the token whose step came before, or the number of tokens plus its sequence
    where its sequence begins; and its sequence."""
    steps = batch_sizes.shape[0]
    step = torch.repeat_interleave(torch.arange(steps), batch_sizes, output_size=tokens)
    token = torch.arange(tokens)
    sequence = token - (batch_sizes.cumsum(0) - batch_sizes)[step]
    if reverse:
        after = torch.cat((batch_sizes[1:], batch_sizes.new_zeros(1)))[step]
        return torch.where(sequence < after, token + batch_sizes[step], tokens + sequence), sequence
    before = batch_sizes[(step - 1).clamp(min=0)]
    return torch.where(step > 0, token - before, tokens + sequence), sequence


class Weights(NamedTuple):
    """A layer's parameters in one direction; None where it has none."""

    weight_ih: torch.Tensor
    weight_hh: torch.Tensor
    bias_ih: Optional = None
    bias_hh: Optional = None
    weight_hr: Optional = None
    peephole: Optional = None
    norm_ih: Optional = None
    norm_hh: Optional = None
    norm_c: Optional = None
    bias_c: Optional = None


class Regularisation(NamedTuple):
    """What happens to the states between steps."""

    zoneout_h: float = 0.0
    zoneout_c: float = 0.0
    recurrent_dropout: float = 0.0
    training: bool = False
    eps: float = 1e-5


def input_gates(x: torch.Tensor, weights: Weights, cell: str, eps: float) -> torch.Tensor:
    """The inputs' product, with layer norm that of each group normalised, and their bias."""
    norm, bias = weights.norm_ih, weights.bias_ih
    if norm is None:
        return plan.step(linear, x, weights.weight_ih, bias)
    product = plan.step(linear, x, weights.weight_ih)
    rows, done = norm.shape[0], []
    bounds = (0, rows) if norm_groups(cell) == 1 else (0, rows // 3 * 2, rows)
    for group in itertools.starmap(slice, itertools.pairwise(bounds)):
        gain, shift = norm[group], None if bias is None else bias[group]
        done.append(plan.step(layer_norm, product[:, group], gain.shape, gain, shift, eps))
    return joined(*done, axis=1)


def state_dtype(
    products: torch.dtype, state: torch.Tensor, cell: str, fused: bool = False
) -> torch.dtype:
    """What PyTorch keeps states in where autocast makes products of another dtype: on a CPU its
    loop takes the wider of both for what is added up from step to step, elsewhere and in a
    ``fused`` operator everything is the products'."""
    if fused or cell.startswith("rnn") or state.device.type != "cpu":
        return products
    return torch.promote_types(products, state.dtype)


def layer(
    cell: str,
    x: torch.Tensor,
    h0: torch.Tensor,
    c0: Optional,
    weights: Weights,
    batch_sizes: Optional,
    reverse: bool,
    how: Regularisation,
    backend: str,
    fused: bool = False,
) -> Three:
    """y, h_n and c_n (without elements where the cell has none) for tokens x of (S, inputs).

    ``fused``: whether results have the dtypes of PyTorch's fused operator under autocast.
    """
    bias_hh = weights.bias_hh
    if bias_hh is not None and cell != "gru" and weights.norm_hh is None:
        # Both biases are added to the same sum: so their gradient is one sum, too.
        weights = weights._replace(bias_ih=plan.step(torch.add, weights.bias_ih, bias_hh))
        bias_hh = None
    gates = input_gates(x, weights, cell, how.eps)
    low = autocast_dtype(x)
    if low is not None:
        plan.never()  # a plan would make of the steps what autocast makes of them
    products = gates.dtype if low is None or x.dtype == torch.float64 else low
    dtype = state_dtype(products, h0 if c0 is None else c0, cell, fused)
    if x.shape[0] == 0:
        return gates[:, : h0.shape[1]], h0.clone(), gates if c0 is None else c0.clone()
    drop = zone_h = zone_c = None
    if how.training:
        if how.recurrent_dropout > 0:
            kept = 1 - how.recurrent_dropout
            drop = torch.rand_like(h0, dtype=torch.float32) < kept
            drop = drop.to(dtype) / kept if kept > 0 else torch.zeros_like(h0, dtype=dtype)
        tokens = x.shape[0]
        if how.zoneout_h > 0:
            zone_h = (torch.rand(tokens, h0.shape[1], device=x.device) < how.zoneout_h).byte()
        if how.zoneout_c > 0 and c0 is not None:
            zone_c = (torch.rand(tokens, c0.shape[1], device=x.device) < how.zoneout_c).byte()
    differentiable = (
        *(gates, weights.weight_hh, bias_hh, h0, c0, weights.weight_hr, weights.peephole),
        *(weights.norm_hh, weights.norm_c, weights.bias_c),
    )
    tensors: list[Optional] = [
        *(t if t is None or t.dtype == dtype else t.to(dtype) for t in differentiable),
        *(drop, zone_h, zone_c, batch_sizes),
    ]
    operands = Operands(*tensors)
    numbers: tuple[float, ...] = how.zoneout_h, how.zoneout_c, how.eps
    if torch.compiler.is_compiling():
        # torch.compile makes inputs of numbers that may change. One that it first meets inside of a
        # Function it counts as that Function's, and stops at the next Function that reads it.
        numbers = tuple(number + 0.0 for number in numbers)
    with torch.autocast(x.device.type, enabled=False) if low is not None else nullcontext():
        y, h, c = run(operands, (cell, reverse, *numbers), backend)
    if weights.weight_hr is not None:  # a product, too
        y, h = y.to(products), h.to(products)
    return y, h, c


def in_graph() -> bool:
    """Whether a loop over steps has to go into a graph as one operator: not where the graph is to
    run without this package."""
    return torch.compiler.is_compiling() and not torch.onnx.is_in_onnx_export()


def run(operands: Operands, how: tuple[Any, ...], backend: str) -> Three:
    """y, h_n, c_n of the steps."""
    if backend == "aten" and (backends.transformed() or not in_graph()):
        return backends.function("aten", "rnn_forward")(*operands, *how, False)[:3]
    if needs_grad(*operands[:_DIFFERENTIABLE]):
        return _Rnn.apply(*operands, how, backend)[:3]
    return _forward(*operands, *how, False, backend)[:3]


def given_away(result: torch.Tensor) -> torch.Tensor:
    """A result that a backward reads, as the caller may have it: to be changed in place."""
    if not result.requires_grad or torch.compiler.is_compiling():
        return result
    return result.clone()
