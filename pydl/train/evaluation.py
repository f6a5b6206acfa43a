"""How good a model is on data that it did not learn from."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from pydl import functional
from pydl.train import distributed
from pydl.train.metrics import Confusion, judged

Loss = Callable[[Any, Any], torch.Tensor]  # from scores and target


# Of the auxiliary heads' losses: Szegedy et al. 2014, Going Deeper with Convolutions; and of those
# for segmentation, torchvision's reference for training its networks.
_AUXILIARY, _AUXILIARY_DENSE = 0.3, 0.5


def own(scores: Any) -> Any:
    """The scores of the network itself, of what one with auxiliary heads gives: a tuple that they
    begin, or a dict where they are called ``out``."""
    if isinstance(scores, dict):
        return scores["out"]
    return scores[0] if isinstance(scores, tuple) else scores


def with_heads(loss: Loss) -> Loss:
    """A loss that takes what a network with auxiliary heads gives too, a tuple of scores, the
    network's own first, or of one for segmentation a dict: the losses of the heads that there are
    count 0.3 beside it, or 0.5 of those in a dict."""

    def of_all(scores: Any, target: Any) -> torch.Tensor:
        first = own(scores)
        if first is scores:
            return loss(scores, target)
        dense = isinstance(scores, dict)
        every = scores.values() if dense else scores
        heads = [loss(one, target) for one in every if one is not None and one is not first]
        return loss(first, target) + (_AUXILIARY_DENSE if dense else _AUXILIARY) * sum(heads)

    return of_all


@dataclass(frozen=True)
class Evaluation:
    """The mean loss, and for a classifier which class was taken for which."""

    loss: float
    confusion: Confusion | None

    @property
    def accuracy(self) -> float | None:
        """The part that was classified right; None where nothing is classified."""
        return None if self.confusion is None else self.confusion.accuracy


def on(value: Any, device: torch.device, channels_last: bool = False) -> Any:
    """Tensors, alone or in tuples, lists and dicts, on a device; images channels-last if asked."""
    if isinstance(value, torch.Tensor):
        value = value.to(device, non_blocking=True)
        images = channels_last and value.dim() == 4
        return value.contiguous(memory_format=torch.channels_last) if images else value
    if isinstance(value, dict):
        return {key: on(part, device, channels_last) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [on(part, device, channels_last) for part in value]
    return value


def autocast(dtype: torch.dtype | None, device: torch.device) -> contextlib.AbstractContextManager:
    """Operators in ``dtype`` where PyTorch deems it safe; None changes nothing."""
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


@torch.no_grad()
def evaluate(
    model: torch.nn.Module,
    data: Dataset | DataLoader,
    *,
    loss: Loss = functional.cross_entropy,
    batch: int = 256,
    dtype: torch.dtype | None = None,
    channels_last: bool = False,
    ignore_index: int = -100,
) -> Evaluation:
    """The model in evaluation mode, without gradients; several processes share the data.

    Args:
        model: left in the mode it was in.
        data: of (inputs, target); of a dataset, ``batch`` examples at a time.
        loss: from scores and target.
        batch: see ``data``.
        dtype: of autocast, None for none.
        channels_last: whether images are laid out so.
        ignore_index: what has this target is not counted in the confusion matrix; the loss has to
            know it itself.

    Raises:
        ValueError: there is nothing in ``data``.
    """
    device = next(model.parameters()).device
    loader = data if isinstance(data, DataLoader) else DataLoader(data, batch)
    losses, examples = 0.0, 0
    confusion: Confusion | None = None
    training = model.training
    model.eval()
    distributed.same_buffers(model)
    for inputs, target in distributed.sharded(loader, even=False):
        inputs, target = on(inputs, device, channels_last), on(target, device)
        with autocast(dtype, device):
            scores = model(inputs)
            value = loss(scores, target)
        count = len(target)
        losses += value.item() * count
        examples += count
        scores = own(scores)
        if judged(scores, target):
            confusion = confusion or Confusion(scores.shape[1], device, ignore_index)
            confusion.update(scores, target)
    model.train(training)
    losses, examples = distributed.total([losses, examples], device)  # type: ignore[assignment]
    if not examples:
        raise ValueError("there is nothing to evaluate on: the data are empty")
    classes = distributed.most(0 if confusion is None else len(confusion.matrix), device)
    if classes:  # a process without a share adds nothing
        confusion = confusion or Confusion(classes, device)
        distributed.add(confusion.matrix)
    return Evaluation(losses / examples, confusion)
