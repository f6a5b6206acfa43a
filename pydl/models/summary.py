"""What a network costs, layer by layer: shapes, weights, operations, read off the module itself
while it runs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules import batchnorm, conv
from torch.nn.utils.rnn import PackedSequence

import pydl.nn
from pydl.models.receptive import ReceptiveField, Whole, follow
from pydl.models.record import Ran
from pydl.models.sequence.attention import Product


@dataclass(frozen=True)
class LayerRow:
    """One call of one layer.

    ``weights`` counts the parameters without biases, ``biases`` those; both are 0 where a layer is
    called again. ``multiply_adds`` are those of convolutions (transposed and locally connected ones
    too), fully connected and recurrent layers. ``operations`` are arithmetic operations,
    comparisons and functions (a power, an exponential, a tanh) of numbers, a multiply-add being
    two, the bias the addition that starts its sum; copies are none. It is None for kinds of layers
    that are not counted, and where the number depends on values. ``sees`` is the receptive field
    along the width, None where it is not known: see :func:`pydl.models.receptive.receptive_fields`.
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
    sees: ReceptiveField | Whole | None

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.weights + self.biases


@dataclass(frozen=True)
class _Call:
    """A call of a layer: what went in, what else did, what came out."""

    layer: Any
    x: torch.Tensor
    others: tuple[torch.Tensor, ...]
    y: torch.Tensor


_CELLS = (nn.RNNCell, nn.LSTMCell, nn.GRUCell)


def _multiply_adds(ran: _Call) -> int:
    layer, x, y = ran.layer, ran.x, ran.y
    if isinstance(layer, nn.Linear):
        return y.numel() * layer.in_features
    if isinstance(layer, conv._ConvTransposeNd):
        return x.numel() * layer.weight[0].numel()  # F/G * KH * KW
    if isinstance(layer, conv._ConvNd):
        return y.numel() * layer.weight[0].numel()  # C/G * KH * KW
    if isinstance(layer, (pydl.nn.LocallyConnected1d, pydl.nn.LocallyConnected2d)):
        return y.numel() * layer.in_channels * math.prod(layer.kernel_size)
    if isinstance(layer, Product):
        return y.numel() * x.shape[-1]
    if isinstance(layer, (nn.RNNBase, *_CELLS)):
        names = ["weight_ih", "weight_hh"]
        if isinstance(layer, nn.RNNBase):
            names = [name for name in layer._flat_weights_names if name.startswith("weight_")]
        return _tokens(x) * sum(getattr(layer, name).numel() for name in names)
    return 0


def _tokens(x: torch.Tensor) -> int:
    return math.prod(x.shape[:-1])


# Operations of one output of an activation, by its name.
_ACTIVATIONS = {
    "none": 0,
    "relu": 1,  # comparison
    "leaky_relu": 2,  # comparison, product
    "silu": 2,  # sigmoid, product
}

# Operations of a recurrent layer beside the products of its matrices, of one unit in one step. The
# two products of each gate are added and squashed, which are 2; then come those of the state.
_OF_CELL = {
    "RNN": 2,
    "LSTM": 4 * 2 + 3 + 2,  # c = f * c + i * g; h = o * tanh(c)
    "GRU": 3 * 2 + 1 + 3,  # the reset's product; h = n + z * (h - n)
}


def _recurrent(ran: _Call) -> int | None:
    layer = ran.layer
    if getattr(layer, "layer_norm", False) or any(getattr(layer, "zoneout", ())):
        return None
    if isinstance(layer, nn.RNNBase):
        cell = layer.mode.partition("_")[0]
        directions = layer.num_layers * (1 + layer.bidirectional)
    else:
        cell, directions = type(layer).__name__.removesuffix("Cell"), 1
    of_unit = _OF_CELL[cell] + 3 * 2 * getattr(layer, "peephole", False)  # three multiply-adds
    return 2 * _multiply_adds(ran) + of_unit * _tokens(ran.x) * directions * layer.hidden_size


def _products(ran: _Call) -> int:
    return 2 * _multiply_adds(ran)


def _convolution_act(ran: _Call) -> int:
    of_output = _ACTIVATIONS[ran.layer.activation] + len(ran.others)  # a residual's addition
    return 2 * _multiply_adds(ran) + of_output * ran.y.numel()


