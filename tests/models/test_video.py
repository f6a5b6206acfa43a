"""Networks for clips and volumes: their papers' figures, and that time is an axis like others."""

from functools import partial

import pytest
import torch
from golden import kept
from torch import nn

import pydl.nn
from pydl import models
from pydl.models.meta import hollow
from pydl.models.receptive import Whole, receptive_field, receptive_fields
from pydl.models.record import watch
from pydl.models.video import inflate, resnet


def filled(build) -> nn.Module:
    return kept.filled(hollow(build)).double()


def test_c3d_has_the_papers_figures() -> None:
    rows = {row.name: row for row in models.summarize(hollow(models.c3d), (1, 3, 16, 112, 112))}
    assert [rows[f"pool{number}"].output_shape[1:] for number in range(1, 6)] == [
        (64, 16, 56, 56),
        (128, 8, 28, 28),
        (256, 4, 14, 14),
        (512, 2, 7, 7),
        (512, 1, 4, 4),
    ]
    names = [name for name, row in rows.items() if row.kind == "Conv3d"]
    assert names == [f"conv{name}" for name in ("1a", "2a", "3a", "3b", "4a", "4b", "5a", "5b")]
    assert [rows[f"fc{number}"].output_shape[1] for number in (6, 7, 8)] == [4096, 4096, 101]


def test_c3d_of_one_frame_is_the_same_without_time() -> None:
    frame, clip = (hollow(partial(models.build, f"c3d-{name}")) for name in ("frame", "digits"))
    assert dict(frame.named_children()).keys() == dict(clip.named_children()).keys()
    for one, other in zip(frame, clip, strict=True):
        if isinstance(one, (nn.Conv3d, nn.MaxPool3d)):
            assert one.kernel_size[0] == 1 and one.kernel_size[1:] == other.kernel_size[1:]
        if isinstance(one, nn.Conv3d):
            assert other.kernel_size[0] == 3 and one.out_channels == other.out_channels


# With average pools and `Flatten`, residuals, ceiled pools and fused activations, depthwise
# convolutions, a squeeze of the whole map.
IMAGES = {
    "lenet5-1998": (1, 32),
    "resnet18": (3, 32),
    "squeezenet1_1": (3, 40),
    "mobilenet_v2": (3, 32),
    "efficientnet_b0": (3, 32),
}


@pytest.mark.parametrize("name", IMAGES)
def test_inflated_it_sees_in_a_still_clip_what_it_saw_in_the_image(name: str) -> None:
    channels, side = IMAGES[name]
    image = filled(partial(models.build, name))
    x = kept.images((channels, side, side)).double()[:1]
    still = x.unsqueeze(2).expand(-1, -1, 4, -1, -1)
    clip = inflate(image)
    with torch.inference_mode():
        found = clip(still)
        torch.testing.assert_close(found, image(x), rtol=1e-10, atol=1e-10)
        changed = clip(torch.cat([still[:, :, :3], still[:, :, 3:].flip(3)], 2))
        assert (changed - found).abs().max() > 1e-6
    assert not any(isinstance(layer, nn.Conv3d) for layer in image.modules())
    windows = {layer.kernel_size[0] for layer in clip.modules() if isinstance(layer, nn.Conv3d)}
    assert 3 in windows <= {1, 3}


def test_what_has_no_counterpart_in_time_is_refused() -> None:
    with pytest.raises(ValueError, match="taps must be an odd number of frames, got 2"):
        inflate(models.lenet5(), 2)
    with pytest.raises(ValueError, match="a SpatialPyramidPool2d has no counterpart that takes"):
        inflate(nn.Sequential(pydl.nn.SpatialPyramidPool2d((2, 1))))
    with pytest.raises(ValueError, match="a Conv2d with padding='same' has no counterpart"):
        inflate(nn.Conv2d(1, 1, 3, padding="same"))


@pytest.mark.parametrize(("axis", "size", "stride"), [(-3, 76, 16), (-1, 150, 32)])
def test_receptive_fields_along_time(axis: int, size: int, stride: int) -> None:
    chain = hollow(models.c3d)
    last = receptive_field(chain, axis)[-1]
    assert (last.name, last.size, last.stride) == ("pool5", size, stride)
    fields = receptive_fields(chain, (1, 3, 16, 112, 112), axis)
    assert fields["pool5"] == last and isinstance(fields["flatten"], Whole)


@pytest.mark.parametrize("axis", [-3, -2])
@pytest.mark.parametrize("convolution", [resnet._together, resnet._space, resnet._apart])
def test_receptive_fields_are_the_support_of_the_gradient(convolution, axis: int) -> None:
    def build() -> nn.Module:
        return nn.Sequential(resnet.Block(convolution, 2, 3, 2), resnet.Block(convolution, 3, 3, 1))

    sizes = [6, 6, 6]
    sizes[axis] = 48
    network = filled(build)
    fields = receptive_fields(network, (1, 2, *sizes), axis)
    for parameter in network.parameters():  # so that nothing cancels
        parameter.data.abs_().add_(0.01)
    x = torch.rand(1, 2, *sizes, dtype=torch.float64, requires_grad=True)
    outputs: dict[str, torch.Tensor] = {}
    with watch(network, after=lambda ran: outputs.update({ran.key: ran.output})):
        network(x)
    assert fields.keys() == outputs.keys()
    for name, y in outputs.items():
        middle = y.shape[axis] // 2
        one = y.select(axis, middle).sum()
        gradient = torch.autograd.grad(one, x, retain_graph=True)[0]
        seen = gradient.abs().movedim(axis, 0).flatten(1).sum(1).nonzero()
        assert fields[name].size == (seen.max() - seen.min() + 1).item(), name


@pytest.mark.parametrize("name", ["autoencoder3d", "autoencoder3d-skip"])
def test_an_autoencoder_takes_volumes_of_any_size(name: str) -> None:
    model = models.build(name).eval()
    with torch.inference_mode():
        for shape in ((2, 2, 2), (5, 6, 7), (8, 12, 4)):
            assert model(torch.randn(2, 1, *shape)).shape == (2, 1, *shape)
