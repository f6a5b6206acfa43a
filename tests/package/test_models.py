"""Architectures: figures of the lectures and the papers, equality with a torch.nn twin, state_dict
of torchvision."""

import functools
import math

import pytest
import torch
from torch import nn

import pydl.nn
from pydl import models
from pydl.models.meta import hollow
from pydl.models.stock import as_torch
from pydl.nn.layer import Layer
from pydl.swap import COUNTERPARTS


def rows(name: str, batch: int = 1) -> dict[str, models.LayerRow]:
    with torch.device("meta"):
        model = models.build(name)
    return {row.name: row for row in models.summarize(model, (batch, *models.MODELS[name].input))}


def test_lenet5_has_the_lectures_figures() -> None:
    layers = rows("lenet5")
    # The lectures count the convolutions without biases, the fully connected layers with theirs.
    assert [layers[name].weights for name in ("conv1", "conv2")] == [150, 2_400]
    assert [layers[name].parameters for name in ("fc3", "fc4", "fc5")] == [48_120, 10_164, 850]
    assert [layers[name].biases for name in ("conv1", "conv2", "fc3", "fc4", "fc5")] == [
        6,
        16,
        120,
        84,
        10,
    ]
    assert sum(row.parameters for row in layers.values()) == 61_706
    assert [layers[name].output_shape[-1] for name in ("conv1", "pool1", "conv2", "pool2")] == [
        28,
        14,
        10,
        5,
    ]
    assert layers["conv1"].multiply_adds == 28 * 28 * 150
    assert layers["conv2"].operations == 2 * 10 * 10 * 2_400


def test_alexnet_of_the_lectures_has_their_figures() -> None:
    layers = rows("alexnet-lecture")
    weights = {name: row.weights for name, row in layers.items() if row.weights}
    assert weights == {
        "conv1": 34_848,
        "conv2": 614_400,
        "conv3": 884_736,
        "conv4": 1_327_104,
        "conv5": 884_736,
        "fc6": 4_194_304,
        "fc7": 16_777_216,
        "fc8": 4_096_000,
    }
    # The lectures' figures are these without biases, cut off (not rounded) behind the last digit
    # they show ...
    shown = {
        "conv1": (34, 1e3),
        "conv2": (0.6, 1e6),
        "conv3": (0.8, 1e6),
        "conv4": (1.327, 1e6),
        "conv5": (0.8, 1e6),
    }
    shown |= {"fc6": (4, 1e6), "fc7": (16, 1e6), "fc8": (4, 1e6)}
    for name, (figure, unit) in shown.items():
        last_digit = 10 ** -len(str(figure).partition(".")[2])
        assert math.floor(weights[name] / unit / last_digit + 1e-9) == round(figure / last_digit), (
            name
        )
    # ... and "27.55 M" is the sum of what was cut; nothing was cut, it is 28.81 M, and 28.82 M with
    # biases.
    assert sum(figure * unit for figure, unit in shown.values()) == pytest.approx(
        27.55e6, abs=0.02e6
    )
    assert sum(weights.values()) == 28_813_344
    assert sum(row.parameters for row in layers.values()) == 28_823_912
    sizes = [row.output_shape[-1] for row in layers.values() if row.kind in ("Conv2d", "MaxPool2d")]
    assert sizes == [55, 27, 23, 11, 9, 7, 5, 2]
    assert layers["flatten"].output_shape == (1, 1024)


def test_alexnet_2012_has_the_papers_figures() -> None:
    layers = rows("alexnet")
    assert sum(row.parameters for row in layers.values()) == 60_965_224
    assert [layers[name].weights for name in ("conv2", "conv4", "conv5")] == [
        307_200,
        663_552,
        442_368,
    ]
    sizes = [row.output_shape[-1] for row in layers.values() if row.kind in ("Conv2d", "MaxPool2d")]
    assert sizes == [55, 27, 27, 13, 13, 13, 13, 6]
    assert [name for name, row in layers.items() if row.kind == "LocalResponseNorm"] == [
        "lrn1",
        "lrn2",
    ]
    # The paper's 150,528-dimensional input and 253,440 neurons of the first layer are for 224; 227
    # gives 96 x 55 x 55.
    neurons = [math.prod(layers[f"conv{i}"].output_shape) for i in (2, 3, 4, 5)]
    assert neurons == [186_624, 64_896, 64_896, 43_264]


