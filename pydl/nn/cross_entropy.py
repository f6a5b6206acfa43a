"""Losses of classes as layers."""

import torch

from pydl import functional
from pydl.nn.layer import Layer


class CrossEntropyLoss(Layer, torch.nn.CrossEntropyLoss):
    """See :func:`pydl.functional.cross_entropy` and :class:`torch.nn.CrossEntropyLoss`.

    >>> pydl.nn.CrossEntropyLoss()(torch.zeros(3, 4), torch.tensor([0, 3, 1]))
    tensor(1.3863)
    """

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
            backend=self._pydl_backend,
        )


class NLLLoss(Layer, torch.nn.NLLLoss):
    """See :func:`pydl.functional.nll_loss` and :class:`torch.nn.NLLLoss`.

    >>> logarithms = torch.log_softmax(torch.zeros(2, 4), 1)
    >>> pydl.nn.NLLLoss()(logarithms, torch.tensor([0, 3]))
    tensor(1.3863)
    """

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return functional.nll_loss(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            backend=self._pydl_backend,
        )
