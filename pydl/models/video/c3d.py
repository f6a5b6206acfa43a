"""C3D: Tran, Bourdev, Fergus, Torresani, Paluri, "Learning Spatiotemporal Features with 3D
Convolutional Networks", 2015.

Where a pool does not fit, Caffe's network, which the paper's is, rounds up: a map of 7x7 becomes
one of 4x4.
"""

from collections import OrderedDict
from functools import partial

from pydl import nn
from pydl.models.initial import he
from pydl.models.model import Model

# Maps of the convolutions between one pool and the next.
_STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))


def c3d(
    num_classes: int = 101,
    *,
    channels: int = 3,
    frames: int = 16,
    side: int = 112,
    stages: tuple[tuple[int, ...], ...] = _STAGES,
    hidden: int = 4096,
    dropout: float = 0.5,
) -> nn.Sequential:
    """C3D: 3x3x3 convolutions, each stage with a max pool of 2x2x2 behind it, the first one's of
    1x2x2, so that time is not merged too early, and three fully connected layers.

    Of a single frame it is the same network without time: 1x3x3 convolutions, pools of 1x2x2.

    Args:
        num_classes: scores per clip; the paper has 487 for Sports-1M, 101 for UCF101.
        channels: of a frame.
        frames, side: of a clip; which these are decides the size of the first fully connected
            layer.
        stages: maps of the convolutions of each stage.
        hidden: units of the first two fully connected layers.
        dropout: how often one of their values is left out.

    Returns:
        A module from (N, channels, frames, side, side) to (N, num_classes) scores, not normalised.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()  # [N, 3, 16, 112, 112]
    taps, inputs = min(frames, 3), channels
    for number, stage in enumerate(stages, 1):
        for letter, maps in zip("ab", stage, strict=False):
            layers[f"conv{number}{letter}"] = nn.Conv3d(
                inputs, maps, (taps, 3, 3), padding=(taps // 2, 1, 1)
            )
            layers[f"relu{number}{letter}"] = nn.ReLU(inplace=True)
            inputs = maps
        pooled = 1 if number == 1 or taps == 1 else 2
        layers[f"pool{number}"] = nn.MaxPool3d((pooled, 2, 2), ceil_mode=True)
        frames, side = -(-frames // pooled), -(-side // 2)
    # [N, 64, 16, 56, 56], [N, 128, 8, 28, 28], [N, 256, 4, 14, 14], [N, 512, 2, 7, 7],
    # [N, 512, 1, 4, 4]
    layers["flatten"] = nn.Flatten()  # [N, 8192]
    before = inputs * frames * side**2
    for number, units in enumerate((hidden, hidden), len(stages) + 1):
        layers[f"fc{number}"] = nn.Linear(before, units)
        layers[f"relu{number}"] = nn.ReLU(inplace=True)
        layers[f"dropout{number}"] = nn.Dropout(dropout)
        before = units
    layers[f"fc{len(stages) + 3}"] = nn.Linear(hidden, num_classes)
    network = nn.Sequential(layers)
    he(network)
    return network


_TRAN = (
    "Tran, Bourdev, Fergus, Torresani, Paluri 2015, Learning Spatiotemporal Features with 3D "
    "Convolutional Networks"
)
# For clips of digits, 1x8x32x32, that move, turn or grow.
_small = partial(
    c3d, 3, channels=1, side=32, stages=((8,), (16,), (32, 32)), hidden=64, dropout=0.2
)

MODELS = (
    Model(
        "c3d",
        c3d,
        (3, 16, 112, 112),
        "C3D",
        _TRAN,
        task="clips",
        parameters=78_409_573,
        giga_multiply_adds="38.5",
    ),
    Model(
        "c3d-digits",
        partial(_small, frames=8),
        (1, 8, 32, 32),
        "C3D with fewer and smaller layers, for clips of digits",
        _TRAN,
        task="clips",
        parameters=115_187,
    ),
    Model(
        "c3d-frame",
        partial(_small, frames=1),
        (1, 1, 32, 32),
        "the same for a single frame",
        _TRAN,
        task="clips",
        parameters=52_323,
    ),
)
