"""Sentences about images: what the decoder reads, and what it writes."""

import pytest
import torch

import pydl
from pydl.models.sequence.captioner import Captioner, Places, stages
from pydl.models.sequence.decoder import BEGIN


def network(**options) -> Captioner:
    torch.manual_seed(0)
    features = stages(1, (4, 6))
    return Captioner(features, 6, 9, embedding=3, hidden=5, maxout=4, **options).double().eval()


def test_each_place_has_its_coordinates() -> None:
    found = Places()(torch.zeros(2, 3, 3, 5))
    assert found.shape == (2, 5, 3, 5) and found[:, :3].abs().max() == 0
    assert found[1, 3, 2].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert found[0, 4, :, 1].tolist() == [-1, 0, 1]


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_what_it_writes_is_what_it_scores_highest(cell: str) -> None:
    model = network(cell=cell)
    images = torch.rand(3, 1, 12, 16, dtype=torch.float64)
    written = model.write(images, longest=6)
    assert written.weights.shape[1:] == (3, 6 * 8)
    torch.testing.assert_close(
        written.weights.sum(2), torch.ones(written.weights.shape[:2]).double()
    )
    begun = torch.cat([torch.full((1, 3), BEGIN), written.symbols[:-1]])
    with torch.no_grad():
        scores, weights = model(images, begun)
    scores[..., :2] = -torch.inf  # neither padding nor another beginning is written
    ended = written.symbols == 0
    assert torch.equal(scores.argmax(2).masked_fill(ended, 0), written.symbols)
    torch.testing.assert_close(weights[:1], written.weights[:1])
    one = model.write(images, longest=6, width=4)
    assert (one.log_probability >= written.log_probability - 1e-9).all()


def test_one_place_alone_is_read_where_the_others_score_nothing() -> None:
    model = network()
    image = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    target = torch.tensor([[BEGIN]])
    with torch.no_grad(), pydl.use_backend("reference"):
        state, memory = model.read(image)
        _, _, weights = model.decoder.step(target[0], state, memory)
        by_hand = model.decoder.attention.score(state[0], memory.keys).softmax(1)
    torch.testing.assert_close(weights, by_hand)
    assert memory.values.shape == (1, 16, 8)
