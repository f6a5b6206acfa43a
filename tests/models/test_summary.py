"""What a layer costs: multiply-adds as PyTorch counts them, operations by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import nn as theirs
from torch.utils.flop_counter import FlopCounterMode

from pydl import models, nn


def on_meta(build: Callable[[], theirs.Module]) -> theirs.Module:
    with torch.device("meta"):
        return build().eval()


# What a layer takes beside the tensor that `summarize` makes.
class Given(theirs.Module):
    """Calls ``layer`` with these tensors too."""

    def __init__(self, layer: theirs.Module, *others: torch.Tensor, **named: torch.Tensor) -> None:
        super().__init__()
        self.layer, self.others, self.named = layer, others, named

    def forward(self, x: torch.Tensor) -> object:
        return self.layer(x, *self.others, **self.named)


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, device="meta", dtype=dtype)


# Kinds with multiply-adds: an example, its input, and its operations beside two per multiply-add.
PRODUCTS = [
    (lambda: nn.Conv1d(4, 6, 3, groups=2), (2, 4, 9), 0),
    (lambda: nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, bias=False), (2, 4, 9, 8), 0),
    (lambda: nn.Conv3d(4, 6, 2, dilation=2), (2, 4, 5, 6, 7), 0),
    (lambda: nn.LazyConv2d(6, 3), (2, 4, 9, 8), 0),
    (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2), (2, 4, 9), 0),
    (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, padding=1), (2, 4, 9, 8), 0),
    (lambda: nn.ConvTranspose3d(4, 6, 2), (2, 4, 5, 6, 7), 0),
    (lambda: nn.LazyConvTranspose1d(6, 3), (2, 4, 9), 0),
    (lambda: nn.ConvBiasAct2d(4, 6, 3, activation="relu"), (2, 4, 9, 8), 2 * 6 * 7 * 6),
    (lambda: nn.ConvBiasAct2d(4, 6, 3, activation="none"), (2, 4, 9, 8), 0),
    (lambda: nn.ConvBiasAct2d(4, 6, 3, activation="silu"), (2, 4, 9, 8), 2 * 2 * 6 * 7 * 6),
    (
        lambda: Given(nn.ConvBiasAct2d(4, 6, 3, activation="leaky_relu"), empty(2, 6, 7, 6)),
        (2, 4, 9, 8),
        3 * 2 * 6 * 7 * 6,
    ),
    (lambda: nn.LocallyConnected1d(4, 6, 9, 3), (2, 4, 9), 0),
    (lambda: nn.LocallyConnected2d(4, 6, (9, 8), 3, stride=2), (2, 4, 9, 8), 0),
    (lambda: nn.Linear(4, 6), (2, 3, 4), 0),
    # Seven steps of two sequences, five units: what each unit does in each step.
    (lambda: nn.RNN(4, 5), (7, 2, 4), 2 * 14 * 5),
    (lambda: nn.RNN(4, 5, nonlinearity="relu", bias=False), (7, 2, 4), 2 * 14 * 5),
    (lambda: nn.LSTM(4, 5), (7, 2, 4), 13 * 14 * 5),
    (lambda: nn.LSTM(4, 5, 2, bidirectional=True, batch_first=True), (2, 7, 4), 4 * 13 * 14 * 5),
    (lambda: nn.LSTM(4, 5, proj_size=3), (7, 2, 4), 13 * 14 * 5),
    (lambda: nn.LSTM(4, 5, peephole=True), (7, 2, 4), 19 * 14 * 5),
    (lambda: nn.GRU(4, 5), (7, 2, 4), 10 * 14 * 5),
    (lambda: nn.GRU(4, 5, reset_after=False), (7, 2, 4), 10 * 14 * 5),
    (lambda: nn.RNNCell(4, 5), (2, 4), 2 * 2 * 5),
    (lambda: nn.LSTMCell(4, 5), (2, 4), 13 * 2 * 5),
    (lambda: nn.GRUCell(4, 5), (2, 4), 10 * 2 * 5),
]


@pytest.mark.parametrize(("build", "shape", "others"), PRODUCTS)
def test_multiply_adds_are_those_that_pytorch_counts(build, shape, others: int) -> None:
    layer = on_meta(build)
    (row,) = models.summarize(layer, shape)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        layer(empty(*shape))
    assert row.multiply_adds > 0 and 2 * row.multiply_adds == counter.get_total_flops()
    assert row.operations == 2 * row.multiply_adds + others


def boxes() -> torch.Tensor:
    return empty(5, 5)


def unpooled(axes: int) -> Given:
    indices = empty(2, 3, *[4] * axes, dtype=torch.int64)
    return Given(getattr(nn, f"MaxUnpool{axes}d")(2), indices)


# The other kinds: an example, its input, its operations.
OTHERS = [
    (lambda: nn.MaxPool1d(3), (2, 3, 9), 2 * 3 * 3 * 2),
    (lambda: nn.MaxPool2d(3, stride=2, return_indices=True), (2, 3, 9, 7), 2 * 3 * 12 * 8),
    (lambda: nn.MaxPool3d((1, 2, 2)), (2, 3, 4, 4, 4), 2 * 3 * 16 * 3),
    (lambda: nn.AvgPool1d(3), (2, 3, 9), 2 * 3 * 3 * 3),
    (lambda: nn.AvgPool2d((3, 2)), (2, 3, 9, 8), 2 * 3 * 12 * 6),
    (lambda: nn.AvgPool3d(2), (2, 3, 4, 4, 4), 2 * 3 * 8 * 8),
    (lambda: nn.LPPool1d(2, 3), (2, 3, 9), 2 * 3 * 3 * 6),
    (lambda: nn.LPPool2d(2, 3), (2, 3, 9, 9), 2 * 3 * 9 * 18),
    (lambda: nn.LPPool3d(2, 2), (2, 3, 4, 4, 4), 2 * 3 * 8 * 16),
    # Bins of 9 into 2 are of five elements, of 7 into 3 of three; those of 8 into 4 of two.
    (lambda: nn.AdaptiveAvgPool1d(2), (2, 3, 9), 2 * 3 * (5 + 5)),
    (lambda: nn.AdaptiveAvgPool2d((2, 3)), (2, 3, 9, 7), 2 * 3 * (5 + 5) * (3 + 3 + 3)),
    (lambda: nn.AdaptiveAvgPool2d(1), (2, 3, 7, 7), 2 * 3 * 49),
    (lambda: nn.AdaptiveAvgPool3d(4), (2, 3, 8, 8, 8), 2 * 3 * 8**3),
    (lambda: nn.AdaptiveMaxPool1d(2), (2, 3, 9), 2 * 3 * (4 + 4)),
    (lambda: nn.AdaptiveMaxPool2d((2, 3)), (2, 3, 9, 7), 2 * 3 * 6 * 14),
    (lambda: nn.AdaptiveMaxPool3d(4), (2, 3, 8, 8, 8), 2 * 3 * 64 * 7),
    (lambda: nn.SpatialPyramidPool2d((2, 1)), (2, 3, 9, 7), 2 * 3 * (10 * 8 - 4 + 63 - 1)),
    (lambda: nn.SpatialPyramidPool2d((1, (1, 7)), "average"), (2, 3, 9, 7), 2 * 3 * (63 + 63)),
    (lambda: unpooled(1), (2, 3, 4), 0),
    (lambda: unpooled(2), (2, 3, 4, 4), 0),
    (lambda: unpooled(3), (2, 3, 4, 4, 4), 0),
    # Five boxes of 2 x 2 bins, nine samples in each.
    (lambda: Given(nn.RoIAlign(2, 1.0, 3), boxes()), (1, 3, 9, 9), 5 * 3 * 4 * 9 * 8),
    (lambda: Given(nn.RoIAlign(2, 1.0, 0), boxes()), (1, 3, 9, 9), None),
    (lambda: Given(nn.RoIPool(2, 1.0), rois=boxes()), (1, 3, 9, 9), None),
    (lambda: nn.LocalResponseNorm(5), (2, 8, 9, 9), 2 * 8 * 81 * 9),
    (lambda: nn.SpatialResponseNorm(3), (2, 8, 9, 9), 2 * 8 * 81 * 13),
    (lambda: nn.SpatialResponseNorm(3), (2, 8, 9), 2 * 8 * 9 * 7),
    (lambda: nn.BatchNorm1d(3), (2, 3, 9), 2 * 54),
    (lambda: nn.BatchNorm1d(3, track_running_stats=False), (2, 3, 9), 6 * 54),
    (lambda: nn.BatchNorm2d(3), (2, 3, 9, 9), 2 * 486),
    (lambda: nn.BatchNorm3d(3), (2, 3, 2, 2, 2), 2 * 48),
    (lambda: nn.SyncBatchNorm(3), (2, 3, 9), 2 * 54),
    (lambda: nn.LazyBatchNorm2d(), (2, 3, 9, 9), 2 * 486),
    (lambda: nn.BatchNormAct2d(3), (2, 3, 9, 9), 3 * 486),
    (lambda: nn.BatchNormAct2d(3, activation="none"), (2, 3, 9, 9), 2 * 486),
    (lambda: nn.BatchNormAct3d(3), (2, 3, 2, 2, 2), 3 * 48),
    (
        lambda: Given(nn.BatchNormAct2d(3, activation="leaky_relu"), residual=empty(2, 3, 9, 9)),
        (2, 3, 9, 9),
        5 * 486,
    ),
    (lambda: nn.Softmax(1), (2, 10), 2 * 48),
    (lambda: nn.Softmax2d(), (2, 10, 3, 3), 2 * 9 * 48),
    (lambda: nn.LogSoftmax(-1), (2, 10), 2 * 49),
    (lambda: Given(nn.CrossEntropyLoss(), empty(8, dtype=torch.int64)), (8, 10), 8 * 40 + 8),
    (
        lambda: Given(nn.CrossEntropyLoss(label_smoothing=0.1), empty(8, dtype=torch.int64)),
        (8, 10),
        None,
    ),
    (lambda: Given(nn.NLLLoss(reduction="sum"), empty(8, dtype=torch.int64)), (8, 10), 7),
    (lambda: nn.ReLU(), (2, 10), 20),
    (lambda: nn.LeakyReLU(), (2, 10), 40),
    (lambda: nn.ReLU6(), (2, 10), 40),
    (lambda: nn.SiLU(), (2, 10), 40),
    (lambda: nn.Sigmoid(), (2, 10), 20),
    (lambda: nn.Tanh(), (2, 10), 20),
    (lambda: nn.Dropout(), (2, 10), 0),
    (lambda: nn.Dropout1d(), (2, 3, 10), 0),
    (lambda: nn.Dropout2d(), (2, 3, 5, 5), 0),
    (lambda: nn.Dropout3d(), (2, 3, 5, 5, 5), 0),
    (lambda: nn.Flatten(), (2, 3, 10), 0),
    (lambda: nn.Identity(), (2, 10), 0),
    (lambda: nn.GELU(), (2, 10), None),
    # Layer normalisation and zoneout are not counted.
    (lambda: nn.Sequential(nn.LSTM(4, 5, layer_norm=True)), (7, 2, 4), None),
    (lambda: nn.Sequential(nn.GRUCell(4, 5, zoneout=0.1)), (2, 4), None),
]


@pytest.mark.parametrize(("build", "shape", "operations"), OTHERS)
def test_operations_are_those_counted_by_hand(build, shape, operations: int | None) -> None:
    with torch.device("meta"):  # also where there is no parameter to tell
        (row,) = models.summarize(on_meta(build), shape)
    assert row.operations == operations
    assert row.input_shape == shape


def test_every_kind_of_layer_has_an_example() -> None:
    kinds = {
        type(layer).__name__
        for build, *_ in PRODUCTS + OTHERS
        for layer in on_meta(build).modules()
    }
    lazy = {name for name in nn.__all__ if name.startswith("Lazy")}
    assert set(nn.__all__) - lazy <= kinds


def test_an_embedding_only_copies() -> None:
    class Text(theirs.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(10, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.embedding(x.long())

    (row,) = models.summarize(Text(), (7, 2))
    assert (row.output_shape, row.weights, row.operations) == ((7, 2, 4), 40, 0)


def test_a_batch_of_sequences_is_as_many_tokens() -> None:
    class Packed(theirs.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = nn.GRU(4, 5)

        def forward(self, x: torch.Tensor) -> object:
            packed = theirs.utils.rnn.pack_padded_sequence(x, torch.tensor([4, 3]))
            return self.recurrent(packed)

    (row,) = models.summarize(Packed(), (4, 2, 4))
    assert (row.input_shape, row.output_shape) == ((7, 4), (7, 5))
    assert row.multiply_adds == 7 * 3 * 5 * (4 + 5)
    assert (row.weights, row.biases) == (3 * 5 * (4 + 5), 2 * 3 * 5)


def test_containers_are_no_rows() -> None:
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNormAct2d(4)), nn.Flatten())
    rows = models.summarize(model, (2, 3, 5, 5))
    assert [(row.name, row.kind) for row in rows] == [
        ("0.0", "Conv2d"),
        ("0.1", "BatchNormAct2d"),
        ("1", "Flatten"),
    ]


# Between them they have every kind of layer that the networks have.
@pytest.mark.parametrize(
    "name",
    ["lenet5-1998", "alexnet", "sppnet", "mobilenet_v2", "resnet18", "autoencoder3d", "mc3_18"],
)
def test_every_layer_of_a_network_is_counted(name: str) -> None:
    model = models.MODELS[name]
    rows = models.summarize(on_meta(model.build), (1, *model.sample))
    assert all(row.operations is not None for row in rows)


def lenet5(batch: int) -> dict[str, models.LayerRow]:
    rows = models.summarize(on_meta(models.lenet5), (batch, 1, 32, 32))
    return {row.name: row for row in rows}


def test_the_batch_scales_operations_and_not_weights() -> None:
    one, four = lenet5(batch=1), lenet5(batch=4)
    assert all(four[name].operations == 4 * row.operations for name, row in one.items())
    assert all(four[name].parameters == row.parameters for name, row in one.items())


def test_a_shared_layer_is_counted_once() -> None:
    layer = theirs.Linear(4, 4)
    assert [
        row.parameters
        for row in models.summarize(theirs.Sequential(layer, theirs.ReLU(), layer), (2, 4))
    ] == [20, 0, 0]
