"""What a network's layers take and give while it runs: the one place that sets hooks."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

# From a layer's name and the layer, whether it is meant.
Predicate = Callable[[str, nn.Module], bool]


@dataclass
class Ran:
    """One call of one layer."""

    name: str
    call: int  # from 1
    layer: Any
    inputs: tuple[Any, ...]
    named: dict[str, Any]  # inputs given by name
    output: Any = None

    @property
    def key(self) -> str:
        """The layer's name, ``name#2`` where it is called again."""
        return self.name if self.call == 1 else f"{self.name}#{self.call}"


@contextlib.contextmanager
def watch(
    model: nn.Module,
    *which: str | Predicate,
    before: Callable[[Ran], None] | None = None,
    after: Callable[[Ran], None] | None = None,
) -> Iterator[None]:
    """Tells of every call of some layers of ``model`` inside the ``with`` block.

    Args:
        model: any module; it counts as a layer itself, by the name ``""``.
        which: names of layers, or functions that pick some; without any, all that have no children.
        before: called before the layer, ``output`` being None. What it raises stops the model.
        after: called after the layer. What a layer overwrites is then lost.

    Raises:
        ValueError: a name is no layer's; the message lists those there are.
    """
    calls: Counter[str] = Counter()
    running: list[Ran] = []

    def hooks(name: str) -> tuple[Callable, Callable]:
        def enter(layer: nn.Module, inputs: tuple, named: dict[str, Any]) -> None:
            calls[name] += 1
            running.append(Ran(name, calls[name], layer, inputs, named))
            if before is not None:
                before(running[-1])

        def leave(layer: nn.Module, inputs: tuple, named: dict[str, Any], output: Any) -> None:
            ran = running.pop()
            while ran.layer is not layer:  # one that raised, which the model has caught
                ran = running.pop()
            ran.output = output
            if after is not None:
                after(ran)

        return enter, leave

    handles = []
    try:
        for name, layer in _chosen(model, which):
            enter, leave = hooks(name)
            handles.append(layer.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(layer.register_forward_hook(leave, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def record(model: nn.Module, *which: str | Predicate) -> Iterator[dict[str, Ran]]:
    """Keeps what some layers of ``model`` take and give inside the ``with`` block, in the order in
    which they end, by :attr:`Ran.key`.

    Tensors are detached copies, so that a later layer which works in place changes none of them.

    Args:
        model, which: see :func:`watch`.

    Example::

        with record(model, "conv1", "conv2") as ran:
            model(images)
        maps = ran["conv1"].output
    """
    found: dict[str, Ran] = {}
    taken: dict[str, tuple[Any, Any]] = {}

    def before(ran: Ran) -> None:
        taken[ran.key] = _copied(ran.inputs), _copied(ran.named)

    def after(ran: Ran) -> None:
        ran.inputs, ran.named = taken.pop(ran.key)
        ran.output = _copied(ran.output)
        found[ran.key] = ran

    with watch(model, *which, before=before, after=after):
        yield found


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the ``with`` block; after it each module is in the mode that it was
    in."""
    training = [module for module in model.modules() if module.training]
    if training:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def blank(model: nn.Module, shape: tuple[int, ...]) -> torch.Tensor:
    """Zeros of this shape, of the device and dtype of the model's parameters."""
    parameter = next(model.parameters(), torch.empty(0))
    return torch.zeros(shape, device=parameter.device, dtype=parameter.dtype)


def _chosen(model: nn.Module, which: tuple[str | Predicate, ...]) -> list[tuple[str, nn.Module]]:
    layers = dict(model.named_modules())
    for one in which:
        if isinstance(one, str) and one not in layers:
            raise ValueError(
                f"no layer is called {one!r}; there are {', '.join(filter(None, layers))}"
            )

    def meant(name: str, layer: nn.Module) -> bool:
        if not which:
            return not any(layer.children())
        return any(name == one if isinstance(one, str) else one(name, layer) for one in which)

    return [(name, layer) for name, layer in layers.items() if meant(name, layer)]


def _copied(value: Any) -> Any:
    """Its tensors copied, alone or in tuples, lists and dicts; anything else as it is."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(part) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # named, a PackedSequence as well
        return type(value)(*map(_copied, value))
    if isinstance(value, (tuple, list)):
        return type(value)(map(_copied, value))
    return value
