"""Flair: two character models, and what they know of a word at its edges."""

import pytest
import torch

from pydl.data import text as texts
from pydl.models.meta import hollow
from pydl.models.sequence.flair import Flair, flair

TEXT = " the bank of the river "
SPANS = [(1, 4), (5, 9), (10, 12), (13, 16), (17, 22)]


@pytest.fixture(scope="module")
def network() -> Flair:
    torch.manual_seed(0)
    return Flair(len(texts.ALPHABET), embedding=3, hidden=5).double()


def test_its_lstms_are_as_large_as_published() -> None:
    network = hollow(flair)
    for model in (network.forwards, network.backwards):
        assert sum(p.numel() for p in model.recurrent.parameters()) == 17_612_800


def test_a_words_vector_is_what_the_language_models_know_at_its_edges(network: Flair) -> None:
    text = texts.encode(TEXT).long()
    words = network.words(text, SPANS)
    for vector, (first, behind) in zip(words, SPANS, strict=True):
        # Each model alone, which has read nothing of the other side.
        _, (ahead, _) = network.forwards(text[: behind + 1, None])
        _, (back, _) = network.backwards(text[first - 1 :].flip(0)[:, None])
        torch.testing.assert_close(vector, torch.cat([ahead[0, 0], back[0, 0]]))
    assert not torch.allclose(words[0], words[3])  # "the" twice
    with pytest.raises(ValueError, match=r"before and one behind them in 23, got \[\(0, 3\)\]"):
        network.words(text, [(0, 3)])


def test_scores_are_those_of_the_language_models(network: Flair) -> None:
    text = texts.encode(TEXT).long()[:, None]
    ahead, back = network(text)
    torch.testing.assert_close(ahead, network.forwards(text)[0])
    torch.testing.assert_close(back.flip(0), network.backwards(text.flip(0))[0])
