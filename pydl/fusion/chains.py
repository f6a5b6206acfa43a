"""Which layers of a graph are computed together, and the graph in which they are.

A chain is ``convolution, normalisation, addition, activation``, in this order, any of them missing,
each but the last used by the next alone; what follows an activation that never decreases may be a
max pool, which is then the earlier, on the larger map. A chain takes the place of its last node, so
nothing between its first and last node may write to what it reads.
"""

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, Node

import pydl.nn
from pydl.fusion import steps
from pydl.nn import binding

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_WITH_ACTIVATION = (pydl.nn.BatchNormAct2d, pydl.nn.BatchNormAct3d)
_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_LAYERS = {
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.ReLU6: "relu6",
    nn.SiLU: "silu",
    nn.Hardswish: "hardswish",
}
_FUNCTIONS = {
    nn.functional.relu: "relu",
    nn.functional.relu_: "relu",
    torch.relu: "relu",
    torch.relu_: "relu",
    nn.functional.relu6: "relu6",
    nn.functional.silu: "silu",
    nn.functional.hardswish: "hardswish",
}
_NEVER_DECREASE = ("relu", "relu6", "leaky_relu")
_ADDITIONS = (operator.add, operator.iadd, torch.add)
_FACTS: dict[type, tuple[str, ...]] = {
    **dict.fromkeys(_POOLS, ("dilation", "return_indices")),
    **dict.fromkeys(_WITH_ACTIVATION, ("activation", "negative_slope")),
    nn.LeakyReLU: ("negative_slope",),
}


