"""Networks, a file each, and the table of them."""

from pydl.models.alexnet import alexnet, alexnet_lecture, alexnet_torchvision
from pydl.models.autoencoder3d import autoencoder3d, autoencoder3d_skip
from pydl.models.backbone import backbone
from pydl.models.crepe import crepe, crepe_tiny
from pydl.models.densenet import densenet121, densenet161, densenet169, densenet201
from pydl.models.efficientnet import (
    efficientnet_b0,
    efficientnet_b1,
    efficientnet_b2,
    efficientnet_b3,
    efficientnet_b4,
    efficientnet_b5,
    efficientnet_b6,
    efficientnet_b7,
)
from pydl.models.googlenet import googlenet
from pydl.models.googlenet_2014 import googlenet_2014
from pydl.models.inception import inception_v3
from pydl.models.lenet5 import lenet5
from pydl.models.mobilenetv2 import mobilenet_v2
from pydl.models.model import Model
from pydl.models.regression import regression
from pydl.models.resnet import resnet18, resnet34, resnet50, resnet101, resnet152
from pydl.models.resnet_cifar import resnet_cifar
from pydl.models.segmentation.context import context, context_large
from pydl.models.segmentation.deeplab_largefov import deeplab_largefov
from pydl.models.segmentation.deeplabv3 import deeplabv3_resnet50, deeplabv3_resnet101
from pydl.models.segmentation.fcn import fcn8s, fcn16s, fcn32s
from pydl.models.segmentation.fcn_resnet import fcn_resnet50, fcn_resnet101
from pydl.models.segmentation.segnet import segnet
from pydl.models.segmentation.unet import unet, unet_padded
from pydl.models.sequence.awd_lstm import AWDLSTM, awd_lstm_ptb, awd_lstm_wt2
from pydl.models.sequence.captioner import Captioner, captioner
from pydl.models.sequence.char_lm import CharLM
from pydl.models.sequence.clip_captioner import ClipCaptioner, clip_captioner
from pydl.models.sequence.crnn import CRNN, crnn
from pydl.models.sequence.elmo import ELMo, elmo, elmo_medium, elmo_small
from pydl.models.sequence.feed_forward_lm import FeedForwardLM, feed_forward_lm
from pydl.models.sequence.flair import Flair, flair
from pydl.models.sequence.line_reader import LineReader, line_reader
from pydl.models.sequence.lstm_lm import LSTMLM, lstm_lm_large, lstm_lm_medium
from pydl.models.sequence.region_captioner import RegionCaptioner, region_captioner
from pydl.models.sequence.speaker_encoder import speaker_encoder
from pydl.models.sequence.translator import Translator, rnnsearch
from pydl.models.shufflenetv2 import (
    shufflenet_v2_x0_5,
    shufflenet_v2_x1_0,
    shufflenet_v2_x1_5,
    shufflenet_v2_x2_0,
)
from pydl.models.sppnet import sppnet
from pydl.models.squeezenet import squeezenet1_0, squeezenet1_1
from pydl.models.stn import stn
from pydl.models.summary import LayerRow, summarize
from pydl.models.table import MODELS, build, find
from pydl.models.vgg import vgg16, vgg16_bn, vgg19, vgg19_bn
from pydl.models.video import LRCN, c3d, inflate, lrcn_digits, mc3_18, r2plus1d_18, r3d_18
from pydl.models.zfnet import zfnet, zfnet512

__all__ = [
    "AWDLSTM",
    "CRNN",
    "LRCN",
    "LSTMLM",
    "MODELS",
    "Captioner",
    "CharLM",
    "ClipCaptioner",
    "ELMo",
    "FeedForwardLM",
    "Flair",
    "LayerRow",
    "LineReader",
    "Model",
    "RegionCaptioner",
    "Translator",
    "alexnet",
    "alexnet_lecture",
    "alexnet_torchvision",
    "autoencoder3d",
    "autoencoder3d_skip",
    "awd_lstm_ptb",
    "awd_lstm_wt2",
    "backbone",
    "build",
    "c3d",
    "captioner",
    "clip_captioner",
    "context",
    "context_large",
    "crepe",
    "crepe_tiny",
    "crnn",
    "deeplab_largefov",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "efficientnet_b4",
    "efficientnet_b5",
    "efficientnet_b6",
    "efficientnet_b7",
    "elmo",
    "elmo_medium",
    "elmo_small",
    "fcn8s",
    "fcn16s",
    "fcn32s",
    "fcn_resnet50",
    "fcn_resnet101",
    "feed_forward_lm",
    "find",
    "flair",
    "googlenet",
    "googlenet_2014",
    "inception_v3",
    "inflate",
    "lenet5",
    "line_reader",
    "lrcn_digits",
    "lstm_lm_large",
    "lstm_lm_medium",
    "mc3_18",
    "mobilenet_v2",
    "r2plus1d_18",
    "r3d_18",
    "region_captioner",
    "regression",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnet_cifar",
    "rnnsearch",
    "segnet",
    "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0",
    "shufflenet_v2_x1_5",
    "shufflenet_v2_x2_0",
    "speaker_encoder",
    "sppnet",
    "squeezenet1_0",
    "squeezenet1_1",
    "stn",
    "summarize",
    "unet",
    "unet_padded",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
    "zfnet",
    "zfnet512",
]
