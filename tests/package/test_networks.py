"""The benchmark of whole networks: what it writes, and what it does with one that is wrong."""

import csv
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import pydl
from pydl import models
from pydl.models.meta import hollow

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import networks  # noqa: E402
from network_pairs import DENSE  # noqa: E402

pytestmark = pytest.mark.usefixtures("unpinned")


def benchmark(out: Path, *arguments: str) -> tuple[int, list[dict[str, str]]]:
    """Exit status and rows of a quick run."""
    status = networks.main(["--seconds", "0.005", "--batch", "2", "--out", str(out), *arguments])
    with (out / "networks-1.csv").open(encoding="utf-8") as file:
        return status, list(csv.DictReader(file))


def test_a_run_leaves_rows_and_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, rows = benchmark(tmp_path, "--networks", "lenet5", "--layout", "nchw,channels_last")
    assert status == 0
    assert [(row["network"], row["layout"], row["mode"]) for row in rows] == [
        ("lenet5", layout, mode)
        for layout in ("nchw", "channels_last")
        for mode in ("inference", "training")
    ]
    for row in rows:
        assert (row["status"], row["source"], row["batch"]) == ("ok", "pydl", "2")
        assert (row["input"], row["threads"], row["torch"]) == ("1x32x32", "1", torch.__version__)
        times = {name: float(row[name]) for name in row if row[name] and name.endswith("_us")}
        assert times.keys() == {"ours_us", "stock_us"}
        assert float(row["ratio"]) == pytest.approx(times["stock_us"] / times["ours_us"], rel=2e-3)
        assert 0.1 < float(row["ratio_itself"]) < 10
        assert float(row["images_per_s"]) == pytest.approx(2e6 / times["ours_us"], rel=2e-3)
        assert times["ours_us"] <= float(row["ours_p20"]) <= float(row["ours_p80"])
        served = dict(one.rsplit(" ", 1) for one in row["served"].split("; "))
        assert served["Conv2d aten"] == "2" and served["ReLU (activation) aten"] == "4"
        assert ("CrossEntropyLoss aten" in served) == (row["mode"] == "training")
        activations = 2 * 4 * (6 * 28 * 28 + 6 * 14 * 14)
        assert float(row["peak_ours"]) > activations < float(row["peak_stock"])
        assert 0.05 < float(row["dense_share"]) < 1
    assert (tmp_path / "networks-1.md").read_text(encoding="utf-8").count("| lenet5 |") == 4
    said = capsys.readouterr().out
    assert "inference:" in said and "geometric mean of 2 rows" in said and "worst:" in said


def test_text_is_measured_too_and_has_one_layout(tmp_path: Path) -> None:
    layouts = ("--layout", "nchw,channels_last")
    status, rows = benchmark(tmp_path, "--networks", "char-lm", "--modes", "inference", *layouts)
    assert status == 0 and [row["layout"] for row in rows] == ["nchw"]
    assert rows[0]["served"].startswith("LSTM")


def test_every_network_of_the_package_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    build = lambda: nn.Sequential(pydl.nn.AvgPool2d(2), nn.Flatten())  # noqa: E731
    new = models.Model("new", build, (3, 8, 8), "a network of tomorrow", "nobody")
    monkeypatch.setitem(models.MODELS, "new", new)
    assert {one.name for one in networks.networks()} >= {*models.MODELS, "char-lm"}
    status, rows = benchmark(tmp_path, "--networks", "new", "--modes", "inference")
    assert status == 0 and rows[0]["input"] == "3x8x8"


@pytest.mark.parametrize("name", DENSE)
def test_dense_networks_take_the_inputs_that_they_are_measured_on(name: str) -> None:
    (network,) = (one for one in networks.networks() if one.name == name)
    assert (network.input, network.batch) == (DENSE[name], 1)
    scores = hollow(network.build).eval()(torch.empty(1, *network.input, device="meta"))
    assert len(scores) == 1
    assert f"DENSE := {','.join(DENSE)}\n" in (BENCH.parent / "Makefile").read_text()


