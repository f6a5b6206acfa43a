"""Reading by columns: what paths spell, against every path that there is and PyTorch's loss; the
network of the paper."""

import itertools

import pytest
import torch

import pydl
from pydl.models.record import record
from pydl.models.sequence import ctc
from pydl.models.sequence.crnn import CRNN


def columns(steps: int, examples: int = 3, symbols: int = 4, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(steps, examples, symbols, dtype=torch.float64, generator=generator)


def every(scores: torch.Tensor) -> dict[tuple[int, ...], float]:
    """The probability of every text, by going through all paths of one example (T, symbols)."""
    odds = scores.softmax(1).tolist()
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(scores.shape[1]), repeat=len(scores)):
        product = 1.0
        for column, symbol in zip(odds, path, strict=True):
            product *= column[symbol]
        text = tuple(symbol for symbol, _ in itertools.groupby(path) if symbol)
        found[text] = found.get(text, 0.0) + product
    return found


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ([0, 0, 0], ()),
        ([1, 1, 2], (1, 2)),
        ([1, 0, 1], (1, 1)),
        ([0, 3, 3, 0, 3, 2], (3, 3, 2)),
    ],
)
def test_a_path_spells_its_symbols_once(path: list[int], text: tuple[int, ...]) -> None:
    assert ctc.spelt(path) == text


def test_a_wide_beam_finds_the_likeliest_of_all_texts() -> None:
    scores = columns(5)
    for example, (text, log_probability) in enumerate(ctc.beam(scores, 10_000)):
        expected = every(scores[:, example])
        assert sum(expected.values()) == pytest.approx(1)
        assert text == max(expected, key=expected.__getitem__)
        assert torch.tensor(log_probability).exp().item() == pytest.approx(expected[text])


def test_a_beam_adds_up_paths_where_the_likeliest_one_spells_something_else() -> None:
    # Graves 2012, figure 7.4: the blank is likelier in both columns (0.36), the symbol in sum.
    scores = torch.tensor([[0.6, 0.4], [0.6, 0.4]], dtype=torch.float64).log()[:, None]
    assert ctc.greedy(scores) == [()]
    ((text, log_probability),) = ctc.beam(scores)
    assert text == (1,) and torch.tensor(log_probability).exp().item() == pytest.approx(0.64)


def test_the_beams_probability_is_that_of_pytorchs_loss() -> None:
    scores = columns(6, seed=1)
    found = ctc.beam(scores, 10_000)
    for example, (text, log_probability) in enumerate(found):
        loss = torch.nn.functional.ctc_loss(
            scores[:, example].log_softmax(1), torch.tensor(text), [6], [len(text)], reduction="sum"
        )
        assert log_probability == pytest.approx(-loss.item())


def test_the_loss_knows_how_long_texts_are() -> None:
    scores = columns(4, examples=2).requires_grad_()
    texts = torch.tensor([[3, 1], [2, 0]])
    expected = [every(scores[:, i])[text] for i, text in enumerate([(3, 1), (2,)])]
    logarithms = -torch.tensor(expected).log() / torch.tensor([2, 1])
    loss = ctc.loss(scores, texts)
    assert loss.item() == pytest.approx(logarithms.mean().item(), rel=1e-6)
    assert torch.autograd.gradcheck(lambda x: ctc.loss(x, texts), scores)


def test_a_width_below_1_is_refused() -> None:
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        ctc.beam(columns(2), 0)


# -- the network of the paper


def narrow() -> CRNN:
    torch.manual_seed(0)
    return CRNN(37, maps=range(3, 10), hidden=3).double().eval()


def test_a_line_becomes_the_papers_26_columns() -> None:
    network = narrow()
    with record(network, lambda _, layer: isinstance(layer, torch.nn.MaxPool2d)) as ran:
        assert network(torch.rand(2, 1, 32, 100).double()).shape == (26, 2, 37)
    shapes = [tuple(one.output.shape[1:]) for one in ran.values()]
    assert shapes == [(3, 16, 50), (4, 8, 25), (6, 4, 26), (8, 2, 27)]


@pytest.mark.parametrize("width", [32, 63, 128])
def test_lines_of_any_width_are_read(width: int) -> None:
    network = narrow()
    assert network(torch.zeros(2, 1, 32, width).double()).shape == (width // 4 + 1, 2, 37)
    with pytest.raises(ValueError, match="images 32 pixels high, got 48"):
        network(torch.zeros(2, 1, 48, width).double())


def test_both_directions_reach_every_column() -> None:
    network = narrow()
    x = torch.rand(1, 1, 32, 64, dtype=torch.float64)
    changed = x.clone()
    changed[..., :4] += 0.5
    with torch.no_grad(), pydl.use_backend("reference"):
        difference = (network(x) - network(changed)).abs().amax((1, 2))
        assert (difference > 0).all()
        x, changed = x.flip(3), changed.flip(3)
        assert ((network(x) - network(changed)).abs().amax((1, 2)) > 0).all()
