"""What layers make of an input."""

import torch
from torch import nn

from pydl.models.record import record


def activations(model: nn.Module, x: torch.Tensor, *names: str) -> dict[str, torch.Tensor]:
    """The outputs of layers of ``model`` for the input ``x``, in evaluation mode and without
    gradients.

    Args:
        model: left in the mode it was in.
        x: its input.
        names: of layers; without any, all that have no children.

    Returns:
        By the layer's name (``name#2`` where it is called again), in the order in which they ran.

    Raises:
        ValueError: a name is no layer's.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with record(model, *names) as ran, torch.no_grad():
            model(x)
    finally:
        for module, training in modes:
            module.training = training
    return {key: one.output for key, one in ran.items()}
