"""Fused convolutions of weights that are kept in oneDNN's layout: right, and where they serve."""

import copy

import pytest
import torch
from contract import hold
from fusible import Basic, operators
from torch import nn

import pydl


def hold_gradient_of_the_image(model: nn.Module, stock: nn.Module, x: torch.Tensor) -> None:
    """Both give the same where no gradient by the parameters is wanted."""
    with torch.enable_grad():
        for one in (model, stock):
            one.requires_grad_(False)
        leaf, twin = x.clone().requires_grad_(), x.clone().requires_grad_()
        model(leaf).sum().backward(), stock(twin).sum().backward()
    torch.testing.assert_close(leaf.grad, twin.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("layout", (torch.contiguous_format, torch.channels_last))
@torch.no_grad()
def test_a_large_weight_is_kept_in_the_layout_of_the_server(layout):
    def make():
        torch.manual_seed(5)
        block = Basic(256, 256).eval().to(memory_format=layout)
        nn.init.normal_(block.bn1.weight), nn.init.normal_(block.bn2.bias)
        return block

    model, stock = pydl.accelerate(make(), fuse=True), make()
    for size in (7, 9, 7):
        x = torch.randn(2, 256, size, size).contiguous(memory_format=layout)
        assert "aten::convolution" in operators(model, x)  # that shape may not come again
        seen = operators(model, x)
        assert "mkldnn::_convolution_pointwise" in seen and "aten::convolution" not in seen
        ours, theirs = model(x), stock(x)
        assert ours.stride() == theirs.stride()
        hold(ours, theirs, copy.deepcopy(stock).double()(x.double()), "output")
    for one in (model, stock):
        one.conv1.weight.mul_(2)
    torch.testing.assert_close(model(x), stock(x), rtol=1e-4, atol=1e-4)
    hold_gradient_of_the_image(model, stock, x)


ACTIVATIONS = {
    "relu": nn.ReLU(inplace=True),
    "relu6": nn.ReLU6(),
    "silu": nn.SiLU(),
    "hardswish": nn.Hardswish(),
    "leaky_relu": nn.LeakyReLU(0.1),
}


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # said by flags()
@pytest.mark.parametrize("name", ACTIVATIONS)
@torch.no_grad()
def test_small_maps_channels_last_are_convolved_and_activated_in_one(name):
    """PyTorch would unfold and multiply them; with a normalisation before and without."""

    def make():
        torch.manual_seed(6)
        layers = nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), ACTIVATIONS[name], nn.Conv2d(16, 9, 1)
        model = nn.Sequential(*layers, copy.deepcopy(ACTIVATIONS[name])).eval()
        nn.init.normal_(model[1].weight), nn.init.normal_(model[1].running_mean)
        return model.to(memory_format=torch.channels_last)

    model, stock = pydl.accelerate(make(), fuse=True), make()
    x = torch.randn(1, 8, 14, 13).to(memory_format=torch.channels_last)
    model(x)
    seen = operators(model, x)
    assert "mkldnn::_convolution_pointwise" in seen and "aten::convolution" not in seen
    assert name == "leaky_relu" or not {f"aten::{name}", f"aten::{name}_"} & seen
    exact = copy.deepcopy(stock).double()(x.double())
    hold(model(x), stock(x), exact, "output")
    for one in (model, stock):
        one[3].weight.mul_(2), one[3].bias.data.add_(1)
    torch.testing.assert_close(model(x), stock(x), rtol=1e-4, atol=1e-5)
    with torch.backends.mkldnn.flags(enabled=False):
        assert "mkldnn::_convolution_pointwise" not in operators(model, x)
    other = x[..., 1:].contiguous(memory_format=torch.channels_last)
    for _ in range(2):  # shapes in turns are not worth it
        for given in (other, x):
            assert "mkldnn::_convolution_pointwise" not in operators(model, given)


@torch.no_grad()
def test_channels_last_the_residual_is_added_by_the_convolution():
    def make():
        torch.manual_seed(7)
        return Basic(16, 16).eval().to(memory_format=torch.channels_last)

    model, stock = pydl.accelerate(make(), fuse=True), make()
    x = torch.randn(2, 16, 14, 13).to(memory_format=torch.channels_last)
    model(x), model(x)
    given = x.clone()
    assert not {"aten::add_", "aten::add", "aten::relu_"} & operators(model, x)
    hold(model(x), stock(x), copy.deepcopy(stock).double()(x.double()), "output")
    assert torch.equal(x, given)
    hold_gradient_of_the_image(model, stock, x)  # which is the residual too
