"""The operator calls that a network makes, layer by layer, read off a run of it."""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from pydl import nn
from pydl.models.calls import Call
from pydl.models.record import Ran, watch
from pydl.nn.layer import Layer
from pydl.ops.sync_batch_norm import group_of

# What is made of a layer and its arguments by name: the operator's.
_Arguments = Callable[[Any, dict[str, Any]], dict[str, Any]]


def _attributes(*names: str) -> _Arguments:
    return lambda layer, given: {name: getattr(layer, name) for name in names}


def _convolution(layer: Any, given: dict[str, Any]) -> dict[str, Any]:
    names = ["stride", "padding", "dilation", "groups"]
    if isinstance(layer, nn.ConvBiasAct2d):
        names += ["activation", "negative_slope"]
    arguments = _attributes(*names)(layer, given)
    if layer.padding_mode != "zeros":  # which the layer does before the call
        sides = layer._reversed_padding_repeated_twice
        given["input"] = nn.functional.pad(given["input"], sides, mode=layer.padding_mode)
        arguments["padding"] = 0
    return arguments


def _transposed(layer: Any, given: dict[str, Any]) -> dict[str, Any]:
    arguments = _attributes("stride", "padding", "groups", "dilation")(layer, given)
    window = layer.stride, layer.padding, layer.kernel_size, len(layer.kernel_size), layer.dilation
    size = given.get("output_size")
    return arguments | {"output_padding": layer._output_padding(given["input"], size, *window)}


def _batch_norm(layer: Any, given: dict[str, Any]) -> dict[str, Any]:
    arguments = {"training": layer.training or layer.running_mean is None, "eps": layer.eps}
    if arguments["training"]:  # the running statistics take no part in the result
        arguments |= {"running_mean": None, "running_var": None}
    if isinstance(layer, (nn.BatchNormAct2d, nn.BatchNormAct3d)):
        arguments |= {"activation": layer.activation, "negative_slope": layer.negative_slope}
    return arguments


def _unpool(layer: Any, given: dict[str, Any]) -> dict[str, Any]:
    arguments = _attributes("kernel_size", "stride", "padding")(layer, given)
    size = given.get("output_size")
    return arguments if size is None else arguments | {"output_size": tuple(size)}


def _roi_align(layer: Any, given: dict[str, Any]) -> dict[str, Any]:
    arguments = _attributes("output_size", "spatial_scale", "sampling_ratio")(layer, given)
    return arguments | {"aligned": True} if layer.aligned else arguments


