"""How much of the input a unit of each layer sees."""

from dataclasses import dataclass

from torch import nn

from pydl.nn import BatchNormAct2d

_WINDOWS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.LPPool1d, nn.LPPool2d, nn.LPPool3d),
)
# What reads a pixel, or the channels of one.
_POINTWISE = (
    *(nn.Identity, nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.LocalResponseNorm),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d),
)
# What reads a whole map, whatever its size; behind it there is no window to speak of.
_WHOLE = (
    *(nn.Flatten, nn.Linear),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)


@dataclass(frozen=True)
class ReceptiveField:
    """Of a unit of one layer: ``size`` is the number of pixels from the first to the last that it
    sees, along one axis of the input; ``stride`` how far apart those of neighbouring units lie."""

    name: str
    kind: str
    size: int
    stride: int


def receptive_field(chain: nn.Sequential, axis: int = -1) -> list[ReceptiveField]:
    """The receptive field behind each layer of a chain of convolutions and pools.

    A window of k taps, d apart, over units that lie j pixels apart adds d (k - 1) j pixels to what
    each of them sees: r <- r + d (k - 1) j, then j <- j s with the window's stride s, from r = 1
    and j = 1. Padding and biases change nothing in it; pixels between dilated taps count as seen.

    Args:
        chain: layers in the order in which they run; sequences within it are walked through.
        axis: the spatial axis, counted from the last.

    Returns:
        A row for each layer up to the first that reads a whole map (``Flatten``, ``Linear``,
        adaptive pools).

    Raises:
        ValueError: a layer is neither a window nor pointwise, or has layers of its own, whose order
            is not known.

    Source: Araujo, Norris, Sim 2019, Computing receptive fields of convolutional neural networks
    (distill.pub).
    """

    def along(value: int | tuple[int, ...]) -> int:
        return value if isinstance(value, int) else value[axis]

    rows: list[ReceptiveField] = []
    size = stride = 1
    for name, layer in chain.named_modules(remove_duplicate=False):
        if isinstance(layer, _WHOLE):
            break
        if isinstance(layer, _WINDOWS):
            dilation = getattr(layer, "dilation", 1)  # average pools have none
            size += along(dilation) * (along(layer.kernel_size) - 1) * stride
            stride *= along(layer.stride or layer.kernel_size)  # LPPool2d(2, 3) has stride None
        elif isinstance(layer, nn.Sequential):
            continue
        elif not isinstance(layer, _POINTWISE):
            raise ValueError(
                f"{name or 'the network'} is a {type(layer).__name__}: a receptive field is known "
                "of nn.Sequential's convolutions, pools and pointwise layers"
            )
        rows.append(ReceptiveField(name, type(layer).__name__, size, stride))
    return rows
