"""Layers in graphs whose batch is not known while they are made: exported and compiled, strict and
not, small and large, they serve another batch correctly, and the choice of backend puts no guard on
a size."""

import pytest
import torch

from pydl import nn


class _Loss(torch.nn.Module):
    """A loss, its targets made from the input's sizes."""

    def __init__(self, loss: torch.nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.loss(x, torch.zeros((x.shape[0], *x.shape[2:]), dtype=torch.int64))


# A layer, and what follows the batch in a small and in a large input.
LAYERS = {
    "convolution": (lambda: nn.Conv2d(4, 4, 3), (4, 6, 6), (4, 64, 64)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4), (4, 6, 6), (4, 64, 64)),
    "depthwise, same": (
        lambda: nn.Conv2d(4, 4, 4, groups=4, padding="same"),
        (4, 6, 6),
        (4, 64, 64),
    ),
    "transposed depthwise": (
        lambda: nn.ConvTranspose2d(4, 4, 3, groups=4),
        (4, 6, 6),
        (4, 64, 64),
    ),
    "convolution with an activation": (lambda: nn.ConvBiasAct2d(4, 4, 3), (4, 6, 6), (4, 64, 64)),
    "locally connected": (lambda: nn.LocallyConnected2d(4, 4, 6, 3), (4, 6, 6), (4, 6, 6)),
    "batch norm": (lambda: nn.BatchNorm2d(4), (4, 6, 6), (4, 128, 128)),
    "batch norm of rows": (lambda: nn.BatchNorm1d(4), (4,), (4, 9000)),
    "batch norm, cumulative": (lambda: nn.BatchNorm2d(4, momentum=None), (4, 6, 6), (4, 128, 128)),
    "batch norm with an activation": (lambda: nn.BatchNormAct2d(4), (4, 6, 6), (4, 128, 128)),
    "softmax": (lambda: nn.Softmax(-1), (5,), (2000, 50)),
    "softmax over the batch": (lambda: nn.Softmax(0), (5,), (40_000,)),
    "log softmax of columns": (lambda: nn.LogSoftmax(1), (5, 3, 3), (5, 400, 400)),
    "relu": (nn.ReLU, (5,), (40_000,)),
    "leaky relu": (nn.LeakyReLU, (5,), (40_000,)),
    "dropout of nothing": (lambda: nn.Dropout(0.0), (5,), (40_000,)),
    "dropout2d of nothing": (lambda: nn.Dropout2d(0.0), (4, 3, 3), (200, 30, 30)),
    "cross entropy": (lambda: _Loss(nn.CrossEntropyLoss()), (5,), (70_000,)),
    "cross entropy of maps": (
        lambda: _Loss(nn.CrossEntropyLoss(label_smoothing=0.1)),
        (5, 3, 3),
        (5, 200, 200),
    ),
    "nll loss": (lambda: _Loss(nn.NLLLoss()), (5,), (70_000,)),
}


def _exported(layer: torch.nn.Module, x: torch.Tensor, strict: bool) -> torch.nn.Module:
    batch = torch.export.Dim("batch", min=2, max=64)
    return torch.export.export(layer, (x,), dynamic_shapes=({0: batch},), strict=strict).module()


HOW = {
    "exported": lambda layer, x: _exported(layer, x, False),
    "exported strictly": lambda layer, x: _exported(layer, x, True),
    "compiled": lambda layer, x: torch.compile(
        layer, dynamic=True, fullgraph=True, backend="aot_eager"
    ),
}
ROWS = [
    pytest.param(name, training, how, id=f"{name}-{'training' if training else 'evaluation'}-{how}")
    for name in LAYERS
    for training in ((False, True) if name.startswith(("batch norm", "dropout")) else (False,))
    for how in HOW
]


@pytest.mark.parametrize("name, training, how", ROWS)
def test_another_batch(name, training, how):
    make, *shapes = LAYERS[name]
    for shape in shapes if how == "exported" else shapes[1:]:
        torch._dynamo.reset()
        layer, expected = make().train(training), make().train(training)
        expected.load_state_dict(layer.state_dict())
        graph = HOW[how](layer, torch.randn(4, *shape))
        x = torch.randn(6, *shape)
        torch.testing.assert_close(graph(x), expected(x), rtol=1e-4, atol=1e-4)
        buffers = dict(expected.named_buffers())
        for name_, moved in graph.named_buffers():
            torch.testing.assert_close(moved, buffers[name_.removeprefix("_orig_mod.")])


def test_the_choice_is_made_inside_the_operator():
    layer = nn.Conv2d(4, 4, 3, groups=4)
    graph = _exported(layer, torch.randn(4, 4, 64, 64), strict=False).graph
    calls = [node for node in graph.nodes if "pydl" in str(node.target)]
    assert [node.args[-1] for node in calls] == ["auto:depthwise:unit:training"]
