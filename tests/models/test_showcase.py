"""The demonstration: an AlexNet-shaped network's layers, checked, timed and shown."""

import io
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner, Result

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from pydl import data, nn
from pydl.measure import Times
from pydl.models.calls import Check
from pydl.recipes import digits, showcase, showcase_page
from pydl.recipes.baselines import BASELINES
from pydl.visualize import bars, operators, page
from pydl.visualize.operators import OperatorRow
from pydl_cli import app


def row(layer: str, ratio: float, backend: str = "cpu", error: float = 1e-7) -> OperatorRow:
    """A row of which both passes have this ratio."""
    seconds = {"ours": 1e-3, "theirs": ratio * 1e-3}
    times = {who: Times.of([one]) for who, one in seconds.items()}
    checks = [Check("output", error, 1e-7, 5e-7)]
    passes = operators.PASSES
    shape = (4, 96, 55, 55)
    return OperatorRow(
        layer, shape, dict.fromkeys(passes, backend), checks, dict.fromkeys(passes, times)
    )


def printed(rows: list[OperatorRow]) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(operators.listed(rows, "layers"))
    return console.file.getvalue()


@dataclass
class Run:
    """What ``pydl demo`` leaves."""

    result: Result
    shown: showcase.Shown
    folder: Path


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A short one, with a wrong layer."""
    folder, found, threads = tmp_path_factory.mktemp("demo"), [], torch.get_num_threads()
    examine, right = showcase.examine, nn.LocalResponseNorm.forward

    def small(device: torch.device, seed: int) -> showcase.Shown:
        found.append(examine(device, seed, images=1, side=131, seconds=0.0))
        return found[0]

    def wrong(self: nn.LocalResponseNorm, input: torch.Tensor) -> torch.Tensor:
        return right(self, input) * (1 if input.dtype == torch.float64 else 1 + 1e-5)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(showcase, "examine", small)
        patch.setattr(digits, "SECONDS", 0.0)
        patch.setattr(nn.LocalResponseNorm, "forward", wrong)
        result = CliRunner().invoke(app, ["demo", "--epochs", "1", "--output", str(folder)])
    torch.set_num_threads(threads)
    return Run(result, found[0], folder)


def test_every_layer_is_held_to_the_reference_and_timed(demo: Run) -> None:
    rows = {one.layer: one for one in demo.shown.rows}
    assert list(rows) == list(showcase.LAYERS)
    assert [name for name, one in rows.items() if not one.passed] == ["lrn1"]
    weights = {"bn2": 2, "conv3": 2, "bn3": 2, "gru": 4}
    for name, one in rows.items():
        # The output, its gradients by the input and by each of the weights.
        assert len(one.checks) == 2 + weights.get(name, 0)
        assert all(one.ratio(kind) > 0 and one.backends[kind] for kind in operators.PASSES)
    assert demo.shown.whole.input == (1, 1, 131, 131)


def test_what_is_wrong_fails_the_demonstration(demo: Run) -> None:
    assert demo.result.exit_code == 1
    said = " ".join(demo.result.output.split())
    assert "The operators of lrn1 deviate from the reference." in said
    assert "the target is 97 %" in said
    assert "outside" in said and "Open " in said


def test_the_page_shows_everything_and_fetches_nothing(demo: Run) -> None:
    html = (demo.folder / "index.html").read_text(encoding="utf-8")
    assert all(f"<b>{name}</b>" in html for name in showcase.LAYERS.values())
    assert html.count('class="ratio ') == 2 * (len(showcase.LAYERS) + 1) + 2 * 4
    assert demo.shown.sentences[0] in html
    assert "http" not in html and 'src="data:' in html
    pictures = {path.stem: path.read_bytes() for path in demo.folder.glob("*.png")}
    assert set(pictures) >= {"loss", "accuracy", "confusion_matrix", "filters", "scene0", "lrn1"}
    assert all(picture.startswith(b"\x89PNG") for picture in pictures.values())


def test_the_network_is_held_against_classical_learners(demo: Run) -> None:
    html = (demo.folder / "index.html").read_text(encoding="utf-8")
    split = data.digits.load(0)
    for name, learned in BASELINES.items():
        accuracy = f"{100 * learned(split):.1f}"
        assert f'<td>{name}</td><td class="n">{accuracy}</td>' in html
        assert f"{name} {accuracy} %" in html and name in demo.result.output


def test_a_wrong_layer_is_outside_its_bound() -> None:
    rows = [row("right", 1.0), row("wrong", 1.0, error=1e-6)]
    console = Console(file=io.StringIO(), width=120)
    assert not operators.right(rows, console) and operators.right(rows[:1], console)
    assert "The operators of wrong deviate from the reference" in console.file.getvalue()
    assert "outside" in printed(rows) and "outside" in page.checks_table(rows)
    assert "1 of 2 results are within" in page.checks_summary(rows)


def test_a_loss_is_shown_as_plainly_as_a_win() -> None:
    rows = [row("quick", 2.0), row("slow", 0.5), row("theirs", 1.5, "aten")]
    assert [one.verdict("both") for one in rows] == ["win", "lose", "even"]
    assert row("slowed down", 0.5, "aten").verdict("forward") == "lose"
    html = bars.bars(rows, {"slow": "a slow layer"})
    for kind, value in (("win", "2.00"), ("lose", "0.50"), ("even", "1.50")):
        assert html.count(f'<b class="ratio {kind}">{value}&times;</b>') == 2
    # The bars of half and twice as fast are of one length, on either side of 1.
    found = re.findall(r'<i class="(\w+)" style="left:([\d.]+)%;width:max\(2px,([\d.]+)%\)', html)
    places = {kind: (float(left), float(width)) for kind, left, width in found}
    assert places["lose"][1] == pytest.approx(places["win"][1], abs=0.1)
    assert sum(places["lose"]) == pytest.approx(places["win"][0], abs=0.2)
    assert "a slow layer" in html and "forward</b>, PyTorch" in html
    assert "0.50x" in printed(rows) and "2.00x" in printed(rows)
    other = showcase.Shown(torch.zeros(0), (), {}, rows, row(showcase.WHOLE, 0.5), 1.0)
    (won, said, _), (figure, _, met) = showcase_page.tiles(other)
    assert said.startswith(
        "timings of single layers beat stock PyTorch, the best 2.00&times;; slower: 2"
    )
    assert won == "2 of 6" and figure == "0.50&times;" and not met
