"""The demo's steps: the training, the operators."""

import pytest
import torch

from pydl import models

pytest.importorskip("sklearn")

from pydl.data import Split, digits
from pydl.digits import training


@pytest.fixture(scope="module")
def split() -> Split:
    return digits.load(0)


def test_training_learns_and_repeats(split: Split) -> None:
    def run() -> tuple[torch.nn.Module, list]:
        torch.manual_seed(0)
        model = models.lenet5()
        return model, list(training.train(model, split, epochs=4, seed=0))

    (model, epochs), (again, _) = run(), run()
    assert epochs[-1].loss < epochs[0].loss and epochs[-1].held_out_accuracy > 0.8
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )
