"""What part of a run is PyTorch's dense products, which on a CPU stay as they are: the floor."""

import statistics

import torch

from pydl import measure

# Where an operator's arguments have the weight of a convolution; None: it is a matrix product.
_DENSE = {
    "aten::mkldnn_convolution": 1,
    "aten::_slow_conv2d_forward": 1,
    "aten::slow_conv3d_forward": 1,
    "aten::slow_conv_dilated2d": 1,
    "aten::convolution_backward": 2,
    "aten::mkldnn_rnn_layer": None,
    "aten::mkldnn_rnn_layer_backward": None,
    "aten::mm": None,
    "aten::addmm": None,
    "aten::bmm": None,
    "aten::baddbmm": None,
}


def dense_share(action: measure.Action, rounds: int = 3) -> float:
    """The part, from 0 to 1, of what ``action`` takes on the CPU that goes into matrix products and
    convolutions, depthwise ones aside, forward and backward: the median of so many runs."""
    return statistics.median(_once(action) for _ in range(rounds))


def _once(action: measure.Action) -> float:
    activities = [torch.profiler.ProfilerActivity.CPU]
    with (
        torch.profiler.profile(activities=activities, record_shapes=True) as profile,
        torch.profiler.record_function("whole"),
    ):
        action()
    events = profile.events()
    whole = next(event for event in events if event.name == "whole")
    dense = (event.self_cpu_time_total for event in events if _is_dense(event))
    return sum(dense) / whole.cpu_time_total


def _is_dense(event: torch.autograd.profiler_util.FunctionEvent) -> bool:
    if event.name not in _DENSE:
        return False
    place = _DENSE[event.name]
    if place is None:
        return True
    x, weight = event.input_shapes[place - 1 : place + 1]
    return weight[1] > 1 or x[1] == 1  # else depthwise: bound by memory, with kernels here
