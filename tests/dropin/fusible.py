"""Small models whose layers can be computed together, and inputs for them."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

import pydl


class Basic(nn.Module):
    """As in ResNet: one ReLU called twice, a residual, a shortcut of its own."""

    def __init__(self, channels: int = 4, maps: int = 6, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, maps, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(maps)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(maps, maps, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(maps)
        self.shortcut = None
        if stride > 1 or channels != maps:
            # Not 1x1 with a stride, whose gradient channels last corrupts memory in PyTorch 2.13.
            conv = nn.Conv2d(channels, maps, 3, stride, 1, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(maps))

    def forward(self, x):
        identity = x
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.shortcut is not None:
            identity = self.shortcut(x)
        y += identity
        return self.relu(y)


class Functional(nn.Module):
    """As in Inception and DenseNet: ReLU as a function, a normalisation first, a list given."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(4), nn.Conv2d(4, 6, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(6, affine=False), nn.Conv2d(6, 4, 3)

    def forward(self, given):
        given = [given] if isinstance(given, torch.Tensor) else given
        x = functional.relu(self.norm1(torch.cat(given, 1)))
        x = functional.relu(self.norm2(self.conv1(x)), inplace=True)
        return functional.hardswish(self.conv2(x))


class Overwriting(nn.Module):
    def forward(self, x):
        return functional.relu(x, inplace=not x.requires_grad)


class Disturbed(nn.Module):
    """Values that are used twice; a sum of another shape; a value added to itself. While no
    gradient is wanted, what a convolution reads is written over before the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.conv3, self.conv4 = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.bias, self.relu = nn.Parameter(torch.randn(4, 1, 1)), Overwriting()

    def forward(self, x):
        x = x * 2
        y = self.bn1(self.conv1(x))
        z = self.relu(x)
        y = functional.relu(y + z)
        y = functional.relu(self.bn2(self.conv2(y)) + self.bias)
        twice = self.conv3(y)
        y = functional.relu(twice) + twice
        y = self.conv4(y)
        return functional.relu(y + y)


def small() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6(inplace=True)),
        *(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.SiLU()),
        nn.Dropout(0.0),
        *(nn.Conv2d(8, 6, 1, padding_mode="reflect", padding=1), nn.LeakyReLU(0.1)),
        nn.MaxPool2d(3, 2, 1),
        *(nn.Conv2d(6, 4, 3, 2), nn.BatchNorm2d(4, momentum=None), nn.MaxPool2d(2), nn.ReLU()),
    )


def pooled() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 4, 3)),
        *(nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)),
    )


def nested() -> nn.Module:
    block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
    return nn.Sequential(nn.Sequential(block, nn.ReLU()), Basic(4, 4), Basic(4, 6, 2))


def ours() -> nn.Module:
    """Of layers of pydl.nn."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = pydl.nn.Conv2d(4, 4, 3, padding=1), pydl.nn.BatchNormAct2d(4)
            self.conv2, self.bn2 = pydl.nn.Conv2d(4, 4, 3, padding=1), pydl.nn.BatchNormAct2d(4)

        def forward(self, x):
            return self.bn2(self.conv2(self.bn1(self.conv1(x))), x)

    return Block()


def volume() -> nn.Module:
    return nn.Sequential(nn.Conv3d(4, 4, 3), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "residual": Basic,
    "residual, the same size": lambda: Basic(4, 4),
    "functional": Functional,
    "disturbed": Disturbed,
    "small": small,
    "pooled": pooled,
    "nested": nested,
    "of pydl.nn": ours,
    "volume": volume,
}


def made(name: str) -> nn.Module:
    """With running statistics that a model has after some steps."""
    torch.manual_seed(1)
    model = MODELS[name]()
    for layer in model.modules():
        if hasattr(layer, "running_mean"):
            layer.running_mean.normal_(std=0.3)
            layer.running_var.uniform_(0.5, 2)
            if layer.weight is not None:
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias)
    return model


def image(name: str) -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randn(2, 4, *[12] * (3 if name == "volume" else 2))


def operators(model: nn.Module, *args) -> set[str]:
    """What a call runs; a mode that sees it would let the model's own forward run."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as seen:
        model(*args)
    return {event.key for event in seen.key_averages()}
