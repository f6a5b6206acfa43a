"""Networks from Caffe's days give what graphs that come with onnx give for the same weights
(tests/golden/onnx_models.py)."""

import json
from pathlib import Path

import pytest
import torch
from golden import kept
from torch import nn

from pydl.models.alexnet import alexnet
from pydl.models.googlenet_2014 import googlenet_2014
from pydl.models.zfnet import zfnet512

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "onnx.json").read_text())


def alexnet_of_caffe() -> nn.Module:
    """The paper's with Caffe's response normalisation."""
    model = alexnet()
    for layer in model:
        if isinstance(layer, nn.LocalResponseNorm):
            layer.k, layer.alpha = 1.0, 1e-4
    return model


@pytest.mark.parametrize(
    "name, build",
    [
        pytest.param("alexnet", alexnet_of_caffe, id="alexnet"),
        pytest.param("zfnet512", zfnet512, id="zfnet512"),
        pytest.param("googlenet_2014", googlenet_2014, id="googlenet_2014"),
    ],
)
def test_the_scores_are_those_of_the_graph(name, build):
    expected = GOLDEN[name]
    with torch.device("meta"):
        network = build()
    assert kept.keys(network) == expected["keys"]
    # As there: one image, from -128 to 128.
    pixels = 128 * kept.images(expected["input"])[:1]
    with torch.inference_mode():
        y = kept.filled(network)(pixels).flatten()
    found = y[:: max(1, y.numel() // kept.SCORES)][: kept.SCORES]
    scores = torch.tensor(expected["scores"])
    torch.testing.assert_close(found, scores, rtol=1e-4, atol=1e-4 * scores.std().item())
