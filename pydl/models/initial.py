"""First weights."""

from torch import nn


def he(model: nn.Module) -> None:
    """Draws the weights of convolutions anew so that ReLU keeps the variance from layer to layer;
    biases are 0.

    Source: He, Zhang, Ren, Sun 2015, Delving Deep into Rectifiers.
    """
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
