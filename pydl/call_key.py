"""What tells a call from others, for its launch plan (pydl/plan.py): its key and, three times as
fast, whether it has the key of one that came before.

A key has all that decides on a call: of its tensors shapes, strides, dtypes, devices, alignment and
whether they want a gradient, its constants, and PyTorch's state. Whether a call has a certain key
is told by the guards that PyTorch has for torch.compile.
"""

from collections.abc import Hashable
from typing import Any

import torch
from torch.autograd import forward_ad

_CONSTANTS = {bool, int, float, str, type(None), torch.dtype}
_SEQUENCES = {tuple, list, torch.Size}

# Looked up once: a key takes 2 us.
_transforms = torch._C._are_functorch_transforms_active
_modes = torch._C._len_torch_dispatch_stack
_profiler = torch.autograd._profiler_enabled
_trace = torch._C._get_tracing_state
_gradients = torch.is_grad_enabled
_threads = torch.get_num_threads
_autocast = torch._C._is_any_autocast_enabled
_Tensor, _Parameter = torch.Tensor, torch.nn.Parameter


def watching() -> bool:
    """Whether what is computed is to be seen by something, so that nothing may take its place."""
    return bool(
        _transforms() or _modes() or _profiler() or forward_ad._current_level >= 0 or _trace()
    )


def key_of(
    given: tuple, names: tuple[str, ...] = (), surroundings: Hashable = None, checked: bool = False
) -> Hashable | None:
    """What decides on a call; None where it is to go the whole way."""
    if watching():
        return None
    key: list[Any] = [surroundings, names, _gradients(), _threads()]
    if _autocast():
        for device in ("cpu", "cuda"):
            key += torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    for one in given:
        kind = type(one)
        if kind is _Tensor or kind is _Parameter:
            if one.is_neg():
                return None
            alignment = one.data_ptr() % 16
            key += one.shape, one.stride(), one.dtype, one.device, one.requires_grad, alignment
        elif kind is float:
            key += kind, one or repr(one)  # 0.0 is not -0.0
        elif kind in _CONSTANTS:
            key += kind, one
        elif kind not in _SEQUENCES:
            return None
        elif checked:
            key.append(tuple(one))
        else:
            kinds = tuple(map(type, one))
            if not _CONSTANTS.issuperset(kinds):
                return None
            key += kind, tuple(one), kinds
    return tuple(key)


def guard(given: tuple) -> tuple[str, dict[str, object]]:
    """The condition that a call has the key of the one with these arguments, which it speaks of as
    ``a0``, ``a1`` and so on, and the other values that it speaks of. Tensors that are not aligned
    never fulfil it."""
    names = [f"a{place}" for place in range(len(given))]
    tensors = {name: one for name, one in zip(names, given, strict=True) if _is_tensor(one)}
    if not tensors or any(one.data_ptr() % 16 for one in tensors.values()):
        return "False", {}
    # PyTorch's annotations want one list for all tensors.
    sizes: Any = [list(one.shape) for one in tensors.values()]
    strides: Any = [list(one.stride()) for one in tensors.values()]
    try:
        guards, profiler = torch._C._dynamo.guards, torch.autograd.profiler
        same = guards.TensorGuards(
            *tensors.values(), dynamic_dims_sizes=sizes, dynamic_dims_strides=strides
        )
        state = guards.GlobalStateGuard()
        values: dict[str, object] = {"same": same.check, "state": state.check}
        values |= {"profiler": profiler, "forward_ad": forward_ad}
        _ = profiler._is_profiler_enabled, forward_ad._current_level
    except (AttributeError, TypeError):
        return "False", {}  # all of this is PyTorch's own: where it is another, keys alone tell
    conditions = [
        f"same({', '.join(tensors)}) and state()",
        "not profiler._is_profiler_enabled and forward_ad._current_level < 0",
        f"not ({' | '.join(f'{name}.data_ptr()' for name in tensors)}) & 15",
    ]
    for name, one in zip(names, given, strict=True):
        if name not in tensors:
            condition, constants = _same_constant(name, one)
            conditions.append(condition)
            values |= constants
    return " and ".join(conditions), values


def _is_tensor(value: object) -> bool:
    return type(value) is torch.Tensor or type(value) is torch.nn.Parameter


def _same_constant(name: str, value: Any) -> tuple[str, dict[str, object]]:
    """The condition that the argument of this name is this constant, of this type and of these
    types inside, and the values that it speaks of."""
    kind = type(value)
    values = {f"{name}_was": value, f"{name}_kind": kind}
    same, equal = f"{name} is {name}_was", f"type({name}) is {name}_kind and {name} == {name}_was"
    if kind in _SEQUENCES:
        kinds = f"tuple(map(type, {name})) == {name}_kinds"
        values[f"{name}_kinds"] = tuple(map(type, value))
        if kind is list:  # which may be another by then
            values[f"{name}_was"] = kind(value)
            return f"{equal} and {kinds}", values
        return f"({same} or {equal} and {kinds})", values
    if kind is float and not value:  # 0.0 is not -0.0
        return same, values
    return f"({same} or {equal})", values
