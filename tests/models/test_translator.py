"""Attention, the decoder and what it writes by itself: against the papers' equations written out,
and against every text that there is."""

import itertools
import math

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

import pydl
from pydl import models
from pydl.models.meta import hollow
from pydl.models.sequence.attention import AdditiveAttention, Memory, MultiplicativeAttention
from pydl.models.sequence.decoder import BEGIN, END, PADDING, Decoder
from pydl.models.sequence.search import beam, greedy
from pydl.models.sequence.translator import Translator

KINDS = {
    "gru, additive": {"reset_before": True},
    "gru of PyTorch, multiplicative": {"attention": "multiplicative"},
    "lstm, additive": {"cell": "lstm"},
    "gru without attention": {"attention": None, "reset_before": True},
}
kinds = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)


def decoder(options: dict, symbols: int = 7, seed: int = 0) -> Decoder:
    torch.manual_seed(seed)
    sizes = {"embedding": 3, "hidden": 5, "maxout": 4}
    return Decoder(symbols, 6, **sizes, **options).double().eval()


def beginning(one: Decoder, examples: int = 2, places: int = 4) -> tuple[tuple, Memory]:
    generator = torch.Generator().manual_seed(1)
    values, h = (
        torch.randn(size, dtype=torch.float64, generator=generator)
        for size in ((examples, places, 6), (examples, 5))
    )
    return one.begin(h), one.remember(values)


# -- attention


def by_hand(score, query: torch.Tensor, values: torch.Tensor) -> tuple[list, list]:
    """What one query reads of the vectors of one memory, and its weights, number by number."""
    odds = [math.exp(score(query, value)) for value in values]
    weights = [one / sum(odds) for one in odds]
    read = [
        sum(weight * value[i].item() for weight, value in zip(weights, values, strict=True))
        for i in range(values.shape[1])
    ]
    return read, weights


@pytest.mark.parametrize("kind", ["additive", "multiplicative"])
def test_attention_is_its_equation(kind: str) -> None:
    torch.manual_seed(0)
    query, values = torch.randn(2, 5).double(), torch.randn(2, 4, 6).double()
    if kind == "additive":
        one = AdditiveAttention(5, 6, 3).double()
        w, u, v = one.query.weight, one.key.weight, one.energy.weight[0]

        def score(q, m):
            return sum(
                v[a].item()
                * math.tanh(
                    sum((w[a, i] * q[i]).item() for i in range(5))
                    + sum((u[a, j] * m[j]).item() for j in range(6))
                )
                for a in range(3)
            )
    else:
        one = MultiplicativeAttention(5, 6).double()
        w = one.key.weight

        def score(q, m):
            return sum(
                (q[i] * w[i, j] * m[j]).item() for i, j in itertools.product(range(5), range(6))
            )

    blank = torch.tensor([[False] * 4, [False, False, True, True]])
    read, weights = one(query, one.remember(values, blank))
    for example, places in enumerate((4, 2)):
        expected = by_hand(score, query[example], values[example, :places])
        torch.testing.assert_close(read[example].tolist(), expected[0])
        found = weights[example].tolist()
        torch.testing.assert_close(found, expected[1] + [0.0] * (4 - places))


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="cell must be gru or lstm, got 'rnn'"):
        Decoder(7, 6, cell="rnn")
    with pytest.raises(ValueError, match="only a GRU can reset before"):
        Decoder(7, 6, cell="lstm", reset_before=True)
    with pytest.raises(ValueError, match="additive or multiplicative or None, got 'dot'"):
        Decoder(7, 6, attention="dot")


# -- the translator of the paper


