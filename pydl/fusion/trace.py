"""One forward as a graph, by torch.fx, and only where that cannot mislead.

A trace runs ``forward`` once, on stand-ins for tensors, and takes whatever else it meets for
constant. What it met is therefore kept beside the graph, or the module is left alone: see
:func:`trace`.
"""

import copy
import inspect
import random
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pydl.nn import binding


class Untraceable(Exception):
    """There is no graph of a forward; says why."""


@dataclass(frozen=True)
class Traced:
    """A graph, and whether it is one for arguments of a certain type only."""

    graph: torch.fx.Graph
    by_type: bool


def is_sequential(module: torch.nn.Module) -> bool:
    """Whether it calls its layers one after the other, and nothing else."""
    return (
        isinstance(module, torch.nn.Sequential)
        and binding.reason_to_leave(module, torch.nn.Sequential) is None
    )


def trace(module: torch.nn.Module, training: bool, kind: type) -> Traced:
    """The graph of the module's forward, in which the layers of each ``Sequential`` stand for it
    and any other module is one node.

    Args:
        module: is as it was afterwards.
        training: the mode.
        kind: of its arguments, ``torch.Tensor`` or ``list``, where it asks for that.

    Raises:
        Untraceable: torch.fx cannot follow it; it takes optional arguments, which a trace takes
            for given; it asks for the type of what it computes, keeps something in the module or
            draws random numbers.
    """
    for name, parameter in list(inspect.signature(type(module).forward).parameters.items())[1:]:
        if parameter.kind != parameter.POSITIONAL_OR_KEYWORD or parameter.default is not (
            parameter.empty
        ):
            raise Untraceable(f"its forward need not be given {name!r}")
    mode, held, drawn = module.training, _Held(module), _drawn()
    tracer = _Tracer(kind)
    try:
        module.training = training
        graph = tracer.trace(module)
    except Untraceable:
        raise
    except Exception as error:  # whatever its code makes of a stand-in for a tensor
        said = str(error).partition("\n")[0]
        raise Untraceable(f"torch.fx cannot follow its forward: {said}") from error
    finally:
        module.training = mode
        changed, draws = held.put_back(), _drawn() != drawn
    if changed:
        raise Untraceable(f"its forward changes its attribute {changed!r}")
    if draws:
        raise Untraceable("its forward draws random numbers")
    return Traced(graph, tracer.by_type)


class _Tracer(torch.fx.Tracer):
    proxy_buffer_attributes = True

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.kind, self.by_type = kind, False

    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        hooked = m._forward_hooks or m._forward_pre_hooks
        return bool(hooked) or not is_sequential(m)

    def proxy(self, node: torch.fx.Node) -> torch.fx.Proxy:
        return _Proxy(node, self)


class _Proxy(torch.fx.Proxy):
    """Notices, and answers, ``isinstance`` in the code that is traced."""

    tracer: _Tracer

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        asking = sys._getframe(1).f_globals.get("__name__", "")
        if asking.partition(".")[0] == "torch":
            return _Proxy
        if self.node.op != "placeholder":
            raise Untraceable("its forward asks for the type of what it computes")
        self.tracer.by_type = True
        return self.tracer.kind


class _Held:
    """What a module holds beside parameters, buffers and modules."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module
        self.before = {name: (one, _contents(one)) for name, one in vars(module).items()}

    def put_back(self) -> str | None:
        """Undoes what was changed; returns the name of a changed attribute."""
        now, changed = vars(self.module), None
        for name in [name for name in now if name not in self.before]:
            del now[name]
            changed = name
        for name, (one, contents) in self.before.items():
            if now.get(name, _NOTHING) is not one:
                now[name] = one
                changed = name
            if contents is not None and _ids(one) != _ids(contents):
                one.clear()
                (one.extend if isinstance(one, list) else one.update)(contents)
                changed = name
        return changed


_NOTHING = object()


def _contents(one: Any) -> Any:
    return copy.copy(one) if isinstance(one, (list, dict, set)) else None


def _ids(one: Any) -> list:
    return [*map(id, one), *map(id, one.values())] if isinstance(one, dict) else [*map(id, one)]


def _drawn() -> tuple:
    """The state of the generators of random numbers."""
    return (
        random.getstate(),
        repr(np.random.get_state(legacy=False)),  # noqa: NPY002  # which models draw from
        torch.get_rng_state().numpy().tobytes(),
    )
