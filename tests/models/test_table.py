"""Every network of the table, by four kinds of evidence:

A  counts, names and shapes on the meta device equal those published;
B  an independent implementation gives the same output for the same weights (tests/golden);
C  it trains step by step as the same network made of torch.nn's layers does.

D, that it learns, is shown by recipes, not here.
"""

import copy
import json
from pathlib import Path

import pytest
import torch
from golden import kept
from network_evidence import NARROW, TRAINED
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import pydl.nn
from pydl import models
from pydl.models.stock import as_torch
from pydl.train import with_heads
from pydl.train.evaluation import own

GOLDEN = Path(__file__).parents[1] / "golden"
ROWS = [pytest.param(model, id=model.name) for model in models.MODELS.values()]


def on_meta(model: models.Model) -> nn.Module:
    with torch.device("meta"):
        return model.build()


@pytest.mark.parametrize("model", ROWS)
def test_parameters_and_operations_are_those_published(model: models.Model) -> None:
    network = on_meta(model)
    assert sum(p.numel() for p in network.parameters()) == model.parameters
    # Of sequences each step costs the same, and a few are enough.
    inputs = model.inputs(shape=model.sample if model.tokens else model.input, device="meta")
    rows = models.summarize(network, inputs)
    multiply_adds = sum(row.multiply_adds for row in rows)
    if len(rows) < 1000:  # it takes 3 ms a layer
        # PyTorch's own count of the same run: independent of ours.
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            as_torch(network).eval()(*inputs)
        assert 2 * multiply_adds == counter.get_total_flops()
    if model.giga_multiply_adds is not None:
        digits = len(model.giga_multiply_adds.partition(".")[2])
        assert f"{multiply_adds / 1e9:.{digits}f}" == model.giga_multiply_adds


@pytest.mark.parametrize("model", [row for row in ROWS if row.values[0].golden == "torchvision"])
def test_the_output_is_that_of_an_independent_implementation(model: models.Model) -> None:
    every = json.loads((GOLDEN / "torchvision.json").read_text())
    expected = every[model.name.removesuffix("-torchvision")]
    network = on_meta(model)
    assert kept.keys(network) == expected["keys"]
    assert tuple(expected["input"]) == model.sample
    found = kept.measure(network, model.sample)
    children = dict(network.named_children())
    for name, (mean, deviation) in expected["stages"].items():
        if name not in children or isinstance(children[name], pydl.nn.BatchNormAct2d):
            continue  # its activation is a step of its own there
        assert found["stages"][name] == pytest.approx(
            [mean, deviation], rel=1e-6, abs=1e-6 * deviation
        ), name
    scores = torch.tensor(expected["scores"])
    torch.testing.assert_close(
        torch.tensor(found["scores"]), scores, rtol=1e-6, atol=1e-6 * scores.std().item()
    )


def slim(network: nn.Module) -> None:
    """Makes the fully connected layers of a chain small where they hold most weights: they are
    PyTorch's own."""
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    if sum(layer.weight.numel() for layer in linear) < 16_000_000:
        return
    before = linear[0].in_features
    for layer in linear:
        layer.in_features, layer.out_features = before, min(layer.out_features, 32)
        layer.weight = nn.Parameter(layer.weight[: layer.out_features, :before])
        layer.bias = nn.Parameter(layer.bias[: layer.out_features])
        before = layer.out_features


@pytest.mark.parametrize("name", TRAINED)
def test_it_trains_as_its_twin_does(name: str) -> None:
    # In float64: in float32 the last bit of a normalisation decides which of two pixels a pool
    # takes, and gets the gradient.
    model = models.find(name)
    with torch.device("meta"):
        ours = NARROW.get(name, model.build)()
        slim(ours)
    ours = kept.filled(ours).double().train()
    for layer in ours.modules():
        if isinstance(layer, (nn.Dropout, pydl.nn.Dropout)):
            layer.p = 0.0  # drawn in another order
    theirs = as_torch(copy.deepcopy(ours))
    generator = torch.Generator().manual_seed(0)
    inputs = model.inputs(2, model.sample, dtype=torch.float64, generator=generator)
    target = None
    losses: list[list[float]] = []
    for network, cross_entropy in (
        (ours, with_heads(pydl.functional.cross_entropy)),
        (theirs, with_heads(nn.functional.cross_entropy)),
    ):
        optimizer = torch.optim.SGD(network.parameters(), 1e-3)
        losses.append([])
        with pydl.use_backend("cpu" if network is ours else "aten", strict=False):
            for _ in range(2):
                y = network(*inputs)
                if model.tokens is not None:  # each symbol of each sequence is an example
                    y = own(y).flatten(0, -2)
                if target is None:
                    classes, *size = own(y).shape[1:]
                    shape = len(own(y)), *size
                    target = torch.randint(min(10, classes), shape, generator=generator)
                loss = y.square().mean() if classes == 1 else cross_entropy(y, target)
                optimizer.zero_grad()
                loss.backward()
                assert all(p.grad is not None for p in network.parameters() if p.requires_grad)
                optimizer.step()
                losses[-1].append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    for (key, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(
            a, b, rtol=1e-7, atol=1e-9 * b.abs().max().item(), msg=lambda m, key=key: f"{key}: {m}"
        )


def test_the_deepest_resnet_is_trained_piece_by_piece() -> None:
    model = models.resnet_cifar(20).train()
    whole = copy.deepcopy(model)
    model.checkpoint = 3
    x = torch.randn(2, 3, 32, 32)
    for one in (model, whole):
        one(x).sum().backward()
    for a, b in zip(model.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    for (name, a), b in zip(model.named_buffers(), whole.buffers(), strict=True):
        assert torch.equal(a, b), name  # though what they count was computed twice
    assert models.build("resnet1202").checkpoint > 0


def test_one_set_of_weights_takes_images_of_any_size() -> None:
    model = models.sppnet(num_classes=10).eval()
    assert model.pyramid(torch.zeros(1, 256, 13, 13)).shape == (1, 12_800)
    assert pydl.nn.SpatialPyramidPool2d((4, 2, 1))(torch.zeros(1, 256, 13, 13)).shape[1] == 5_376
    with torch.inference_mode():
        for size in ((224, 224), (180, 180), (96, 300)):
            assert model(torch.randn(1, 3, *size)).shape == (1, 10)


def test_a_fresh_spatial_transformer_is_the_identity() -> None:
    x = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(models.stn()[0](x), x, rtol=0, atol=1e-6)


def test_a_depth_that_no_residual_network_has_is_refused() -> None:
    with pytest.raises(ValueError, match=r"depth must be 6n \+ 2 .*, got 21"):
        models.resnet_cifar(21)
