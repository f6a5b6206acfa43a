"""Registration of the contract functions as ``torch.ops.pydl.<name>``.

``Library.define`` and ``impl`` cost 4 us per call where ``custom_op`` costs 18, and a call that
nothing watches does without: it goes by its plan (pydl/plan.py). Operators carry no autograd of
their own: the ``autograd.Function`` of the family is above them.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.compiler import is_compiling

from pydl import backends
from pydl.contract.call import Call, Tensor, Tensors, name_of, schema_of
from pydl.ops.batching import rule
from pydl.plan import Plans

Results = TypeVar("Results", bound=Tensor | Tensors)

_LIBRARY = torch.library.Library("pydl", "DEF")
# A call of the contract as it is, without the checks of its constructor.
_made: Callable[..., Any] = tuple.__new__


def operator(call: type[Call[Results]]) -> Callable[..., Results]:
    """Registers the contract function whose arguments are a ``call``.

    Returns:
        What calls the operator. It takes these arguments and ``str backend``: who serves the call,
        or what ``backends.choose`` answered where that is known only when the operator runs. Its
        results have the shape and layout that ``call.results()`` gives them, whichever backend made
        them.
    """
    name, schema = name_of(call), schema_of(call)

    def fake(*arguments: Any) -> Results:
        return call(*arguments[:-1]).results()

    def run(*arguments: Any) -> Tensor | Tensors:
        backend = arguments[-1]
        if backend.startswith("auto"):
            backend = backends.at_run_time(backend, name, arguments)
        served = backends.implementation(backend, name)
        # As call(*arguments[:-1]) in a quarter of the time; how many there are, the schema says.
        given = _made(call, arguments[:-1])
        if torch.autograd._profiler_enabled():
            with torch.autograd.profiler.record_function(f"pydl::{name} ({backend})"):
                results = served(given)
        else:
            results = served(given)
        if backend in _FOREIGN_LAYOUT:
            expected = given.results()
            if isinstance(results, tuple):
                return tuple(map(_laid_out, results, expected))
            return _laid_out(results, expected)
        return results

    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"pydl::{name}", fake, lib=_LIBRARY)
    operator = getattr(torch.ops.pydl, name).default
    torch.library.register_vmap(f"pydl::{name}", rule(call, operator), lib=_LIBRARY)
    plans = Plans(run, whole=operator, checked=True)

    def planned(*arguments: Any) -> Any:
        if is_compiling() or arguments[-1] not in _PLANNED:
            return operator(*arguments)
        return plans.call(arguments, {})

    return planned


# These two do not allocate through pydl.layout, so their results may have another layout than
# the fake promised.
_FOREIGN_LAYOUT = ("reference", "aten")
# The others, whose every step is a plan's.
_PLANNED = ("cpu", "triton", "cuda")


def _laid_out(result: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    if result.shape != expected.shape:
        raise AssertionError(
            f"a backend returned shape {tuple(result.shape)}, the operator says "
            f"{tuple(expected.shape)}"
        )
    # Nor may a result be a view, which autograd would let nobody write over.
    fits = result.stride() == expected.stride() and not result._is_view()
    return result if fits else expected.copy_(result)
