"""Batch normalisation layers."""

import inspect
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm as _BatchNormBase
from torch.nn.modules.batchnorm import _NormBase

from pydl.entry import held
from pydl.nn.layer import Layer
from pydl.ops import batch_norm as ops
from pydl.ops import sync_batch_norm

# running_mean and running_var, whether a call normalises by the batch, the momentum (None: a
# cumulative average's) and how many batches came before.
_Statistics = tuple[
    torch.Tensor | None, torch.Tensor | None, bool, float | None, torch.Tensor | None
]


def _statistics(module: _NormBase) -> _Statistics:
    """What a call of the layer normalises by, and moves."""
    if module.training and not module.track_running_stats:
        return None, None, True, 0.0, None
    buffers = module._buffers  # `held`, in half of the time where each is there
    mean, var = buffers.get("running_mean"), buffers.get("running_var")
    if mean is None or var is None:
        mean, var = held(module, "running_mean"), held(module, "running_var")
    if not module.training:
        return mean, var, mean is None and var is None, 0.0, None
    batches, momentum = buffers.get("num_batches_tracked"), module.momentum
    if batches is None:
        batches = held(module, "num_batches_tracked")
    if momentum is None and batches is None:
        momentum = 0.0
    return mean, var, True, momentum, batches


def normalised(
    module: _NormBase,
    backend: str | None,
    input: torch.Tensor,
    activation: str = "none",
    slope: float = 0.0,
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    running_mean, running_var, by_batch, momentum, batches = _statistics(module)
    parameters = module._parameters
    weight, bias = parameters.get("weight"), parameters.get("bias")
    return ops.batch_norm(
        input,
        running_mean,
        running_var,
        held(module, "weight") if weight is None else weight,
        held(module, "bias") if bias is None else bias,
        by_batch,
        momentum,
        module.eps,
        activation,
        slope,
        residual,
        backend=backend,
        num_batches_tracked=batches,
    )


# Its base is that of the layer it is mixed into.
if TYPE_CHECKING:
    _Batch = _BatchNormBase
else:
    _Batch = object


class _BatchNorm(Layer, _Batch):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        self._check_input_dim(input)
        return normalised(self, self._pydl_backend, input)


class BatchNorm1d(_BatchNorm, torch.nn.BatchNorm1d):
    """See :func:`pydl.functional.batch_norm` and :class:`torch.nn.BatchNorm1d`.

    >>> pydl.nn.BatchNorm1d(3)(torch.randn(2, 3, 10)).shape
    torch.Size([2, 3, 10])
    """


class BatchNorm2d(_BatchNorm, torch.nn.BatchNorm2d):
    """See :func:`pydl.functional.batch_norm` and :class:`torch.nn.BatchNorm2d`.

    >>> pydl.nn.BatchNorm2d(3)(torch.randn(2, 3, 12, 10)).shape
    torch.Size([2, 3, 12, 10])
    """


class BatchNorm3d(_BatchNorm, torch.nn.BatchNorm3d):
    """See :func:`pydl.functional.batch_norm` and :class:`torch.nn.BatchNorm3d`.

    >>> pydl.nn.BatchNorm3d(3)(torch.randn(2, 3, 4, 12, 10)).shape
    torch.Size([2, 3, 4, 12, 10])
    """


# Each becomes its counterpart above when the first input tells the number of channels.


class LazyBatchNorm1d(_BatchNorm, torch.nn.LazyBatchNorm1d):
    """See :class:`torch.nn.LazyBatchNorm1d`; becomes a :class:`BatchNorm1d`.

    >>> layer = pydl.nn.LazyBatchNorm1d()
    >>> y = layer(torch.randn(2, 3, 10))
    >>> layer
    BatchNorm1d(3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
    """

    cls_to_become = BatchNorm1d


class LazyBatchNorm2d(_BatchNorm, torch.nn.LazyBatchNorm2d):
    """See :class:`torch.nn.LazyBatchNorm2d`; becomes a :class:`BatchNorm2d`.

    >>> layer = pydl.nn.LazyBatchNorm2d()
    >>> y = layer(torch.randn(2, 3, 12, 10))
    >>> layer
    BatchNorm2d(3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
    """

    cls_to_become = BatchNorm2d


class LazyBatchNorm3d(_BatchNorm, torch.nn.LazyBatchNorm3d):
    """See :class:`torch.nn.LazyBatchNorm3d`; becomes a :class:`BatchNorm3d`.

    >>> layer = pydl.nn.LazyBatchNorm3d()
    >>> y = layer(torch.randn(2, 3, 4, 12, 10))
    >>> layer
    BatchNorm3d(3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
    """

    cls_to_become = BatchNorm3d


class _BatchNormAct(Layer, _NormBase):
    """What BatchNormAct2d and BatchNormAct3d share: all but how many axes an input has."""

    _axes: int

    def __init__(
        self, *args, activation: str = "relu", negative_slope: float = 0.01, **kwargs
    ) -> None:
        if activation not in ops.ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {', '.join(ops.ACTIVATIONS)}, got {activation!r}"
            )
        super().__init__(*args, **kwargs)
        self.activation, self.negative_slope = activation, negative_slope

    def _check_input_dim(self, input: torch.Tensor) -> None:
        if input.dim() != self._axes:
            raise ValueError(f"expected {self._axes}D input (got {input.dim()}D input)")

    def forward(self, input: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        self._check_input_dim(input)
        how = self.activation, self.negative_slope, residual
        return normalised(self, self._pydl_backend, input, *how)

    def extra_repr(self) -> str:
        slope = f", negative_slope={self.negative_slope}" * (self.activation == "leaky_relu")
        return f"{super().extra_repr()}, activation={self.activation!r}{slope}"


class BatchNormAct2d(_BatchNormAct):
    """Batch normalisation of (N, C, H, W) with its activation and, if one is given, a residual.

    ``state_dict`` and initial weights are those of :class:`torch.nn.BatchNorm2d`, but this is
    no subclass of it: code that finds batch normalisation in a model and replaces it would drop
    the activation. See :func:`pydl.functional.batch_norm_act`.

    Args:
        activation: ``none``, ``relu`` or ``leaky_relu``.
        negative_slope: of ``leaky_relu``.
        args, kwargs: as :class:`torch.nn.BatchNorm2d`, and ``backend``.

    >>> pydl.nn.BatchNormAct2d(3)(torch.randn(2, 3, 12, 10)).shape
    torch.Size([2, 3, 12, 10])
    """

    _axes = 4


class BatchNormAct3d(_BatchNormAct):
    """:class:`BatchNormAct2d` for (N, C, D, H, W): see there.

    >>> pydl.nn.BatchNormAct3d(3)(torch.randn(2, 3, 4, 12, 10)).shape
    torch.Size([2, 3, 4, 12, 10])
    """

    _axes = 5


class SyncBatchNorm(Layer, _BatchNormBase):
    """Batch normalisation by the statistics of all processes of a group, whose batches may differ
    in size.

    It works on CPUs as well, also under :class:`torch.nn.parallel.DistributedDataParallel` over
    gloo. That refuses every :class:`torch.nn.SyncBatchNorm` on a CPU, so this class derives not
    from it but from its base class, with the same constructor, ``state_dict`` and results. A
    ``torch.nn.SyncBatchNorm`` swapped by :func:`pydl.accelerate` stays one and is refused; use
    :meth:`convert_sync_batchnorm` to make layers of this class.

    Each process gets the gradients of its own share, as :class:`torch.nn.SyncBatchNorm`'s do;
    DistributedDataParallel averages those of the parameters. See
    :func:`pydl.functional.batch_norm`.

    Args:
        process_group: the processes whose statistics are used; all of them, if not given.
        num_features, eps, momentum, affine, track_running_stats, device, dtype, bias: as
            :class:`torch.nn.BatchNorm2d`.

    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
    >>> pydl.nn.SyncBatchNorm.convert_sync_batchnorm(model)[1]
    SyncBatchNorm(8, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: dist.ProcessGroup | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **kwargs,
    ) -> None:
        how = num_features, eps, momentum, affine, track_running_stats
        super().__init__(*how, device=device, dtype=dtype, **kwargs)
        self.process_group = process_group

    # They ask nothing of the layer, whatever class they say it is of.
    _check_input_dim = torch.nn.SyncBatchNorm._check_input_dim
    _check_non_zero_input_channels = torch.nn.SyncBatchNorm._check_non_zero_input_channels

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        self._check_input_dim(input)  # type: ignore[misc]
        self._check_non_zero_input_channels(input)  # type: ignore[misc]
        group = sync_batch_norm.group_of(self.process_group) if self.training else None
        if group is None:
            return normalised(self, self._pydl_backend, input)
        running_mean, running_var, _, momentum, batches = _statistics(self)
        by = ops.momentum_of(momentum, batches)
        ops.count_batch(batches)
        return sync_batch_norm.batch_norm(
            input,
            running_mean,
            running_var,
            self.weight,
            self.bias,
            by,
            self.eps,
            group,
            self._pydl_backend,
        )

    @classmethod
    def convert_sync_batchnorm(
        cls, module: torch.nn.Module, process_group: dist.ProcessGroup | None = None
    ) -> torch.nn.Module:
        """The model with each batch normalisation, of ``torch.nn`` or of ``pydl.nn``, replaced by
        one of this class with the same parameters and buffers: see
        :meth:`torch.nn.SyncBatchNorm.convert_sync_batchnorm`."""
        made = module
        if isinstance(module, _BatchNormBase):
            made = cls(
                module.num_features,
                module.eps,
                module.momentum,
                module.affine,
                module.track_running_stats,
                process_group,
                bias=module.bias is not None,
                backend=getattr(module, "_pydl_backend", None),
            )
            for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                setattr(made, name, getattr(module, name))
            made.training = module.training
            if hasattr(module, "qconfig"):
                made.qconfig = module.qconfig
        for name, child in module.named_children():
            made.add_module(name, cls.convert_sync_batchnorm(child, process_group))
        return made


# What a subclass of torch.nn's would show.
SyncBatchNorm.__signature__ = inspect.signature(type("", (Layer, torch.nn.SyncBatchNorm), {}))
