"""Models with layers of this package export to ONNX as the operators that they are."""

import io

import onnx
import onnx.reference
import pytest
import torch
from fusible import image, made

import pydl

CASES = (
    ("Conv2d", (3, 4, 3), (2, 3, 16, 16), "Conv"),
    ("ConvTranspose2d", (3, 4, 3), (2, 3, 16, 16), "ConvTranspose"),
    ("MaxPool2d", (3, 2), (1, 8, 120, 120), "MaxPool"),
    ("AvgPool2d", (3, 2), (1, 8, 120, 120), "AveragePool"),
    ("AdaptiveAvgPool2d", (1,), (1, 8, 120, 120), "GlobalAveragePool|ReduceMean"),
    ("BatchNorm2d", (8,), (1, 8, 120, 120), "BatchNormalization"),
    ("LogSoftmax", (1,), (40_000, 5), "LogSoftmax"),
    ("Softmax", (1,), (40_000, 5), "Softmax"),
    ("LocalResponseNorm", (3,), (2, 8, 12, 12), "LRN|AveragePool"),
    ("ReLU", (), (2, 3), "Relu"),
    ("LeakyReLU", (0.1,), (2, 3), "LeakyRelu"),
    ("LSTM", (32, 6), (12, 8, 32), "LSTM"),
    ("GRU", (32, 6), (12, 8, 32), "GRU"),
)


class First(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        y = self.layer(x)
        return y[0] if isinstance(y, tuple) else y


def exported(model, x, dynamo):
    if dynamo:
        return torch.onnx.export(model, (x,), dynamo=True, verbose=False).model_proto
    file = io.BytesIO()
    torch.onnx.export(model, (x,), file, dynamo=False)
    return onnx.load_from_string(file.getvalue())


def run(proto, x):
    """What onnx's own evaluator, which is none of PyTorch's, makes of a graph."""
    evaluator = onnx.reference.ReferenceEvaluator(proto)
    return [
        torch.from_numpy(y) for y in evaluator.run(None, {proto.graph.input[0].name: x.numpy()})
    ]


@pytest.mark.parametrize("dynamo", (False, True), ids=("by-trace", "by-export"))
@pytest.mark.parametrize("name, arguments, shape, operator", CASES)
@pytest.mark.filterwarnings("ignore")
def test_exports_as_its_operator(name, arguments, shape, operator, dynamo):
    x = torch.randn(shape)
    ours = First(getattr(pydl.nn, name)(*arguments)).eval()
    proto = exported(ours, x, dynamo)
    operators = {node.op_type for node in proto.graph.node}
    if not dynamo or name not in ("LSTM", "GRU"):
        assert operators & set(operator.split("|")), operators
    assert {opset.domain for opset in proto.opset_import} <= {"", "pkg.onnxscript.torch_lib.common"}
    (y,) = run(proto, x)
    torch.testing.assert_close(y, ours(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dynamo", (False, True), ids=("by-trace", "by-export"))
@pytest.mark.filterwarnings("ignore")
def test_a_fused_model_exports_as_itself(dynamo):
    x = image("nested")
    proto = exported(pydl.accelerate(made("nested"), fuse=True).eval(), x, dynamo)
    assert {opset.domain for opset in proto.opset_import} <= {"", "pkg.onnxscript.torch_lib.common"}
    with torch.no_grad():
        torch.testing.assert_close(run(proto, x)[0], made("nested").eval()(x), rtol=1e-3, atol=1e-4)
