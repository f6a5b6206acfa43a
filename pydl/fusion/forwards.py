"""Forwards written from graphs, bound to modules beside their own.

A bound forward asks at each call whether all is as the graph takes it: the mode, the types of the
arguments, the module's plain attributes, its layers' classes, no hook on a layer that is not called
any more, nobody who watches or transforms what is computed. If not, the module's own forward runs.
So ``torch.compile``, ``torch.export`` and tracers see the model as it was written, and what they
compile fuses by itself.
"""

import copy
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling

from pydl.backends import transformed
from pydl.fusion import chains
from pydl.fusion.trace import Untraceable, is_sequential, trace
from pydl.nn import at_once, binding


class _Child(NamedTuple):
    """A module of a module as the graph takes it."""

    name: str
    kind: type
    called: bool  # by the graph, so that its hooks run
    facts: tuple[tuple[str, Any], ...]
    inner: "tuple[_Child, ...] | None"  # of a Sequential, whose layers the graph calls


class _Variant(NamedTuple):
    """A forward for one mode."""

    function: Callable[..., Any]
    children: tuple[_Child, ...]
    kinds: tuple[type, ...] | None  # of its arguments, where it asks for them


@dataclass(frozen=True)
class Fused:
    """A module with a forward of ours.

    Attributes:
        name: the module's.
        evaluation, training: what is computed together, each in words such as ``conv1 + bn1 +
            relu``.
    """

    name: str
    evaluation: tuple[str, ...]
    training: tuple[str, ...]

    def __str__(self) -> str:
        said = "; ".join(self.evaluation)
        if self.training != self.evaluation:
            said = f"{said or 'nothing'}; in training {'; '.join(self.training) or 'nothing'}"
        return said


def fuse(model: nn.Module) -> None:
    """Binds a forward to each module of ``model`` in which layers can be computed together."""
    forget(model)
    for module in _candidates(model):
        try:
            forward = _forward(module)
        except Untraceable as error:
            _WHY_NOT[module] = str(error)
            continue
        if forward is not None:
            binding.bind_forward(module, forward)


def forget(model: nn.Module) -> None:
    """Forgets which forwards could not be followed."""
    for module in model.modules():
        _WHY_NOT.pop(module, None)


def fused(model: nn.Module) -> list[Fused]:
    """The modules of ``model`` with a forward of ours."""
    found = []
    for name, module in model.named_modules():
        function = getattr(module.__dict__.get("forward"), "__func__", None)
        if isinstance(function, types.FunctionType) and function in _SAID:
            found.append(Fused(name, *_SAID[function]))
    return found


def unfused(model: nn.Module) -> list[tuple[str, str]]:
    """The modules of ``model`` whose layers might be computed together if their forward could be
    followed, by name, and why it could not when the model was fused."""
    named = model.named_modules()
    return [(name, _WHY_NOT[module]) for name, module in named if module in _WHY_NOT]


_WHY_NOT: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
# What the forwards compute together, in evaluation and in training.
_SAID: WeakKeyDictionary[types.FunctionType, tuple[tuple[str, ...], tuple[str, ...]]] = (
    WeakKeyDictionary()
)


def _candidates(model: nn.Module) -> Iterator[nn.Module]:
    """The modules that may call layers which can be computed together: with a forward of a user's,
    or none but ``Sequential``'s."""
    for module in model.modules():
        own = not type(module).__module__.startswith(("torch.nn.", "pydl.nn.", "torch.jit"))
        if (own or is_sequential(module)) and any(map(chains.worth_a_look, _layers(module))):
            yield module


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """What it holds, and what a Sequential in it does."""
    for child in module.children():
        yield child
        if is_sequential(child):
            yield from _layers(child)


def _forward(module: nn.Module) -> types.FunctionType | None:
    """A forward for the module; None where nothing in it is computed together.

    Raises:
        Untraceable: neither mode can be followed.
    """
    if "forward" in module.__dict__ and not binding.is_ours(module.__dict__["forward"]):
        raise Untraceable("it overrides forward")
    variants: dict[bool, list[_Variant]] = {}
    said: dict[bool, dict[str, None]] = {False: {}, True: {}}
    first: Untraceable | None = None
    for training in (False, True):
        kinds: list[type] = [Tensor]
        for kind in kinds:
            try:
                traced = trace(module, training, kind)
            except Untraceable as error:
                first = first or error
                continue
            if traced.by_type and kind is Tensor:
                kinds.append(list)
            made = chains.fused(traced.graph, module, training)
            if made.said:
                function = _written(made.graph)
                many = function.__code__.co_argcount - 1
                variants.setdefault(training, []).append(
                    _Variant(
                        function,
                        _children(module, made.layers),
                        (kind,) * many if traced.by_type else None,
                    )
                )
                said[training] |= dict.fromkeys(made.said)
    if not variants:
        if first is not None:
            raise first
        return None
    forward = _asking(type(module).forward, variants, _plain(module))
    _SAID[forward] = tuple(said[False]), tuple(said[True])
    return forward


