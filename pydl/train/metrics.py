"""How right a classifier is, of images or of their pixels: one confusion matrix, and what follows
from it."""

import math

import torch


def judged(scores: object, target: object) -> bool:
    """Whether these are the scores of classes, dimension 1, and the numbers of the right ones."""
    return (
        isinstance(scores, torch.Tensor)
        and isinstance(target, torch.Tensor)
        and not target.is_floating_point()
        and scores.dim() == target.dim() + 1
    )


class Confusion:
    """How often each class was taken for which.

    Args:
        classes: how many there are.
        device: where the matrix is kept.
        ignore_index: positions with this target do not count, nor do those with a negative one.

    Attributes:
        matrix: (true class, class that was read), int64.
    """

    def __init__(
        self, classes: int, device: torch.device | str = "cpu", ignore_index: int = -100
    ) -> None:
        self.ignore_index = ignore_index
        self.matrix = torch.zeros(classes, classes, dtype=torch.int64, device=device)

    @torch.no_grad()
    def update(self, scores: torch.Tensor, target: torch.Tensor) -> None:
        """Counts a batch.

        Args:
            scores: (N, classes) or (N, classes, d1, ...).
            target: (N,) or (N, d1, ...).
        """
        read = scores.argmax(1)
        counted = (target >= 0) & (target != self.ignore_index)
        classes = len(self.matrix)
        pairs = target[counted].long() * classes + read[counted]
        self.matrix += torch.bincount(pairs, minlength=classes**2).view(classes, classes)

    @property
    def accuracy(self) -> float:
        """The part of all positions that was read right; NaN where there are none."""
        return (self.matrix.diag().sum().double() / self.matrix.sum()).item()

    @property
    def recall(self) -> torch.Tensor:
        """For each class the part of its positions that was read right; NaN where it has none."""
        return self.matrix.diag().double() / self.matrix.sum(1)

    @property
    def mean_accuracy(self) -> float:
        """The mean of :attr:`recall` over the classes that have positions."""
        return self.recall.nanmean().item()

    @property
    def jaccard(self) -> torch.Tensor:
        """For each class, positions that are of it and were read as it, of those that are either;
        NaN where there are none."""
        right = self.matrix.diag().double()
        return right / (self.matrix.sum(0) + self.matrix.sum(1) - right)

    @property
    def mean_jaccard(self) -> float:
        """The mean of :attr:`jaccard` over the classes that occur, in truth or as read."""
        return self.jaccard.nanmean().item()

    @property
    def frequency_weighted_jaccard(self) -> float:
        """The mean of :attr:`jaccard`, each class as often as it has positions."""
        share = self.matrix.sum(1).double() / self.matrix.sum()
        return (share * self.jaccard).nansum().item() if share.isfinite().all() else math.nan
