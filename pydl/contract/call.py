"""What every contract function's arguments have in common: a tuple, and what is derived from it."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Protocol, TypeVar

import torch

Tensor = torch.Tensor
Tensors = tuple[torch.Tensor, ...]
Pair = tuple[torch.Tensor, torch.Tensor]
Four = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
Ints = Sequence[int]
# Sizes may be symbols while a graph is made; those of windows and strides are numbers.
Sizes = Annotated[Sequence[int], "SymInt[]"]

# What a function writes to, of what it is given.
Written = Annotated[torch.Tensor, "(!)"]

_TYPES = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    Written: "Tensor(!)",
    Written | None: "Tensor(!)?",
    Ints: "int[]",
    Sizes: "SymInt[]",
    int: "int",
    float: "float",
    float | None: "float?",
    bool: "bool",
    str: "str",
    Pair: "(Tensor, Tensor)",
    Four: "(Tensor, Tensor, Tensor, Tensor)",
}


Results_co = TypeVar("Results_co", bound=Tensor | Tensors, covariant=True)


class Call(Protocol[Results_co]):
    """The arguments of one contract function: a ``NamedTuple`` with this method.

    It is named after the function: ``LrnForward`` for ``lrn_forward``.
    """

    def __init__(self, *arguments: Any) -> None: ...

    def results(self) -> Results_co:
        """What the function returns, unwritten: the one place where its shapes, dtypes and memory
        layout are decided, for each backend, for the operator and for its fake."""


def name_of(call: type[Call[Any]]) -> str:
    """``lrn_forward`` for ``LrnForward``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", call.__name__).lower()


def schema_of(call: type[Call[Any]]) -> str:
    """The operator's schema: these arguments, and ``str backend``."""
    letters = iter("abcdef")  # what is written has a name of its own in a schema
    arguments = [
        f"{_TYPES[kind]} {name}".replace(
            "(!)", f"({next(letters)}!)" if "(!)" in _TYPES[kind] else ""
        )
        for name, kind in call.__annotations__.items()
    ]
    returned = call.results.__annotations__["return"]
    many = getattr(returned, "__args__", ())
    result = _TYPES.get(returned) or f"({', '.join('Tensor' for _ in many)})"
    return f"{name_of(call)}({', '.join([*arguments, 'str backend'])}) -> {result}"
