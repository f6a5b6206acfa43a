"""What is measured: real layers' calls, as data.

A case ``model.layer`` is the call that this layer of this model (of ``pydl.models``) makes; the
tests hold the table to the models. A substitute is a call that no layer of those makes: one on the
map of a layer that does, or one of an architecture known by its paper (conv_cases.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydl.bench import conv_cases
from pydl.models.calls import Call

FAMILY = {
    "conv2d": "conv",
    "conv3d": "conv",
    "conv_transpose2d": "conv",
    "conv2d_bias_act": "conv_bias_act",
    "locally_connected2d": "local",
    "max_pool2d": "pool",
    "avg_pool2d": "pool",
    "max_pool3d": "pool3d",
    "avg_pool3d": "pool3d",
    "max_unpool2d": "unpool",
    "lp_pool2d": "pool_lp",
    "adaptive_avg_pool2d": "pool_adaptive",
    "adaptive_max_pool2d": "pool_adaptive",
    "spatial_pyramid_pool": "pool_pyramid",
    "roi_align": "roi",
    "roi_pool": "roi",
    "nms": "nms",
    "local_response_norm": "lrn",
    "spatial_response_norm": "spatial_norm",
    "batch_norm": "batch_norm",
    "softmax": "softmax",
    "log_softmax": "softmax",
    "cross_entropy": "cross_entropy",
    "batch_norm_act": "batch_norm_act",
    "dropout": "dropout",
    "relu": "activation",
}


@dataclass(frozen=True)
class Case:
    """One call; ``goal`` is what the ratio to PyTorch should reach by pass: float32, one CPU
    thread, NCHW, own batch."""

    name: str
    about: str
    operator: str
    batch: int
    input: tuple[int, ...]  # C, H, W or C, D, H, W; C where there are no pixels
    weight: tuple[int, ...] | None = None  # as the operator takes it
    bias: tuple[int, ...] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    first: bool = False  # the first layer: nothing is differentiated by the image
    substitute: bool = False
    boxes: int | None = None  # regions of interest
    goal: Mapping[str, float] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """What the dispatch table decides on together."""
        if self.operator == "adaptive_avg_pool2d" and self.arguments["output_size"] == 1:
            return "pool_global"
        depthwise = self.weight is not None and self.weight[1:2] == (1,) and self.input[0] > 1
        if depthwise and self.arguments.get("groups", 1) > 1:
            return "depthwise_bias_act" if "bias_act" in self.operator else "depthwise"
        return FAMILY[self.operator]

    def call(self, batch: int | None = None) -> Call:
        """The call for this many images; None is the case's own number."""
        batch = self.batch if batch is None else batch
        return Call(
            self.operator,
            (batch, *self.input),
            self.weight,
            self.bias,
            self.arguments,
            grad_input=not self.first,
            target=(batch, *self.input[1:]) if self.operator == "cross_entropy" else None,
            boxes=self.boxes,
        )


