"""Layers that pool regions of interest."""

from collections.abc import Sequence

import torch

from pydl import functional
from pydl.nn.layer import Layer


class RoIAlign(Layer, torch.nn.Module):
    """See :func:`pydl.functional.roi_align`; the constructor is that of torchvision's layer.

    Args:
        output_size, spatial_scale, sampling_ratio, aligned: as the function's.
        backend: the backend that must serve the layer; None leaves the choice open.
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
        return functional.roi_align(input, rois, *arguments, backend=self.backend)

    def extra_repr(self) -> str:
        said = f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"
        said += f", sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        return said if self.backend is None else f"{said}, backend={self.backend!r}"


class RoIPool(Layer, torch.nn.Module):
    """See :func:`pydl.functional.roi_pool`; the constructor is that of torchvision's layer.

    Args:
        output_size, spatial_scale: as the function's.
        backend: the backend that must serve the layer; None leaves the choice open.
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
        return functional.roi_pool(input, rois, *arguments, backend=self.backend)

    def extra_repr(self) -> str:
        said = f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"
        return said if self.backend is None else f"{said}, backend={self.backend!r}"
