"""Forwards written from graphs, bound to modules beside their own.

A bound forward asks at each call whether all is as the graph takes it: the mode, the types of the
arguments, the module's plain attributes, its layers' classes, no hook on a layer that is not called
any more, nobody who watches or transforms what is computed. If not, the module's own forward runs.
So ``torch.compile``, ``torch.export`` and tracers see the model as it was written, and what they
compile fuses by itself.
"""

import copy
import functools
import operator
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.nn.modules.module import _has_any_global_hook

from pydl.backends import transformed
from pydl.extension import library
from pydl.fusion import chains
from pydl.fusion.trace import Untraceable, is_sequential, trace
from pydl.nn import at_once, binding


class _Child(NamedTuple):
    """A module of a module as the graph takes it."""

    name: str
    kind: type
    called: bool  # by the graph as it was written, so that its hooks may run
    facts: tuple[tuple[str, Any], ...]
    inner: "tuple[_Child, ...] | None"  # of a Sequential, whose layers the graph calls


class _Variant(NamedTuple):
    """A forward for one mode."""

    function: Callable[..., Any]
    many: int  # arguments
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


def parts(model: nn.Module) -> set[nn.Module]:
    """The modules that the bound forwards do not call as the model's own would."""
    found: set[nn.Module] = set()
    for module in model.modules():
        function = getattr(module.__dict__.get("forward"), "__func__", None)
        if isinstance(function, types.FunctionType) and function in _PARTS:
            found.update(module.get_submodule(name) for name in _PARTS[function])
    return found


_WHY_NOT: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
_PARTS: WeakKeyDictionary[types.FunctionType, frozenset[str]] = WeakKeyDictionary()
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
    left_out: set[str] = set()
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
                children = _children(module, made.layers)
                function = _written(made.graph, _in_order(children))
                many = function.__code__.co_argcount - 2
                kinds_asked = (kind,) * many if traced.by_type else None
                variants.setdefault(training, []).append(
                    _Variant(function, many, children, kinds_asked)
                )
                said[training] |= dict.fromkeys(made.said)
                left_out |= made.layers
    if not variants:
        if first is not None:
            raise first
        return None
    forward = _asking(type(module).forward, variants, _plain(module))
    _SAID[forward] = tuple(said[False]), tuple(said[True])
    _PARTS[forward] = frozenset(left_out)
    return forward


def _written(graph: torch.fx.Graph, layers: list[str]) -> types.FunctionType:
    """The graph as a function of the module, its ``layers`` and its arguments."""
    with graph.inserting_before(next(iter(graph.nodes))):
        every = graph.placeholder("layers")
    for node in list(graph.nodes):
        if node.op == "get_attr" and node.target in layers:
            with graph.inserting_before(node):
                one = graph.call_function(operator.getitem, (every, layers.index(node.target)))
            node.replace_all_uses_with(one)
            graph.erase_node(node)
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
        if is_sequential(child) and not any(vars(child)[hooks] for hooks in _HOOKS):
            inner = _children(child, layers, f"{path}.")
        called = inner is None and path not in layers
        facts = () if called else chains.facts(child)
        found.append(_Child(name, type(child), called, facts, inner))
    return tuple(found)


def _in_order(children: tuple[_Child, ...], within: str = "") -> list[str]:
    """The names of the modules, those in a Sequential behind it."""
    found = []
    for child in children:
        found.append(f"{within}{child.name}")
        found += _in_order(child.inner or (), f"{within}{child.name}.")
    return found


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
                layers = holds(self, variant.children, plain) if takes(variant, given) else None
                if layers is not None:
                    return variant.function(self, layers, *given)
        return theirs(self, *given, **named)

    return at_once.standing_for(theirs, forward)


def _takes(variant: _Variant, given: tuple) -> bool:
    """Whether it is a forward for these arguments: tensors, and lists of them."""
    if len(given) != variant.many:
        return False
    for one in given:
        if type(one) is not Tensor and not (
            type(one) in (list, tuple) and all(type(part) is Tensor for part in one)
        ):
            return False
    return variant.kinds is None or all(map(isinstance, given, variant.kinds))


def _holds(
    self: nn.Module, children: tuple[_Child, ...], plain: dict[str, Any]
) -> list[nn.Module | None] | None:
    """The module's layers, if all is as it was when the graph was made and nobody watches."""
    held = self.__dict__
    for name, value in plain.items():
        if name not in held or held[name] != value:
            return None
    if (
        torch._C._get_tracing_state() is not None
        or transformed()
        or torch._C._is_any_autocast_enabled()
        or torch._C._len_torch_dispatch_stack()
        or _has_any_global_hook()
    ):
        return None
    layers: list[nn.Module | None] = []
    return layers if _as_taken()(held["_modules"], children, at_once.CODES, layers) else None


@functools.cache
def _as_taken() -> Callable[..., bool]:
    """Whether modules are those, and takes them down, in the order of :func:`_in_order`."""
    return library("cpu").as_taken


_HOOKS = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"