def _batch_norm(ran: _Call) -> int:
    # A product and a sum: the factors are made once for a channel. Statistics of the batch take
    # the sum of the mean; difference, square and sum of the variance.
    of_output = 2 if ran.layer.running_mean is not None else 6
    of_output += _ACTIVATIONS[getattr(ran.layer, "activation", "none")]
    return (of_output + len(ran.others)) * ran.y.numel()  # a residual's addition


def _softmax(ran: _Call) -> int:
    n = _classes(ran)
    # n - 1 comparisons, n differences, n exponentials, n - 1 sums, n quotients
    return ran.y.numel() // n * (5 * n - 2)


def _log_softmax(ran: _Call) -> int:
    n = _classes(ran)
    # n - 1 comparisons, n differences, n exponentials, n - 1 sums, a logarithm, n differences
    return ran.y.numel() // n * (5 * n - 1)


def _classes(ran: _Call) -> int:
    axis = -3 if isinstance(ran.layer, nn.Softmax2d) else ran.layer.dim
    if axis is None:
        axis = 0 if ran.x.ndim in (0, 1, 3) else 1  # PyTorch's choice
    return ran.x.shape[axis]


def _nll_loss(ran: _Call) -> int | None:
    if ran.layer.weight is not None:
        return None
    terms = ran.others[0].numel()
    return {"none": 0, "sum": terms - 1, "mean": terms}[ran.layer.reduction]  # sums, a quotient


def _cross_entropy(ran: _Call) -> int | None:
    reduced = _nll_loss(ran)
    if reduced is None or ran.layer.label_smoothing or ran.others[0].is_floating_point():
        return None
    # Of a term with n classes: n - 1 comparisons, n differences, n exponentials, n - 1 sums, a
    # logarithm and the difference of it and the target's.
    return 4 * ran.x.numel() + reduced


def _roi_align(ran: _Call) -> int | None:
    samples = ran.layer.sampling_ratio**2
    if ran.layer.sampling_ratio <= 0:
        return None  # as many as the boxes' values say
    # Of a sample four products and three sums; the samples' sums and a product.
    return ran.y.numel() * 8 * samples


def _pooled(axes: int, of_output: Callable[[int], int]) -> Callable[[_Call], int]:
    """Operations of a sliding window over so many axes, by those of one output from the window's
    elements, which are counted at the edges too."""

    def operations(ran: _Call) -> int:
        size = ran.layer.kernel_size
        window = math.prod(size) if isinstance(size, tuple) else size**axes
        return ran.y.numel() * of_output(window)

    return operations


