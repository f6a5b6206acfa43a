"""Adaptive and pyramid pooling layers."""

from collections.abc import Sequence

import torch

from pydl import functional
from pydl.nn.layer import Layer, with_backend


class AdaptiveAvgPool1d(Layer, torch.nn.AdaptiveAvgPool1d):
    """See :func:`pydl.functional.adaptive_avg_pool1d` and :class:`torch.nn.AdaptiveAvgPool1d`.

    >>> pydl.nn.AdaptiveAvgPool1d(1)(torch.randn(2, 3, 10)).shape
    torch.Size([2, 3, 1])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.adaptive_avg_pool1d(input, self.output_size, backend=self._pydl_backend)


class AdaptiveAvgPool2d(Layer, torch.nn.AdaptiveAvgPool2d):
    """See :func:`pydl.functional.adaptive_avg_pool2d` and :class:`torch.nn.AdaptiveAvgPool2d`.

    >>> pydl.nn.AdaptiveAvgPool2d(1)(torch.randn(2, 3, 12, 10)).shape
    torch.Size([2, 3, 1, 1])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.adaptive_avg_pool2d(input, self.output_size, backend=self._pydl_backend)


class AdaptiveAvgPool3d(Layer, torch.nn.AdaptiveAvgPool3d):
    """See :func:`pydl.functional.adaptive_avg_pool3d` and :class:`torch.nn.AdaptiveAvgPool3d`.

    >>> pydl.nn.AdaptiveAvgPool3d(1)(torch.randn(2, 3, 4, 12, 10)).shape
    torch.Size([2, 3, 1, 1, 1])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.adaptive_avg_pool3d(input, self.output_size, backend=self._pydl_backend)


class AdaptiveMaxPool1d(Layer, torch.nn.AdaptiveMaxPool1d):
    """See :func:`pydl.functional.adaptive_max_pool1d` and :class:`torch.nn.AdaptiveMaxPool1d`.

    >>> pydl.nn.AdaptiveMaxPool1d(2)(torch.randn(2, 3, 10)).shape
    torch.Size([2, 3, 2])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        return functional.adaptive_max_pool1d(
            input, self.output_size, self.return_indices, backend=self._pydl_backend
        )


class AdaptiveMaxPool2d(Layer, torch.nn.AdaptiveMaxPool2d):
    """See :func:`pydl.functional.adaptive_max_pool2d` and :class:`torch.nn.AdaptiveMaxPool2d`.

    >>> pydl.nn.AdaptiveMaxPool2d(2)(torch.randn(2, 3, 12, 10)).shape
    torch.Size([2, 3, 2, 2])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        return functional.adaptive_max_pool2d(
            input, self.output_size, self.return_indices, backend=self._pydl_backend
        )


class AdaptiveMaxPool3d(Layer, torch.nn.AdaptiveMaxPool3d):
    """See :func:`pydl.functional.adaptive_max_pool3d` and :class:`torch.nn.AdaptiveMaxPool3d`.

    >>> pydl.nn.AdaptiveMaxPool3d(2)(torch.randn(2, 3, 4, 12, 10)).shape
    torch.Size([2, 3, 2, 2, 2])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        return functional.adaptive_max_pool3d(
            input, self.output_size, self.return_indices, backend=self._pydl_backend
        )


class SpatialPyramidPool2d(Layer, torch.nn.Module):
    """See :func:`pydl.functional.spatial_pyramid_pool`.

    >>> pydl.nn.SpatialPyramidPool2d((1, 2, 4))(torch.randn(2, 3, 12, 10)).shape
    torch.Size([2, 63])
    """

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
        return functional.spatial_pyramid_pool(
            input, self.levels, self.kind, backend=self._pydl_backend
        )

    def extra_repr(self) -> str:
        said = f"levels={self.levels}, kind={self.kind!r}"
        return with_backend(self, said)
