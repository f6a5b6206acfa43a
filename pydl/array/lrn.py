"""Local response normalisation of arrays; definition and arguments in ``csrc/lrn.h``."""

from pydl.array.library import Array, operands
from pydl.shapes import axes


def local_response_norm(
    input: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Array:
    """Local response normalisation across channels: x / (k + alpha / size * sum of x^2 over
    ``size`` channels)^beta, of (N, C, ...) with at least three axes.

    Arguments and errors are :func:`torch.nn.functional.local_response_norm`'s.

    Source: Krizhevsky, Sutskever, Hinton 2012, section 3.3.
    """
    name = "local_response_norm"
    with operands(name, {"input": input}) as (library, x):
        if x.ndim < 3:
            raise ValueError(
                f"Expected 3D or higher dimensionality input (got {x.ndim} dimensions)"
            )
        (window,) = axes(name, "size", [size], 1, least=1)
        maps = library.dense(x.reshape(*x.shape[:4], -1) if x.ndim > 5 else x)
        y = library.empty(maps.shape, maps)
        library.call("lrn_forward", maps, y, window, float(alpha), float(beta), float(k))
        return y.reshape(x.shape) if x.ndim > 5 else y
