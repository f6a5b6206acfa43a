"""Adaptive and pyramid pooling layers."""

from collections.abc import Sequence

import torch

from pydl import functional
from pydl.nn.layer import Layer


class _AdaptiveAvgPool(Layer):
    """What the adaptive average layers share: the call."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        pool = getattr(functional, f"adaptive_avg_pool{self.axes}d")
        return pool(input, self.output_size, backend=self.backend)


class AdaptiveAvgPool1d(_AdaptiveAvgPool, torch.nn.AdaptiveAvgPool1d):
    """See :func:`pydl.functional.adaptive_avg_pool1d` and :class:`torch.nn.AdaptiveAvgPool1d`."""

    axes = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool, torch.nn.AdaptiveAvgPool2d):
    """See :func:`pydl.functional.adaptive_avg_pool2d` and :class:`torch.nn.AdaptiveAvgPool2d`."""

    axes = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool, torch.nn.AdaptiveAvgPool3d):
    """See :func:`pydl.functional.adaptive_avg_pool3d` and :class:`torch.nn.AdaptiveAvgPool3d`."""

    axes = 3


class _AdaptiveMaxPool(Layer):
    """What the adaptive max layers share: the call."""

    def forward(self, input: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        pool = getattr(functional, f"adaptive_max_pool{self.axes}d")
        return pool(input, self.output_size, self.return_indices, backend=self.backend)


class AdaptiveMaxPool1d(_AdaptiveMaxPool, torch.nn.AdaptiveMaxPool1d):
    """See :func:`pydl.functional.adaptive_max_pool1d` and :class:`torch.nn.AdaptiveMaxPool1d`."""

    axes = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPool, torch.nn.AdaptiveMaxPool2d):
    """See :func:`pydl.functional.adaptive_max_pool2d` and :class:`torch.nn.AdaptiveMaxPool2d`."""

    axes = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPool, torch.nn.AdaptiveMaxPool3d):
    """See :func:`pydl.functional.adaptive_max_pool3d` and :class:`torch.nn.AdaptiveMaxPool3d`."""

    axes = 3


class SpatialPyramidPool2d(Layer, torch.nn.Module):
    """See :func:`pydl.functional.spatial_pyramid_pool`."""

    def __init__(
        self,
        levels: Sequence[int | Sequence[int]],
        kind: str = "max",
        *,
        backend: str | None = None,
    ) -> None:
        super().__init__(backend=backend)
        self.levels = levels
        self.kind = kind

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.spatial_pyramid_pool(input, self.levels, self.kind, backend=self.backend)

    def extra_repr(self) -> str:
        said = f"levels={self.levels}, kind={self.kind!r}"
        return said if self.backend is None else f"{said}, backend={self.backend!r}"
