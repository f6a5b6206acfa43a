"""The one table of networks, put together from their files."""

from torch import nn

from pydl.models.alexnet import MODELS as ALEXNET
from pydl.models.autoencoder3d import MODELS as AUTOENCODER_3D
from pydl.models.crepe import MODELS as CREPE
from pydl.models.densenet import MODELS as DENSENET
from pydl.models.efficientnet import MODELS as EFFICIENTNET
from pydl.models.googlenet import MODELS as GOOGLENET
from pydl.models.googlenet_2014 import MODELS as GOOGLENET_2014
from pydl.models.inception import MODELS as INCEPTION
from pydl.models.lenet5 import MODELS as LENET5
from pydl.models.mobilenetv2 import MODELS as MOBILENET_V2
from pydl.models.model import Model
from pydl.models.regression import MODELS as REGRESSION
from pydl.models.resnet import MODELS as RESNET
from pydl.models.resnet_cifar import MODELS as RESNET_CIFAR
from pydl.models.segmentation.context import MODELS as CONTEXT
from pydl.models.segmentation.deeplab_largefov import MODELS as DEEPLAB_LARGEFOV
from pydl.models.segmentation.deeplabv3 import MODELS as DEEPLAB_V3
from pydl.models.segmentation.fcn import MODELS as FCN
from pydl.models.segmentation.fcn_resnet import MODELS as FCN_RESNET
from pydl.models.segmentation.segnet import MODELS as SEGNET
from pydl.models.segmentation.unet import MODELS as UNET
from pydl.models.sequence.awd_lstm import MODELS as AWD_LSTM
from pydl.models.sequence.captioner import MODELS as CAPTIONER
from pydl.models.sequence.classifier import MODELS as CLASSIFIER
from pydl.models.sequence.clip_captioner import MODELS as CLIP_CAPTIONER
from pydl.models.sequence.crnn import MODELS as CRNN
from pydl.models.sequence.elmo import MODELS as ELMO
from pydl.models.sequence.feed_forward_lm import MODELS as FEED_FORWARD_LM
from pydl.models.sequence.flair import MODELS as FLAIR
from pydl.models.sequence.forecaster import MODELS as FORECASTER
from pydl.models.sequence.line_reader import MODELS as LINE_READER
from pydl.models.sequence.lstm_lm import MODELS as LSTM_LM
from pydl.models.sequence.region_captioner import MODELS as REGION_CAPTIONER
from pydl.models.sequence.speaker_encoder import MODELS as SPEAKER_ENCODER
from pydl.models.sequence.translator import MODELS as TRANSLATOR
from pydl.models.shufflenetv2 import MODELS as SHUFFLENET_V2
from pydl.models.sppnet import MODELS as SPPNET
from pydl.models.squeezenet import MODELS as SQUEEZENET
from pydl.models.stn import MODELS as STN
from pydl.models.vgg import MODELS as VGG
from pydl.models.video.c3d import MODELS as C3D
from pydl.models.video.lrcn import MODELS as LRCN
from pydl.models.video.resnet import MODELS as VIDEO_RESNET
from pydl.models.zfnet import MODELS as ZFNET

# By what they are for, in the order of their years.
_FILES = (
    LENET5,
    ALEXNET,
    ZFNET,
    VGG,
    GOOGLENET_2014,
    GOOGLENET,
    SPPNET,
    INCEPTION,
    RESNET,
    RESNET_CIFAR,
    STN,
    SQUEEZENET,
    DENSENET,
    SHUFFLENET_V2,
    MOBILENET_V2,
    EFFICIENTNET,
    REGRESSION,
    FCN,
    FCN_RESNET,
    DEEPLAB_LARGEFOV,
    SEGNET,
    UNET,
    CONTEXT,
    DEEPLAB_V3,
    C3D,
    LRCN,
    VIDEO_RESNET,
    AUTOENCODER_3D,
    FEED_FORWARD_LM,
    LSTM_LM,
    AWD_LSTM,
    ELMO,
    FLAIR,
    CLASSIFIER,
    TRANSLATOR,
    CRNN,
    LINE_READER,
    CAPTIONER,
    CLIP_CAPTIONER,
    REGION_CAPTIONER,
    FORECASTER,
    SPEAKER_ENCODER,
    CREPE,
)

MODELS: dict[str, Model] = {model.name: model for file in _FILES for model in file}


def find(name: str) -> Model:
    """The table's row of that name.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    if name not in MODELS:
        raise ValueError(f"no model is called {name!r}; there are {', '.join(MODELS)}")
    return MODELS[name]


def build(name: str) -> nn.Module:
    """The model of that name with fresh weights; :func:`find` raises where there is none."""
    return find(name).build()
