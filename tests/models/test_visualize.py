"""What is shown of a network: activations, plots, the page."""

import io
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import nn

from pydl import models, use_backend
from pydl.nn import BatchNormAct2d, Conv2d, MaxPool2d
from pydl.visualize import activations, operators, page, palette, shares

X = torch.randn(2, 1, 32, 32)


def test_activations_are_those_of_evaluation_and_leave_the_mode() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.Linear(4, 3), nn.BatchNorm1d(3))
    model[2].eval()
    seen = activations(model, torch.ones(5, 4), "0", "1")
    assert torch.equal(seen["0"], torch.ones(5, 4)) and list(seen) == ["0", "1"]
    torch.testing.assert_close(seen["1"], model[1](torch.ones(5, 4)))
    assert [layer.training for layer in (model, *model)] == [True, True, True, False]


def test_each_distinct_call_is_examined_once() -> None:
    layer = nn.ReLU()
    model = nn.Sequential(models.lenet5()[:3], nn.Sequential(layer, layer))
    rows = operators.examine(model, X, seconds=0.01)
    assert [row.layer for row in rows] == ["0.conv1", "0.pool1"]
    for row in rows:
        results = ["output", "grad_input", "grad_weight", "grad_bias"]
        assert [one.result for one in row.checks] == results[: 4 if "conv" in row.layer else 2]
        assert row.passed
        assert all(row.ratio(kind) > 0 for kind in operators.PASSES)
    checks, speed = page.checks_table(rows), page.speed_table(rows)
    assert checks.count("<tr>") == 1 + 6 and checks.count("within") == 6
    assert speed.count("<tr>") == 1 + 4 and "2&times;1&times;32&times;32" in speed


def test_who_serves_a_layer_is_observed() -> None:
    model = models.lenet5()
    served = operators.servers(model, X)
    assert list(served) == ["conv1", "act1", "pool1", "conv2", "act2", "pool2", "act3", "act4"]
    assert served["conv1"] == "aten"
    with use_backend("reference"):
        assert set(operators.servers(model, X).values()) == {"reference"}


def test_shares_are_those_of_the_kernels_that_served() -> None:
    x = torch.randn(16, 64, 56, 56)
    pool = MaxPool2d(3, 2)
    with use_backend("cpu"):
        (one,) = shares.of_families(lambda: [pool(x) for _ in range(4)])
    assert (one.what, one.backend, one.count) == ("pool", "cpu", 4)
    assert 0.2 < shares.together([one]) <= 1
    with use_backend("aten"):
        assert shares.of_families(lambda: pool(x)) == []


def test_shares_of_time_are_of_all_layers() -> None:
    model = nn.Sequential(Conv2d(1, 8, 3), BatchNormAct2d(8), Conv2d(8, 8, 3), nn.GELU())
    found = shares.of_layers(model, torch.randn(2, 1, 32, 32))
    assert shares.together(found) == pytest.approx(1)
    layers = {one.what: (one.count, one.backend) for one in found}
    assert layers["Conv2d"][0] == 2 and layers["GELU"] == (1, "torch.nn")
    assert [one.part for one in found] == sorted((one.part for one in found), reverse=True)


def test_a_page_has_both_palettes_and_fetches_nothing() -> None:
    parts = [page.section("A & B", page.picture((b"light", b"dark"), 'a "plot"'))]
    html = page.page("Title <1>", "What it  is.", parts, {"torch": "2"})
    for theme in (palette.LIGHT, palette.DARK):
        assert all(getattr(theme, field.name) in html for field in fields(theme))
    assert "Title &lt;1&gt;" in html and "A &amp; B" in html and "a &quot;plot&quot;" in html
    assert html.count("data:image/png;base64,") == 2 and "http" not in html


def test_plots_are_drawn_in_both_themes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from pydl.visualize import plots

    album = plots.Album(tmp_path)
    counts = torch.tensor([[3, 1], [0, 2]])
    light, dark = album("confusion", plots.confusion_matrix, counts, ("cat", "dog"))
    assert light.startswith(b"\x89PNG") and dark.startswith(b"\x89PNG") and light != dark
    assert (tmp_path / "confusion.png").read_bytes() == light


def test_thumbnails_are_the_pixels_themselves() -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.colors import to_rgb
    from matplotlib.image import imread

    from pydl.visualize import thumbnails

    maps = torch.tensor([[[0.0, 1.0]], [[0.5, 0.0]], [[1.0, 1.0]]])  # 3 of 1x2
    light, dark = thumbnails.thumbnails(maps, thumbnails.ink, columns=2)
    for png, theme in ((light, palette.LIGHT), (dark, palette.DARK)):
        shown = imread(io.BytesIO(png), format="png")
        assert shown.shape == (3, 5, 4)  # a pixel between them
        first, last = (to_rgb(colour) for colour in (theme.paper, theme.ink))
        assert shown[0, 0, :3] == pytest.approx(first, abs=0.01)
        assert shown[0, 1, :3] == pytest.approx(last, abs=0.01)
        assert shown[0, 2, 3] == 0 and shown[1, 0, 3] == 0 and shown[2, 4, 3] == 0
