"""Cross entropy by the extension; definition and arguments in ``csrc/cross_entropy.h``."""

import torch

from pydl import layout
from pydl.contract.call import Four, Tensor
from pydl.contract.cross_entropy import CrossEntropyBackward, CrossEntropyForward
from pydl.native import Library


def cross_entropy_forward(library: Library, call: CrossEntropyForward) -> Four:
    x, target, weight, *criterion = call
    results = call.results()
    operands = _operands(library, x, target, weight)
    flat = [t.view(-1) for t in results]
    library.call("cross_entropy_forward", *operands, *flat, *criterion, on=x)
    return results


def cross_entropy_backward(library: Library, call: CrossEntropyBackward) -> torch.Tensor:
    grad_loss, x, target, weight, *saved, ignore_index, label_smoothing, reduction = call
    grad_x = call.results()
    library.call(
        "cross_entropy_backward",
        grad_loss.reshape(-1).contiguous(),
        *_operands(library, x, target, weight),
        *(t.view(-1) for t in saved),
        layout.columns(grad_x, 1),
        ignore_index,
        label_smoothing,
        reduction,
        on=x,
    )
    return grad_x


def _operands(
    library: Library, x: Tensor, target: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """x as (outer, C, inner); targets in the order of its positions, and probabilities in the order
    of its elements, as one line; the weights."""
    like = layout.memory_format(x)
    if target.is_floating_point():
        target = layout.columns(library.operand(target, like), 1)
    return (
        layout.columns(library.operand(x, like), 1),
        target.contiguous().view(-1),
        None if weight is None else library.contiguous(weight),
    )
