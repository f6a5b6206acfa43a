"""The character language model: its text, its twin on ``torch.nn``, what it learns."""

import gzip
import io
from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import pydl
from pydl.data import CorruptFileError
from pydl.data import text as texts
from pydl.models import CharLM
from pydl.models.sequence.char_lm import CELLS
from pydl.models.stock import as_torch
from pydl.recipes import char_lm as recipe
from pydl.recipes.recipe import Options
from pydl.train import Step
from pydl_cli import app

RESET_BEFORE = ("gru", {"reset_before": True})


@pytest.fixture(scope="module")
def text() -> texts.Text:
    return texts.load()


def model(cell: str, **options) -> CharLM:
    torch.manual_seed(0)
    return CharLM(len(texts.ALPHABET), cell, **{"hidden": 48, "embedding": 16, **options})


# -- the text


def test_the_text_is_the_standard_library(text: texts.Text) -> None:
    assert "def " in texts.decode(text.held_out[:20_000])
    assert len(text.train) > 15 * len(text.held_out) > 1_000_000
    assert int(text.train.max()) < len(texts.ALPHABET)
    assert "standard library" in text.source and "Python" in text.licence


def test_characters_come_back() -> None:
    written = "def f(x):\n    return x + 1  # ~\n"
    assert texts.decode(texts.encode(written)) == written
    assert texts.decode(texts.encode("\té")) == "    \N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_file_of_ones_own(pack, tmp_path: Path) -> None:
    file = tmp_path / "novel"
    file.write_bytes(pack(b"\xef\xbb\xbf" + b"Call me\r\n" * 45 + b"Ishmael.\r" * 5))
    written = "Call me\n" * 45 + "Ishmael.\n" * 5  # 405 characters
    text = texts.load(file, source="Melville", licence="public domain")
    assert texts.decode(text.train) == written[:385]
    assert texts.decode(text.held_out) == written[385:]
    assert (text.source, text.licence) == ("Melville", "public domain")


def test_every_20th_file_of_a_folder_is_held_out(tmp_path: Path) -> None:
    for number in range(41):
        (tmp_path / f"{number:02}.txt").write_text(f"{number:02} ", encoding="utf-8")
    for name in ("other.md", ".hidden.txt"):
        (tmp_path / name).write_text("not this", encoding="utf-8")
    text = texts.load(tmp_path)
    assert texts.decode(text.held_out) == "19 39 "
    assert texts.decode(text.train).split() == [
        f"{number:02}" for number in range(41) if number not in (19, 39)
    ]


def test_the_end_of_each_of_few_files_is_held_out(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    (tmp_path / "a.md").write_text("a" * 40, encoding="utf-8")
    (tmp_path / "deeper" / "b.md").write_text("b" * 25, encoding="utf-8")
    text = texts.load(tmp_path, pattern="**/*.md")
    assert texts.decode(text.train) == "a" * 38 + "b" * 24
    assert texts.decode(text.held_out) == "aab"


def test_what_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing is neither"):
        texts.load(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match=r"files named \*.txt in .*, found none"):
        texts.load(tmp_path)
    file = tmp_path / "latin-1"
    file.write_bytes("caf\xe9 au lait".encode("latin-1") * 20)
    with pytest.raises(CorruptFileError, match="latin-1, byte 3: expected text in UTF-8, got e9"):
        texts.load(file)
    file.write_text("too short", encoding="utf-8")
    with pytest.raises(ValueError, match=r"some to hold out in .*latin-1, got 9 characters"):
        texts.load(file)


# -- the model


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="cell must be one of lstm, gru, rnn"):
        model("elman")
    with pytest.raises(ValueError, match="only a GRU"):
        model("lstm", reset_before=True)


@pytest.mark.parametrize("cell", CELLS)
def test_it_is_its_twin_on_torch_nn(cell: str) -> None:
    ours = model(cell).double()
    theirs = as_torch(ours)
    assert type(theirs.recurrent) is getattr(torch.nn, cell.upper())
    characters = torch.randint(len(texts.ALPHABET), (5, 3))
    scores, state = ours(characters)
    same, other = theirs(characters)
    torch.testing.assert_close(scores, same)
    torch.testing.assert_close(state, other)
    with pydl.use_backend("aten"):
        torch.testing.assert_close(ours(characters, state)[0], theirs(characters, other)[0])


# -- the recipe


def test_streams_lie_side_by_side() -> None:
    size = 2, 3
    text = torch.arange(16, dtype=torch.uint8)
    (first, second) = list(map(recipe.Streams(text, size=size).__getitem__, range(2)))
    (characters, begin), following = first
    assert characters.tolist() == [[0, 5, 10], [1, 6, 11]] and begin
    assert following.view(2, 3).tolist() == [[1, 6, 11], [2, 7, 12]]
    (characters, begin), following = second
    assert characters.tolist() == [[2, 7, 12], [3, 8, 13]] and not begin
    assert following.view(2, 3).tolist() == [[3, 8, 13], [4, 9, 14]]
    assert len(recipe.Streams(text, size=size)) == 2

    last = recipe.Streams(torch.arange(12), size=size)[
        1
    ]  # of 4 characters a stream: the rest is shorter
    assert last[0][0].tolist() == [[2, 6, 10]] and last[1].tolist() == [3, 7, 11]

    learning = recipe.Streams(torch.arange(12), 4, 1, size)
    batches = [learning[i] for i in range(len(learning))]
    assert len(batches) == 4 and all(begin for (_, begin), _ in batches)
    assert all(len(following) == 6 for _, following in batches)
    assert len({int(characters[0, 0]) for (characters, _), _ in batches}) > 1


