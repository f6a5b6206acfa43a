"""Calls of convolution, normalisation, softmax, losses and dropout beside PyTorch's own: the table
of calls that the tests of PyTorch's habits run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as stock

from pydl import backends, functional


def _values(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


_DENSE, _DEPTHWISE = _values(4, 4, 3, 3, seed=1), _values(4, 1, 3, 3, seed=2)
_LOCAL, _LOCAL_BIAS = _values(3, 4, 3, 3, 4, 4, seed=3), _values(3, 4, 4, seed=4)
_WEIGHT, _BIAS = _values(4, seed=5), _values(4, seed=6)
_MEAN, _VAR = _values(4, seed=7), _values(4, seed=8).abs() + 0.5


def _like(x: torch.Tensor, *tensors: torch.Tensor) -> list[torch.Tensor]:
    """Parameters in the dtype of the input, where that is float64."""
    return [t.to(x.device, torch.float64 if x.dtype == torch.float64 else t.dtype) for t in tensors]


def _target(x: torch.Tensor) -> torch.Tensor:
    shape = (x.shape[0], *x.shape[2:])
    count = torch.arange(
        shape.numel() if isinstance(shape, torch.Size) else torch.Size(shape).numel()
    )
    return (count % x.shape[1]).reshape(shape).to(x.device)


def _locally_connected(x: torch.Tensor) -> torch.Tensor:
    weight, bias = _like(x, _LOCAL, _LOCAL_BIAS)
    windows = x.unfold(2, 3, 1).unfold(3, 3, 1)  # (N, C, OH, OW, KH, KW)
    return torch.einsum("nchwij,fcijhw->nfhw", windows, weight) + bias


def _conv(where, name, weight, **keywords):
    def call(x: torch.Tensor, **more) -> torch.Tensor:
        return getattr(where, name)(x, *_like(x, weight, _BIAS), **keywords, **more)

    return call


def _batch_norm(where, training):
    def call(x: torch.Tensor, **more) -> torch.Tensor:
        mean, var, *affine = _like(x, _MEAN, _VAR, _WEIGHT, _BIAS)
        running = (None, None) if training else (mean, var)
        return where.batch_norm(x, *running, *affine, training, **more)

    return call


def _conv_bias_act(x: torch.Tensor, **more) -> torch.Tensor:
    given = _like(x, _DENSE, _BIAS)
    return functional.conv2d_bias_act(x, *given, activation="silu", **more)


def _batch_norm_act(x: torch.Tensor, **more) -> torch.Tensor:
    affine = _like(x, _WEIGHT, _BIAS)
    how = {"activation": "leaky_relu", "negative_slope": 0.2}
    return functional.batch_norm_act(x, None, None, *affine, True, **how, **more)


@dataclass(frozen=True)
class Call:
    """A call of ours, PyTorch's for the same, and an input that PyTorch's serves under ``auto`` and
    one that ours does, where there is such a size."""

    name: str
    family: str
    ours: Callable[..., torch.Tensor]
    theirs: Callable[[torch.Tensor], torch.Tensor]
    small: Sequence[int]
    large: Sequence[int]

    def __str__(self) -> str:
        return self.name


def _both(name: str, *arguments, **keywords) -> tuple[Callable, Callable]:
    return tuple(
        lambda x, where=where, **more: getattr(where, name)(x, *arguments, **keywords, **more)
        for where in (functional, stock)
    )


MAP, LARGE_MAP = (2, 4, 6, 6), (8, 4, 64, 64)
CALLS = (
    Call(
        "convolution",
        "conv",
        *(_conv(where, "conv2d", _DENSE) for where in (functional, stock)),
        MAP,
        LARGE_MAP,
    ),
    Call(
        "depthwise",
        "depthwise",
        *(_conv(where, "conv2d", _DEPTHWISE, groups=4) for where in (functional, stock)),
        MAP,
        LARGE_MAP,
    ),
    Call(
        "transposed depthwise",
        "depthwise",
        *(_conv(where, "conv_transpose2d", _DEPTHWISE, groups=4) for where in (functional, stock)),
        MAP,
        LARGE_MAP,
    ),
    Call(
        "convolution with an activation",
        "conv_bias_act",
        _conv_bias_act,
        lambda x: stock.silu(stock.conv2d(x, *_like(x, _DENSE, _BIAS))),
        MAP,
        LARGE_MAP,
    ),
    Call(
        "locally connected",
        "local",
        lambda x, **more: functional.locally_connected2d(x, *_like(x, _LOCAL, _LOCAL_BIAS), **more),
        _locally_connected,
        MAP,
        (32, 4, 6, 6),
    ),
    Call(
        "batch norm in training",
        "batch_norm",
        *(_batch_norm(where, True) for where in (functional, stock)),
        MAP,
        LARGE_MAP,
    ),
    Call(
        "batch norm in evaluation",
        "batch_norm_inference",
        *(_batch_norm(where, False) for where in (functional, stock)),
        MAP,
        LARGE_MAP,
    ),
    Call(
        "batch norm with an activation",
        "batch_norm_act",
        _batch_norm_act,
        lambda x: stock.leaky_relu(_batch_norm(stock, True)(x), 0.2),
        MAP,
        LARGE_MAP,
    ),
    Call("softmax", "softmax_short_rows", *_both("softmax", 1), (3, 5), (2000, 50)),
    Call("log softmax", "softmax_columns", *_both("log_softmax", 1), (3, 5, 4), (4, 5, 320, 320)),
    Call("relu", "activation", *_both("relu"), (3, 5), (300, 400)),
    Call("leaky relu", "activation", *_both("leaky_relu", 0.1), (3, 5), (300, 400)),
    Call(
        "cross entropy",
        "cross_entropy",
        *(
            lambda x, where=where, **more: where.cross_entropy(
                x, _target(x), label_smoothing=0.1, **more
            )
            for where in (functional, stock)
        ),
        (3, 5),
        (4, 5, 101, 101),
    ),
    Call(
        "nll loss",
        "nll_loss",
        *(
            lambda x, where=where, **more: where.nll_loss(x, _target(x), **more)
            for where in (functional, stock)
        ),
        (3, 5),
        (4, 5, 101, 101),
    ),
    # What is dropped is another draw; without anything dropped it is the same call.
    Call("dropout", "dropout", *_both("dropout", 0.0), (3, 5), (300, 400)),
)


def named(call: Call) -> list[str]:
    """The backends that serve the call on a CPU in this process, PyTorch's own aside."""
    return [
        name
        for name in backends.serving(call.family)
        if name != "aten"
        and backends.BACKENDS[name].missing is None
        and (not backends.BACKENDS[name].devices or "cpu" in backends.BACKENDS[name].devices)
    ]
