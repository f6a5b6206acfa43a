"""ELMo: vectors of words by their characters, and of words in their sentences."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

import pydl
from pydl.models.sequence import elmo

PAST = ["I", "read", "the", "book", "yesterday"]
PRESENT = ["can", "you", "read", "this", "letter", "now", "please"]
READ = (2, 3)  # its places, behind the sentence's mark


@pytest.fixture(scope="module")
def network() -> elmo.ELMo:
    torch.manual_seed(0)
    return elmo.ELMo(cells=6, size=4, highways=2).double().eval()


def test_characters_of_a_sentence() -> None:
    found = elmo.characters(["ad", "é" * 40])
    assert found.shape == (4, 50) and found.min() > 0 and found.max() < elmo.CHARACTERS
    begin, ad, long, end = found.tolist()
    assert begin[:4] == [259, 257, 260, 261] and end[:4] == [259, 258, 260, 261]
    assert ad[:5] == [259, ord("a") + 1, ord("d") + 1, 260, 261] and set(ad[5:]) == {261}
    assert long[0] == 259 and long[-1] == 260 and long[1:3] == [0xC3 + 1, 0xA9 + 1]


def test_a_words_vector_is_convolutions_maxima_highways_and_a_projection(network) -> None:
    cnn, (word,) = network.words, elmo.characters(["read"])[1:2]
    letters = cnn.embedding.weight[word]  # [50, 16]
    maxima = []
    for convolution in cnn.convolutions:
        width = convolution.kernel_size[0]
        windows = letters.unfold(0, width, 1)  # [places, 16, width]
        found = torch.einsum("pcw,mcw->pm", windows, convolution.weight) + convolution.bias
        maxima.append(found.amax(0))
    x = torch.cat(maxima).relu()
    for highway in cnn.highways:
        new, gate = (highway.both.weight @ x + highway.both.bias).split(len(x))
        x = gate.sigmoid() * x + (1 - gate.sigmoid()) * new.relu()
    torch.testing.assert_close(cnn(word[None])[0], cnn.projection(x))


@pytest.mark.parametrize("backend", ["reference", "aten", "cpu"])
def test_its_lstms_are_torchs_with_projection(network, backend: str) -> None:
    words = elmo.characters(PAST)[:, None]
    x = network.words(words[:, 0])[:, None]
    expected = [torch.cat([x, x], 2)]
    sides = [x, x.flip(0)]
    for level, pair in enumerate(zip(network.forwards, network.backwards, strict=True)):
        below = sides
        sides = []
        for layer, side in zip(pair, below, strict=True):
            stock = nn.LSTM(4, 6, proj_size=4).double()
            zeros = {"bias_hh_l0": torch.zeros(24, dtype=torch.float64)}
            stock.load_state_dict({**layer.state_dict(), **zeros})
            sides.append(stock(side)[0] + (side if level else 0))
        expected.append(torch.cat([sides[0], sides[1].flip(0)], 2))
    with pydl.use_backend(backend, strict=False):
        torch.testing.assert_close(network(words), torch.stack(expected))


def test_padding_changes_nothing(network) -> None:
    sentences = [elmo.characters(one) for one in (PAST, PRESENT, ["no"])]
    lengths = torch.tensor([len(one) for one in sentences])
    found = network(pad_sequence(sentences), lengths)  # [3, T, B, 8]
    for i, sentence in enumerate(sentences):
        torch.testing.assert_close(
            found[:, : len(sentence), i], network(sentence[:, None])[:, :, 0]
        )
        assert not found[:, len(sentence) :, i].any()


def test_a_word_means_the_same_by_itself_and_not_in_its_sentence(network) -> None:
    past, present = (
        network(elmo.characters(sentence)[:, None])[:, place, 0]
        for sentence, place in zip((PAST, PRESENT), READ, strict=True)
    )
    torch.testing.assert_close(past[0], present[0], rtol=0, atol=0)
    for layer in (1, 2):
        forwards, backwards = (past[layer] - present[layer]).split(4)
        assert forwards.abs().max() > 1e-3 and backwards.abs().max() > 1e-3


def test_each_direction_sees_its_side_alone(network) -> None:
    found = network(elmo.characters(PAST)[:, None])
    other = network(elmo.characters([*PAST[:3], "letter", *PAST[4:]])[:, None])
    halves = [(found == other)[1:, :, 0, half].all(0).all(1) for half in (slice(4), slice(4, 8))]
    changed = 4  # its place
    assert halves[0].tolist() == [place < changed for place in range(7)]
    assert halves[1].tolist() == [place > changed for place in range(7)]


def test_a_mixture_is_a_weighted_sum(network) -> None:
    layers = network(elmo.characters(PAST)[:, None])
    mixture = elmo.Mixture().double()
    torch.testing.assert_close(mixture(layers), layers.mean(0))
    with torch.no_grad():
        mixture.weight.copy_(torch.tensor([0.0, 50.0, 0.0]))
        mixture.factor.fill_(3)
    torch.testing.assert_close(mixture(layers), 3 * layers[1])


def test_one_bias_of_each_gate_is_kept(network) -> None:
    keys = {key for key in network.state_dict() if "backwards.1" in key}
    names = ("weight_ih_l0", "weight_hh_l0", "weight_hr_l0", "bias_ih_l0")
    assert keys == {f"backwards.1.{name}" for name in names}
