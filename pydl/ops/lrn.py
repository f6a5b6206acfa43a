"""Local response normalisation across channels: checks and choice; its autograd is
response_norm.py's."""

import torch

from pydl import backends, layout
from pydl.ops import checks
from pydl.ops.autocast import as_autocast
from pydl.ops.response_norm import normalised
from pydl.ops.window import by_pytorch, refused


def _real(name: str, value: float) -> float:
    if isinstance(value, str):
        raise TypeError(f"local_response_norm(): argument '{name}' must be float, not str")
    return float(value)


def local_response_norm(
    x: torch.Tensor, size: int, alpha: float, beta: float, k: float, backend: str | None
) -> torch.Tensor:
    checks.tensor("local_response_norm", "input", x)
    backend = backends.choose("lrn", backend, x, "lrn_forward", arguments=(size, beta))
    stock = torch.nn.functional.local_response_norm
    if backend == "aten":
        return by_pytorch(stock, x, size, alpha, beta, k)
    try:
        if x.ndim < 3:
            raise ValueError(
                f"Expected 3D or higher dimensionality input (got {x.ndim} dimensions)"
            )
        (window,) = checks.axes("local_response_norm", "size", [size], 1, least=1)
        constants = window, _real("alpha", alpha), _real("beta", beta), _real("k", k)
    except (TypeError, ValueError, RuntimeError) as error:
        raise refused(error, stock, x, size, alpha, beta, k) from None
    maps = x.flatten(4) if x.ndim > 5 else x
    kind = "local_response_norm" if x.ndim == 3 else "local_response_norm_of_maps"
    maps = as_autocast(kind, maps.resolve_neg())
    y = normalised("lrn", maps, constants, backend)
    y = y.reshape(x.shape) if x.ndim > 5 else y
    return layout.as_elementwise(y, x)
