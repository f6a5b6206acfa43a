"""The demo's steps: the digits, their training, the page."""

import pytest
import torch

from pydl import models

pytest.importorskip("sklearn")

from pydl.digits import dataset, operators, training


@pytest.fixture(scope="module")
def digits() -> dataset.Digits:
    return dataset.load(0)


def test_a_fifth_of_every_digit_is_held_out(digits: dataset.Digits) -> None:
    assert digits.images.shape == (1797, 1, 32, 32)
    assert len(digits.held_out) == 360
    assert sorted([*digits.train.tolist(), *digits.held_out.tolist()]) == list(range(1797))
    every, held_out = digits.labels.bincount(), digits.labels[digits.held_out].bincount()
    assert (held_out - every / 5).abs().max() < 1
    train = digits.images[digits.train]
    assert train.mean().item() == pytest.approx(
        0, abs=1e-5
    ) and train.std().item() == pytest.approx(1, abs=1e-5)


def test_the_seed_decides_the_split(digits: dataset.Digits) -> None:
    assert torch.equal(dataset.load(0).held_out, digits.held_out)
    assert not torch.equal(dataset.load(1).held_out, digits.held_out)


def test_distortion_moves_and_keeps_the_shape(digits: dataset.Digits) -> None:
    images = digits.images[:64]
    moved = training.distort(images, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape and not torch.equal(moved, images)
    still = training.distort(torch.ones(2, 1, 32, 32), torch.Generator().manual_seed(0))
    torch.testing.assert_close(still, torch.ones(2, 1, 32, 32))


def test_training_learns_and_repeats(digits: dataset.Digits) -> None:
    def run() -> tuple[torch.nn.Module, list[training.Epoch]]:
        torch.manual_seed(0)
        model = models.lenet5()
        return model, list(training.train(model, digits, epochs=4, seed=0))

    (model, epochs), (again, _) = run(), run()
    assert epochs[-1].loss < epochs[0].loss and epochs[-1].accuracy > 0.8
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )


def test_every_layer_of_ours_is_examined(digits: dataset.Digits) -> None:
    rows = operators.examine(models.lenet5(), digits.images[:8], seconds=0.01)
    assert [row.layer for row in rows] == ["conv1", "pool1", "conv2", "pool2"]
    for row in rows:
        assert row.passed
        results = [
            "output",
            "grad_input",
            *(["grad_weight", "grad_bias"] if row.call.weight else []),
        ]
        assert [one.result for one in row.checks] == results
        assert all(row.ratio(kind) > 0 and row.copies(kind) > 0 for kind in operators.PASSES)
