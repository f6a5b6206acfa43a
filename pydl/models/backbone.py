"""Maps from the middle of a classifier, which networks for segmentation and detection stand on."""

from collections.abc import Mapping

import torch
from torch import fx, nn


class _Tracer(fx.Tracer):
    """Keeps which node each layer gave; one that has no layers of its own is not looked into."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: dict[str, fx.Node] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(m.children())

    def call_module(self, m, forward, args, kwargs):
        output = super().call_module(m, forward, args, kwargs)
        if isinstance(output, fx.Proxy):
            self.outputs[self.path_of_module(m)] = output.node
        return output


def backbone(
    model: nn.Module, maps: Mapping[str, str], output_stride: int | None = None
) -> fx.GraphModule:
    """The part of a classifier that leads to some of its layers, giving what these give.

    The names of what is left stay as they are, so that a classifier's ``state_dict`` holds those of
    its backbone. With an ``output_stride`` a layer whose stride would make maps smaller than that
    part of the image gets a stride of 1, and everything behind it a dilation as large as the stride
    was, so that the same weights see the same pixels: of the larger maps every second pixel (every
    fourth, ...) is what it was.

    What the classifier does in training alone (auxiliary heads, stochastic depth) is left out.

    Args:
        model: any network whose ``forward`` does not depend on the values of its input. Its layers
            are taken, not copied: those that are dilated are so in ``model`` too.
        maps: by the name of a layer of ``model``, the name of its output.
        output_stride: how many pixels of the image, along a side, become one of the smallest maps.

    Returns:
        A module from (N, C, H, W) to a dict of maps, by the names in ``maps``.

    Raises:
        ValueError: there is no such layer, or ``model`` has no maps of that stride, or an average
            would have to be dilated.

    Source: Chen et al. 2015, Semantic Image Segmentation with Deep Convolutional Nets and Fully
    Connected CRFs, for the dilation; torchvision's ``IntermediateLayerGetter`` and
    ``replace_stride_with_dilation``, of which the results are the same.

    Example::

        backbone(resnet50(), {"layer3": "aux", "layer4": "out"}, output_stride=8)
    """
    tracer = _Tracer()
    training = model.training
    with torch.no_grad():
        graph = tracer.trace(model.eval())
    model.train(training)
    for layer in maps:
        if layer not in tracer.outputs:
            known = ", ".join(name for name in tracer.outputs if "." not in name)
            raise ValueError(f"no layer {layer!r} gives a map; among those that do are {known}")
    (whole,) = graph.find_nodes(op="output")
    graph.erase_node(whole)
    graph.output({name: tracer.outputs[layer] for layer, name in maps.items()})
    for node in reversed(graph.nodes):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)
    made = fx.GraphModule(model, graph, class_name=f"{type(model).__name__}Backbone")
    made.train(training)
    if output_stride is not None:
        _dilate(made, output_stride)
    return made


def _dilate(network: fx.GraphModule, output_stride: int) -> None:
    """Follows the stride and the dilation of each node's maps, and holds the stride."""
    held: dict[fx.Node, tuple[int, int]] = {}
    for node in network.graph.nodes:
        stride, dilation = max((held[one] for one in node.all_input_nodes), default=(1, 1))
        if node.op == "call_module":
            layer = network.get_submodule(str(node.target))
            if isinstance(layer, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
                step = max(_both(layer.stride))
                _spread(layer, dilation, str(node.target))
                if stride * step > output_stride:
                    layer.stride = 1 if isinstance(layer.stride, int) else (1, 1)
                    dilation *= step
                else:
                    stride *= step
        held[node] = stride, dilation
    reached = max(stride for stride, _ in held.values())
    if reached != output_stride:
        raise ValueError(
            f"output_stride must be one of the strides that the network's maps have, and "
            f"{output_stride} is none: the largest below it is {reached}"
        )


def _spread(layer: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d, by: int, name: str) -> None:
    """Sets the taps of a window ``by`` times as far apart, and pads as many times as much."""
    if by == 1 or max(_both(layer.kernel_size)) == 1:
        return
    if isinstance(layer, nn.AvgPool2d):
        raise ValueError(f"layer {name!r} is an average, which has no dilation")
    layer.dilation = tuple(by * one for one in _both(layer.dilation))
    if not isinstance(layer.padding, str):
        layer.padding = tuple(by * one for one in _both(layer.padding))


def _both(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
