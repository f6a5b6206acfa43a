"""The recipes that translate: their pairs of texts, their baselines, and a short run."""

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

pytest.importorskip("num2words")
pytest.importorskip("sacrebleu")
pytest.importorskip("matplotlib")

from pydl.data import CorruptFileError, pairs
from pydl.models.sequence.decoder import BEGIN, END, PADDING
from pydl.models.sequence.translator import Translator
from pydl.recipes import Options, find, translate_numbers, translation
from pydl.visualize.attention import matrix
from pydl.visualize.palette import LIGHT


def test_names_of_numbers() -> None:
    made = pairs.numbers(60, 20, seed=1)
    assert len(made.train) == 60 and len(made.held_out) == 20
    assert len({*made.train, *made.held_out}) == 80  # none is held out that was learned
    assert made == pairs.numbers(60, 20, seed=1) != pairs.numbers(60, 20, seed=2)
    assert any("und" in german for _, german in made.train)
    dutch = dict(pairs.numbers(9, 1, seed=0, language="nl").train)
    assert set(dutch) & {"one", "two", "three", "four"} and "één" in {*dutch.values(), "één"}
    with pytest.raises(ValueError, match="there are 100,000 numbers, got 100,001"):
        pairs.numbers(100_000, 1, seed=0)


def test_a_vocabulary_numbers_its_symbols() -> None:
    found = pairs.Vocabulary(["forty-two thousand, and one"], pairs.words, " ")
    assert found.symbols[4:] == ("and", "forty", "one", "thousand", "two")
    numbers = found.encode("one and forty million")
    assert numbers.tolist() == [6, 4, 5, pairs.UNKNOWN, END]
    assert found.decode(numbers) == "one and forty \N{REPLACEMENT CHARACTER}"
    letters = pairs.Vocabulary(["eins"])
    assert letters.decode(torch.cat([letters.encode("sie"), torch.tensor([9, 9])])) == "sie"
    assert len(letters) == 8


def test_pairs_are_padded_to_a_batch() -> None:
    def encoded(*numbers: int) -> torch.Tensor:
        return torch.tensor([*numbers, END])

    (sources, lengths, targets), following = pairs.together(
        [(encoded(5, 6), encoded(7)), (encoded(4), encoded(8, 9, 4))]
    )
    assert sources.T.tolist() == [[5, 6, END], [4, END, PADDING]] and lengths.tolist() == [3, 2]
    assert targets.T.tolist() == [[BEGIN, 7, PADDING, PADDING], [BEGIN, 8, 9, 4]]
    assert following.T.tolist() == [[7, END, -100, -100], [8, 9, 4, END]]


def test_pairs_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "pairs.tsv"
    lines = [f"word {number}\tWort {number}" for number in range(25)]
    file.write_text("\n".join(lines), encoding="utf-8")
    made = pairs.load(file)
    assert len(made.train) == 23 and len(made.held_out) == 2
    assert sorted({*made.train, *made.held_out}) == sorted(tuple(one.split("\t")) for one in lines)
    file.write_text("\n".join([*lines[:3], "Straße", *lines[3:]]), encoding="utf-8")
    with pytest.raises(CorruptFileError, match="byte 42: expected two texts and a tab, got 0 tabs"):
        pairs.load(file)
    file.write_text("\n".join(lines[:9]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"at least 10 pairs in .*, got 9"):
        pairs.load(file)


def test_word_by_word_is_right_where_nothing_crosses() -> None:
    english = ("three hundred and twelve", "forty-seven", "one thousand")
    german = ("dreihundertzwölf", "siebenundvierzig", "eintausend")
    written = translate_numbers.word_by_word(list(zip(english, german, strict=True)))
    assert written == ["dreihundertzwölf", "vierzigsieben", "eintausend"]
    found = translation.score(written, german)
    assert found.exact == pytest.approx(2 / 3) and 0 < found.chrf < 100
    assert translation.score(german, german) == translation.Score(1.0, pytest.approx(100))


class Reader(Translator):
    """Reads one word after the other while it writes, or the last two in the other order."""

    def __init__(self, task: translation.Task, crosses: bool) -> None:
        super().__init__(len(task.source), len(task.target))
        self.crosses = crosses

    def forward(self, source, target, lengths=None):
        (steps, places) = len(target), len(source)
        weights = torch.zeros(steps, 1, places)
        ones_end = steps - len("undvierzig") - 1
        for step in range(steps):
            ones = step < ones_end
            weights[step, 0, places - 2 if ones == self.crosses else places - 3] = 1
        return torch.zeros(steps, 1, 1), weights


@pytest.mark.parametrize("crosses", [True, False])
def test_ones_and_tens_cross_where_the_ones_are_read_first(crosses: bool) -> None:
    held_out = [("forty-seven", "siebenundvierzig"), ("seven", "sieben"), ("forty", "vierzig")]
    task = translation.Task.of(pairs.Pairs(held_out, held_out, "", ""))
    assert translate_numbers.crossed(Reader(task, crosses), task, held_out) == [crosses]


def test_a_matrix_has_a_column_for_each_letter() -> None:
    weights = torch.rand(7, 2)
    figure = matrix(LIGHT, weights, ["seven", "(end)"], [*"sieben", "."])
    (axes,) = figure.axes
    assert axes.get_images()[0].get_array().shape == (2, 7)
    assert [label.get_text() for label in axes.get_xticklabels()] == [*"sieben", "."]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["seven", "(end)"]


def test_numbers_leave_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "DIGITS", 2)  # short names
    for name, value in (("TRAIN", 60), ("HELD_OUT", 30), ("WIDTH", 2)):
        monkeypatch.setattr(translate_numbers, name, value)
    console = Console(file=io.StringIO(), width=120)
    recipe = find("translate-numbers")
    assert not recipe.run(Options(tmp_path, epochs=2), console)  # it learns little in 4 steps
    said = console.file.getvalue()
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert said.count("epoch 2: loss ") == 2 and "word by word: " in said
    assert "without attention: 0.0 % exactly right" in said and "ones and tens cross in " in said
    assert "with attention, the best of a beam of 2" in page and "<code>GRUCell</code>" in page
    assert 'class="tile missed"' in page and "held-out names that are not right" in page
    for number in range(1, 4):
        assert (tmp_path / f"attention{number}.png").is_file()