def test_alexnet_2012_normalises_as_the_paper_does() -> None:
    layer = models.alexnet(num_classes=10).lrn1
    x = torch.full((1, 9, 1, 1), 3.0)
    # b = a / (k + alpha sum over n of a^2)^beta with n = 5, not divided by n
    assert layer(x)[0, 4].item() == pytest.approx(3 / (2 + 1e-4 * 5 * 9) ** 0.75, rel=1e-6)


def test_alexnet_of_torchvision_has_its_parameters() -> None:
    with torch.device("meta"):
        state = models.alexnet_torchvision().state_dict()
    features = {
        0: (64, 3, 11, 11),
        3: (192, 64, 5, 5),
        6: (384, 192, 3, 3),
        8: (256, 384, 3, 3),
        10: (256, 256, 3, 3),
    }
    classifier = {1: (4096, 9216), 4: (4096, 4096), 6: (1000, 4096)}
    expected = {}
    for part, shapes in (("features", features), ("classifier", classifier)):
        for i, shape in shapes.items():
            expected[f"{part}.{i}.weight"] = shape
            expected[f"{part}.{i}.bias"] = shape[:1]
    assert {key: tuple(value.shape) for key, value in state.items()} == expected
    assert sum(value.numel() for value in state.values()) == 61_100_840


def test_what_torch_nn_has_no_layer_for_is_written_with_its_operators() -> None:
    gru = pydl.nn.GRU(4, 4, reset_after=False)
    model = nn.Sequential(
        pydl.nn.SpatialResponseNorm(3),
        pydl.nn.LSTM(4, 4),
        gru,
        nn.ReLU(),
        pydl.nn.RoIAlign(2, 1.0, 2),
    )
    twin = as_torch(model)
    kinds = [type(layer) for layer in twin]
    assert kinds == [
        pydl.nn.SpatialResponseNorm,
        nn.LSTM,
        pydl.nn.GRU,
        nn.ReLU,
        pydl.nn.RoIAlign,
    ]
    assert twin[0].backend == twin[2].backend == "aten" and gru.backend is None
    assert twin[4].backend == "reference" and model[4].backend is None  # PyTorch has no operator
    assert all(a is b for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    x = torch.randn(3, 2, 4)
    assert torch.equal(twin[1](x)[0], model[1](x)[0]) and type(model[1]) is pydl.nn.LSTM


def test_dropout_is_for_training_only() -> None:
    model = models.alexnet(num_classes=10)
    x = torch.randn(1, 3, 227, 227)
    with torch.no_grad():
        assert not torch.equal(model(x), model(x))
        model.eval()
        assert torch.equal(model(x), model(x))


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: models.lenet5(pool="median"), "pool must be one of max, average, got 'median'"),
        (
            lambda: models.lenet5(activation="gelu"),
            "activation must be one of relu, tanh, sigmoid, got 'gelu'",
        ),
        (lambda: models.find("lenet"), "no model is called 'lenet'; there are lenet5"),
    ],
)
def test_unknown_choices_name_those_there_are(build, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        build()


def test_models_are_made_of_this_packages_layers() -> None:
    stock = set(COUNTERPARTS)
    without = set()
    for name in models.MODELS:
        kinds = {type(layer) for layer in hollow(functools.partial(models.build, name)).modules()}
        assert not stock & kinds, name
        if not any(issubclass(kind, Layer) for kind in kinds):
            without.add(name)
    assert without == {"feed_forward_lm"}  # of embeddings and dense layers