def test_rnnsearch_has_the_matrices_of_the_papers_appendix() -> None:
    words, m, n, align, deep = 30_000, 620, 1000, 1000, 500  # K, m, n, n' and l of section A.2
    encoder = words * m + 2 * 3 * (n * m + n * n)  # E; W and U of three gates in two directions
    attention = align * n + align * 2 * n + align  # W_a, U_a, v_a
    decoder = words * m + 3 * (n * m + n * n + n * 2 * n)  # E; W, U and C of three gates
    output = 2 * deep * (n + m + 2 * n) + words * deep  # U_o, V_o, C_o; W_o
    matrices = encoder + attention + n * n + decoder + output  # W_s between them
    network = hollow(models.find("rnnsearch").build)
    biases = sum(p.numel() for key, p in network.named_parameters() if "bias" in key)
    # The paper leaves biases out for brevity; PyTorch's gates have two.
    assert biases == 3 * (2 * 3 * n) + n + 2 * deep + words
    assert models.find("rnnsearch").parameters == matrices + biases
    assert matrices == 80_401_000


def test_a_step_is_the_papers_equations() -> None:
    one = decoder(KINDS["gru, additive"])
    (h,), memory = beginning(one)
    y = torch.tensor([3, 5])
    e, (context, _) = one.embedding.weight[y], one.attention(h, memory)
    x = torch.cat([e, context], 1)
    # Of PyTorch's gates r z n; its z keeps the old state, where the paper's takes the new.
    wr, wz, wn = (x @ w.T + b for w, b in gates(one.cell.weight_ih, one.cell.bias_ih))
    (ur, br), (uz, bz), (un, bn) = gates(one.cell.weight_hh, one.cell.bias_hh)
    r, z = torch.sigmoid(wr + h @ ur.T + br), 1 - torch.sigmoid(wz + h @ uz.T + bz)
    new = (1 - z) * h + z * torch.tanh(wn + (r * h) @ un.T + bn)
    deep = torch.cat([new, e, context], 1) @ one.deep.weight.T + one.deep.bias
    maxima = torch.maximum(deep[:, ::2], deep[:, 1::2])
    expected = maxima @ one.scores.weight.T + one.scores.bias
    scores, (state,), _ = one.step(y, (h,), memory)
    torch.testing.assert_close(state, new)
    torch.testing.assert_close(scores, expected)


def gates(weight: torch.Tensor, bias: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(weight.chunk(3), bias.chunk(3), strict=True))


@kinds
def test_padding_changes_nothing(options: dict) -> None:
    torch.manual_seed(0)
    network = Translator(9, 7, embedding=3, hidden=5, maxout=4, **options).double()
    sources = [torch.randint(1, 9, (length,)) for length in (3, 6, 1)]
    targets = torch.randint(3, 7, (4, 3))
    lengths = torch.tensor([len(source) for source in sources])
    scores, weights = network(pad_sequence(sources), targets, lengths)
    assert weights.shape == (4, 3, 6)
    for i, source in enumerate(sources):
        alone, its_weights = network(source[:, None], targets[:, i : i + 1])
        torch.testing.assert_close(scores[:, i : i + 1], alone)
        torch.testing.assert_close(weights[:, i : i + 1, : len(source)], its_weights)
        assert not weights[:, i, len(source) :].any()
    read = weights.sum(2)
    torch.testing.assert_close(
        read, torch.full_like(read, float(network.decoder.attention is not None))
    )


def test_the_table_says_what_it_takes() -> None:
    row = models.find("rnnsearch")
    generator = torch.Generator().manual_seed(0)
    source, target = row.inputs(3, (8,), generator=generator)
    assert (source.shape, target.shape) == ((8, 3), (1, 3)) and source.dtype == torch.int64
    assert source.min() >= 0 and 10_000 < source.max() < row.tokens
    (meta, _) = row.inputs(device="meta")
    assert meta.is_meta and meta.shape == (50, 1) and meta.dtype == torch.int64
    (images,) = models.find("lenet5").inputs(2, dtype=torch.float64)
    assert images.shape == (2, 1, 32, 32) and images.dtype == torch.float64


# -- what it writes


