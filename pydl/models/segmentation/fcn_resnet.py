"""FCN on ResNet, as torchvision builds it, whose ``state_dict`` loads: Long, Shelhamer, Darrell,
"Fully Convolutional Networks for Semantic Segmentation", 2015.

Where ResNet would halve its maps a fourth and a fifth time it dilates, so that scores lie 8 pixels
apart; bilinear interpolation does the rest. A second head, on the maps before the last stage, gives
scores of its own, whose loss helps to train.
"""

from collections.abc import Callable

import torch

from pydl import nn
from pydl.models.backbone import backbone
from pydl.models.model import as_torchvision_segmentation
from pydl.models.resnet import ResNet, resnet50, resnet101


class Segmentation(nn.Module):
    """A backbone and one head or two, whose scores are interpolated to the size of the image.

    Args:
        backbone: from images to a dict of maps, ``out`` and, for a second head, ``aux``.
        classifier: scores from ``out``.
        aux_classifier: scores from ``aux``.
    """

    def __init__(
        self, backbone: nn.Module, classifier: nn.Module, aux_classifier: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier
        self.aux_classifier = aux_classifier

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:  # [N, 3, H, W]
        size = x.shape[2:]
        maps = self.backbone(x)  # [N, 2048, H / 8, W / 8] and [N, 1024, H / 8, W / 8]
        scores = {"out": self.classifier(maps["out"])}  # [N, num_classes, H / 8, W / 8]
        if self.aux_classifier is not None:
            scores["aux"] = self.aux_classifier(maps["aux"])
        return {  # [N, num_classes, H, W] each
            name: nn.functional.interpolate(one, size, mode="bilinear", align_corners=False)
            for name, one in scores.items()
        }


class FCNHead(nn.Sequential):
    """A 3x3 convolution to a quarter of the maps, and scores."""

    def __init__(self, inputs: int, num_classes: int) -> None:
        maps = inputs // 4
        super().__init__(
            nn.Conv2d(inputs, maps, kernel_size=3, padding=1, bias=False),
            nn.BatchNormAct2d(maps),
            nn.Identity(),  # torchvision's ReLU, which is in the norm
            nn.Dropout(0.1),
            nn.Conv2d(maps, num_classes, kernel_size=1),
        )


def on_resnet(
    resnet: ResNet, head: Callable[[int, int], nn.Module], num_classes: int, aux_loss: bool
) -> Segmentation:
    """A network whose ``head`` sees a ResNet's last maps, an eighth of the image's side, from their
    number and that of classes; with ``aux_loss`` there is a second one, an :class:`FCNHead`."""
    layers = {"layer3": "aux", "layer4": "out"} if aux_loss else {"layer4": "out"}
    maps = resnet.fc.in_features
    return Segmentation(
        backbone(resnet, layers, output_stride=8),
        head(maps, num_classes),
        FCNHead(maps // 2, num_classes) if aux_loss else None,
    )


def fcn_resnet50(num_classes: int = 21, aux_loss: bool = True) -> Segmentation:
    """FCN on ResNet-50."""
    return on_resnet(resnet50(), FCNHead, num_classes, aux_loss)


def fcn_resnet101(num_classes: int = 21, aux_loss: bool = True) -> Segmentation:
    """FCN on ResNet-101."""
    return on_resnet(resnet101(), FCNHead, num_classes, aux_loss)


_LONG = "Long, Shelhamer, Darrell 2015, Fully Convolutional Networks for Semantic Segmentation"

MODELS = (
    as_torchvision_segmentation(
        fcn_resnet50, "FCN on ResNet-50, with two heads", _LONG, 35_322_218, "152.717", 60.5
    ),
    as_torchvision_segmentation(
        fcn_resnet101, "FCN on ResNet-101, with two heads", _LONG, 54_314_346, "232.738", 63.7
    ),
)
