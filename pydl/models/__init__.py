"""Networks, a file each, and the table of them."""

from pydl.models.alexnet import alexnet, alexnet_lecture, alexnet_torchvision
from pydl.models.lenet5 import lenet5
from pydl.models.model import Model
from pydl.models.resnet import resnet18, resnet34, resnet50, resnet101, resnet152
from pydl.models.summary import LayerRow, summarize
from pydl.models.table import MODELS, build, find
from pydl.models.vgg import vgg16, vgg16_bn, vgg19, vgg19_bn

__all__ = [
    "MODELS",
    "LayerRow",
    "Model",
    "alexnet",
    "alexnet_lecture",
    "alexnet_torchvision",
    "build",
    "find",
    "lenet5",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "summarize",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
]
