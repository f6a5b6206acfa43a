"""Networks for segmentation: what follows from their papers in closed form."""

import pytest
import torch
from torch.nn.functional import interpolate

from pydl import models, nn
from pydl.models.meta import hollow
from pydl.models.segmentation.context import DILATIONS, Context
from pydl.models.segmentation.deeplab_largefov import DeepLabLargeFOV
from pydl.models.segmentation.fcn import FCN, bilinear, convolutional
from pydl.models.segmentation.segnet import SegNet
from pydl.models.segmentation.unet import UNet

STAGES = ((2, 2), (2, 3), (3, 3, 3), (3, 4, 4), (4, 4, 4))


@pytest.mark.parametrize("factor", [2, 3, 8, 16, 32])
def test_a_bilinear_kernel_interpolates(factor: int) -> None:
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    found = bilinear(3, factor).double()(x)
    expected = interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    before = (factor - factor % 2) // 2
    found = found[:, :, before:, before:][:, :, : 6 * factor, : 5 * factor]
    inner = (slice(None), slice(None), slice(factor, -factor), slice(factor, -factor))
    torch.testing.assert_close(found[inner], expected[inner], rtol=1e-6, atol=1e-6)


def test_a_fully_connected_layer_slides() -> None:
    layer = nn.Linear(4 * 7 * 7, 5).double()
    x = torch.randn(2, 4, 9, 10, dtype=torch.float64)
    slid = convolutional(layer, 7).double()(x)
    assert slid.shape == (2, 5, 3, 4)
    for i in range(3):
        for j in range(4):
            window = x[:, :, i : i + 7, j : j + 7].flatten(1)
            torch.testing.assert_close(slid[:, :, i, j], layer(window), rtol=1e-12, atol=1e-12)


