"""The classical learners that networks are held against."""

import pytest
import torch
from torch.utils.data import TensorDataset

pytest.importorskip("sklearn")

from pydl.data import Split
from pydl.recipes import baselines

CORNERS = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [1.0, -1.0]])


def split(labels: list[int]) -> Split:
    """Images of two pixels around the corners of a square, each corner of one class."""
    generator = torch.Generator().manual_seed(0)

    def part() -> TensorDataset:
        images = CORNERS.repeat(20, 1)
        images = images + 0.1 * torch.randn(images.shape, generator=generator)
        return TensorDataset(images.view(-1, 1, 1, 2), torch.tensor(labels).repeat(20))

    return Split(part(), part(), ("0", "1"), (0.0,), (1.0,), source="made up", licence="none")


def test_neighbours_tell_apart_what_no_line_does() -> None:
    diagonal = split([0, 0, 1, 1])
    assert baselines.nearest_neighbour(diagonal) == 1.0
    assert 0.25 <= baselines.logistic_regression(diagonal) <= 0.75


def test_both_tell_apart_what_a_line_does() -> None:
    left_and_right = split([0, 1, 0, 1])
    assert baselines.nearest_neighbour(left_and_right) == 1.0
    assert baselines.logistic_regression(left_and_right) == 1.0
