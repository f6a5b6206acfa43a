"""Which networks the tests train step by step beside the same network made of torch.nn's layers
(models/test_table.py; for those with auxiliary heads models/test_googlenet.py); docs/networks.md
says so of each."""

from collections.abc import Callable

from torch import nn

from pydl.models.resnet import BasicBlock, ResNet
from pydl.models.segmentation.deeplab_largefov import DeepLabLargeFOV
from pydl.models.segmentation.deeplabv3 import DeepLabHead
from pydl.models.segmentation.fcn import FCN
from pydl.models.segmentation.fcn_resnet import FCNHead, on_resnet
from pydl.models.segmentation.segnet import SegNet
from pydl.models.segmentation.unet import UNet
from pydl.models.sequence.awd_lstm import AWDLSTM
from pydl.models.sequence.classifier import ULMFiT
from pydl.models.sequence.crnn import CRNN, Columns
from pydl.models.sequence.elmo import ELMo
from pydl.models.sequence.feed_forward_lm import FeedForwardLM
from pydl.models.sequence.flair import Flair
from pydl.models.sequence.line_reader import LineReader
from pydl.models.sequence.lstm_lm import LSTMLM
from pydl.models.sequence.translator import Translator
from pydl.models.video import mc3_18, r2plus1d_18

# One of each kind of block; the others are the same blocks in other numbers.
TRAINED = (
    "lenet5",
    "lenet5-1998",
    "alexnet",
    "zfnet",
    "vgg16_bn",
    "googlenet_2014",
    "sppnet",
    "resnet18",
    "resnet50",
    "resnet20",
    "plain20",
    "stn",
    "squeezenet1_0",
    "densenet121",
    "shufflenet_v2_x0_5",
    "mobilenet_v2",
    "efficientnet_b0",
    "regression",
    "fcn8s",
    "fcn_resnet50",
    "deeplab_largefov",
    "segnet",
    "unet",
    "unet-padded",
    "context",
    "deeplabv3_resnet50",
    "c3d-digits",
    "c3d-frame",
    "lrcn-digits",
    "mc3_18",
    "r2plus1d_18",
    "autoencoder3d",
    "autoencoder3d-skip",
    "feed_forward_lm",
    "lstm_lm_medium",
    "awd_lstm_ptb",
    "elmo_small",
    "flair",
    "sequence_classifier",
    "ulmfit",
    "rnnsearch",
    "crnn",
    "line_reader",
    "captioner",
    "clip_captioner",
    "region_captioner",
    "forecaster",
    "speaker_encoder",
    "crepe_tiny",
)
WITH_HEADS = ("googlenet",)

_STAGES = ((4, 4), (4, 8), (8, 8, 8), (8, 8, 8), (8, 8, 8))


def _short() -> ResNet:
    return ResNet(BasicBlock, (1, 1, 1, 1))


def _two_stages(build: Callable[..., nn.Module]) -> nn.Module:
    """A network for clips without its last two stages, whose blocks are those of the second."""
    network = build(num_classes=5)
    network.layer3 = network.layer4 = nn.Identity()
    network.fc = nn.Linear(128, 5)
    return network


# Networks for segmentation compute for every pixel, those for clips for every frame, and those for
# sequences have tens of thousands of words: the same blocks with fewer maps or units, or fewer.
NARROW: dict[str, Callable[[], nn.Module]] = {
    "fcn8s": lambda: FCN(8, 5, stages=_STAGES, hidden=8),
    "fcn_resnet50": lambda: on_resnet(_short(), FCNHead, 5, aux_loss=True),
    "deeplab_largefov": lambda: DeepLabLargeFOV(5, stages=_STAGES, hidden=8),
    "segnet": lambda: SegNet(5, stages=_STAGES),
    "unet": lambda: UNet(maps=4),
    "unet-padded": lambda: UNet(padded=True, maps=4),
    "deeplabv3_resnet50": lambda: on_resnet(_short(), DeepLabHead, 5, aux_loss=True),
    "feed_forward_lm": lambda: FeedForwardLM(16_383, embedding=3, hidden=4),
    "lstm_lm_medium": lambda: LSTMLM(10_000, hidden=5, dropout=0.0),
    "awd_lstm_ptb": lambda: AWDLSTM(
        10_000, embedding=3, hidden=5, word_dropout=0.0, weight_drop=0.0
    ),
    "elmo_small": lambda: ELMo(5, 4, highways=1),
    "flair": lambda: Flair(275, embedding=3, hidden=5),
    "ulmfit": lambda: ULMFiT(
        AWDLSTM(33_278, embedding=3, hidden=5, word_dropout=0.0, weight_drop=0.0), 2
    ),
    "rnnsearch": lambda: Translator(30_000, 30_000, embedding=3, hidden=4, maxout=2),
    "crnn": lambda: CRNN(37, maps=(2, 2, 4, 4, 4, 4, 4), hidden=3),
    "line_reader": lambda: LineReader(
        Columns(maps=(2, 2, 4, 4, 4, 4, 4), hidden=3), 39, embedding=3, hidden=4, maxout=2
    ),
    "mc3_18": lambda: _two_stages(mc3_18),
    "r2plus1d_18": lambda: _two_stages(r2plus1d_18),
}
