"""Segmentation tile by tile: the scores of the whole image, and a sentence where there is no way to
them."""

from collections.abc import Callable

import pytest
import torch

from pydl import nn
from pydl.models.backbone import backbone
from pydl.models.resnet import BasicBlock, ResNet
from pydl.models.segmentation import fcn, tiled
from pydl.models.segmentation.context import Context
from pydl.models.segmentation.deeplab_largefov import DeepLabLargeFOV
from pydl.models.segmentation.deeplabv3 import DeepLabHead
from pydl.models.segmentation.fcn_resnet import Segmentation, on_resnet
from pydl.models.segmentation.segnet import SegNet
from pydl.models.segmentation.unet import UNet

STAGES = ((2, 2), (2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))


def fcn8s() -> nn.Module:
    net = fcn.FCN(8, 3, stages=STAGES, hidden=3)
    for layer in (net.score_pool4, net.score_pool3):
        nn.init.normal_(layer.weight)
    return net


def headed() -> nn.Module:
    """Gives a dict, as the networks on ResNet do, of maps a quarter of the image's side."""
    down = (nn.Conv2d(3, 4, 3, 2, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, padding=1))
    return Segmentation(backbone(nn.Sequential(*down), {"2": "out"}), nn.Conv2d(4, 3, 1))


# A network, its images' channels and size, and the side of a tile.
CUT: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int], int]] = {
    "unet": (lambda: UNet(maps=2), (1, 300, 252), 220),
    "unet-padded": (lambda: UNet(padded=True, maps=2, depth=2, norm=True), (1, 200, 156), 96),
    "segnet": (lambda: SegNet(3, stages=((2, 2), (2, 2))), (3, 131, 90), 64),
    "fcn8s": (fcn8s, (3, 700, 96), 544),
    "context": (lambda: Context(3), (3, 150, 100), 90),
    "deeplab_largefov": (lambda: DeepLabLargeFOV(3, stages=STAGES, hidden=2), (3, 649, 65), 521),
    "dict": (headed, (3, 200, 64), 64),
}


@pytest.mark.parametrize("name", CUT)
def test_tiles_give_the_scores_of_the_whole_image(name: str) -> None:
    build, size, side = CUT[name]
    torch.manual_seed(1)
    net = build().double().eval()
    x = torch.randn(2, *size, dtype=torch.float64)
    with torch.no_grad():
        whole = tiled._scores(net(x))
    seen: list[tuple[int, ...]] = []
    net.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[2:])))
    found = tiled.tiled(net.train(), x, side)
    assert net.training and found.shape == whole.shape
    # The first two runs ask what a score sees.
    assert len(seen) > 3 and all(max(one) < max(size[1:]) for one in seen[2:])
    torch.testing.assert_close(found, whole, rtol=1e-11, atol=1e-12 * whole.abs().max().item())


def test_a_tile_as_large_as_the_image_is_the_image() -> None:
    net = UNet(maps=2, depth=2).eval()
    x = torch.randn(1, 1, 60, 52)
    with torch.no_grad():
        assert torch.equal(tiled.tiled(net, x, 100), net(x))


def test_scores_that_see_no_padding_keep_all_of_a_tile() -> None:
    cut = tiled.tiles(UNet(maps=2), 1, 220)
    assert (cut.lost, cut.margin, cut.step) == (92, 0, 16)
    assert [(a.start, a.stop) for a, *_ in cut.along(300)] == [
        (0, 220),
        (32, 252),
        (64, 284),
        (80, 300),
    ]
    # Side by side, each score once.
    kept = [score for *_, place in cut.along(300) for score in range(place.start, place.stop)]
    assert set(kept) == set(range(300 - 2 * 92))


def test_the_margin_is_what_a_score_sees() -> None:
    cut = tiled.tiles(Context(2), 2, 90)
    assert (cut.lost, cut.margin, cut.step) == (0, 67 // 2, 1)


def test_what_cannot_be_cut_is_refused() -> None:
    x = torch.randn(1, 3, 160, 160)
    with pytest.raises(ValueError, match="needs larger tiles, or sees the whole image"):
        net = on_resnet(ResNet(BasicBlock, (1, 1, 1, 1)), DeepLabHead, 3, aux_loss=False)
        tiled.tiled(net, x, 128)
    with pytest.raises(ValueError, match=r"a tile of 32 pixels keeps no scores: .* at least 36"):
        tiled.tiled(SegNet(3, stages=((2, 2), (2, 2))), x, 32)
    with pytest.raises(ValueError, match="an image must be 188, 204"):
        tiled.tiled(UNet(maps=2), torch.randn(1, 1, 300, 300), 200)