class Heads(nn.Module):
    """Scores of every pixel, twice; of one head a weight is not learned."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.aux = pydl.nn.Conv2d(3, 4, 3, padding=1), pydl.nn.Conv2d(3, 4, 1)
        self.aux.weight.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.out(x), "aux": self.aux(x)}


def test_scores_of_pixels_are_measured_and_checked_by_their_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dense = models.Model(
        "dense", Heads, (3, 64, 64), "two heads", "nobody", task="segmentation", small=(3, 8, 8)
    )
    monkeypatch.setitem(models.MODELS, "dense", dense)
    status, rows = benchmark(tmp_path, "--networks", "dense")
    assert status == 0 and [row["mode"] for row in rows] == ["inference", "training"]
    assert {row["input"] for row in rows} == {"3x8x8"}  # small, for every pixel costs
    served = rows[1]["served"]
    assert "CrossEntropyLoss" in served and served.endswith(" 2")  # one for each head
    pairs = {
        mode: networks.Pair.of(
            next(one for one in networks.networks() if one.name == "dense"), mode, "nchw", 2, "cpu"
        )
        for mode in ("inference", "training")
    }
    assert [check.result for check in pairs["inference"].check()] == ["out", "aux"]
    assert [check.result for check in pairs["training"].check()] == [
        "loss",
        "gradient of model.out.weight",
        "gradient of model.out.bias",
        "gradient of model.aux.bias",
    ]


def test_a_network_that_differs_is_wrong_and_not_timed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    accelerate = pydl.accelerate

    def spoilt(model: nn.Module, **how: bool) -> nn.Module:
        for layer in accelerate(model, **how).modules():
            if isinstance(layer, nn.MaxPool2d):
                layer.register_forward_hook(lambda layer, inputs, y: 1.1 * y)
        return model

    monkeypatch.setattr(pydl, "accelerate", spoilt)
    status, rows = benchmark(tmp_path, "--networks", "lenet5,lenet5-1998")
    assert status == 1
    assert [row["status"] for row in rows] == ["wrong", "wrong", "ok", "ok"]
    for row, what in zip(rows, ("output", "gradient of model.conv1.weight"), strict=False):
        assert f"{what} off by" in row["detail"] and not row["ratio"] and not row["ours_us"]
    assert "| wrong: output off by" in (tmp_path / "networks-1.md").read_text(encoding="utf-8")


def test_a_compilation_that_fails_is_said_and_the_row_stands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object, **__: object) -> nn.Module:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", broken)
    chosen = ("--networks", "lenet5", "--modes", "inference", "--compile")
    status, rows = benchmark(tmp_path, *chosen)
    assert status == 0 and rows[0]["ratio"] and not rows[0]["compile_us"]
    assert rows[0]["detail"] == "torch.compile failed: RuntimeError: no compiler"


def test_a_broken_network_does_not_stop_the_rest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = models.Model("lenet5", nn.Module, (1, 32, 32), "no network", "nobody")
    monkeypatch.setitem(models.MODELS, "lenet5", broken)
    chosen = ("--networks", "lenet5,lenet5-1998", "--modes", "inference")
    status, rows = benchmark(tmp_path, *chosen)
    assert status == 1 and [row["status"] for row in rows] == ["broken", "ok"]


def test_the_geometric_mean_is_of_ratios() -> None:
    assert networks.geometric_mean([0.5, 2.0]) == pytest.approx(1.0)
    assert networks.geometric_mean(iter([1.0, 2.0, 4.0])) == pytest.approx(2.0)
    assert math.isnan(networks.geometric_mean([]))


def test_each_mode_has_its_mean_and_one_row_is_the_worst() -> None:
    def row(network: str, mode: str, ratio: float | None) -> networks.Row:
        itself = ratio and 1 + ratio / 100
        return networks.Row(
            network, "pydl", mode, "nchw", 8, "3x8x8", ratio=ratio, ratio_itself=itself
        )

    rows = [row("a", "inference", 2.0), row("b", "inference", 8.0), row("c", "inference", None)]
    assert networks.summary([*rows, row("a", "training", 0.75)]) == [
        "inference: 4.000x, geometric mean of 2 rows",
        "training: 0.750x, geometric mean of 1 row",
        "PyTorch against itself: 1.008x to 1.080x",
        "worst: 0.750x, a, training, nchw, batch 8",
    ]
    assert networks.summary([]) == []


def test_the_peak_is_what_was_out_at_once() -> None:
    def action() -> None:
        first = torch.empty(1000)
        del first
        second = torch.empty(3000), torch.empty(500)
        del second

    assert networks.peak_memory(action) == 4 * 3500


def test_the_dense_share_is_that_of_products_and_of_convolutions_that_are_not_depthwise() -> None:
    x, wide = torch.rand(1, 64, 28, 28), torch.rand(500, 500)
    dense, depthwise = nn.Conv2d(64, 64, 3), nn.Conv2d(64, 64, 3, groups=64)
    share = networks.dense_share
    assert share(lambda: dense(x)) > 0.5 and share(lambda: wide @ wide) > 0.5
    assert share(lambda: depthwise(x)) == 0 == share(lambda: wide.exp())
    trained = torch.autograd.grad
    assert share(lambda: trained(dense(x).sum(), dense.weight)) > 0.5
    assert share(lambda: trained(depthwise(x).sum(), depthwise.weight)) == 0


def test_a_mistake_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        networks.main(["--networks", "lenet6"])
    assert exit.value.code == 2 and "no network matches 'lenet6'" in capsys.readouterr().err


def test_layers_computed_together_are_measured_beside_the_same_stock(tmp_path: Path) -> None:
    status, rows = benchmark(tmp_path, "--networks", "lenet5", "--modes", "inference", "--fuse")
    assert status == 0
    assert [row["served"] for row in rows] == ["1 forwards fused"]
    assert {row["fuse"] for row in rows} == {"yes"}
