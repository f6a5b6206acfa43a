"""Response normalisation within a channel: checks and choice; autograd is response_norm.py's."""

import torch

from pydl import backends, layout
from pydl.aten import spatial_norm as aten
from pydl.contract.spatial_norm import SpatialNormForward
from pydl.ops import checks
from pydl.ops.autocast import as_autocast
from pydl.ops.response_norm import normalised


def spatial_response_norm(
    x: torch.Tensor, size: int, alpha: float, beta: float, k: float, backend: str | None
) -> torch.Tensor:
    name = "spatial_response_norm"
    checks.tensor(name, "input", x)
    function, arguments = "spatial_norm_forward", (size, beta)
    backend = backends.choose("spatial_norm", backend, x, function, arguments=arguments)
    if not 3 <= x.ndim <= 5:
        raise ValueError(f"Expected 3D to 5D input (got {x.ndim} dimensions)")
    (size,) = checks.axes(name, "size", [size], 1, least=1)
    constants = size, float(alpha), float(beta), float(k)
    if backend == "aten":
        return aten.spatial_norm_forward(SpatialNormForward(x, *constants))
    maps = as_autocast(f"{name}{x.ndim - 2}d", x.resolve_neg())
    return layout.as_elementwise(normalised("spatial_norm", maps, constants, backend), x)