@kinds
def test_greedy_is_teacher_forcing_on_its_own_output(options: dict) -> None:
    one = decoder(options)
    state, memory = beginning(one, examples=5)
    written = greedy(one, state, memory, longest=6)
    before = torch.cat([torch.full((1, 5), BEGIN), written.symbols[:-1]])
    scores, weights = one(before, state, memory)
    odds = scores.log_softmax(2)
    odds[..., [PADDING, BEGIN]] = -math.inf  # which are in no text
    sure, best = odds.max(2)
    going = written.symbols != PADDING
    assert torch.equal(best[going], written.symbols[going])
    torch.testing.assert_close(weights[going], written.weights[going])
    torch.testing.assert_close((sure * going).sum(0), written.log_probability)


def texts(symbols: int, longest: int) -> list[tuple[int, ...]]:
    """Every text of these symbols that ends, and those cut off."""
    others = [symbol for symbol in range(symbols) if symbol not in (PADDING, BEGIN, END)]
    ended = [
        (*text, END)
        for length in range(longest)
        for text in itertools.product(others, repeat=length)
    ]
    return ended + list(itertools.product(others, repeat=longest))


@kinds
@pytest.mark.parametrize("normalise", [0.0, 1.0])
def test_a_wide_beam_finds_the_best_of_all_texts(options: dict, normalise: float) -> None:
    one = decoder(options, symbols=6, seed=3)
    with torch.no_grad():
        one.scores.weight *= 4  # or all texts are about as likely, and the shortest wins
    state, memory = beginning(one)
    every = texts(6, longest=4)
    padded = pad_sequence([torch.tensor(text) for text in every], padding_value=PADDING)  # [T, N]
    before = torch.cat([torch.full((1, len(every)), BEGIN), padded[:-1]])
    lengths = torch.tensor([len(text) for text in every])
    going = torch.arange(4)[:, None] < lengths
    found = beam(one, state, memory, longest=4, width=len(every), normalise=normalise)
    for example in range(2):
        rows = torch.full((len(every),), example)
        scores, _ = one(before, tuple(part[rows] for part in state), memory.select(rows))
        steps = scores.log_softmax(2).gather(2, padded[..., None])[..., 0]
        likely = (steps * going).sum(0)
        best = (likely / lengths**normalise).argmax()
        text = every[best]
        assert tuple(found.symbols[: len(text), example].tolist()) == text
        assert not found.symbols[len(text) :, example].any()
        torch.testing.assert_close(found.log_probability[example], likely[best])


@kinds
def test_a_beam_of_one_is_greedy_and_a_wider_one_as_likely(options: dict) -> None:
    one = decoder(options, symbols=9, seed=2)
    with torch.no_grad():
        one.scores.weight *= 4
    state, memory = beginning(one, examples=6)
    alone = greedy(one, state, memory, longest=8)
    narrow, wide = (beam(one, state, memory, 8, width) for width in (1, 20))
    for found, expected in zip(narrow, alone, strict=True):
        torch.testing.assert_close(found, expected)
    assert (wide.log_probability >= alone.log_probability - 1e-9).all()
    assert (wide.log_probability > alone.log_probability + 1e-3).any()
    going = (wide.symbols != PADDING)[..., None]
    before = torch.cat([torch.full((1, 6), BEGIN), wide.symbols[:-1]])
    scores, weights = one(before, state, memory)
    steps = scores.log_softmax(2).gather(2, wide.symbols[..., None])
    torch.testing.assert_close((steps * going).sum((0, 2)), wide.log_probability)
    torch.testing.assert_close(weights * going, wide.weights * going)
    with pytest.raises(ValueError, match="at least 1, got 0 and 8"):
        beam(one, state, memory, 8, 0)


@pytest.mark.parametrize("width", [1, 3])
def test_every_backend_translates_alike(width: int) -> None:
    torch.manual_seed(0)
    network = Translator(9, 7, embedding=3, hidden=5, maxout=4).double().eval()
    source, lengths = (
        pad_sequence([torch.tensor([4, 8, 3]), torch.tensor([5])]),
        torch.tensor([3, 1]),
    )
    found = {}
    for backend in ("reference", "aten", "cpu"):
        with pydl.use_backend(backend, strict=False):
            found[backend] = network.write(source, lengths, longest=5, width=width)
    for other in ("aten", "cpu"):
        torch.testing.assert_close(tuple(found[other]), tuple(found["reference"]))
