"""Layers that pool regions of interest."""

from collections.abc import Sequence

import torch

from pydl import functional
from pydl.nn.layer import Layer, with_backend


class RoIAlign(Layer, torch.nn.Module):
    """See :func:`pydl.functional.roi_align`; the constructor is that of torchvision's layer.

    Args:
        output_size, spatial_scale, sampling_ratio, aligned: as the function's.
        backend: the backend that must serve the layer; None leaves the choice open.

    >>> boxes = torch.tensor([[0.0, 1, 1, 9, 9], [1, 2, 2, 5, 7]])
    >>> layer = pydl.nn.RoIAlign(4, spatial_scale=1.0, sampling_ratio=2)
    >>> layer(torch.randn(2, 3, 12, 10), boxes).shape
    torch.Size([2, 3, 4, 4])
    """

    def __init__(
        self,
        output_size: int | Sequence[int],
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = False,
        *,
        backend: str | None = None,
    ) -> None:
        super().__init__(backend=backend)
        self.output_size, self.spatial_scale = output_size, spatial_scale
        self.sampling_ratio, self.aligned = sampling_ratio, aligned

    def forward(
        self, input: torch.Tensor, rois: torch.Tensor | Sequence[torch.Tensor]
    ) -> torch.Tensor:
        arguments = self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned
        return functional.roi_align(input, rois, *arguments, backend=self._pydl_backend)

    def extra_repr(self) -> str:
        said = f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"
        said += f", sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        return with_backend(self, said)


class RoIPool(Layer, torch.nn.Module):
    """See :func:`pydl.functional.roi_pool`; the constructor is that of torchvision's layer.

    Args:
        output_size, spatial_scale: as the function's.
        backend: the backend that must serve the layer; None leaves the choice open.

    >>> boxes = torch.tensor([[0.0, 1, 1, 9, 9], [1, 2, 2, 5, 7]])
    >>> pydl.nn.RoIPool(4, spatial_scale=1.0)(torch.randn(2, 3, 12, 10), boxes).shape
    torch.Size([2, 3, 4, 4])
    """

    def __init__(
        self,
        output_size: int | Sequence[int],
        spatial_scale: float,
        *,
        backend: str | None = None,
    ) -> None:
        super().__init__(backend=backend)
        self.output_size, self.spatial_scale = output_size, spatial_scale

    def forward(
        self, input: torch.Tensor, rois: torch.Tensor | Sequence[torch.Tensor]
    ) -> torch.Tensor:
        arguments = self.output_size, self.spatial_scale
        return functional.roi_pool(input, rois, *arguments, backend=self._pydl_backend)

    def extra_repr(self) -> str:
        said = f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"
        return with_backend(self, said)
