"""One call of one layer, apart from the network that makes it: by this package, by PyTorch, and in
float64 by the definition."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pydl.measure import Action
from pydl.models.calls import Check, judged, off_kinks
from pydl.models.stock import as_torch


@dataclass(frozen=True)
class Trial:
    """A layer of ``pydl.nn``, PyTorch's layer with the same weights, and what both are given.

    Where a layer gives several things, as a recurrent one does, the first is its output.
    """

    ours: nn.Module
    theirs: nn.Module
    given: Mapping[str, Any]  # arguments of forward by name, tensors detached
    wanted: frozenset[str]  # those that training needs a gradient by

    @classmethod
    def of(cls, layer: nn.Module, given: Mapping[str, Any]) -> "Trial":
        """The layer is copied, with whatever hooks it has at this moment.

        Args:
            layer: of ``pydl.nn``.
            given: arguments of its forward by name; by tensors that require a gradient training
                needs one.
        """
        wanted = {name for name, value in given.items() if getattr(value, "requires_grad", False)}
        detached = {
            name: value.detach() if isinstance(value, torch.Tensor) else value
            for name, value in given.items()
        }
        ours: Any = copy.deepcopy(layer)
        if getattr(ours, "inplace", False):
            ours.inplace = False  # it would change what the next run is given
        return cls(ours, as_torch(ours), detached, frozenset(wanted))

    @property
    def input(self) -> torch.Tensor:
        """The first of what is given."""
        return next(value for value in self.given.values() if isinstance(value, torch.Tensor))

    @property
    def call(self) -> tuple:
        """All that decides what the call costs: equal for equal calls."""
        shapes = tuple(getattr(value, "shape", value) for value in self.given.values())
        return repr(self.ours), self.ours.training, shapes, self.wanted

    def output(self, layer: nn.Module) -> torch.Tensor:
        """What ``layer`` makes of it, without a graph for gradients."""
        with torch.no_grad():
            return _first(layer(**self.given))

    def check(self, grad_output: torch.Tensor) -> list[Check]:
        """Hold output and gradients to the float64 reference, as :func:`pydl.models.calls.check`
        does.

        Args:
            grad_output: the gradient of the output.
        """
        exact: Any = copy.deepcopy(self.ours).double()
        exact.backend = "reference"
        doubles = {
            name: value.double() if _differentiable(value) else value
            for name, value in self.given.items()
        }
        eps = torch.finfo(grad_output.dtype).eps
        if hasattr(exact, "activation"):
            with torch.no_grad():
                grad_output = off_kinks(grad_output, _first(exact(**doubles)), eps)
        return judged(
            _results(exact, doubles, grad_output.double()),
            _results(self.ours, self.given, grad_output),
            _results(self.theirs, self.given, grad_output),
            eps,
        )

    def runner(self, kind: str, layer: nn.Module, grad_output: torch.Tensor) -> Action:
        """A callable that does one pass, ready to be timed.

        Args:
            kind: ``forward`` (nothing is saved for a gradient) or ``both`` (forward, and the
                gradients that training needs; those of the inputs, if it needs none).
            layer: ``ours`` or ``theirs``.
            grad_output: the gradient of the output.
        """
        if kind == "forward":
            return lambda: self.output(layer)
        weights = [weight for weight in layer.parameters() if weight.requires_grad]
        wanted = self.wanted
        if not wanted and not weights:
            wanted = frozenset(name for name, v in self.given.items() if _differentiable(v))
        leaves = {
            name: value.detach().requires_grad_() if name in wanted else value
            for name, value in self.given.items()
        }
        sources = [leaves[name] for name in leaves if name in wanted] + weights
        return lambda: torch.autograd.grad(_first(layer(**leaves)), sources, grad_output)


def _first(result: Any) -> torch.Tensor:
    return result[0] if isinstance(result, tuple) else result


def _differentiable(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _results(
    layer: nn.Module, given: Mapping[str, Any], grad_output: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The output, and the gradient of each input and each parameter, by name."""
    leaves = {
        name: value.detach().requires_grad_() if _differentiable(value) else value
        for name, value in given.items()
    }
    sources = {name: leaf for name, leaf in leaves.items() if _differentiable(leaf)}
    sources |= {name: weight for name, weight in layer.named_parameters() if weight.requires_grad}
    # Every mask is drawn from the same state.
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        y = _first(layer(**leaves))
    grads = torch.autograd.grad(y, list(sources.values()), grad_output)
    names = [f"grad_{name}" for name in sources]
    return {"output": y.detach(), **dict(zip(names, grads, strict=True))}
