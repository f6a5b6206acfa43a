"""What ``torch.vmap`` makes of an operator: one call for all samples where the mapped axis can be
folded into another, else a call for each sample.

- Into the batch, of whatever is computed for each image by itself.
- Into the channels, where each sample has weights, statistics or sums over its batch of its own:
  such a convolution has as many groups more.
- Into the boxes, of which each then says in which sample's images it lies; into the sequences of a
  recurrent layer, step by step; beside all axes, for softmax.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from pydl import layout
from pydl.contract.batch_norm import mask_rows_are_pixels
from pydl.contract.call import Call

Given = dict[str, Any]  # an operator's arguments by name; mapped ones have the samples first


class Folded(NamedTuple):
    """The arguments of the call for all samples, and where a result of it, of which it is told the
    place and the tensor, has the samples: the tensor with an axis for them, and which."""

    given: Given
    unfold: Callable[[int, torch.Tensor], tuple[torch.Tensor, int]]


# From the arguments, the names of those that are mapped, and the number of samples.
Fold = Callable[[Given, set[str], int], Folded | None]

# What a convolution, a normalisation or a recurrent layer has one of for the whole batch.
_SHARED = {
    *("weight", "bias", "mean", "var", "sum_g", "sum_gx"),
    *("weight_hh", "bias_hh", "weight_hr", "peephole", "norm", "norm_c", "bias_c"),
}


def _sample(given: Given, mapped: set[str], name: str) -> torch.Tensor:
    return given[name][0] if name in mapped else given[name]


def _is_nothing(sample: torch.Tensor) -> bool:
    """Whether it stands in the place of a tensor that is not there."""
    return sample.ndim == 1 and sample.numel() == 0


def _folded(
    given: Given,
    mapped: set[str],
    samples: int,
    fold: Callable[[str, torch.Tensor], torch.Tensor],
    shared: set[str],
) -> Given:
    """The arguments, each tensor that is not ``shared`` folded as told, from one with the samples
    first."""
    inside = dict(given)
    for name, one in given.items():
        if not isinstance(one, torch.Tensor) or name in shared:
            continue
        sample = _sample(given, mapped, name)
        if _is_nothing(sample):
            inside[name] = sample
        else:
            whole = one if name in mapped else one.expand(samples, *one.shape)
            inside[name] = fold(name, whole)
    return inside


def _apart(result: torch.Tensor, axis: int, samples: int) -> torch.Tensor:
    """``result`` with an axis for the samples where it has them and ``axis`` together."""
    shape = result.shape
    apart = *shape[:axis], samples, shape[axis] // samples, *shape[axis + 1 :]
    # Whoever gets a result may write over it, which autograd lets nobody do to a view.
    return torch.ops.aten._unsafe_view.default(result, apart)


def _packs_bits(given: Given) -> bool:
    """Whether a normalisation makes or takes the mask of its activation, whose rows are planes or
    pixels by the layout of the map."""
    masked = given.get("keep_mask", False) or given.get("mask") is not None
    return given.get("activation", "none") != "none" and masked


def by_batch(given: Given, mapped: set[str], samples: int) -> Folded | None:
    if mapped & _SHARED:
        return None

    def fold(name: str, whole: torch.Tensor) -> torch.Tensor:
        return layout.dense(whole.flatten(0, 1), layout.memory_format(whole[0]))

    inside = _folded(given, mapped, samples, fold, _SHARED)
    if _packs_bits(given) and (
        mask_rows_are_pixels(inside["x"]) != mask_rows_are_pixels(_sample(given, mapped, "x"))
    ):
        return None
    return Folded(inside, lambda _, result: (_apart(result, 0, samples), 0))


def by_channels(given: Given, mapped: set[str], samples: int) -> Folded | None:
    if _packs_bits(given) and mask_rows_are_pixels(_sample(given, mapped, "x")):
        return None

    def fold(name: str, whole: torch.Tensor) -> torch.Tensor:
        if name in _SHARED:
            return whole.flatten(0, 1)
        return layout.contiguous(whole.movedim(0, 1).flatten(1, 2))

    def unfold(_: int, result: torch.Tensor) -> tuple[torch.Tensor, int]:
        axis = 0 if result.ndim == 1 else 1
        return _apart(result, axis, samples), axis

    inside = _folded(given, mapped, samples, fold, set())
    if "groups" in inside:
        inside["groups"] *= samples
    return Folded(inside, unfold)


def by_filters(given: Given, mapped: set[str], samples: int) -> Folded | None:
    """As :func:`by_channels`, of an operator whose result is a convolution's weight."""
    folded = by_channels(given, mapped, samples)
    assert folded is not None
    return folded._replace(unfold=lambda _, result: (_apart(result, 0, samples), 0))


def beside(given: Given, mapped: set[str], samples: int) -> Folded | None:
    inside = _folded(given, mapped, samples, lambda _, whole: whole.contiguous(), set())
    if given["dim"] >= 0:
        inside["dim"] += 1
    return Folded(inside, lambda _, result: (result, 0))


