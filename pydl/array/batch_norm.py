"""Batch normalisation of arrays by given statistics; definition and arguments in
``csrc/batch_norm.h``."""

from pydl.array.library import Array, operands, sums_dtype


def batch_norm(
    input: Array,
    running_mean: Array,
    running_var: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    eps: float = 1e-5,
    activation: str = "none",
    negative_slope: float = 0.01,
    residual: Array | None = None,
) -> Array:
    """Batch normalisation in inference, with what may follow it in the same pass:
    activation((x - mean) / sqrt(var + eps) * weight + bias + residual).

    Args:
        input: (N, C) or (N, C, ...).
        running_mean, running_var, weight, bias: (C), of the input's dtype, and with one of float16
            perhaps all of float32.
        eps: added to the variance.
        activation: ``none``, ``relu`` or ``leaky_relu``.
        negative_slope: of ``leaky_relu``.
        residual: like the input.

    Raises:
        ValueError: there is no such activation, or eps is negative.
        TypeError, RuntimeError: see the module.

    Source: Ioffe and Szegedy 2015, algorithm 2.
    """
    name = "batch_norm"
    if activation not in ("none", "relu", "leaky_relu"):
        raise ValueError(f"activation must be one of none, relu, leaky_relu, got {activation!r}")
    if eps < 0.0:
        raise ValueError(f"batch_norm eps must be non-negative, but got {eps}")
    needed = {"input": input, "running_mean": running_mean, "running_var": running_var}
    optional = {"weight": weight, "bias": bias, "residual": residual}
    statistics = ("running_mean", "running_var", "weight", "bias")
    given = operands(name, needed, optional, other_dtypes=statistics)
    with given as (library, x, *vectors, added):
        if x.ndim < 2:
            raise RuntimeError(f"batch_norm: expected an input (N, C, ...), got shape {x.shape}")
        if added is not None and added.shape != x.shape:
            raise RuntimeError(
                f"batch_norm: expected residual to have the input's shape {list(x.shape)}, got "
                f"{list(added.shape)}"
            )
        sums = sums_dtype(x)
        for what, vector in zip(statistics, vectors, strict=True):
            if vector is None:
                continue
            if vector.shape != x.shape[1:2]:
                raise RuntimeError(
                    f"{what} should be a vector of {x.shape[1]} elements, got shape {vector.shape}"
                )
            if vector.dtype not in (x.dtype, sums):
                raise RuntimeError(f"mixed dtype: input is {x.dtype} and {what} is {vector.dtype}")
        constants = [v if v is None else library.contiguous(v.astype(sums)) for v in vectors]
        shape = (*x.shape[:4], -1) if x.ndim > 5 else (*x.shape, 1) if x.ndim == 2 else x.shape
        map = library.dense(x.reshape(shape))
        added = None if added is None else library.like(added.reshape(shape), map)
        y = library.empty(map.shape, map)
        how = float(eps), activation, float(negative_slope), False
        library.call("batch_norm_forward", map, *constants, added, y, None, *how)
        return y.reshape(x.shape)
