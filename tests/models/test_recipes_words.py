"""The recipe with language models of words: its words, the n-grams that the networks are held to,
and a short run."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from pydl.data import words
from pydl.data.words import Vocabulary
from pydl.models.sequence.awd_lstm import AWDLSTM
from pydl.models.sequence.feed_forward_lm import FeedForwardLM
from pydl.recipes import Options, find, kneser_ney
from pydl.recipes.kneser_ney import Discounts, KneserNey

# -- the words


def test_words_of_a_text() -> None:
    line = "if x_1 != 42:\n\n    f(a, b)"
    expected = ["if", "x_1", "!", "=", "42", ":", "\n", "\n    ", "f", "(", "a", ",", "b", ")"]
    assert words.split(line) == words.split(line.replace("    ", "\t")) == expected
    assert words.join(expected) == "if x_1!=42:\n\n    f(a, b)"
    assert words.split(words.join(expected)) == expected


def test_the_commonest_words_have_numbers() -> None:
    made = Vocabulary([*"aabbbc", words.UNKNOWN, words.UNKNOWN], 3)
    assert made.words == (words.UNKNOWN, "b", "a") and len(made) == 3
    assert made.encode([*"abc", words.UNKNOWN]).tolist() == [2, 1, 0, 0]
    assert made.decode(torch.tensor([2, 1, 0])) == "a b" + words.UNKNOWN


def test_a_text_of_ones_own_in_any_letters(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text("fünf Bücher,\n" * 95 + "sechs Bücher,\n" * 5, encoding="utf-8")
    found = words.load(file, size=4, source="me")
    assert found.vocabulary.words[0] == words.UNKNOWN and found.source == "me"
    assert {*found.vocabulary.words[1:]} == {"fünf", "Bücher", ","}
    assert found.train.dtype == torch.int64 and 375 < len(found.train) < 385
    assert (
        found.vocabulary.decode(found.held_out[-5:]) == f"{words.UNKNOWN * 2}Bücher,{words.UNKNOWN}"
    )


# -- the baseline


def by_formula(
    text: tuple[int, ...], words: int, order: int, discounts: list[Discounts], gram: tuple[int, ...]
) -> float:
    """What Chen and Goodman write, count by count."""

    def count(one: tuple[int, ...]) -> int:
        ends = range(len(text) - len(one) + 1)
        places = [i for i in ends if text[i : i + len(one)] == one]
        return len(places if len(one) == order else {text[i - 1] for i in places if i})

    def taken(count: int) -> float:
        return discounts[len(gram) - 1][min(count, 3) - 1] if count else 0.0

    shorter = by_formula(text, words, order, discounts, gram[1:]) if gram else 1 / words
    if not gram:
        return shorter
    counts = [count((*gram[:-1], word)) for word in range(words)]
    if not any(counts):
        return shorter
    own = counts[gram[-1]] - taken(counts[gram[-1]])
    return (own + sum(map(taken, counts)) * shorter) / sum(counts)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_kneser_ney_is_its_formula(order: int) -> None:
    text = tuple((np.random.default_rng(0).integers(0, 30, 120) % 7 % 5).tolist())
    discounts: list[Discounts] = [(0.4, 0.9, 1.2), (0.5, 0.8, 1.6), (0.6, 1.1, 1.3)]
    ours = KneserNey(np.array(text), 6, order, discounts)  # of which one is never seen
    for gram in itertools.product(range(6), repeat=order):
        (found,) = ours.probabilities(np.array(gram))
        assert found == pytest.approx(by_formula(text, 6, order, discounts, gram), rel=1e-12)


def test_kneser_ney_worked_out_by_hand() -> None:
    # 01 and 10 twice, 02 once; each word behind one other, so that single ones are as likely.
    ours = KneserNey(np.array([0, 1, 0, 1, 0, 2]), 3, 2, [(0, 0, 0), (0.5, 0.5, 0.5)])
    assert ours.following(np.array([0])) == pytest.approx([2 / 18, 11 / 18, 5 / 18])
    assert ours.following(np.array([2])) == pytest.approx([1 / 3] * 3)


def test_kneser_ney_is_nltks() -> None:
    nltk = pytest.importorskip("nltk.lm")
    from nltk.util import everygrams

    # What begins the text comes again: nltk counts what follows it, and not what is before it.
    drawn = np.random.default_rng(0).integers(0, 5, 60)
    text = np.concatenate([[0, 1, 2], drawn, [0, 1, 2, 0]])
    theirs = nltk.KneserNeyInterpolated(3, discount=0.4)
    theirs.fit([list(everygrams(list(map(str, text)), max_len=3))], map(str, range(5)))
    ours = KneserNey(text, 5, 3, [(0, 0, 0), (0.4, 0.4, 0.4), (0.4, 0.4, 0.4)])
    for context in itertools.product(range(5), repeat=2):
        found = ours.following(np.array(context))
        expected = [theirs.score(str(word), [*map(str, context)]) for word in range(5)]
        assert found == pytest.approx(expected, rel=1e-12)


def test_kneser_ney_is_a_distribution_and_knows_what_it_saw() -> None:
    text = np.random.default_rng(1).integers(0, 500, 20_000) % 90
    one = KneserNey(text, 100)
    for context in ([5, 7], [89, 88], [99, 3], [98, 99]):  # words above 89 are never seen
        found = one.following(np.array(context))
        assert found.sum() == pytest.approx(1) and found.min() > 0
    every = one.probabilities(text[:50])
    assert every[7] == one.following(text[7:9])[text[9]]
    assert one.perplexity(text[:50]) == pytest.approx(np.exp(-np.log(every).mean()))
    assert one.perplexity(text) < 40 < 60 < one.perplexity(text[::-1])
    written = one.go_on(text[:2], 20, seed=1)
    assert len(written) == 22 and (written == one.go_on(text[:2], 20, seed=1)).all()
    cycle = KneserNey(np.arange(40) % 4, 5)
    assert cycle.go_on(np.array([2, 3]), 5, temperature=0.01).tolist() == [2, 3, 0, 1, 2, 3, 0]


def test_discounts_are_estimated() -> None:
    counts = np.array([1, 1, 1, 1, 2, 2, 3, 4, 9])
    assert kneser_ney.estimate(counts) == pytest.approx((0.5, 1.25, 1.0))
    assert kneser_ney.estimate(counts[:7]) == kneser_ney.USUAL
    assert kneser_ney.estimate(np.array([1, 2, 3, *[4] * 7])) == kneser_ney.USUAL


def test_what_has_no_n_grams() -> None:
    with pytest.raises(ValueError, match="at least 3 words, got 2"):
        KneserNey(np.array([0, 1]), 7, 3)
    with pytest.raises(ValueError, match="5-grams of 10,000 words have no numbers of 64 bits"):
        KneserNey(np.arange(9), 10_000, 5)


# -- the recipe


def test_the_recipe_leaves_a_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from pydl.recipes import word_lm

    text = tmp_path / "text"
    text.write_text("def f(x):\n    return x + 1\n" * 700, encoding="utf-8")
    small = {
        word_lm.RECURRENT: lambda: AWDLSTM(12, embedding=3, hidden=5),
        word_lm.FEED_FORWARD: lambda: FeedForwardLM(12, embedding=2, hidden=5),
    }
    monkeypatch.setattr(word_lm, "networks", lambda count: {k: v() for k, v in small.items()})
    for name, value in (("_EACH", 1), ("_SAMPLE", 9)):
        monkeypatch.setattr(word_lm, name, value)
    console = Console(file=io.StringIO(), width=120)
    # Nothing is left to know of it for who has seen two words.
    assert not find("word-lm").run(Options(tmp_path, epochs=1, text=text), console)
    said = console.file.getvalue()
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert (
        "trigrams with Kneser-Ney smoothing: perplexity 1." in said
        and "AWD-LSTM: perplexity " in said
    )
    assert "Written by the feed-forward network" in page and "your own files" in page
    assert "<code>WeightDropLSTM</code>" in page and 'class="tile missed"' in page
    assert (tmp_path / "learning.png").is_file()


def test_only_recipes_about_text_take_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gradients is not about text, and takes no --text"):
        find("gradients").run(Options(tmp_path, text=tmp_path), Console(file=io.StringIO()))


def test_better_is_below_the_trigrams() -> None:
    pytest.importorskip("matplotlib")
    from pydl.recipes.word_lm import RECURRENT, TRIGRAMS, Learned, better

    found = {RECURRENT: Learned(9.0, 1.0, "", []), TRIGRAMS: Learned(9.5, 1.0, "", [])}
    assert better(found)
    found[RECURRENT] = found[TRIGRAMS]
    assert not better(found)
