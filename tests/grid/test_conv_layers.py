"""The layers of the convolution family: padding modes, lazy ones, initial weights."""

import pytest
import torch

from pydl import nn

X = {1: torch.randn(2, 4, 9), 2: torch.randn(2, 4, 7, 8), 3: torch.randn(1, 4, 5, 6, 5)}
NAMES = [f"Conv{kind}{axes}d" for axes in (1, 2, 3) for kind in ("", "Transpose")]


@pytest.mark.parametrize("mode", ("zeros", "reflect", "replicate", "circular"))
@pytest.mark.parametrize("padding", (1, "same"))
@pytest.mark.parametrize("axes", (1, 2, 3))
def test_padding_modes(axes, mode, padding):
    theirs = getattr(torch.nn, f"Conv{axes}d")(4, 6, 3, padding=padding, padding_mode=mode)
    ours = getattr(nn, f"Conv{axes}d")(
        4, 6, 3, padding=padding, padding_mode=mode, backend="reference"
    )
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(X[axes]), theirs(X[axes]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_initial_weights_are_those_of_torch_nn(name):
    made = []
    for library in (torch.nn, nn):
        torch.manual_seed(11)
        made.append(getattr(library, name)(4, 6, 3))
    theirs, ours = (module.state_dict() for module in made)
    assert list(theirs) == list(ours)
    assert all(torch.equal(theirs[key], ours[key]) for key in theirs)


@pytest.mark.parametrize("name", NAMES)
def test_lazy_layers_become_ours(name):
    made = []
    for library in (torch.nn, nn):
        torch.manual_seed(3)
        lazy = getattr(library, f"Lazy{name}")(6, 3)
        y = lazy(X[int(name[-2])])
        made.append((type(lazy), y))
    assert made[1][0] is getattr(nn, name)
    torch.testing.assert_close(made[0][1], made[1][1])


def test_a_lazy_layer_keeps_its_backend():
    lazy = nn.LazyConv2d(6, 3, backend="reference")
    lazy(X[2])
    assert type(lazy) is nn.Conv2d and lazy.backend == "reference"


@pytest.mark.parametrize("axes", (1, 2))
def test_locally_connected_with_one_weight_everywhere_is_a_convolution(axes):
    conv = getattr(torch.nn, f"Conv{axes}d")(4, 6, 3, stride=2, padding=1, dilation=2)
    x = X[axes]
    y = conv(x)
    layer = getattr(nn, f"LocallyConnected{axes}d")(
        4, 6, x.shape[2:], 3, stride=2, padding=1, dilation=2
    )
    with torch.no_grad():
        layer.weight.copy_(conv.weight.reshape(*conv.weight.shape, *[1] * axes))
        layer.bias.copy_(conv.bias.reshape(-1, *[1] * axes))
    torch.testing.assert_close(layer(x), y, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer(x[0]), y[0], rtol=1e-4, atol=1e-5)


def test_locally_connected_says_what_it_is():
    layer = nn.LocallyConnected2d(3, 4, (8, 7), 3, bias=False, backend="reference")
    assert layer.weight.shape == (4, 3, 3, 3, 6, 5) and layer.bias is None
    assert layer.weight.abs().max() <= 27**-0.5
    assert "3, 4, input_size=[8, 7], kernel_size=[3, 3]" in repr(layer)
    with pytest.raises(ValueError, match="does not fit"):
        nn.LocallyConnected2d(3, 4, 2, 3)
    with pytest.raises(RuntimeError, match="filters for"):
        layer(torch.zeros(1, 3, 9, 9))
