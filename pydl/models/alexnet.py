"""AlexNet: Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural
Networks", 2012.

Three networks go by that name: as published, as lectures draw it, as torchvision builds it. All
return scores that are not normalised.
"""

from collections import OrderedDict

import torch

from pydl import nn
from pydl.models.model import Model


def alexnet_lecture(num_classes: int = 1000) -> nn.Sequential:
    """AlexNet as drawn in lectures, without padding or groups, for (N, 3, 227, 227): maps of
    55-27-23-11-9-7-5-2 pixels, fully connected layers of 1024-4096-4096-1000 units."""
    return nn.Sequential(
        OrderedDict(  # [N, 3, 227, 227]
            conv1=nn.Conv2d(3, 96, kernel_size=11, stride=4),  # [N, 96, 55, 55]
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(3, stride=2),  # [N, 96, 27, 27]
            conv2=nn.Conv2d(96, 256, kernel_size=5),  # [N, 256, 23, 23]
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(3, stride=2),  # [N, 256, 11, 11]
            conv3=nn.Conv2d(256, 384, kernel_size=3),  # [N, 384, 9, 9]
            relu3=nn.ReLU(),
            conv4=nn.Conv2d(384, 384, kernel_size=3),  # [N, 384, 7, 7]
            relu4=nn.ReLU(),
            conv5=nn.Conv2d(384, 256, kernel_size=3),  # [N, 256, 5, 5]
            relu5=nn.ReLU(),
            pool5=nn.MaxPool2d(3, stride=2),  # [N, 256, 2, 2]
            flatten=nn.Flatten(),  # [N, 1024]
            fc6=nn.Linear(256 * 2 * 2, 4096),  # [N, 4096]
            relu6=nn.ReLU(),
            fc7=nn.Linear(4096, 4096),  # [N, 4096]
            relu7=nn.ReLU(),
            fc8=nn.Linear(4096, num_classes),  # [N, num_classes]
        )
    )


def response_norm() -> nn.LocalResponseNorm:
    """Section 3.3: k = 2, n = 5, alpha = 1e-4, beta = 0.75; the paper does not divide alpha by n,
    PyTorch does."""
    return nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)


def alexnet(num_classes: int = 1000) -> nn.Sequential:
    """AlexNet as published, for (N, 3, 227, 227): response normalisation after the first two
    convolutions, overlapping pools, two groups in convolutions 2, 4 and 5, dropout, the paper's
    initial weights."""
    model = nn.Sequential(
        OrderedDict(  # [N, 3, 227, 227]; the paper says 224, which its own 55 does not follow from
            conv1=nn.Conv2d(3, 96, kernel_size=11, stride=4),  # [N, 96, 55, 55]
            relu1=nn.ReLU(),
            lrn1=response_norm(),
            pool1=nn.MaxPool2d(3, stride=2),  # [N, 96, 27, 27]
            conv2=nn.Conv2d(96, 256, kernel_size=5, padding=2, groups=2),  # [N, 256, 27, 27]
            relu2=nn.ReLU(),
            lrn2=response_norm(),
            pool2=nn.MaxPool2d(3, stride=2),  # [N, 256, 13, 13]
            conv3=nn.Conv2d(256, 384, kernel_size=3, padding=1),  # [N, 384, 13, 13]
            relu3=nn.ReLU(),
            conv4=nn.Conv2d(384, 384, kernel_size=3, padding=1, groups=2),  # [N, 384, 13, 13]
            relu4=nn.ReLU(),
            conv5=nn.Conv2d(384, 256, kernel_size=3, padding=1, groups=2),  # [N, 256, 13, 13]
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
    # Section 5: weights of deviation 0.01; biases 1 in convolutions 2, 4 and 5 and the hidden
    # layers, else 0.
    biased = {"conv2", "conv4", "conv5", "fc6", "fc7"}
    for name, layer in model.named_children():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, 1.0 if name in biased else 0.0)
    return model


class AlexNet(nn.Module):
    """torchvision's module tree."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(  # [N, 3, 224, 224]
            nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),  # [N, 64, 55, 55]
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),  # [N, 64, 27, 27]
            nn.Conv2d(64, 192, kernel_size=5, padding=2),  # [N, 192, 27, 27]
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),  # [N, 192, 13, 13]
            nn.Conv2d(192, 384, kernel_size=3, padding=1),  # [N, 384, 13, 13]
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),  # [N, 256, 13, 13]
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, kernel_size=3, padding=1),  # [N, 256, 13, 13]
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),  # [N, 256, 6, 6]
        )
        self.avgpool = nn.AdaptiveAvgPool2d(
            (6, 6)
        )  # [N, 256, 6, 6] from any input of 63 pixels and more
        self.classifier = nn.Sequential(  # [N, 9216]
            nn.Dropout(0.5),
            nn.Linear(256 * 6 * 6, 4096),  # [N, 4096]
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(4096, 4096),  # [N, 4096]
            nn.ReLU(inplace=True),
            nn.Linear(4096, num_classes),  # [N, num_classes]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def alexnet_torchvision(num_classes: int = 1000) -> AlexNet:
    """AlexNet with the layers of torchvision's ``alexnet``, for (N, 3, 224, 224); its
    ``state_dict`` loads: Krizhevsky, "One weird trick for parallelizing convolutional neural
    networks", 2014."""
    return AlexNet(num_classes)


_KRIZHEVSKY = (
    "Krizhevsky, Sutskever, Hinton 2012, ImageNet Classification with Deep Convolutional "
    "Neural Networks"
)

MODELS = (
    Model(
        "alexnet",
        alexnet,
        (3, 227, 227),
        "AlexNet as published, with LRN, two groups, dropout",
        _KRIZHEVSKY,
        parameters=60_965_224,
        golden="onnx",
    ),
    Model(
        "alexnet-lecture",
        alexnet_lecture,
        (3, 227, 227),
        "AlexNet as lectures draw it, without padding",
        _KRIZHEVSKY,
        parameters=28_823_912,
    ),
    Model(
        "alexnet-torchvision",
        alexnet_torchvision,
        (3, 224, 224),
        "AlexNet with torchvision's layers",
        "Krizhevsky 2014, One weird trick for parallelizing convolutional neural networks",
        small=(3, 64, 64),
        parameters=61_100_840,
        giga_multiply_adds="0.714",
        top1=56.522,
        golden="torchvision",
    ),
)
