"""Which networks the tests train step by step beside the same network made of torch.nn's layers
(models/test_table.py; for those with auxiliary heads models/test_googlenet.py); docs/networks.md
says so of each."""

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
    "c3d-digits",
    "c3d-frame",
    "mc3_18",
    "r2plus1d_18",
    "autoencoder3d",
)
WITH_HEADS = ("googlenet",)