def test_an_fcn_takes_a_classifiers_weights_and_is_that_classifier_everywhere() -> None:
    fcn = FCN(32, 5, stages=STAGES, hidden=6).double().eval()
    linear = [nn.Linear(4 * 7 * 7, 6).double(), nn.Linear(6, 6).double()]
    state = {name: torch.randn_like(t) for name, t in fcn.state_dict().items() if "feat" in name}
    for number, layer in zip((0, 3), linear, strict=True):
        for name, tensor in layer.state_dict().items():
            state[f"classifier.{number}.{name}"] = tensor
    fcn.take(state)
    seen = torch.randn(1, 4, 9, 7, dtype=torch.float64)
    with torch.no_grad():
        dense = fcn.relu(fcn.fc7(fcn.relu(fcn.fc6(seen))))  # [1, 6, 3, 1]
        for i in range(3):
            window = seen[:, :, i : i + 7].flatten(1)
            once = linear[1](linear[0](window).relu()).relu()
            torch.testing.assert_close(dense[:, :, i, 0], once, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_an_fcn_scores_every_pixel_and_each_scale_has_a_part(stride: int) -> None:
    fcn = FCN(stride, 3, stages=STAGES, hidden=4).eval()
    for size in ((1, 1), (33, 70), (224, 161)):
        assert fcn(torch.randn(1, 3, *size)).shape == (1, 3, *size)
    scores = [name for name, _ in fcn.named_children() if name.startswith("score")]
    assert len(scores) == {32: 1, 16: 2, 8: 3}[stride]
    x = torch.randn(1, 3, 128, 128)
    nn.init.zeros_(fcn.score_fr.weight)
    for name in scores:
        layer = fcn.get_submodule(name)
        with torch.no_grad():
            layer.bias.fill_(1)
            # A bias at one scale, interpolated, is the same everywhere but at the border.
            middle = fcn(x)[:, :, 48:80, 48:80]
            torch.testing.assert_close(middle, torch.ones(1, 3, 32, 32), rtol=1e-5, atol=1e-5)
            layer.bias.zero_()
    with pytest.raises(ValueError, match="stride must be 8, 16 or 32, got 4"):
        FCN(4)


def test_unpooling_places_exactly_at_the_maxima() -> None:
    net = SegNet(3, stages=((2,), (2,)))
    for height, width in ((8, 8), (7, 9)):
        x = torch.randn(2, 4, height, width)
        pooled, indices = net.pool(x)
        placed = net.unpool(pooled, indices, x.shape[2:])
        maxima = torch.zeros_like(x)
        for i in range(height // 2):
            for j in range(width // 2):
                window = x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                largest = window.amax((2, 3), keepdim=True)
                maxima[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = window * (window == largest)
        assert torch.equal(placed, maxima)


@pytest.mark.parametrize("size", [(4, 4), (37, 50), (36, 48)])
def test_segnet_takes_images_of_any_size(size: tuple[int, int]) -> None:
    net = SegNet(3, stages=((2, 2), (3, 3))).eval()
    assert net(torch.randn(1, 3, *size)).shape == (1, 3, *size)


def test_segnets_decoder_mirrors_its_encoder() -> None:
    net = hollow(models.segnet)
    kinds = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    sizes = [(layer.in_channels, layer.out_channels) for layer in kinds]
    assert len(sizes) == 26 and sizes[0] == (3, 64) and sizes[-1] == (64, 11)
    assert sizes[1:13] == [pair[::-1] for pair in sizes[24:12:-1]]


@pytest.mark.parametrize(("side", "scored"), [(572, 388), (188, 4), (204, 20), (220, 36)])
def test_unet_loses_the_papers_border(side: int, scored: int) -> None:
    net = hollow(models.unet)
    assert net(torch.empty(1, 1, side, 572, device="meta")).shape == (1, 2, scored, 388)
    assert side - 2 * net.lost == scored


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_unet_takes_the_sizes_that_it_says(depth: int) -> None:
    for padded in (False, True):
        net = UNet(maps=1, depth=depth, padded=padded).eval()
        last = net.least + 2 * net.step
        for side in range(1, last + 1):
            fits = side >= net.least and (side - net.least) % net.step == 0
            x = torch.empty(1, 1, side, last)
            if fits:
                assert net(x).shape[2:] == (side - 2 * net.lost, last - 2 * net.lost)
            else:
                with pytest.raises(ValueError, match="an image must be"):
                    net(x)


def test_a_size_that_unet_does_not_admit_is_refused_in_a_sentence() -> None:
    said = r"an image must be 188, 204, 220, \.\.\. pixels high and wide, got 189x188"
    with pytest.raises(ValueError, match=said):
        hollow(models.unet)(torch.empty(1, 1, 189, 188, device="meta"))
    with pytest.raises(ValueError, match=r"must be 16, 32, 48, .* got 16x8"):
        hollow(models.unet_padded)(torch.empty(1, 1, 16, 8, device="meta"))


def test_an_uncentred_crop_would_be_seen() -> None:
    """What U-Net scores of a moved image are its scores, moved: the maps beside each other lie over
    the same pixels."""
    net = UNet(maps=2, depth=2, dropout=0).double().eval()
    x = torch.randn(1, 1, net.least + 8, net.least + 8, dtype=torch.float64)
    both = net(x)
    part = net(x[:, :, 4 : 4 + net.least, 8:])
    torch.testing.assert_close(both[:, :, 4 : 4 + part.shape[2], 8:], part, rtol=1e-10, atol=1e-12)


def ones(dilations: tuple[int, ...]) -> nn.Sequential:
    """3x3 convolutions of ones without a bias, so that no gradient cancels another."""
    layers = [nn.Conv2d(1, 1, 3, padding=d, dilation=d, bias=False) for d in dilations]
    for layer in layers:
        nn.init.ones_(layer.weight)
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("dilations", "sizes"),
    [
        pytest.param(DILATIONS, (3, 5, 9, 17, 33, 65, 67), id="context"),
        pytest.param((1, 2, 4, 8, 16, 32), (3, 7, 15, 31, 63, 127), id="doubling"),
    ],
)
def test_dilation_grows_the_receptive_field(dilations, sizes) -> None:
    chain = ones(dilations).double()
    x = torch.zeros(1, 1, 141, 141, dtype=torch.float64, requires_grad=True)
    y = x
    for layer, size in zip(chain, sizes, strict=True):
        y = layer(y)
        (gradient,) = torch.autograd.grad(y[0, 0, 70, 70], x, retain_graph=True)
        first, last = 70 - size // 2, 70 + size // 2
        expected = torch.zeros(141, 141, dtype=torch.bool)
        expected[first : last + 1, first : last + 1] = True  # every pixel of it is seen
        assert torch.equal(gradient[0, 0] != 0, expected)


def test_the_context_modules_layers_are_the_papers() -> None:
    layers = [layer for layer in models.context() if isinstance(layer, nn.Conv2d)]
    assert [layer.dilation[0] for layer in layers] == [*DILATIONS, 1]
    assert [layer.kernel_size[0] for layer in layers] == [3] * 7 + [1]
    weights = sum(layer.weight.numel() for layer in layers)
    assert weights == 64 * 21**2  # section 3: about 64 C^2


@pytest.mark.parametrize("widths", [(1,) * 8, (2, 2, 4, 8, 16, 32, 32, 1)])
def test_a_fresh_context_module_changes_nothing(
    widths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The wide form begins with a little noise, left out here.
    monkeypatch.setattr(torch.Tensor, "normal_", lambda self, **_: self.zero_())
    module = Context(3, widths).double()
    x = torch.rand(1, 3, 20, 20, dtype=torch.float64)
    torch.testing.assert_close(module(x), x, rtol=1e-9, atol=1e-12)


def test_largefov_sees_an_eighth_and_no_less() -> None:
    net = DeepLabLargeFOV(4, stages=STAGES, hidden=5).eval()
    for side, maps in ((321, 41), (65, 9), (64, 8)):
        assert net.features(torch.zeros(1, 3, side, side)).shape[2:] == (maps, maps)
        assert net(torch.zeros(1, 3, side, side)).shape == (1, 4, side, side)
