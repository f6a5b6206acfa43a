"""Language models of words: their papers' counts and equations, and what dropout drops."""

import itertools

import pytest
import torch
from torch import nn

import pydl
from pydl import functional, models
from pydl.models.sequence.awd_lstm import AWDLSTM, VariationalDropout, WeightDropLSTM, WordDropout
from pydl.models.sequence.feed_forward_lm import FeedForwardLM
from pydl.models.sequence.lstm_lm import LSTMLM

NETWORKS = {
    "feed-forward": lambda: FeedForwardLM(11, context=3, embedding=2, hidden=5),
    "lstm": lambda: LSTMLM(11, hidden=5),
    "awd-lstm": lambda: AWDLSTM(11, embedding=3, hidden=5),
}


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[name]().double().eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_text_in_pieces_is_the_whole_text(name: str) -> None:
    network = made(name)
    text = torch.randint(11, (9, 2))
    whole, last = network(text)
    state, parts = None, []
    for part in text.split([4, 1, 4]):
        scores, state = network(part, state)
        parts.append(scores)
    torch.testing.assert_close(torch.cat(parts), whole)
    torch.testing.assert_close(state, last)


# -- the feed-forward network


def test_the_feed_forward_network_has_as_many_parameters_as_the_paper_says() -> None:
    for words_, n, m, h in ((16_383, 5, 60, 50), (17_964, 6, 100, 60)):
        network = FeedForwardLM(words_, context=n - 1, embedding=m, hidden=h)
        expected = words_ * (1 + n * m + h) + h * (1 + (n - 1) * m)  # the paper's, with W
        assert sum(p.numel() for p in network.parameters()) == expected


@pytest.mark.parametrize("direct", [True, False])
def test_the_feed_forward_network_is_its_equation(direct: bool) -> None:
    torch.manual_seed(0)
    one = FeedForwardLM(7, context=2, embedding=3, hidden=4, direct=direct).double()
    text = torch.randint(7, (5, 2))
    scores, _ = one(text)
    c, (h, d), (u, b) = one.embedding.weight, one.hidden[0].parameters(), one.scores.parameters()
    for t, i in itertools.product(range(5), range(2)):
        seen = [text[s, i] if s >= 0 else 0 for s in (t - 1, t)]
        x = torch.cat([c[word] for word in seen])
        y = b + u @ torch.tanh(d + h @ x)
        if direct:
            y = y + one.direct.weight @ x
        torch.testing.assert_close(scores[t, i], y)


# -- AWD-LSTM


@pytest.mark.parametrize("backend", ["reference", "aten", "cpu"])
def test_without_dropout_awd_lstm_is_torchs_lstms(backend: str) -> None:
    torch.manual_seed(0)
    none = dict.fromkeys(
        ("word_dropout", "dropout_in", "dropout_between", "dropout_out", "weight_drop"), 0.0
    )
    one = AWDLSTM(11, embedding=3, hidden=5, **none).double().train()
    text = torch.randint(11, (6, 2))
    x = nn.functional.embedding(text, one.embedding.weight)
    state = []
    for layer, sizes in zip(one.layers, ((3, 5), (5, 5), (5, 3)), strict=True):
        stock = nn.LSTM(*sizes).double()
        stock.load_state_dict(layer.state_dict())
        x, after = stock(x)
        state.append(after)
    expected = x @ one.embedding.weight.T + one.scores.bias
    with pydl.use_backend(backend, strict=False):
        scores, found = one(text)
    torch.testing.assert_close(scores, expected)
    torch.testing.assert_close(found, tuple(state))
    assert one.scores.weight is one.embedding.weight


def test_weight_drop_drops_the_same_recurrent_weights_at_every_step() -> None:
    torch.manual_seed(0)
    layer = WeightDropLSTM(3, 16, 0.5).double().train()
    x = torch.randn(7, 2, 3, dtype=torch.float64)
    torch.manual_seed(5)
    y, (h, c) = layer(x)
    torch.manual_seed(5)
    dropped = functional.dropout(layer.weight_hh_l0, 0.5)
    assert 0.35 < (dropped == 0).double().mean() < 0.65
    stock = nn.LSTM(3, 16).double()
    stock.load_state_dict(layer.state_dict())
    stock.weight_hh_l0.data.copy_(dropped)
    expected, state = stock(x)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close((h, c), state)
    y.square().sum().backward()
    assert torch.equal(layer.weight_hh_l0.grad == 0, dropped == 0)
    layer.eval()
    torch.testing.assert_close(layer(x)[0], nn.LSTM.forward(layer, x)[0])


def test_variational_dropout_is_the_same_at_every_step_and_word_dropout_for_every_word() -> None:
    torch.manual_seed(0)
    one = VariationalDropout(0.4)
    x = torch.rand(5, 30, 40) + 1
    kept = one(x) / x
    assert torch.equal(kept[0] > 0, kept.amin(0) > 0) and 0.55 < (kept > 0).float().mean() < 0.65
    torch.testing.assert_close(kept[kept > 0], torch.tensor(1 / 0.6).expand(int((kept > 0).sum())))
    assert one.eval()(x) is x

    words_ = WordDropout(500, 4, 0.3)
    text = torch.arange(500).repeat(2, 1)
    found = words_(text)
    assert torch.equal(found[0], found[1])
    gone = (found[0] == 0).all(1)
    assert 0.2 < gone.float().mean() < 0.4
    torch.testing.assert_close(found[0][~gone], words_.weight[~gone] / 0.7)
    torch.testing.assert_close(words_.eval()(text)[0], words_.weight)


def test_published_sizes() -> None:
    """Zaremba et al. and Merity et al. print them in millions, in the table of the latter."""
    millions = {"lstm_lm_medium": 20, "lstm_lm_large": 66, "awd_lstm_ptb": 24, "awd_lstm_wt2": 34}
    for name, published in millions.items():
        parameters = models.find(name).parameters
        assert parameters is not None and round(parameters / 1e6) == published
