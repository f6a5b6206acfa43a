"""Writes onnx.json: what graphs that come with onnx compute with the weights of ``weights.py``.

The graphs are Caffe's and Caffe2's models, in the folder ``backend/test/data/light`` of the package
onnx, where every weight is a constant; onnxruntime runs them. (``onnx.reference`` would not do: in
onnx 1.23.2 its LRN sees as many channels as there are images, onnx/onnx#7805.)
Run it in an environment that has both, which the tests' own does not, and PyTorch:

    python tests/golden/onnx_models.py

The graphs classify one image, and round down in their pools where Caffe rounds up. The inputs are
therefore of such a size that all windows fit and there is nothing to round. Their values are those
of pixels with the mean taken out, which these networks were trained on: of numbers around 1
response normalisation would change next to nothing. Softmax, which ends each graph, is left off.

Two of these networks are ours as they are. The third is ``alexnet`` but for its response
normalisation, which adds 1 where the paper adds 2 and divides alpha by the size: a copy with these
numbers is compared (tests/models/test_onnx_graphs.py).
"""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import onnx
import onnxruntime
import torch

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

from golden import kept  # noqa: E402
from golden.weights import fill  # noqa: E402

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def _by_layer(name: str) -> str:
    """``gpu_0/conv1_w_0`` is conv1.weight."""
    layer, kind = re.fullmatch(r"(?:gpu_0/)?(\w+)_([wb])_0", name).groups()
    return f"{layer}.{'weight' if kind == 'w' else 'bias'}"


_STEM = {
    "conv1/7x7_s2": "conv1",
    "conv2/3x3_reduce": "conv2",
    "conv2/3x3": "conv3",
    "loss3/classifier": "fc",
}
_BRANCHES = {
    "1x1": "branch1",
    "3x3_reduce": "branch2.0",
    "3x3": "branch2.1",
    "5x5_reduce": "branch3.0",
    "5x5": "branch3.1",
    "pool_proj": "branch4.1",
}


def _by_branch(name: str) -> str:
    """``inception_3a/5x5_reduce_w_0`` is inception3a.branch3.0.weight."""
    layer, kind = re.fullmatch(r"(.+)_([wb])_0", name).groups()
    if layer not in _STEM:
        module, branch = layer.split("/")
        layer = f"{module.replace('_', '')}.{_BRANCHES[branch]}"
    else:
        layer = _STEM[layer]
    return f"{layer}.{'weight' if kind == 'w' else 'bias'}"


def pixels(size: tuple[int, int, int]) -> torch.Tensor:
    """One image, from -128 to 128; the test makes the same."""
    return 128 * kept.images(size)[:1]


@dataclass(frozen=True)
class Graph:
    file: str
    side: int  # of the input
    ours: Callable[[str], str]  # our name of a weight


GRAPHS = {
    "alexnet": Graph("light_bvlc_alexnet", 227, _by_layer),
    "zfnet512": Graph("light_zfnet512", 224, _by_layer),
    "googlenet_2014": Graph("light_inception_v1", 222, _by_branch),
}


def measure(model: Graph) -> dict:
    """As :func:`kept.measure`, of one image, and of no stages."""
    proto = onnx.load(LIGHT / f"{model.file}.onnx")
    graph = proto.graph
    given = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    shapes = {name: value.shape for name, value in given.items() if re.search("_[wb]_0$", name)}
    nodes = []
    for node in graph.node:
        if node.op_type == "ConstantOfShape":  # stands for a weight
            shapes[node.output[0]] = tuple(given[node.input[0]])
        elif node.op_type != "Softmax":
            nodes.append(node)
    state = {}
    for name, shape in shapes.items():
        sides = [int(side) for side in shape]
        while sides[0] == 1:  # the graph reshapes it to a matrix
            del sides[0]
        state[model.ours(name)] = torch.empty(sides)
    fill(state)
    for name, shape in shapes.items():
        given[name] = state[model.ours(name)].numpy().reshape(shape)

    (image,) = (value for value in graph.input if len(value.type.tensor_type.shape.dim) == 4)
    size = (3, model.side, model.side)
    used = {name for node in nodes for name in node.input}
    made = onnx.helper.make_graph(
        nodes,
        model.file,
        [onnx.helper.make_tensor_value_info(image.name, onnx.TensorProto.FLOAT, (1, *size))],
        [onnx.helper.make_tensor_value_info(nodes[-1].output[0], onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(given[name], name) for name in given if name in used],
    )
    proto = onnx.helper.make_model(made, opset_imports=proto.opset_import, ir_version=8)
    run = onnxruntime.InferenceSession(proto.SerializeToString()).run
    (scores,) = run(None, {image.name: pixels(size).numpy()})
    every = max(1, scores.size // kept.SCORES)
    return {
        "keys": kept.keys(SimpleNamespace(state_dict=lambda: state)),
        "input": list(size),
        "scores": scores.ravel()[::every][: kept.SCORES].tolist(),
    }


def main() -> None:
    found: dict[str, object] = {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    for name, graph in GRAPHS.items():
        found[name] = measured = measure(graph)
        print(name, measured["scores"][:3], flush=True)
    (FOLDER / "onnx.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