def is_layer(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Whether it is a layer of one of these kinds, and computes what that does."""
    for base in type(module).__mro__:
        if base in kinds or base.__module__.startswith("pydl.nn."):
            return isinstance(module, kinds) and binding.reason_to_leave(module, base) is None
    return False


def worth_a_look(module: nn.Module) -> bool:
    """Whether it is a layer that chains begin with."""
    return is_layer(module, (*_CONVOLUTIONS, *_NORMS, *_WITH_ACTIVATION))


@dataclass
class Chain:
    """Nodes that are computed together, and in words which."""

    nodes: list[Node]
    convolution: Node | None = None
    norm: Node | None = None
    added: Node | None = None
    activation: str = "none"
    slope: float = 0.0
    pool: Node | None = None

    @property
    def pays(self) -> bool:
        """A convolution or a normalisation alone is left to its layer."""
        return self.pool is not None or len(self.nodes) > 1 or self.added is not None


@dataclass
class Fusion:
    """A graph with chains computed together.

    Attributes:
        graph: the graph.
        said: each chain in words.
        layers: the names of the modules whose calls are no calls of theirs any more.
    """

    graph: Graph
    said: list[str] = field(default_factory=list)
    layers: set[str] = field(default_factory=set)


def facts(layer: nn.Module) -> tuple[tuple[str, Any], ...]:
    """The attributes of a layer in a chain, or left out, that a graph takes for given."""
    if isinstance(layer, _DROPOUTS):
        return (("training", False),)
    names = next((names for kind, names in _FACTS.items() if isinstance(layer, kind)), ())
    return tuple((name, getattr(layer, name)) for name in names)


def fused(graph: Graph, module: nn.Module, training: bool) -> Fusion:
    """``graph`` of ``module`` in this mode, rewritten in place."""
    made = Fusion(graph)
    modules = dict(module.named_modules())
    for node in list(graph.nodes):
        if not training and _is_of_one(node, modules, _DROPOUTS):
            made.layers.add(str(node.target))
            made.said.append(f"{node.target} left out")
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    taken: set[Node] = set()
    for node in list(graph.nodes):
        if node not in taken:
            chain = _chain(node, modules, taken, training)
            if chain is not None and chain.pays:
                taken.update(chain.nodes)
                made.said.append(_replace(graph, chain))
                made.layers.update(
                    str(one.target) for one in chain.nodes if one.op == "call_module"
                )
    return made


def _is(node: Node, modules: Mapping[str, nn.Module], kinds: tuple[type[nn.Module], ...]) -> bool:
    return node.op == "call_module" and is_layer(modules[str(node.target)], kinds)


def _is_of_one(
    node: Node, modules: Mapping[str, nn.Module], kinds: tuple[type[nn.Module], ...]
) -> bool:
    return _is(node, modules, kinds) and len(node.args) == 1 and not node.kwargs


def _chain(
    node: Node, modules: Mapping[str, nn.Module], taken: set[Node], training: bool
) -> Chain | None:
    """The longest that begins here."""
    chain = Chain([node])
    if _is_of_one(node, modules, _CONVOLUTIONS):
        chain.convolution = node
        after = _only_user(node)
        if after is not None and _norm(after, modules, chain):
            chain.nodes.append(after)
    elif not _norm(node, modules, chain):
        return None
    if chain.activation == "none" and chain.added is None:
        after = _only_user(chain.nodes[-1])
        other = None if after is None else _other_summand(after, chain.nodes[-1])
        if after is None or other is None or after in taken:
            pass
        elif _undisturbed(chain.nodes[0], after, modules, chain.nodes):
            chain.added = other
            chain.nodes.append(after)
    if chain.activation == "none":
        after = _only_user(chain.nodes[-1])
        found = None if after is None else _activation(after, modules)
        if after is not None and found is not None:
            chain.activation, chain.slope = found
            chain.nodes.append(after)
    if chain.norm is None or not training:
        _before_a_pool(chain, modules)
    nothing_between = _undisturbed(chain.nodes[0], chain.nodes[-1], modules, chain.nodes)
    return chain if nothing_between else None


def _before_a_pool(chain: Chain, modules: Mapping[str, nn.Module]) -> None:
    """A maximum is taken before the activation, of a smaller map then. Not in training behind a
    normalisation, which activates in the same pass."""
    if chain.activation not in _NEVER_DECREASE or chain.slope < 0:
        return
    pool = _only_user(chain.nodes[-1])
    if pool is None or not _is_of_one(pool, modules, _POOLS):
        return
    layer: Any = modules[str(pool.target)]
    # A window of a dilated pool may lie outside of the map as a whole.
    if not layer.return_indices and layer.dilation in (1, (1,), (1, 1), (1, 1, 1)):
        chain.pool = pool
        chain.nodes.append(pool)


def _only_user(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _norm(node: Node, modules: Mapping[str, nn.Module], chain: Chain) -> bool:
    """Takes a batch normalisation into the chain, if the node is one."""
    if _is_of_one(node, modules, _NORMS):
        chain.norm = node
        return True
    if not _is(node, modules, _WITH_ACTIVATION) or node.kwargs:
        return False
    layer: Any = modules[str(node.target)]
    chain.norm, chain.activation, chain.slope = node, layer.activation, layer.negative_slope
    if len(node.args) == 2:
        added = node.args[1]
        if not isinstance(added, Node) or added in chain.nodes:
            return False
        chain.added = added
    return True


def _other_summand(node: Node, one: Node) -> Node | None:
    """What is added to ``one``, if that is all that the node does."""
    is_sum = node.op == "call_function" and node.target in _ADDITIONS
    is_sum |= node.op == "call_method" and node.target in ("add", "add_")
    if not is_sum or len(node.args) != 2 or node.kwargs:
        return None
    if node.target in (operator.iadd, "add_") and node.args[0] is not one:
        return None  # it writes to the other
    first, second = node.args
    other = second if first is one else first
    return other if isinstance(other, Node) and other is not one else None


def _activation(node: Node, modules: Mapping[str, nn.Module]) -> tuple[str, float] | None:
    """Its name and slope, if the node is one that is computed in chains."""
    if node.op == "call_module" and _is_of_one(node, modules, tuple(_LAYERS)):
        layer: Any = modules[str(node.target)]
        name = next(name for kind, name in _LAYERS.items() if isinstance(layer, kind))
        return name, layer.negative_slope if name == "leaky_relu" else 0.0
    if len(node.args) != 1 or set(node.kwargs) - {"inplace"}:
        return None
    if node.op == "call_function" and node.target in _FUNCTIONS:
        return _FUNCTIONS[node.target], 0.0
    if node.op == "call_method" and node.target in ("relu", "relu_"):
        return "relu", 0.0
    return None


def _undisturbed(
    first: Node, last: Node, modules: Mapping[str, nn.Module], chain: list[Node]
) -> bool:
    """Whether nothing between them, beside the chain itself, may write to anything."""
    node = first.next
    while node is not last:
        if node not in chain and node.op != "get_attr" and node.target not in steps.STEPS:
            if node.op != "call_module":
                return False
            layer = modules[str(node.target)]
            torchs = type(layer).__module__.startswith(("torch.nn.modules.", "pydl.nn."))
            if not torchs or getattr(layer, "inplace", False) or any(layer.children()):
                return False
        node = node.next
    return True


def _replace(graph: Graph, chain: Chain) -> str:
    """Puts the chain's call in the place of its last node; returns the chain in words."""
    last = chain.nodes[-1]
    how = (chain.activation, chain.slope)
    late = chain.pool is not None
    with graph.inserting_before(last):

        def layer(node: Node | None) -> Node | None:
            return None if node is None else graph.get_attr(str(node.target))

        norm = layer(chain.norm)
        epilogue = chain.added, norm, *(("none", 0.0) if late else how)
        if chain.convolution is not None:
            given = chain.convolution.args[0], layer(chain.convolution)
            made = graph.call_function(steps.convolved, (*given, *epilogue))
        else:
            assert chain.norm is not None
            made = graph.call_function(steps.normalised, (chain.norm.args[0], *epilogue))
        if chain.pool is not None:
            made = graph.call_function(steps.pooled, (made, layer(chain.pool), *how))
    last.replace_all_uses_with(made)
    names = [_said(node) for node in chain.nodes if node is not chain.pool]
    for node in reversed(chain.nodes):
        graph.erase_node(node)
    pool = f", {chain.pool.target} before the activation" * late if chain.pool else ""
    return " + ".join(names) + pool


def _said(node: Node) -> str:
    if node.op == "call_module":
        return str(node.target)
    is_sum = node.target in _ADDITIONS or node.target in ("add", "add_")
    return "residual" if is_sum else getattr(node.target, "__name__", str(node.target))
