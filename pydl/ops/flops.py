"""How many operations PyTorch's ``FlopCounterMode`` counts for the operators here: a multiplication
and an addition for each term of a product, as for PyTorch's own."""

import importlib.util
import math
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch

Shape = Sequence[int]
_FORMULAS: dict[str, Callable[..., int]] = {}


def _formula(function: Callable[..., int]) -> Callable[..., int]:
    _FORMULAS[function.__name__] = function
    return function


def _counter() -> ModuleType:
    return sys.modules["torch.utils.flop_counter"]


@_formula
def conv_forward(x: Shape, weight: Shape, *_: object, out_shape: Shape) -> int:
    return _counter().conv_flop_count(x, weight, out_shape)


@_formula
def conv_grad_input(grad_y: Shape, weight: Shape, *_: object, out_shape: Shape) -> int:
    return _counter().conv_flop_count(grad_y, weight, out_shape, transposed=True)


@_formula
def conv_grad_weight(grad_y: Shape, x: Shape, *_: object, out_shape: Shape) -> int:
    # As PyTorch's own formula: a convolution of x by grad_y, batch and channels exchanged.
    return _counter().conv_flop_count(_turned(x), _turned(grad_y), _turned(out_shape))


def _turned(shape: Shape) -> list[int]:
    return [shape[1], shape[0], *shape[2:]]


@_formula
def local_forward(x: Shape, weight: Shape, *_: object, out_shape: Shape) -> int:
    return 2 * x[0] * math.prod(weight)


@_formula
def local_grad_input(grad_y: Shape, weight: Shape, *_: object, out_shape: Shape) -> int:
    return 2 * grad_y[0] * math.prod(weight)


@_formula
def local_grad_weight(grad_y: Shape, x: Shape, *_: object, out_shape: Shape) -> int:
    return 2 * grad_y[0] * math.prod(out_shape)


# Of a recurrent layer the states' products; those of the inputs and of the weights' gradients are
# PyTorch's own operators.


@_formula
def rnn_forward(*arguments: Any, out_shape: Shape) -> int:
    gates, weight_hh, weight_hr = arguments[0], arguments[1], arguments[5]
    return 2 * gates[0] * (math.prod(weight_hh) + math.prod(weight_hr or (0,)))


@_formula
def rnn_backward(*arguments: Any, out_shape: Shape) -> int:
    y, weight_hh, weight_hr = arguments[3], arguments[8], arguments[11]
    return 2 * y[0] * (math.prod(weight_hh) + math.prod(weight_hr or (0,)))


def _register(counter: ModuleType) -> None:
    for name, formula in _FORMULAS.items():
        counter.register_flop_formula(getattr(torch.ops.pydl, name))(formula)


class _WhenImported(MetaPathFinder):
    """Registers the formulas when the counter is imported, which imports Triton (0.5 s)."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "torch.utils.flop_counter":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            _register(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]  # which is the point
        return spec


def install() -> None:
    """Lets the counter know the operators here, now or as soon as it is imported."""
    if "torch.utils.flop_counter" in sys.modules:
        _register(_counter())
    else:
        sys.meta_path.insert(0, _WhenImported())
