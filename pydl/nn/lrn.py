"""Local response normalisation as a layer."""

import torch

from pydl import functional
from pydl.nn.layer import Layer


class LocalResponseNorm(Layer, torch.nn.LocalResponseNorm):
    """See :func:`pydl.functional.local_response_norm` and :class:`torch.nn.LocalResponseNorm`.

    >>> pydl.nn.LocalResponseNorm(5)(torch.randn(2, 8, 12, 10)).shape
    torch.Size([2, 8, 12, 10])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.local_response_norm(
            input, self.size, self.alpha, self.beta, self.k, backend=self._pydl_backend
        )