def _binned(x: torch.Tensor, bins: Sequence[int], average: bool) -> int:
    """Operations of pooling the last axes of ``x`` into these bins, which may overlap."""
    sizes = x.shape[-len(bins) :]
    planes = x.numel() // math.prod(sizes)
    elements = math.prod(
        sum(-(-(i + 1) * n // count) - i * n // count for i in range(count))
        for n, count in zip(sizes, bins, strict=True)
    )
    # Sums and a product of each bin, or its comparisons, which are one less.
    return planes * (elements if average else elements - math.prod(bins))


def _adaptive(axes: int, average: bool) -> Callable[[_Call], int]:
    return lambda ran: _binned(ran.x, ran.y.shape[-axes:], average)


def _pyramid(ran: _Call) -> int:
    levels = [(n, n) if isinstance(n, int) else tuple(n) for n in ran.layer.levels]
    return sum(_binned(ran.x, bins, ran.layer.kind == "average") for bins in levels)


def _of_output(count: int | Callable[[_Call], int]) -> Callable[[_Call], int]:
    return lambda ran: ran.y.numel() * (count if isinstance(count, int) else count(ran))


# By kinds of layers, their operations; the first that fits.
_OPERATIONS: tuple[tuple[tuple[type, ...], Callable[[_Call], int | None]], ...] = (
    ((pydl.nn.ConvBiasAct2d,), _convolution_act),
    ((nn.Linear, conv._ConvNd, Product), _products),
    ((pydl.nn.LocallyConnected1d, pydl.nn.LocallyConnected2d), _products),
    ((nn.RNNBase, *_CELLS), _recurrent),
    ((batchnorm._BatchNorm, pydl.nn.BatchNormAct2d, pydl.nn.BatchNormAct3d), _batch_norm),
    *(
        ((getattr(nn, f"{kind}{axes}d"),), _pooled(axes, of_output))
        for axes in (1, 2, 3)
        for kind, of_output in (
            ("MaxPool", lambda window: window - 1),  # comparisons
            ("AvgPool", lambda window: window),  # sums and one product
            ("LPPool", lambda window: 2 * window),  # powers, sums and a root
        )
    ),
    *(
        ((getattr(nn, f"Adaptive{kind}Pool{axes}d"),), _adaptive(axes, kind == "Avg"))
        for axes in (1, 2, 3)
        for kind in ("Avg", "Max")
    ),
    ((pydl.nn.SpatialPyramidPool2d,), _pyramid),
    ((pydl.nn.RoIAlign,), _roi_align),
    # A bin has as many elements as the boxes' values say.
    ((pydl.nn.RoIPool,), lambda ran: None),
    # Square; size - 1 sums; times alpha, plus k; power; product.
    ((nn.LocalResponseNorm,), _of_output(lambda ran: ran.layer.size + 4)),
    (
        (pydl.nn.SpatialResponseNorm,),  # the same of a box; a quotient in the product's place
        _of_output(lambda ran: ran.layer.size ** (ran.x.ndim - 2) + 4),
    ),
    ((nn.Softmax, nn.Softmax2d), _softmax),
    ((nn.LogSoftmax,), _log_softmax),
    ((nn.CrossEntropyLoss,), _cross_entropy),
    ((nn.NLLLoss,), _nll_loss),
    ((nn.ReLU,), _of_output(_ACTIVATIONS["relu"])),
    ((nn.LeakyReLU,), _of_output(_ACTIVATIONS["leaky_relu"])),
    ((nn.SiLU,), _of_output(_ACTIVATIONS["silu"])),
    ((nn.ReLU6,), _of_output(2)),  # comparisons
    ((nn.Tanh, nn.Sigmoid), _of_output(1)),
    ((nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d), _of_output(0)),  # inference
    # Copies, or not even those.
    ((nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d, nn.Embedding), _of_output(0)),
    ((nn.Flatten, nn.Unflatten, nn.Identity, nn.ChannelShuffle), _of_output(0)),
)


def _operations(ran: _Call) -> int | None:
    for kinds, count in _OPERATIONS:
        if isinstance(ran.layer, kinds):
            return count(ran)
    return None


def _tensor(value: Any) -> torch.Tensor:
    """The first tensor of what a layer takes or gives; of a batch of sequences, all tokens."""
    if isinstance(value, PackedSequence):
        return value.data
    return _tensor(value[0]) if isinstance(value, (tuple, list)) else value


def summarize(
    model: nn.Module, input: tuple[int, ...] | tuple[torch.Tensor, ...]
) -> list[LayerRow]:
    """The layers of ``model`` in the order in which they run on an ``input``.

    The model runs once in evaluation mode, under its own device and dtype (on the ``meta`` device
    nothing is computed or stored). Only leaf modules are rows: what a ``forward`` does outside of
    modules is not seen.

    Args:
        model: any module.
        input: the shape of the one tensor that it takes, the batch included, or all tensors that it
            takes; counts of operations are for the whole batch.

    Returns:
        A row for each call of a layer.

    Raises:
        RuntimeError, ValueError: from the model, where the input does not fit it.
    """
    rows: list[LayerRow] = []
    counted: set[int] = set()  # parameters
    follow(model, input, lambda ran, sees: rows.append(_row(ran, sees, counted)))
    return rows


def _row(ran: Ran, sees: ReceptiveField | Whole | None, counted: set[int]) -> LayerRow:
    """Of a call; parameters that are ``counted`` already are not, and the others come to them."""
    layer = ran.layer
    x, *others = (*ran.inputs, *ran.named.values())
    x, y = _tensor(x), _tensor(ran.output)
    call = _Call(layer, x, tuple(t for t in others if isinstance(t, torch.Tensor)), y)
    counts = {True: 0, False: 0}  # of biases, of weights
    for name, parameter in layer._parameters.items():
        if parameter is not None and id(parameter) not in counted:
            counted.add(id(parameter))
            counts[name.startswith("bias")] += parameter.numel()
    return LayerRow(
        name=ran.name,
        kind=type(layer).__name__,
        arguments=layer.extra_repr(),
        input_shape=tuple(x.shape),
        output_shape=tuple(y.shape),
        weights=counts[False],
        biases=counts[True],
        multiply_adds=_multiply_adds(call),
        operations=_operations(call),
        sees=sees,
    )
