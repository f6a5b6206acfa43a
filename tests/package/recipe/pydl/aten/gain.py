"""PyTorch's product with a number."""

import torch
from pydl.contract.gain import GainForward

from pydl.contract.call import Tensor


def gain_forward(call: GainForward) -> Tensor:
    return torch.mul(call.x, call.factor)