def _written(graph: torch.fx.Graph) -> types.FunctionType:
    code = graph.python_code("self")
    scope = dict(code.globals)
    exec(compile(code.src, "<fused forward>", "exec"), scope)
    return scope["forward"]


def _children(module: nn.Module, layers: set[str], within: str = "") -> tuple[_Child, ...]:
    """The modules of a module, of whose layers these are not called."""
    found = []
    for name, child in module._modules.items():
        path = f"{within}{name}"
        if child is None:
            found.append(_Child(name, type(None), True, (), None))
            continue
        inner = None
        if is_sequential(child) and not _is_hooked(child):
            inner = _children(child, layers, f"{path}.")
        called = inner is None and path not in layers
        facts = chains.facts(child, not called)
        found.append(_Child(name, type(child), called, facts, inner))
    return tuple(found)


def _plain(module: nn.Module) -> dict[str, Any]:
    """Attributes by which a forward may decide what it does."""
    usual = vars(nn.Module())
    kept = {name: one for name, one in vars(module).items() if name not in usual}
    kept.pop("_pydl_backend", None)
    plain = {name: one for name, one in kept.items() if isinstance(one, _PLAIN)}
    several = {name: one for name, one in kept.items() if type(one) in (list, tuple)}
    return plain | {
        name: copy.copy(one)
        for name, one in several.items()
        if all(isinstance(part, _PLAIN) for part in one)
    }


_PLAIN = (bool, int, float, str, type(None))


def _asking(
    theirs: Callable[..., Any], variants: dict[bool, list[_Variant]], plain: dict[str, Any]
) -> types.FunctionType:
    """A forward that takes one of the variants where it holds, else ``theirs``."""
    # All in the closure, since the globals of the method are not this module's.
    compiling, takes, holds, none = is_compiling, _takes, _holds, ()

    def forward(self, *given, **named):
        if not named and not compiling():
            for variant in variants.get(self.training, none):
                if takes(variant, given) and holds(self, variant.children, plain):
                    return variant.function(self, *given)
        return theirs(self, *given, **named)

    return at_once.standing_for(theirs, forward)


def _takes(variant: _Variant, given: tuple) -> bool:
    """Whether it is a forward for these arguments: tensors, and lists of them."""
    if variant.function.__code__.co_argcount != len(given) + 1:
        return False
    for one in given:
        if type(one) is not Tensor and not (
            type(one) in (list, tuple) and all(type(part) is Tensor for part in one)
        ):
            return False
    return variant.kinds is None or all(map(isinstance, given, variant.kinds))


def _holds(self: nn.Module, children: tuple[_Child, ...], plain: dict[str, Any]) -> bool:
    """Whether all is as it was when the graph was made, and nobody watches."""
    held = self.__dict__
    return (
        _as_taken(self._modules, children)
        and all(name in held and held[name] == value for name, value in plain.items())
        and torch._C._get_tracing_state() is None
        and not transformed()
        and not torch._C._is_any_autocast_enabled()
        and not torch._C._len_torch_dispatch_stack()
        and not torch.nn.modules.module._has_any_global_hook()
    )


def _as_taken(modules: dict[str, nn.Module | None], children: tuple[_Child, ...]) -> bool:
    if len(modules) != len(children):
        return False
    for (name, module), (known, kind, called, facts, inner) in zip(
        modules.items(), children, strict=True
    ):
        if name != known or type(module) is not kind:
            return False
        for fact, value in facts:
            if getattr(module, fact) != value:
                return False
        if not called and (_is_hooked(module) or _is_overridden(module)):
            return False
        if inner is not None and module is not None and not _as_taken(module._modules, inner):
            return False
    return True


def _is_hooked(module: Any) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def _is_overridden(module: Any) -> bool:
    held = module.__dict__
    return any(name in held and not binding.is_ours(held[name]) for name in binding.COMPUTES)
