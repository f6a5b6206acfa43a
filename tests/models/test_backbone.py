"""Backbones: the classifier's own maps, under its own names, and dilation in place of strides."""

import copy
from collections.abc import Callable

import pytest
import torch
from golden import kept

from pydl import models, nn
from pydl.models.backbone import backbone
from pydl.models.meta import hollow
from pydl.models.record import record
from pydl.models.resnet import BasicBlock, Bottleneck, ResNet

# A classifier and a layer in it, and the side of its images.
LAYERS: list[tuple[Callable[[], nn.Module], str, int]] = [
    (models.resnet18, "layer3", 32),
    (models.googlenet, "inception4e", 32),
    (models.inception_v3, "Mixed_6e", 75),
    (models.squeezenet1_1, "features.7", 32),
    (models.densenet121, "features.denseblock2", 32),
    (models.shufflenet_v2_x0_5, "stage3", 32),
    (models.mobilenet_v2, "features.7", 32),
    (models.efficientnet_b0, "features.4", 32),
]


@pytest.mark.parametrize(
    ("build", "layer", "side"), LAYERS, ids=[build.__name__ for build, *_ in LAYERS]
)
def test_maps_are_the_classifiers(build, layer: str, side: int) -> None:
    model = kept.filled(hollow(build))
    x = kept.images((3, side, side))
    with torch.no_grad(), record(model, layer) as ran:
        model(x)
    before = dict(model.state_dict())
    made = backbone(model, {layer: "out"})
    with torch.no_grad():
        (name, found), *others = made(x).items()
    assert name == "out" and not others and torch.equal(found, ran[layer].output)
    # A part of the classifier's state, by the same names.
    state = made.state_dict()
    assert 0 < len(state) < len(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.items())


def test_maps_come_by_the_names_asked_for() -> None:
    made = backbone(hollow(models.resnet50), {"layer2": "0", "layer4": "1", "layer3": "2"})
    maps = made(torch.empty(1, 3, 224, 160, device="meta"))
    assert {name: tuple(one.shape[1:]) for name, one in maps.items()} == {
        "0": (512, 28, 20),
        "1": (2048, 7, 5),
        "2": (1024, 14, 10),
    }
    assert "fc.weight" not in made.state_dict() and "layer4.2.bn3.weight" in made.state_dict()


def small(block: type[BasicBlock] | type[Bottleneck]) -> nn.Module:
    return ResNet(block, (1, 2, 2, 2), 5)


DILATED = [
    pytest.param(lambda: small(BasicBlock), "layer4", 64, 8, id="basic"),
    pytest.param(lambda: small(Bottleneck), "layer4", 64, 8, id="bottleneck"),
    pytest.param(lambda: small(Bottleneck), "layer4", 64, 16, id="bottleneck-16"),
    pytest.param(lambda: small(BasicBlock), "layer4", 32, 2, id="pool-too"),
    pytest.param(models.mobilenet_v2, "features.17", 64, 8, id="depthwise"),
    pytest.param(models.shufflenet_v2_x0_5, "stage4", 64, 16, id="shuffled"),
    pytest.param(models.densenet121, "features.denseblock4", 64, 16, id="average"),
]


@pytest.mark.parametrize(("build", "layer", "side", "output_stride"), DILATED)
def test_dilated_maps_hold_those_with_strides(build, layer, side, output_stride: int) -> None:
    """The same weights see the same pixels, so every so-maniest place is what it was."""
    model = kept.filled(hollow(build)).double()
    x = kept.images((3, side, side)).double()
    with torch.no_grad():
        coarse = backbone(copy.deepcopy(model), {layer: "out"})(x)["out"]
        fine = backbone(model, {layer: "out"}, output_stride)(x)["out"]
    by = 32 // output_stride
    assert coarse.shape[2:] == (side // 32, side // 32)
    assert abs(fine.shape[2] - side // output_stride) <= (layer == "features.denseblock4")
    torch.testing.assert_close(fine[:, :, ::by, ::by], coarse, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("output_stride", "sides"), [(8, (28, 28)), (16, (14, 14)), (32, (14, 7))])
def test_dilation_leaves_the_sizes_of_maps(output_stride: int, sides: tuple[int, int]) -> None:
    layers = {"layer3": "aux", "layer4": "out"}
    made = backbone(hollow(models.resnet50), layers, output_stride)
    maps = made(torch.empty(1, 3, 224, 224, device="meta"))
    assert tuple(maps[name].shape[2] for name in ("aux", "out")) == sides


def test_the_dilations_are_torchvisions() -> None:
    """replace_stride_with_dilation=[False, True, True]: the block whose stride goes has the
    dilation from before it."""
    made = backbone(hollow(models.resnet50), {"layer4": "out"}, output_stride=8)
    found = {
        name: layer.dilation[0] for name, layer in made.named_modules() if name.endswith("conv2")
    }
    expected = {f"layer{stage}.{i}.conv2": 1 for stage, n in ((1, 3), (2, 4)) for i in range(n)}
    expected |= {f"layer3.{i}.conv2": 2 if i else 1 for i in range(6)}
    expected |= {f"layer4.{i}.conv2": 4 if i else 2 for i in range(3)}
    assert found == expected
    assert all(made.get_submodule(name).padding == (d, d) for name, d in found.items())


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no layer 'layer5' gives a map; .* conv1, bn1"):
        backbone(hollow(models.resnet18), {"layer5": "out"})
    with pytest.raises(ValueError, match="12 is none: the largest below it is 8"):
        backbone(hollow(models.resnet18), {"layer4": "out"}, 12)
    with pytest.raises(ValueError, match=r"'features\.transition3\.pool' is an average"):
        backbone(hollow(models.densenet121), {"features.denseblock4": "out"}, 8)


def test_it_trains_copies_and_compiles_like_any_module() -> None:
    model = ResNet(BasicBlock, (1, 1, 1, 1), 5).train()
    made = backbone(model, {"layer4": "out"}, 8)
    assert made.training and made.bn1.training and model.training
    twin = copy.deepcopy(made)
    x = torch.randn(2, 3, 32, 32)
    for one in (made, twin):
        one(x)["out"].square().mean().backward()
    for a, b in zip(made.parameters(), twin.parameters(), strict=True):
        assert a is not b and torch.equal(a.grad, b.grad)
    assert not made.eval().layer4.get_submodule("0").bn1.training
    with torch.no_grad():
        compiled = torch.compile(made, backend="eager", fullgraph=True)(x)["out"]
        torch.testing.assert_close(compiled, made(x)["out"])