def test_a_text_that_is_too_short() -> None:
    text = torch.zeros(32 * 65, dtype=torch.uint8)
    assert len(recipe.Streams(text, steps=7)) == 7
    with pytest.raises(ValueError, match=r"at least 2,080 symbols, .* got 2,079"):
        recipe.Streams(text[1:], steps=7)
    assert len(recipe.Streams(text[:64])) == 1
    with pytest.raises(ValueError, match=r"at least 64 symbols, .* got 63"):
        recipe.Streams(text[:63])


@pytest.mark.parametrize("cell", CELLS)
def test_the_state_goes_from_batch_to_batch_and_gradients_do_not(cell: str) -> None:
    one = model(cell)
    text = torch.randint(len(texts.ALPHABET), (8, 2))
    whole = one(text)[0].flatten(0, 1)
    reader = recipe.Continuing(one)
    parts = [reader((text[:4], True)), reader((text[4:], False))]
    torch.testing.assert_close(torch.cat(parts), whole)
    parts[1].sum().backward()  # only through the second: the first has its graph still
    read = one.embedding.weight.grad.abs().sum(1).nonzero().flatten()
    assert read.tolist() == sorted(set(text[4:].flatten().tolist()))


@pytest.mark.parametrize("cell", CELLS)
def test_losses_are_those_of_the_twin(cell: str, text: texts.Text) -> None:
    one = model(cell)
    before = [weight.clone() for weight in one.parameters()]
    with pydl.use_backend("cpu", strict=False):
        assert 0 < recipe.difference_from_stock(one, text.train, steps=12) < 2e-4
    for weight, old in zip(one.parameters(), before, strict=True):
        assert torch.equal(weight, old)


@pytest.mark.parametrize(
    ("cell", "options"), [*((cell, {}) for cell in CELLS), RESET_BEFORE], ids=str
)
def test_it_learns(cell: str, options: dict, text: texts.Text) -> None:
    learner = model(cell, **options)
    before = recipe.bits_per_symbol(learner, text.held_out[:20_000])
    steps: list[Step] = []
    history = recipe.train(learner, text.train, steps=30, on_step=steps.append)
    after = recipe.bits_per_symbol(learner, text.held_out[:20_000])
    assert before > 6.4 and after < 0.75 * before
    assert [step.number for step in steps] == list(range(1, 31))
    assert steps[0].loss > 6.4 and steps[-1].rate < steps[0].rate <= steps[1].rate == 4e-3
    (epoch,) = history.epochs
    assert epoch.loss == pytest.approx(sum(step.loss for step in steps) / 30)


def test_a_single_step_is_enough_to_train(text: texts.Text) -> None:
    steps: list[Step] = []
    recipe.train(model("rnn"), text.train, steps=1, on_step=steps.append)
    assert len(steps) == 1 and 6 < steps[0].loss < 7


def test_writing_repeats_and_leaves_the_model_as_it_was() -> None:
    writer = model("gru").train()
    first, again = (recipe.write(writer, "def ", 20, seed=3) for _ in range(2))
    assert first == again and first.startswith("def ") and len(first) == 24
    assert writer.training and first != recipe.write(writer, "def ", 20, seed=4)


@pytest.mark.parametrize("options", [["--cell", "rnn"], ["--cell", "gru", "--reset-before"]])
def test_the_command(options: list[str], text: texts.Text, monkeypatch: pytest.MonkeyPatch) -> None:
    short = texts.Text(text.train[:9_000], text.held_out[:2_000], text.source, text.licence)
    monkeypatch.setattr(texts, "load", lambda path: short)
    sizes = ["--steps", "3", "--hidden", "8", "--threads", str(torch.get_num_threads())]
    for target, status in ((0.0, 1), (99.0, 0)):
        monkeypatch.setattr(recipe, "TARGET", target)
        result = CliRunner().invoke(app, ["train", "char-lm", *sizes, *options])
        assert result.exit_code == status
    assert "9,000 characters to learn from, 2,000 held out, 97 different ones" in result.output
    assert ("torch.nn: losses at most" in result.output) == ("--reset-before" not in options)
    for title in ("Train more: step 1, ", "At the end: step 3, ", "\ndef ", "3 steps in"):
        assert title in result.output
    assert "bits per character of what was held out; the target is 99.0" in result.output


def test_the_command_reads_a_text_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "novel.txt"
    file.write_text("Call me Ishmael. Some years ago\n" * 100, encoding="utf-8")
    sizes = ["--steps", "1", "--hidden", "8", "--threads", str(torch.get_num_threads())]
    result = CliRunner().invoke(app, ["train", "char-lm", *sizes, "--text", str(file)])
    assert result.exit_code == 0, result.output  # there is no target for it
    assert "3,040 characters to learn from, 160 held out" in result.output
    assert "bits per character of what was held out\n" in result.output
    assert "\nCall" in result.output  # what it goes on from


def test_the_recipe_leaves_a_page(
    text: texts.Text, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    short = texts.Text(text.train[:5_000], text.held_out[:2_000], text.source, text.licence)
    monkeypatch.setattr(texts, "load", lambda: short)
    console = Console(file=io.StringIO())
    # 5,000 characters are 2 batches and a half.
    assert recipe.RECIPE.run(Options(tmp_path, epochs=1), console) is False
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "of training on 5,000 characters" in page and "<pre>def " in page
    assert "At the end: step 2, " in page and "standard library" in page
    assert f"Open {tmp_path / 'index.html'}" in console.file.getvalue().replace("\n", "")
