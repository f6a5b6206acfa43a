"""What a network costs, layer by layer: shapes, weights, operations, read off the module itself
while it runs."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class LayerRow:
    """One call of one layer.

    ``weights`` counts the parameters without biases, ``biases`` those; both are 0 where a layer is
    called again. ``multiply_adds`` are those of convolutions and fully connected layers;
    ``operations`` are arithmetic operations and comparisons on numbers, a multiply-add being two,
    the bias the addition that starts its sum; None for kinds of layers that are not counted.
    """

    name: str
    kind: str
    arguments: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    weights: int
    biases: int
    multiply_adds: int
    operations: int | None

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.weights + self.biases


def _multiply_adds(layer: nn.Module, y: torch.Tensor) -> int:
    if isinstance(layer, nn.Linear):
        return y.numel() * layer.in_features
    if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return y.numel() * layer.weight[0].numel()  # C/G * KH * KW
    return 0


def _window(layer: nn.MaxPool2d | nn.AvgPool2d) -> int:
    """Elements a 2-D pooling window covers."""
    size = layer.kernel_size
    return math.prod(size) if isinstance(size, tuple) else size * size


# Operations for one output element, by kind of layer: from one of that kind, x and y.
_PER_OUTPUT: tuple[
    tuple[type[nn.Module], Callable[[Any, torch.Tensor, torch.Tensor], float]], ...
] = (
    (nn.MaxPool2d, lambda layer, x, y: _window(layer) - 1),  # comparisons
    (nn.AvgPool2d, lambda layer, x, y: _window(layer)),  # additions and one product
    (nn.AdaptiveAvgPool2d, lambda layer, x, y: x.numel() / y.numel()),  # where bins do not overlap
    (
        nn.LocalResponseNorm,
        lambda layer, x, y: layer.size + 4,
    ),  # square; size - 1 sums; times alpha, plus k; power; product
    (nn.ReLU, lambda layer, x, y: 1),
    (nn.Tanh, lambda layer, x, y: 1),
    (nn.Sigmoid, lambda layer, x, y: 1),
    (nn.Dropout, lambda layer, x, y: 0),  # inference
    (nn.Flatten, lambda layer, x, y: 0),
    (nn.Identity, lambda layer, x, y: 0),
)


def _operations(layer: nn.Module, x: torch.Tensor, y: torch.Tensor) -> int | None:
    multiply_adds = _multiply_adds(layer, y)
    if multiply_adds:
        return 2 * multiply_adds
    for kind, count in _PER_OUTPUT:
        if isinstance(layer, kind):
            return round(y.numel() * count(layer, x, y))
    return None


def summarize(model: nn.Module, input_shape: tuple[int, ...]) -> list[LayerRow]:
    """The layers of ``model`` in the order in which they run on an input of ``input_shape``.

    The model runs once in evaluation mode, under its own device and dtype (on the ``meta`` device
    nothing is computed or stored). Only leaf modules are rows: what a ``forward`` does outside of
    modules is not seen.

    Args:
        model: any module that takes one tensor.
        input_shape: of that tensor, the batch included; counts of operations are for the whole
            batch.

    Returns:
        A row for each call of a layer.

    Raises:
        RuntimeError, ValueError: from the model, where the input does not fit it.
    """
    rows: list[LayerRow] = []
    seen: set[int] = set()

    def record(name: str) -> Callable[[nn.Module, tuple, torch.Tensor | tuple], None]:
        def hook(
            layer: nn.Module, inputs: tuple[torch.Tensor, ...], results: torch.Tensor | tuple
        ) -> None:
            y = results[0] if isinstance(results, tuple) else results
            fresh = {
                key: p for key, p in layer.named_parameters(recurse=False) if id(p) not in seen
            }
            seen.update(id(p) for p in fresh.values())
            x = inputs[0]
            rows.append(
                LayerRow(
                    name=name,
                    kind=type(layer).__name__,
                    arguments=layer.extra_repr(),
                    input_shape=tuple(x.shape),
                    output_shape=tuple(y.shape),
                    weights=sum(
                        p.numel() for key, p in fresh.items() if not key.startswith("bias")
                    ),
                    biases=sum(p.numel() for key, p in fresh.items() if key.startswith("bias")),
                    multiply_adds=_multiply_adds(layer, y),
                    operations=_operations(layer, x, y),
                )
            )

        return hook

    leaves = [(name, layer) for name, layer in model.named_modules() if not any(layer.children())]
    handles = [layer.register_forward_hook(record(name)) for name, layer in leaves]
    parameter = next(model.parameters(), torch.empty(0))
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            model(torch.zeros(input_shape, device=parameter.device, dtype=parameter.dtype))
    finally:
        for module, training in modes:
            module.training = training
        for handle in handles:
            handle.remove()
    return rows
