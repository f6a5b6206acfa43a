"""Every distinct convolution of the documented architectures, as data.

Each row is one call: (layer, input without the batch, weight, what differs from stride 1, padding
0, dilation 1, one group). Shapes are those of the source named beside the model; where a model's
file is in ``pydl.models``, its rows are in ``cases.py`` and held to it.
"""

from collections.abc import Iterator

# Simonyan, Zisserman 2014, configuration D, at 224 x 224
VGG16 = [
    (f"conv{name}", (c, size, size), (f, c, 3, 3), {"padding": 1})
    for name, c, f, size in (
        ("1_1", 3, 64, 224),
        ("1_2", 64, 64, 224),
        ("2_1", 64, 128, 112),
        ("2_2", 128, 128, 112),
        ("3_1", 128, 256, 56),
        ("3_2", 256, 256, 56),
        ("4_1", 256, 512, 28),
        ("4_2", 512, 512, 28),
        ("5_1", 512, 512, 14),
    )
]

# Zeiler, Fergus 2013, figure 3
ZFNET = [
    ("conv1", (3, 224, 224), (96, 3, 7, 7), {"stride": 2, "padding": 1}),
    ("conv2", (96, 55, 55), (256, 96, 5, 5), {"stride": 2}),
    ("conv3", (256, 13, 13), (384, 256, 3, 3), {"padding": 1}),
    ("conv4", (384, 13, 13), (384, 384, 3, 3), {"padding": 1}),
    ("conv5", (384, 13, 13), (256, 384, 3, 3), {"padding": 1}),
]

# Szegedy et al. 2014, table 1: input, 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection
_INCEPTION = {
    "3a": (28, 192, 64, 96, 128, 16, 32, 32),
    "3b": (28, 256, 128, 128, 192, 32, 96, 64),
    "4a": (14, 480, 192, 96, 208, 16, 48, 64),
    "4b": (14, 512, 160, 112, 224, 24, 64, 64),
    "4c": (14, 512, 128, 128, 256, 24, 64, 64),
    "4d": (14, 512, 112, 144, 288, 32, 64, 64),
    "4e": (14, 528, 256, 160, 320, 32, 128, 128),
    "5a": (7, 832, 256, 160, 320, 32, 128, 128),
    "5b": (7, 832, 384, 192, 384, 48, 128, 128),
}


def _googlenet() -> Iterator[tuple]:
    yield "conv1", (3, 224, 224), (64, 3, 7, 7), {"stride": 2, "padding": 3}
    yield "conv2", (64, 56, 56), (64, 64, 1, 1), {}
    yield "conv3", (64, 56, 56), (192, 64, 3, 3), {"padding": 1}
    for block, (size, c, one, reduce3, three, reduce5, five, pool) in _INCEPTION.items():
        map_ = (c, size, size)
        yield f"{block}.1x1", map_, (one, c, 1, 1), {}
        yield f"{block}.3x3-reduce", map_, (reduce3, c, 1, 1), {}
        yield f"{block}.3x3", (reduce3, size, size), (three, reduce3, 3, 3), {"padding": 1}
        yield f"{block}.5x5-reduce", map_, (reduce5, c, 1, 1), {}
        yield f"{block}.5x5", (reduce5, size, size), (five, reduce5, 5, 5), {"padding": 2}
        yield f"{block}.pool", map_, (pool, c, 1, 1), {}


# He et al. 2015, table 1, 50 layers; the stride is that of the 3x3 (as torchvision has it)
def _resnet50() -> Iterator[tuple]:
    yield "conv1", (3, 224, 224), (64, 3, 7, 7), {"stride": 2, "padding": 3}
    inner, given, size = 64, 64, 56
    for stage in (1, 2, 3, 4):
        stride = 1 if stage == 1 else 2
        out = size // stride
        yield f"layer{stage}.0.conv1", (given, size, size), (inner, given, 1, 1), {}
        window = {"stride": stride, "padding": 1}
        yield f"layer{stage}.0.conv2", (inner, size, size), (inner, inner, 3, 3), window
        yield f"layer{stage}.0.conv3", (inner, out, out), (4 * inner, inner, 1, 1), {}
        if stride > 1:  # in the first stage it is conv3's shape
            weight = (4 * inner, given, 1, 1)
            yield f"layer{stage}.0.downsample", (given, size, size), weight, {"stride": stride}
        yield f"layer{stage}.1.conv1", (4 * inner, out, out), (inner, 4 * inner, 1, 1), {}
        if stride > 1:
            weight = (inner, inner, 3, 3)
            yield f"layer{stage}.1.conv2", (inner, out, out), weight, {"padding": 1}
        inner, given, size = 2 * inner, 4 * inner, out


# Sandler et al. 2018, table 2: the depthwise layers
MOBILENETV2 = [
    (
        f"depthwise-{c}-{size}" + "-stride2" * (stride > 1),
        (c, size, size),
        (c, 1, 3, 3),
        {"stride": stride, "padding": 1, "groups": c},
    )
    for c, size, stride in (
        (32, 112, 1),
        (96, 112, 2),
        (144, 56, 1),
        (144, 56, 2),
        (192, 28, 1),
        (192, 28, 2),
        (384, 14, 1),
        (576, 14, 1),
        (576, 14, 2),
        (960, 7, 1),
    )
]


# Ronneberger et al. 2015, figure 1: unpadded, 572 x 572
def _unet() -> Iterator[tuple]:
    given, size = 1, 572
    for level, c in enumerate((64, 128, 256, 512, 1024), start=1):
        yield f"down{level}.conv1", (given, size, size), (c, given, 3, 3), {}
        yield f"down{level}.conv2", (c, size - 2, size - 2), (c, c, 3, 3), {}
        given, size = c, (size - 4) // 2
    size = 28
    for level, c in enumerate((512, 256, 128, 64), start=1):
        yield f"up{level}", (2 * c, size, size), (2 * c, c, 2, 2), {"stride": 2, "transposed": True}
        size *= 2
        yield f"up{level}.conv1", (2 * c, size, size), (c, 2 * c, 3, 3), {}
        yield f"up{level}.conv2", (c, size - 2, size - 2), (c, c, 3, 3), {}
        size -= 4
    yield "out", (64, 388, 388), (2, 64, 1, 1), {}


# Chen et al. 2016, figure 7: atrous spatial pyramid pooling on VGG's 512 channels, 321 x 321
ASPP = [
    (f"rate{rate}", (512, 41, 41), (1024, 512, 3, 3), {"padding": rate, "dilation": rate})
    for rate in (6, 12, 18, 24)
]

# Tran et al. 2014, figure 3: 16 frames of 112 x 112
C3D = [
    (f"conv{name}", (c, d, size, size), (f, c, 3, 3, 3), {"padding": 1})
    for name, c, f, d, size in (
        ("1a", 3, 64, 16, 112),
        ("2a", 64, 128, 16, 56),
        ("3a", 128, 256, 8, 28),
        ("3b", 256, 256, 8, 28),
        ("4a", 256, 512, 4, 14),
        ("4b", 512, 512, 4, 14),
        ("5a", 512, 512, 2, 7),
    )
]

MODELS: dict[str, list[tuple]] = {
    "vgg16": VGG16,
    "zfnet": ZFNET,
    "googlenet": list(_googlenet()),
    "resnet50": list(_resnet50()),
    "mobilenetv2": MOBILENETV2,
    "unet": list(_unet()),
    "deeplab-aspp": ASPP,
    "c3d": C3D,
}
