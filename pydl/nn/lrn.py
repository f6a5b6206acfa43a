"""Local response normalisation as a layer."""

import torch

from pydl import functional
from pydl.nn.layer import Layer


class LocalResponseNorm(Layer, torch.nn.LocalResponseNorm):
    """See :func:`pydl.functional.local_response_norm` and :class:`torch.nn.LocalResponseNorm`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.local_response_norm(
            input, self.size, self.alpha, self.beta, self.k, backend=self.backend
        )
