"""Response normalisation within a channel as a layer."""

import torch

from pydl import functional
from pydl.nn.layer import Layer, with_backend


class SpatialResponseNorm(Layer, torch.nn.Module):
    """See :func:`pydl.functional.spatial_response_norm`.

    Args:
        size, alpha, beta, k: as the function's.
        backend: the backend that must serve the layer; None leaves the choice open.

    >>> pydl.nn.SpatialResponseNorm(3)(torch.randn(2, 8, 12, 10)).shape
    torch.Size([2, 8, 12, 10])
    """

    def __init__(
        self,
        size: int,
        alpha: float = 1.0,
        beta: float = 0.75,
        k: float = 1.0,
        *,
        backend: str | None = None,
    ) -> None:
        super().__init__(backend=backend)
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.spatial_response_norm(
            input, self.size, self.alpha, self.beta, self.k, backend=self._pydl_backend
        )

    def extra_repr(self) -> str:
        said = f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
        return with_backend(self, said)