def _conv(
    name: str,
    about: str,
    batch: int,
    input: tuple,
    weight: tuple,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> Case:
    arguments = {
        "stride": (stride,) * 2,
        "padding": (padding,) * 2,
        "dilation": (1, 1),
        "groups": groups,
    }
    return Case(
        name,
        about,
        "conv2d",
        batch,
        input,
        weight,
        weight[:1],
        arguments,
        first=name.endswith("conv1"),
    )


def _max_pool(name: str, about: str, batch: int, input: tuple, size: int, **more: Any) -> Case:
    arguments = {"kernel_size": size, "stride": 2, "padding": 0, "dilation": 1, "ceil_mode": False}
    return Case(name, about, "max_pool2d", batch, input, arguments=arguments, **more)


def _avg_pool(name: str, about: str, batch: int, input: tuple, size: int, **more: Any) -> Case:
    arguments: dict[str, Any] = {"kernel_size": size, "stride": 2, "padding": 0}
    arguments |= {"ceil_mode": False, "count_include_pad": True, "divisor_override": None}
    return Case(name, about, "avg_pool2d", batch, input, arguments=arguments, **more)


def _pool(name: str, about: str, operator: str, batch: int, input: tuple, **more: Any) -> Case:
    """A pooling that no layer of the models does; the shapes are the papers'."""
    goal = more.pop("goal", {})
    return Case(name, about, operator, batch, input, arguments=more, substitute=True, goal=goal)


def _boxes(
    name: str, about: str, operator: str, boxes: int, input: tuple, **arguments: object
) -> Case:
    """A detector's call. PyTorch has an operator for none of them; they are compared with its
    parts, put together in pydl/models/stock.py."""
    return Case(name, about, operator, 1, input, arguments=arguments, substitute=True, boxes=boxes)


def _lrn(name: str, about: str, batch: int, input: tuple, **more: Any) -> Case:
    arguments = {"size": 5, "alpha": 5e-4, "beta": 0.75, "k": 2.0}
    return Case(name, about, "local_response_norm", batch, input, arguments=arguments, **more)


def _of_architecture(model: str, layer: str, input: tuple, weight: tuple, window: dict) -> Case:
    """A row of conv_cases."""
    axes, transposed = len(input) - 1, window.get("transposed", False)
    arguments = {
        key: (value,) * axes if isinstance(value := window.get(key, default), int) else value
        for key, default in (("stride", 1), ("padding", 0), ("dilation", 1))
    }
    groups = window.get("groups", 1)
    kernel = "x".join(map(str, weight[2:]))
    about = f"{kernel}, {input[0]} channels to {weight[1] if transposed else weight[0]}"
    about += "".join(f", {key} {value}" for key, value in window.items() if key != "transposed")
    return Case(
        f"{model}.{layer}",
        about,
        f"conv_transpose{axes}d" if transposed else f"conv{axes}d",
        32,
        input,
        weight,
        (weight[1] if transposed else weight[0],),
        arguments | {"groups": groups},
        first=input[0] <= 3,
        substitute=True,  # pydl.models has no such model; the shapes are the papers'
    )


def _bias_act(name: str, about: str, input: tuple, weight: tuple, **window: object) -> Case:
    return Case(
        name, about, "conv2d_bias_act", 32, input, weight, weight[:1], window, substitute=True
    )


def _local(name: str, about: str, input: tuple, weight: tuple) -> Case:
    bias = (weight[0], *weight[4:])
    return Case(name, about, "locally_connected2d", 32, input, weight, bias, substitute=True)


def _batch_norm(name: str, about: str, batch: int, input: tuple, **more: Any) -> Case:
    """Training: both statistics are made. With its activation where the name says so."""
    operator = "batch_norm_act" if name.endswith("+relu") else "batch_norm"
    arguments = {"running_mean": None, "running_var": None, "training": True}
    channels = input[:1]
    return Case(
        name, about, operator, batch, input, channels, channels, arguments, substitute=True, **more
    )


_BATCH_NORM_GOAL = {"forward": 4, "both": 2.5}


def _scores(name: str, about: str, operator: str, batch: int, input: tuple, **more: Any) -> Case:
    """The end of a classifier: softmax over its classes, the loss, or what comes before them."""
    arguments: dict[str, Any] = {"dropout": {"p": 0.5}}.get(operator, {})
    arguments = {"dim": 1} if operator.endswith("softmax") else arguments
    return Case(name, about, operator, batch, input, arguments=arguments, substitute=True, **more)


CASES: tuple[Case, ...] = (
    _conv(
        "lenet5.conv1",
        "5x5, one channel to 6: a layer bound by overhead",
        32,
        (1, 32, 32),
        (6, 1, 5, 5),
    ),
    _max_pool("lenet5.pool1", "2x2 stride 2, windows that do not overlap", 32, (6, 28, 28), 2),
    _conv("lenet5.conv2", "5x5, 6 channels to 16", 32, (6, 14, 14), (16, 6, 5, 5)),
    _max_pool("lenet5.pool2", "2x2 stride 2 on rows of 10", 32, (16, 10, 10), 2),
    _avg_pool("lenet5-1998.pool1", "2x2 stride 2 average", 32, (6, 28, 28), 2),
    _avg_pool("lenet5-1998.pool2", "2x2 stride 2 average on rows of 10", 32, (16, 10, 10), 2),
    _conv(
        "alexnet.conv1",
        "11x11 stride 4, three channels: the first layer",
        16,
        (3, 227, 227),
        (96, 3, 11, 11),
        stride=4,
    ),
    _lrn(
        "alexnet.lrn1",
        "across channels, the largest map",
        16,
        (96, 55, 55),
        goal={"forward": 25, "both": 30},
    ),
    _max_pool(
        "alexnet.pool1",
        "3x3 stride 2, overlapping",
        16,
        (96, 55, 55),
        3,
        goal={"forward": 20, "both": 8},
    ),
    _avg_pool(
        "alexnet.average1",
        "average in place of pool1",
        16,
        (96, 55, 55),
        3,
        goal={"forward": 7},
        substitute=True,
    ),
    _conv(
        "alexnet.conv2", "5x5 in two groups", 16, (96, 27, 27), (256, 48, 5, 5), padding=2, groups=2
    ),
    Case(
        "alexnet.lrn1-within",
        "within each channel, boxes of 3x3, on lrn1's map; PyTorch by pooling and powers",
        "spatial_response_norm",
        16,
        (96, 55, 55),
        arguments={"size": 3, "alpha": 5e-5, "beta": 0.75, "k": 1.0},
        substitute=True,
    ),
    _lrn("alexnet.lrn2", "across channels, 256 of them", 16, (256, 27, 27)),
    _max_pool("alexnet.pool2", "3x3 stride 2, overlapping", 16, (256, 27, 27), 3),
    _conv(
        "alexnet.conv3", "3x3 across all channels", 16, (256, 13, 13), (384, 256, 3, 3), padding=1
    ),
    _conv(
        "alexnet.conv4",
        "3x3 in two groups",
        16,
        (384, 13, 13),
        (384, 192, 3, 3),
        padding=1,
        groups=2,
    ),
    _conv(
        "alexnet.conv5",
        "3x3 in two groups",
        16,
        (384, 13, 13),
        (256, 192, 3, 3),
        padding=1,
        groups=2,
    ),
    _max_pool("alexnet.pool5", "3x3 stride 2 on rows of 13", 16, (256, 13, 13), 3),
    _conv("alexnet-lecture.conv2", "5x5, unpadded, no groups", 16, (96, 27, 27), (256, 96, 5, 5)),
    _conv("alexnet-lecture.conv4", "3x3, unpadded, 9 to 7", 16, (384, 9, 9), (384, 384, 3, 3)),
    *(_of_architecture(model, *row) for model, rows in conv_cases.MODELS.items() for row in rows),
    Case(
        "depthwise.256-56",
        "3x3 on a map that no cache holds",
        "conv2d",
        8,
        (256, 56, 56),
        (256, 1, 3, 3),
        (256,),
        {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 256},
        substitute=True,
        goal={"forward": 8, "grad_input": 8, "grad_weight": 8},
    ),
    _pool(
        "alexnet.l2pool1",
        "L2, 3x3 stride 2, in place of pool1",
        "lp_pool2d",
        16,
        (96, 55, 55),
        norm_type=2.0,
        kernel_size=3,
        stride=2,
        goal={"forward": 10},
    ),
    _pool(
        "resnet50.avgpool",
        "global average of 7x7",
        "adaptive_avg_pool2d",
        32,
        (2048, 7, 7),
        output_size=1,
    ),
    _pool(
        "googlenet.avgpool",
        "global average of 7x7",
        "adaptive_avg_pool2d",
        32,
        (1024, 7, 7),
        output_size=1,
    ),
    _pool(
        "vgg16.avgpool",
        "7x7 from the map of an image of 416",
        "adaptive_avg_pool2d",
        16,
        (512, 13, 13),
        output_size=7,
        goal={"forward": 4},
    ),
    _pool(
        "vgg16.maxpool",
        "adaptive maxima in its place",
        "adaptive_max_pool2d",
        16,
        (512, 13, 13),
        output_size=7,
        goal={"forward": 4},
    ),
    _pool(
        "sppnet.pyramid1236",
        "levels 1, 2, 3, 6, maxima",
        "spatial_pyramid_pool",
        16,
        (256, 13, 13),
        levels=(1, 2, 3, 6),
        goal={"forward": 4},
    ),
    _pool(
        "sppnet.pyramid421",
        "levels 4, 2, 1, averages",
        "spatial_pyramid_pool",
        16,
        (256, 13, 13),
        levels=(4, 2, 1),
        kind="average",
        goal={"forward": 4},
    ),
    _pool(
        "segnet.unpool1",
        "to the size of the image",
        "max_unpool2d",
        2,
        (64, 112, 112),
        kernel_size=2,
    ),
    _pool(
        "segnet.unpool4",
        "in the middle of the decoder",
        "max_unpool2d",
        2,
        (512, 28, 28),
        kernel_size=2,
    ),
    _pool(
        "c3d.pool1",
        "1x2x2, time kept",
        "max_pool3d",
        2,
        (64, 16, 112, 112),
        kernel_size=(1, 2, 2),
        stride=(1, 2, 2),
        goal={"forward": 4},
    ),
    _pool(
        "c3d.pool3",
        "2x2x2",
        "max_pool3d",
        2,
        (256, 8, 28, 28),
        kernel_size=2,
        stride=2,
        goal={"forward": 4},
    ),
    _pool(
        "c3d.average3",
        "2x2x2 average in place of pool3",
        "avg_pool3d",
        2,
        (256, 8, 28, 28),
        kernel_size=2,
        stride=2,
        goal={"forward": 4},
    ),
    _bias_act(
        "resnet50.layer1.0.conv2+relu",
        "3x3 with bias and ReLU in its epilogue",
        (64, 56, 56),
        (64, 64, 3, 3),
        padding=1,
    ),
    _bias_act(
        "mobilenetv2.depthwise-144-56+relu",
        "depthwise with bias and ReLU in its epilogue",
        (144, 56, 56),
        (144, 1, 3, 3),
        padding=1,
        groups=144,
    ),
    _scores("classifier.softmax-10", "ten classes", "softmax", 512, (10,)),
    _scores("classifier.softmax-1000", "a thousand classes", "softmax", 256, (1000,)),
    _scores("classifier.softmax-10-8192", "ten classes", "softmax", 8192, (10,)),
    _scores("classifier.dropout-120", "LeNet-5's features", "dropout", 32, (120,)),
    _scores("classifier.dropout-512", "the fewest that gain", "dropout", 32, (512,)),
    _scores("classifier.dropout-4096", "AlexNet's features", "dropout", 128, (4096,)),
    _scores("classifier.relu-4096", "AlexNet's features", "relu", 128, (4096,)),
    _scores("classifier.loss-10-8192", "ten classes", "cross_entropy", 8192, (10,)),
    _scores("classifier.loss-10", "ten classes", "cross_entropy", 512, (10,)),
    _scores("classifier.loss-1000", "a thousand classes", "cross_entropy", 256, (1000,)),
    # Everingham et al. 2010: 20 classes and the background
    _scores("voc.softmax", "21 classes of pixels", "softmax", 4, (21, 256, 256)),
    _scores("voc.log_softmax", "21 classes of pixels", "log_softmax", 4, (21, 256, 256)),
    _scores("voc.loss", "21 classes of pixels", "cross_entropy", 4, (21, 256, 256)),
    # Zhou et al. 2017
    _scores("ade20k.loss", "150 classes of pixels", "cross_entropy", 2, (150, 128, 128)),
    # Taigman et al. 2014, figure 2
    _local("deepface.l4", "9x9, 16 channels, 63 to 55", (16, 63, 63), (16, 16, 9, 9, 55, 55)),
    _local("deepface.l6", "5x5, 16 channels, 25 to 21", (16, 25, 25), (16, 16, 5, 5, 21, 21)),
    # Girshick 2015 and Ren et al. 2015 on VGG16, an image of 600 x 800; He et al. 2017 on an FPN's
    # finest level, an image of 800 x 1088
    _boxes(
        "fasterrcnn.roi_pool",
        "7x7 bins on conv5",
        "roi_pool",
        128,
        (512, 38, 50),
        output_size=7,
        spatial_scale=1 / 16,
    ),
    _boxes(
        "maskrcnn.roi_align",
        "7x7 bins on the finest level",
        "roi_align",
        512,
        (256, 200, 272),
        output_size=7,
        spatial_scale=0.25,
        sampling_ratio=2,
    ),
    _boxes(
        "fasterrcnn.nms-2000",
        "proposals in a test image",
        "nms",
        2000,
        (1, 600, 800),
        iou_threshold=0.7,
    ),
    _boxes(
        "fasterrcnn.nms-6000",
        "anchors before proposals are chosen",
        "nms",
        6000,
        (1, 600, 800),
        iou_threshold=0.7,
    ),
    _batch_norm("bn-lenet5.bn1+relu", "after conv1, small", 32, (6, 28, 28)),
    _batch_norm("bn-lenet5.bn2+relu", "after conv2, smaller", 32, (16, 10, 10)),
    _batch_norm("bn-alexnet.bn1+relu", "in place of lrn1", 16, (96, 55, 55), goal=_BATCH_NORM_GOAL),
    _batch_norm(
        "resnet50.layer1.0.bn1+relu",
        "the most frequent map",
        32,
        (64, 56, 56),
        goal=_BATCH_NORM_GOAL,
    ),
    _batch_norm("resnet50.layer1.0.bn3", "256 channels, no activation", 8, (256, 56, 56)),
    _batch_norm("resnet50.layer3.0.bn1+relu", "14 x 14", 32, (256, 14, 14)),
    _batch_norm("resnet50.layer4.0.bn1+relu", "planes of 49", 32, (512, 7, 7)),
    _batch_norm("mobilenetv2.bn-144-56", "after a depthwise layer", 32, (144, 56, 56)),
)