def by_boxes(given: Given, mapped: set[str], samples: int) -> Folded | None:
    boxes = given["boxes"]
    shape = given.get("input_shape")
    images = _sample(given, mapped, "x").shape[0] if shape is None else shape[0]
    if samples * images > 1 / torch.finfo(boxes.dtype).eps:
        return None  # their number is one of the box's, in its dtype
    inside = _folded(given, mapped, samples, lambda _, whole: whole.flatten(0, 1), {"boxes"})
    boxes = boxes if "boxes" in mapped else boxes.expand(samples, *boxes.shape)
    first = images * torch.arange(samples, dtype=boxes.dtype, device=boxes.device)
    number = boxes[..., :1]
    there = (number > -1) & (number < images)  # what is too much would be of the next sample
    number = torch.where(there, number + first.reshape(-1, 1, 1), -1)
    inside["boxes"] = torch.cat([number, boxes[..., 1:]], -1).flatten(0, 1)
    if shape is not None:
        inside["input_shape"] = [samples * images, *shape[1:]]
    return Folded(inside, lambda _, result: (_apart(result, 0, samples), 0))


# What a recurrent layer has one row of for each sequence; of other tensors it has one for each
# token, all sequences of the first step before those of the next.
_BY_SEQUENCE = {"h0", "c0", "grad_h_n", "grad_c_n", "drop"}
_RESULTS_BY_SEQUENCE = {"forward": {1, 2}, "backward": {3, 4}}


def by_sequences(given: Given, mapped: set[str], samples: int) -> Folded | None:
    backward = "activated" in given
    sums = backward and (given["peephole"] is not None or given["norm"] is not None)
    if mapped & _SHARED or given["batch_sizes"] is not None or sums:
        return None
    sequences = _sample(given, mapped, "h0").shape[0]

    def fold(name: str, whole: torch.Tensor) -> torch.Tensor:
        if name not in _BY_SEQUENCE:  # (samples, steps * sequences, ...)
            whole = _apart(whole, 1, whole.shape[1] // sequences).movedim(1, 0).flatten(0, 1)
        return whole.flatten(0, 1)

    of_sequences = _RESULTS_BY_SEQUENCE["backward" if backward else "forward"]

    def unfold(place: int, result: torch.Tensor) -> tuple[torch.Tensor, int]:
        if place in of_sequences or _is_nothing(result):
            return _apart(result, 0, samples), 0
        steps = result.unflatten(0, (-1, samples, sequences))
        return steps.movedim(1, 0).flatten(1, 2), 0

    return Folded(_folded(given, mapped, samples, fold, _SHARED), unfold)


def by_rows(given: Given, mapped: set[str], samples: int) -> Folded | None:
    """Of a recurrent cell, whose peephole has a gradient that is a sum over the batch."""
    backward = "activated" in given
    return None if backward and given["peephole"] is not None else by_batch(given, mapped, samples)


# Of the contract's functions that fold otherwise than into the batch, how; the first that can be.
_FOLDS: dict[str, tuple[Fold, ...]] = {
    "ConvForward": (by_batch, by_channels),
    "ConvGradInput": (by_batch, by_channels),
    "ConvGradWeight": (by_filters,),
    "ConvGradBias": (by_channels,),
    "BiasActForward": (by_batch, by_channels),
    "BatchNormApply": (by_batch, by_channels),
    "BatchNormGradInput": (by_batch, by_channels),
    "BatchNormStats": (by_channels,),
    "BatchNormForward": (by_channels,),
    "BatchNormGradSums": (by_channels,),
    "BatchNormBackward": (by_channels,),
    "SoftmaxForward": (beside,),
    "SoftmaxBackward": (beside,),
    "RoiAlignForward": (by_boxes,),
    "RoiAlignBackward": (by_boxes,),
    "RoiPoolForward": (by_boxes,),
    "RoiPoolBackward": (by_boxes,),
    "RnnForward": (by_sequences,),
    "RnnBackward": (by_sequences,),
    "RnnCellForward": (by_rows,),
    "RnnCellBackward": (by_rows,),
    # A sum over the positions of each sample; a sum over the images for each position; a mask that
    # goes by the order of memory; boxes that suppress each other.
    "CrossEntropyForward": (),
    "CrossEntropyBackward": (),
    "LocalGradWeight": (),
    "DropoutForward": (),
    "DropoutBackward": (),
    "NmsKeep": (),
}


def rule(call: type[Call[Any]], operator: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
    """The rule of the operator of a contract function, for ``torch.library.register_vmap``."""
    names = *call.__annotations__, "backend"
    folds = _FOLDS.get(call.__name__, (by_batch,))

    def batched(info: Any, dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, Any]:
        given, mapped = dict(zip(names, arguments, strict=True)), set()
        for name, dim in zip(names, dims, strict=True):
            if isinstance(dim, int):  # a list of sizes has a list of Nones
                mapped.add(name)
                given[name] = given[name].movedim(dim, 0)
        for fold in folds:
            folded = fold(given, mapped, info.batch_size)
            if folded is not None:
                results = operator(*folded.given.values())
                if not isinstance(results, tuple):
                    return folded.unfold(0, results)
                unfolded = [folded.unfold(place, one) for place, one in enumerate(results)]
                return tuple(zip(*unfolded, strict=True))  # type: ignore[return-value]
        return _one_by_one(operator, given, mapped, info.batch_size)

    return batched


def _one_by_one(
    operator: Callable[..., Any], given: Given, mapped: set[str], samples: int
) -> tuple[Any, Any]:
    results = [
        operator(*(one[sample] if name in mapped else one for name, one in given.items()))
        for sample in range(samples)
    ]
    if isinstance(results[0], tuple):
        return tuple(map(torch.stack, zip(*results, strict=True))), (0,) * len(results[0])
    return torch.stack(results), 0
