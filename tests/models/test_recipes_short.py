"""The recipes that take seconds: what they find, and the pages they leave."""

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from pydl.data import digits
from pydl.recipes import Options, find, gradients, transfer


def test_gradients_vanish_behind_sigmoids_and_not_behind_shortcuts(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=120)
    assert find("gradients").run(Options(tmp_path), console)
    text = console.file.getvalue()
    assert all(name in text for name in gradients.PAIRS)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.count("<tr>") == 1 + len(gradients.PAIRS)
    assert (tmp_path / "gradients.png").stat().st_size > 10_000


def test_norms_are_those_of_the_gradients() -> None:
    torch.manual_seed(0)
    model = gradients.chain(gradients.PAIRS["ReLU"], depth=2)
    x, labels = torch.randn(3, 1, 8, 8), torch.tensor([0, 1, 2])
    found = gradients.norms(model, x, labels)
    loss = torch.nn.functional.cross_entropy(model(x), labels)
    weights = [model[0].weight, model[2][0].weight, model[2][2].weight]
    expected = [g.norm().item() for g in torch.autograd.grad(loss, weights)]
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_fixed_network_learns_by_its_new_head_alone() -> None:
    split = digits.load(0)
    new = transfer.of_classes(split.train, transfer.NEW)
    assert sorted(new.tensors[1].unique().tolist()) == [0, 1, 2, 3, 4]
    data = transfer.few(new, 2, seed=0)
    assert data.tensors[1].bincount().tolist() == [2] * 5
    teacher = transfer.models.lenet5(5)
    student = transfer.with_new_head(teacher, fixed=True)
    transfer.learn(student, data, epochs=2, seed=0)
    same = [
        torch.equal(a, b) for a, b in zip(teacher.parameters(), student.parameters(), strict=True)
    ]
    assert same == [True] * 8 + [False] * 2
    free = transfer.with_new_head(teacher, fixed=False)
    transfer.learn(free, data, epochs=2, seed=0)
    assert not torch.equal(free.conv1.weight, teacher.conv1.weight)


def test_transfer_compares_three_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "SEEDS", 1)
    monkeypatch.setattr(transfer, "STEPS", 3)
    (one,) = transfer.compare(digits.load(0), 0, (2,), epochs=1)
    assert one.examples == 2 and tuple(one.accuracy) == transfer.WAYS
    assert all(0 <= part <= 1 for part in one.accuracy.values())
