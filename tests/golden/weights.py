"""Weights and inputs that are a function of their names, so that two implementations of a network
can be given the same ones without a file of them."""

import zlib
from collections.abc import Mapping

import numpy as np
import torch


def uniform(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Numbers from -1 to 1 that ``name`` alone decides."""
    generator = np.random.Generator(np.random.Philox(zlib.crc32(name.encode())))
    values = generator.random(shape, dtype=np.float32)
    return torch.from_numpy(values).mul_(2).sub_(1)


@torch.no_grad()
def fill(state: Mapping[str, torch.Tensor]) -> None:
    """Fills a ``state_dict`` in place, so that what a network computes stays finite and depends on
    every number: weights keep the variance of what they multiply, no norm is trivial."""
    for name, tensor in state.items():
        if not tensor.is_floating_point():  # num_batches_tracked
            tensor.zero_()
            continue
        values = uniform(name, tuple(tensor.shape))
        if tensor.ndim > 1:
            values *= (6 / tensor[0].numel()) ** 0.5
        elif name.endswith("running_var"):
            values.mul_(0.5).add_(1)
        elif name.endswith("weight"):
            values.mul_(0.25).add_(1)
        else:
            values *= 0.1
        tensor.copy_(values)
