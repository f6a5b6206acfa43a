"""Registration of the contract functions as ``torch.ops.pydl.<name>``.

``Library.define`` and ``impl`` cost 4 us a call where ``custom_op`` costs 18. Operators carry no
autograd of their own: the ``autograd.Function`` of the family is above them.
"""

from collections.abc import Callable

import torch

from pydl import backends

_LIBRARY = torch.library.Library("pydl", "DEF")


def operator(schema: str, fake: Callable) -> Callable:
    """Registers a contract function.

    Args:
        schema: its schema; the last argument is ``str backend``, the backend that serves the call.
        fake: the same without the arithmetic: takes the same arguments, returns unwritten results.

    Returns:
        The operator. Its results have the shape and layout that ``fake`` gives them, whichever
        backend made them.
    """
    name = schema.partition("(")[0]

    def run(*arguments: object) -> torch.Tensor | tuple[torch.Tensor, ...]:
        *rest, backend = arguments
        results = backends.function(backend, name)(*rest)
        if backend in _FOREIGN_LAYOUT:
            expected = fake(*arguments)
            if isinstance(results, tuple):
                return tuple(map(_laid_out, results, expected))
            return _laid_out(results, expected)
        return results

    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"pydl::{name}", fake, lib=_LIBRARY)
    return getattr(torch.ops.pydl, name).default


# These two do not allocate through pydl.layout, so their results may lie otherwise than the fake
# promised.
_FOREIGN_LAYOUT = ("reference", "aten")


def _laid_out(result: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    if result.shape != expected.shape:
        raise AssertionError(
            f"a backend returned shape {tuple(result.shape)}, the operator says "
            f"{tuple(expected.shape)}"
        )
    return result if result.stride() == expected.stride() else expected.copy_(result)
