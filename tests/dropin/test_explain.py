"""Where the time of a model goes, by ``pydl.explain``."""

import copy

import pytest
import torch
from fusible import image, made
from test_fuse import Deciding
from torch import nn

import pydl


def test_each_layer_once_in_order_and_the_model_as_before():
    model, x = made("small").train(), image("small")
    state = copy.deepcopy(model.state_dict())
    found = pydl.explain(pydl.accelerate(model), x, seconds=0.001)
    assert [row.name for row in found.rows] == [str(i) for i in range(len(model))]
    assert [row.kind for row in found.rows] == [type(layer).__name__ for layer in model]
    assert found.rows[0].shape == tuple(x.shape) and found.rows[3].shape == (2, 8, 12, 12)
    assert sum(row.share for row in found.rows) == pytest.approx(1)
    assert all(row.ours > 0 and row.pytorch > 0 for row in found.rows) and found.ours > 0
    assert model.training and not any(layer._forward_hooks for layer in model.modules())
    torch.testing.assert_close(model.state_dict(), state)


def test_layers_computed_together_are_one_row():
    model = pydl.accelerate(made("pooled"), fuse=True)
    found = pydl.explain(model, image("pooled"), seconds=0.001)
    names = [row.name for row in found.rows]
    assert names == ["0 + 1", "3 + relu", "4", "6 + relu"]
    residual = pydl.accelerate(made("residual"), fuse=True)
    names = [row.name for row in pydl.explain(residual, image("residual"), seconds=0.001).rows]
    assert names == [
        "conv1 + bn1 + relu",
        "shortcut.0 + shortcut.1",
        "conv2 + bn2 + residual + relu",
    ]
    assert pydl.report(residual).fused


@pytest.mark.parametrize("name", ("functional", "disturbed", "of pydl.nn", "volume", "nested"))
def test_what_pytorch_computes_is_the_same(name):
    """What is timed beside each row, by what it gives."""
    from pydl.explanation import _calls
    from pydl.models.stock import as_torch

    model, x = pydl.accelerate(made(name), fuse=True).eval(), image(name)
    stock = pydl.restore(as_torch(model)).eval()
    with torch.no_grad():
        for call in _calls(model, stock, (x,), pydl.report(model)):
            torch.testing.assert_close(call.ours(), call.theirs(), rtol=1e-4, atol=1e-5)


def test_who_serves_by_which_measurement_and_what_was_left():
    class Doubled(nn.MaxPool2d):
        def forward(self, input):
            return 2 * super().forward(input)

    model = nn.Sequential(nn.LocalResponseNorm(5), Doubled(2), Deciding())
    found = pydl.explain(
        pydl.accelerate(model, fuse=True), torch.randn(1, 4, 12, 12), seconds=0.001
    )
    norm, pool, *_ = found.rows
    assert norm.server == "cpu" and norm.evidence == "bench/results/some/lrn.csv: won"
    assert pool.server == "aten" and pool.left == "it overrides forward"
    said = str(found).splitlines()
    assert said[1].endswith("bench/results/some/lrn.csv: won")
    assert said[2].endswith("it overrides forward")
    assert said[-1].startswith("2: not fused, torch.fx cannot follow its forward")
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got int"):
        pydl.explain(3)
