"""What the table of networks does not show of the inception networks: their heads and modules."""

import copy
from math import prod

import pytest
import torch
from golden import kept
from torch import nn

import pydl.nn
from pydl.models.googlenet import MAPS, googlenet
from pydl.models.googlenet_2014 import INCEPTION, NaiveInception, googlenet_2014
from pydl.models.inception import inception_v3
from pydl.models.stock import as_torch


@pytest.mark.parametrize(
    "build, heads, parameters",
    [
        pytest.param(googlenet, False, 6_624_904, id="googlenet"),
        pytest.param(googlenet, True, 13_004_888, id="googlenet-heads"),
        pytest.param(googlenet_2014, False, 6_998_552, id="googlenet_2014"),
        pytest.param(googlenet_2014, True, 13_378_280, id="googlenet_2014-heads"),
        pytest.param(inception_v3, False, 23_834_568, id="inception_v3"),
        pytest.param(inception_v3, True, 27_161_264, id="inception_v3-heads"),
    ],
)
def test_the_heads_are_extra(build, heads, parameters):
    with torch.device("meta"):
        network = build(aux_logits=heads)
        side = 299 if build is inception_v3 else 224
        x = torch.empty(2, 3, side, side)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert network.eval()(x).shape == (2, 1000)
    y = network.train()(x)
    if heads:
        assert y._fields[0] == "logits"
        assert {scores.shape for scores in y} == {(2, 1000)}
    else:
        assert y.shape == (2, 1000)


@pytest.mark.parametrize(
    "module, arguments, maps, weights",
    [
        pytest.param(NaiveInception, (64, 128, 32), 416, 387_072, id="naive"),
        pytest.param(INCEPTION, MAPS["3a"], 256, 163_328, id="reduced"),
    ],
)
def test_reductions_make_a_module_small(module, arguments, maps, weights):
    with torch.device("meta"):
        made = module(192, *arguments)
        assert made(torch.empty(1, 192, 28, 28)).shape == (1, maps, 28, 28)
    assert sum(prod(p.shape) for p in made.parameters() if p.ndim == 4) == weights


def losses(network: nn.Module, x: torch.Tensor, target: torch.Tensor, backend: str) -> list[float]:
    """Of two steps; heads count 0.3, as in the paper."""
    optimizer = torch.optim.SGD(network.parameters(), 1e-3)
    found = []
    with pydl.use_backend(backend, strict=False):
        for _ in range(2):
            scores, *heads = network(x)
            loss = nn.functional.cross_entropy(scores, target)
            for head in heads:
                loss = loss + 0.3 * nn.functional.cross_entropy(head, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
    return found


def test_the_heads_train_as_their_twins_do():
    with torch.device("meta"):
        ours = googlenet(num_classes=10)
    ours = kept.filled(ours).double().train()
    for layer in ours.modules():
        if isinstance(layer, pydl.nn.Dropout):
            layer.p = 0.0  # drawn in another order
    theirs = as_torch(copy.deepcopy(ours))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=generator)
    target = torch.randint(10, (2,), generator=generator)
    assert losses(ours, x, target, "cpu") == pytest.approx(
        losses(theirs, x, target, "aten"), rel=1e-9
    )
    for (key, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(
            a, b, rtol=1e-7, atol=1e-9 * b.abs().max().item(), msg=lambda m, key=key: f"{key}: {m}"
        )


def test_images_are_rescaled_on_request():
    """Those with ImageNet's mean and deviation taken out become twice the pixels less 1."""
    mean, deviation = (
        torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    pixels = (kept.images((3, 64, 64)) + 1) / 2
    normalised = (pixels - mean) / deviation
    with torch.device("meta"):
        plain = googlenet(num_classes=10, aux_logits=False)
        rescaling = googlenet(num_classes=10, aux_logits=False, transform_input=True)
    with torch.inference_mode():
        torch.testing.assert_close(
            kept.filled(rescaling)(normalised),
            kept.filled(plain)(2 * pixels - 1),
            rtol=1e-3,
            atol=1e-3,
        )
