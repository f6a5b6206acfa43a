"""ZFNet: Zeiler, Fergus, "Visualizing and Understanding Convolutional Networks", 2013.

AlexNet with smaller windows and strides in its first layers, and without groups. Two networks go by
that name: the paper's, and a wider one that frameworks carry. Both return scores that are not
normalised.
"""

from collections import OrderedDict

from pydl import nn
from pydl.models.alexnet import response_norm  # the paper gives no numbers of its own
from pydl.models.model import Model


def zfnet(num_classes: int = 1000) -> nn.Sequential:
    """ZFNet as published, for (N, 3, 224, 224): response normalisation after the first two pools,
    dropout, the paper's initial weights."""
    model = nn.Sequential(
        OrderedDict(  # [N, 3, 224, 224]; the padding is what the paper's figure 3 follows from
            conv1=nn.Conv2d(3, 96, kernel_size=7, stride=2, padding=1),  # [N, 96, 110, 110]
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(3, stride=2, padding=1),  # [N, 96, 55, 55]
            lrn1=response_norm(),
            conv2=nn.Conv2d(96, 256, kernel_size=5, stride=2),  # [N, 256, 26, 26]
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(3, stride=2, padding=1),  # [N, 256, 13, 13]
            lrn2=response_norm(),
            conv3=nn.Conv2d(256, 384, kernel_size=3, padding=1),  # [N, 384, 13, 13]
            relu3=nn.ReLU(),
            conv4=nn.Conv2d(384, 384, kernel_size=3, padding=1),  # [N, 384, 13, 13]
            relu4=nn.ReLU(),
            conv5=nn.Conv2d(384, 256, kernel_size=3, padding=1),  # [N, 256, 13, 13]
            relu5=nn.ReLU(),
            pool5=nn.MaxPool2d(3, stride=2),  # [N, 256, 6, 6]
            flatten=nn.Flatten(),  # [N, 9216]
            drop6=nn.Dropout(0.5),
            fc6=nn.Linear(256 * 6 * 6, 4096),  # [N, 4096]
            relu6=nn.ReLU(),
            drop7=nn.Dropout(0.5),
            fc7=nn.Linear(4096, 4096),  # [N, 4096]
            relu7=nn.ReLU(),
            fc8=nn.Linear(4096, num_classes),  # [N, num_classes]
        )
    )
    return _initialised(model)


def zfnet512(num_classes: int = 1000) -> nn.Sequential:
    """ZFNet with 512 maps in convolutions 3 to 5, as Caffe2 has it, for (N, 3, 224, 224): response
    normalisation before the first two pools, no padding there, 1024 units in the last hidden
    layer."""
    model = nn.Sequential(
        OrderedDict(  # [N, 3, 224, 224]
            conv1=nn.Conv2d(3, 96, kernel_size=7, stride=2),  # [N, 96, 109, 109]
            relu1=nn.ReLU(),
            lrn1=response_norm(),
            pool1=nn.MaxPool2d(3, stride=2),  # [N, 96, 54, 54]
            conv2=nn.Conv2d(96, 256, kernel_size=5, stride=2),  # [N, 256, 25, 25]
            relu2=nn.ReLU(),
            lrn2=response_norm(),
            pool2=nn.MaxPool2d(3, stride=2),  # [N, 256, 12, 12]
            conv3=nn.Conv2d(256, 512, kernel_size=3, padding=1),  # [N, 512, 12, 12]
            relu3=nn.ReLU(),
            conv4=nn.Conv2d(512, 512, kernel_size=3, padding=1),  # [N, 512, 12, 12]
            relu4=nn.ReLU(),
            conv5=nn.Conv2d(512, 512, kernel_size=3, padding=1),  # [N, 512, 12, 12]
            relu5=nn.ReLU(),
            pool5=nn.MaxPool2d(2, stride=2),  # [N, 512, 6, 6]
            flatten=nn.Flatten(),  # [N, 18432]
            fc6=nn.Linear(512 * 6 * 6, 4096),  # [N, 4096]
            relu6=nn.ReLU(),
            fc7=nn.Linear(4096, 1024),  # [N, 1024]
            relu7=nn.ReLU(),
            fc8=nn.Linear(1024, num_classes),  # [N, num_classes]
        )
    )
    return _initialised(model)


def _initialised(model: nn.Sequential) -> nn.Sequential:
    """Section 3.1: weights of 0.01, which is taken as their deviation (all alike would stay so),
    and biases of 0."""
    for layer in model:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return model


_ZEILER = "Zeiler, Fergus 2013, Visualizing and Understanding Convolutional Networks"

MODELS = (
    Model(
        "zfnet",
        zfnet,
        (3, 224, 224),
        "ZFNet as published, with LRN, dropout",
        _ZEILER,
        parameters=62_357_608,
    ),
    Model(
        "zfnet512",
        zfnet512,
        (3, 224, 224),
        "ZFNet with 512 maps in convolutions 3 to 5",
        _ZEILER,
        parameters=87_250_536,
        golden="onnx",
    ),
)