_AVERAGE = _attributes("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
_AVERAGE_BY = _attributes(
    "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"
)
_MAX = _attributes("kernel_size", "stride", "padding", "dilation", "ceil_mode")
_POWER = _attributes("norm_type", "kernel_size", "stride", "ceil_mode")
_BINS = _attributes("output_size")
_LOCAL = _attributes("stride", "padding", "dilation")
_RESPONSE = _attributes("size", "alpha", "beta", "k")
_DROPOUT = _attributes("p", "training")
_SOFTMAX = _attributes("dim")

# By the kind of layer, its operator and that one's arguments.
_OPERATORS: dict[type, tuple[str, _Arguments]] = {
    nn.Conv1d: ("conv1d", _convolution),
    nn.Conv2d: ("conv2d", _convolution),
    nn.Conv3d: ("conv3d", _convolution),
    nn.ConvBiasAct2d: ("conv2d_bias_act", _convolution),
    nn.ConvTranspose1d: ("conv_transpose1d", _transposed),
    nn.ConvTranspose2d: ("conv_transpose2d", _transposed),
    nn.ConvTranspose3d: ("conv_transpose3d", _transposed),
    nn.LocallyConnected1d: ("locally_connected1d", _LOCAL),
    nn.LocallyConnected2d: ("locally_connected2d", _LOCAL),
    nn.MaxPool1d: ("max_pool1d", _MAX),
    nn.MaxPool2d: ("max_pool2d", _MAX),
    nn.MaxPool3d: ("max_pool3d", _MAX),
    nn.AvgPool1d: ("avg_pool1d", _AVERAGE),
    nn.AvgPool2d: ("avg_pool2d", _AVERAGE_BY),
    nn.AvgPool3d: ("avg_pool3d", _AVERAGE_BY),
    nn.LPPool1d: ("lp_pool1d", _POWER),
    nn.LPPool2d: ("lp_pool2d", _POWER),
    nn.LPPool3d: ("lp_pool3d", _POWER),
    nn.AdaptiveAvgPool1d: ("adaptive_avg_pool1d", _BINS),
    nn.AdaptiveAvgPool2d: ("adaptive_avg_pool2d", _BINS),
    nn.AdaptiveAvgPool3d: ("adaptive_avg_pool3d", _BINS),
    nn.AdaptiveMaxPool1d: ("adaptive_max_pool1d", _BINS),
    nn.AdaptiveMaxPool2d: ("adaptive_max_pool2d", _BINS),
    nn.AdaptiveMaxPool3d: ("adaptive_max_pool3d", _BINS),
    nn.SpatialPyramidPool2d: ("spatial_pyramid_pool", _attributes("levels", "kind")),
    nn.MaxUnpool1d: ("max_unpool1d", _unpool),
    nn.MaxUnpool2d: ("max_unpool2d", _unpool),
    nn.MaxUnpool3d: ("max_unpool3d", _unpool),
    nn.RoIAlign: ("roi_align", _roi_align),
    nn.RoIPool: ("roi_pool", _attributes("output_size", "spatial_scale")),
    nn.LocalResponseNorm: ("local_response_norm", _RESPONSE),
    nn.SpatialResponseNorm: ("spatial_response_norm", _RESPONSE),
    nn.BatchNorm1d: ("batch_norm", _batch_norm),
    nn.BatchNorm2d: ("batch_norm", _batch_norm),
    nn.BatchNorm3d: ("batch_norm", _batch_norm),
    nn.SyncBatchNorm: ("batch_norm", _batch_norm),
    nn.BatchNormAct2d: ("batch_norm_act", _batch_norm),
    nn.BatchNormAct3d: ("batch_norm_act", _batch_norm),
    nn.ReLU: ("relu", _attributes()),
    nn.LeakyReLU: ("leaky_relu", _attributes("negative_slope")),
    nn.Dropout: ("dropout", _DROPOUT),
    nn.Dropout1d: ("dropout1d", _DROPOUT),
    nn.Dropout2d: ("dropout2d", _DROPOUT),
    nn.Dropout3d: ("dropout3d", _DROPOUT),
    nn.Softmax: ("softmax", _SOFTMAX),
    nn.Softmax2d: ("softmax", lambda layer, given: {"dim": -3}),
    nn.LogSoftmax: ("log_softmax", _SOFTMAX),
    nn.CrossEntropyLoss: (
        "cross_entropy",
        _attributes("ignore_index", "reduction", "label_smoothing"),
    ),
    nn.NLLLoss: ("nll_loss", _attributes("ignore_index", "reduction")),
}


def _refusal(layer: Any, given: dict[str, Any]) -> str | None:
    """Why this is no :class:`Call`; None where it is one."""
    if type(layer) not in _OPERATORS:
        return "which is not known to be one call of an operator of pydl.functional"
    if isinstance(layer, nn.SyncBatchNorm) and layer.training and group_of(layer.process_group):
        return "which takes statistics of other processes too"
    if "target" in given and (layer.weight is not None or given["target"].is_floating_point()):
        return (
            "a loss with weights of classes or probabilities of them, which a Call has no room for"
        )
    return None


def _call(layer: Any, given: dict[str, Any]) -> tuple[Call, list[torch.Tensor]]:
    operator, arguments_of = _OPERATORS[type(layer)]
    arguments = arguments_of(layer, given)
    x, residual = given["input"], given.get("residual")
    target, boxes, indices = (given.get(name) for name in ("target", "rois", "indices"))
    weight, bias = (getattr(layer, name, None) for name in ("weight", "bias"))
    if boxes is not None and not isinstance(boxes, torch.Tensor):  # a list, an element per image
        numbered = [nn.functional.pad(one, (1, 0), value=n) for n, one in enumerate(boxes)]
        boxes = torch.cat(numbered)
    statistics = operator.startswith("batch_norm") and not arguments["training"]
    weight_shape, bias_shape, residual_shape, target_shape = (
        None if t is None else tuple(t.shape) for t in (weight, bias, residual, target)
    )
    call = Call(
        operator,
        tuple(x.shape),
        weight_shape,
        bias_shape,
        arguments=arguments,
        grad_input=x.requires_grad,
        target=target_shape,
        boxes=None if boxes is None else len(boxes),
        residual=residual_shape,
        statistics=statistics,
    )
    running = [layer.running_mean, layer.running_var] if statistics else []
    tensors = [x, weight, bias, residual, *running, target, boxes, indices]
    return call, [t.detach().clone() for t in tensors if t is not None]


def layer_calls(
    model: torch.nn.Module, x: torch.Tensor, *, skip: tuple[type, ...] = ()
) -> dict[str, tuple[Call, list[torch.Tensor]]]:
    """The operator calls that the layers of ``pydl.nn`` in ``model`` make for the input ``x``.

    The model runs once, in the mode that it is in. A call computes out of place and gives the
    output alone, where the layer may overwrite its input or give the indices of maxima as well.

    Args:
        model: any model.
        x: its input.
        skip: kinds of layers that are left out; a kind of ``torch.nn`` stands for those of
            ``pydl.nn`` that derive from it.

    Returns:
        By the layer's name (``name#2`` where it is called again), the call and its tensors,
        detached.

    Raises:
        ValueError: a layer of ``pydl.nn`` is no single call that :class:`Call` can hold: a
            recurrent one, one of a subclass, a loss with weights of classes, or batch normalisation
            over several processes.
    """
    found: dict[str, tuple[Call, list[torch.Tensor]]] = {}

    def take(ran: Ran) -> None:
        given = dict(inspect.signature(ran.layer.forward).bind(*ran.inputs, **ran.named).arguments)
        why = _refusal(ran.layer, given)
        if why is not None:
            raise ValueError(f"layer {ran.name!r} is a {type(ran.layer).__name__}, {why}")
        found[ran.key] = _call(ran.layer, given)

    def ours(name: str, layer: torch.nn.Module) -> bool:
        return isinstance(layer, Layer) and not isinstance(layer, skip)

    with watch(model, ours, before=take), torch.enable_grad():
        model(x)
    return found
