"""How much of the input a unit of each layer sees."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from pydl.models.meta import shapes_alone
from pydl.models.record import Ran, blank, evaluating, watch
from pydl.nn import BatchNormAct2d, BatchNormAct3d, ChannelShuffle, SpatialPyramidPool2d

_WINDOWS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.LPPool1d, nn.LPPool2d, nn.LPPool3d),
)
# What reads a pixel, or the channels of one.
_POINTWISE = (
    *(nn.Identity, nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.SiLU, nn.Tanh, nn.Sigmoid),
    *(nn.LocalResponseNorm, ChannelShuffle),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d, BatchNormAct3d),
)
# What reads a whole map, whatever its size; behind it there is no window to speak of.
_WHOLE = (
    *(nn.Flatten, nn.Linear, SpatialPyramidPool2d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)
_KINDS = (*_WINDOWS, *_POINTWISE, *_WHOLE)


@dataclass(frozen=True)
class ReceptiveField:
    """Of a unit of one layer: ``size`` is the number of pixels from the first to the last that it
    sees, along one axis of the input; ``stride`` how far apart those of neighbouring units lie."""

    name: str
    kind: str
    size: int
    stride: int


@dataclass(frozen=True)
class Whole:
    """A unit sees all of the input, whatever its size."""


WHOLE = Whole()


def receptive_field(chain: nn.Sequential, axis: int = -1) -> list[ReceptiveField]:
    """The receptive field behind each layer of a chain of convolutions and pools.

    A window of k taps, d apart, over units that lie j pixels apart adds d (k - 1) j pixels to what
    each of them sees: r <- r + d (k - 1) j, then j <- j s with the window's stride s, from r = 1
    and j = 1. Padding and biases change nothing in it; pixels between dilated taps count as seen.

    Args:
        chain: layers in the order in which they run; sequences within it are walked through.
        axis: the spatial axis, counted from the last.

    Returns:
        A row for each layer up to the first that reads a whole map (``Flatten``, ``Linear``,
        adaptive pools).

    Raises:
        ValueError: a layer is neither a window nor pointwise, or has layers of its own, whose order
            is not known.

    Source: Araujo, Norris, Sim 2019, Computing receptive fields of convolutional neural networks
    (distill.pub).
    """
    rows: list[ReceptiveField] = []
    field: _Field = _Seen(0, 0, 1)
    for name, layer in chain.named_modules(remove_duplicate=False):
        if isinstance(layer, nn.Sequential):
            continue
        if not isinstance(layer, _KINDS):
            raise ValueError(
                f"{name or 'the network'} is a {type(layer).__name__}: a receptive field is known "
                "of nn.Sequential's convolutions, pools and pointwise layers"
            )
        field = _behind(layer, field, axis)
        if not isinstance(field, _Seen):
            break
        rows.append(field.of(name, layer))
    return rows


def _window(layer: Any, axis: int) -> tuple[int, int, int]:
    """From the first tap to the last, from one window to the next, and the padding before the
    first."""

    def along(value: int | tuple[int, ...]) -> int:
        return value if isinstance(value, int) else value[axis]

    reach = along(getattr(layer, "dilation", 1)) * (along(layer.kernel_size) - 1)
    padding = getattr(layer, "padding", 0)  # LPPool2d has none, nor has AvgPool2d a dilation
    if isinstance(padding, str):
        padding = reach // 2 if padding == "same" else 0
    return reach, along(layer.stride or layer.kernel_size), along(padding)


@dataclass(frozen=True)
class _Seen:
    """Unit 0 sees pixels from ``start`` to ``end``, each next one those ``stride`` further on."""

    start: int
    end: int
    stride: int

    def of(self, name: str, layer: nn.Module) -> ReceptiveField:
        """The same of this layer, without the place."""
        return ReceptiveField(name, type(layer).__name__, self.end - self.start + 1, self.stride)


# Of a tensor: None is not known.
_Field = _Seen | Whole | None

# What moves no pixel along a spatial axis whose size it keeps.
_KEEPING = {
    *("add", "add_", "sub", "mul", "mul_", "div", "neg", "__add__", "__radd__", "__iadd__"),
    *("__mul__", "__rmul__", "__imul__", "__truediv__", "relu", "relu_", "sigmoid", "tanh", "silu"),
    *("cat", "concat", "chunk", "split", "stack", "view", "reshape", "permute", "transpose"),
    *("contiguous", "clone", "dropout", "__getitem__", "to", "type", "flatten", "pad"),
}
# What may read all pixels of a map at once.
_GATHERING = {"flatten", "mean", "sum", "amax", "view", "reshape", "adaptive_avg_pool2d"}


class _Following(TorchFunctionMode):
    """Follows what the units of each tensor see, from the input ``x`` on: through layers, of which
    it is told, and through what is called outside of them."""

    def __init__(self, x: torch.Tensor, axis: int) -> None:
        super().__init__()
        self.axis, self.axes = axis, x.ndim - 2  # the one that is followed, of so many spatial ones
        # The tensor is kept, so that no other gets its id.
        self.fields: dict[int, tuple[torch.Tensor, _Field]] = {}
        self._see([x], _Seen(0, 0, 1))

    def behind(self, ran: Ran) -> ReceptiveField | Whole | None:
        """The receptive field behind a layer that has just run; None where it is not known."""
        outputs = _tensors(ran.output)
        if isinstance(ran.layer, _KINDS):
            inputs = _tensors(ran.inputs) + _tensors(ran.named)
            field = _behind(ran.layer, _united(self._of(inputs)), self.axis)
            self._see(outputs, field)
        else:  # one that was followed through what it calls
            field = _united(self._of(outputs))
        return field.of(ran.key, ran.layer) if isinstance(field, _Seen) else field

    def _see(self, tensors: list[torch.Tensor], field: _Field) -> None:
        for one in tensors:
            self.fields[id(one)] = one, field

    def _of(self, tensors: list[torch.Tensor]) -> list[_Field]:
        return [self.fields[id(t)][1] for t in tensors if id(t) in self.fields]

    def __torch_function__(
        self, function: Any, types: Any, given: tuple = (), named: dict[str, Any] | None = None
    ) -> Any:
        named = named or {}
        inputs = [t for t in _tensors(given) + _tensors(named) if id(t) in self.fields]
        before = [tuple(t.shape) for t in inputs]  # a function may work in place
        result = function(*given, **named)
        if inputs:
            fields = self._of(inputs)
            step = self._step(function, given, before[0])
            if step > 1:
                fields = [_thinned(field, step) for field in fields]
                before = [tuple(result.shape)]
            for one in _tensors(result):
                self._see([one], self._through(function, fields, before, tuple(one.shape)))
        return result

    def _step(self, function: Any, given: tuple, shape: tuple) -> int:
        """How many units ``x[..., ::step]`` takes one of; 1 for anything else."""
        if getattr(function, "__name__", "") != "__getitem__" or not isinstance(given[1], tuple):
            return 1
        slices = [part for part in given[1] if isinstance(part, slice) and not part.start]
        if len(slices) != len(shape):
            return 1
        return slices[self.axis].step or 1

    def _through(
        self, function: Any, fields: list[_Field], before: list[tuple], after: tuple
    ) -> _Field:
        name = getattr(function, "__name__", "")
        if None in fields:
            return None
        if all(isinstance(field, Whole) for field in fields):
            return WHOLE
        sizes = after[-self.axes :]
        if name in _GATHERING and (len(after) <= 2 or sizes == (1,) * self.axes):
            return WHOLE
        kept = len(after) > 2 and all(
            shape[-self.axes :] == sizes or isinstance(field, Whole)
            for shape, field in zip(before, fields, strict=True)
        )
        return _united(fields) if name in _KEEPING and kept else None


def _thinned(field: _Field, step: int) -> _Field:
    return _Seen(field.start, field.end, field.stride * step) if isinstance(field, _Seen) else field


def _united(fields: list[_Field]) -> _Field:
    """What a unit sees that several units of other layers lead to."""
    if WHOLE in fields:
        return WHOLE
    seen = [field for field in fields if isinstance(field, _Seen)]
    if not seen or len(seen) < len(fields) or len({field.stride for field in seen}) > 1:
        return None
    start, end = min(field.start for field in seen), max(field.end for field in seen)
    return _Seen(start, end, seen[0].stride)


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        return []
    return [tensor for one in value for tensor in _tensors(one)]


def receptive_fields(
    model: nn.Module, input_shape: tuple[int, ...], axis: int = -1
) -> dict[str, ReceptiveField | Whole]:
    """The receptive field behind each layer of any network of convolutions and pools: of all ways
    from the input to a unit together. See :func:`receptive_field`.

    The model runs once, in evaluation mode. Through what it calls outside of layers the fields are
    followed where that leaves every pixel in its place (sums, products, concatenations and the
    like) or reads whole maps. Behind anything else they are not known.

    Args:
        model: takes one tensor.
        input_shape: of that tensor, batch and channels included.
        axis: the spatial axis, counted from the last.

    Returns:
        By :attr:`pydl.models.record.Ran.key`, the layers whose field is known: :data:`WHOLE` behind
        one that reads whole maps.
    """
    found: dict[str, ReceptiveField | Whole] = {}

    def keep(ran: Ran, sees: ReceptiveField | Whole | None) -> None:
        if sees is not None:
            found[ran.key] = sees

    follow(model, input_shape, keep, axis)
    return found


def follow(
    model: nn.Module,
    input: tuple[int, ...] | tuple[torch.Tensor, ...],
    after: Callable[[Ran, ReceptiveField | Whole | None], None],
    axis: int = -1,
) -> None:
    """Runs the model as :func:`receptive_fields` says, and tells ``after`` of each call of a layer
    without children and of the receptive field behind it, None where it is not known.

    ``input`` is the shape of the one tensor that the model takes, or all that it takes, of which
    the first counts.
    """
    inputs = input if isinstance(input[0], torch.Tensor) else (blank(model, input),)
    following = _Following(inputs[0], axis)

    def leave(ran: Ran) -> None:
        with torch._C.DisableTorchFunction():  # or what is asked of a tensor would be followed too
            after(ran, following.behind(ran))

    with (
        evaluating(model),
        shapes_alone(model),
        watch(model, after=leave),
        torch.no_grad(),
        following,
    ):
        model(*inputs)


def _behind(layer: Any, field: _Field, axis: int) -> _Field:
    """What a unit behind a layer of a known kind sees, from what those before it see."""
    if field is None or isinstance(field, Whole):
        return field
    if isinstance(layer, _WHOLE):
        return WHOLE
    if isinstance(layer, _POINTWISE):
        return field
    reach, step, padding = _window(layer, axis)
    start = field.start - padding * field.stride
    return _Seen(start, start + field.end - field.start + reach * field.stride, field.stride * step)
