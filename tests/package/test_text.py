"""The character language model: its text, its twin on ``torch.nn``, what it learns."""

import pytest
import torch

from pydl.models.char_lm import CELLS, CharLM
from pydl.text import dataset, training


@pytest.fixture(scope="module")
def text() -> dataset.Text:
    return dataset.load()


def model(cell: str, **options) -> CharLM:
    torch.manual_seed(0)
    return CharLM(len(dataset.ALPHABET), cell, **{"hidden": 48, "embedding": 16, **options})


def test_the_text_is_the_standard_library(text):
    assert "def " in dataset.decode(text.held_out[:20_000])
    assert len(text.train) > 15 * len(text.held_out) > 1_000_000
    assert int(text.train.max()) < len(dataset.ALPHABET)


def test_characters_come_back():
    written = "def f(x):\n    return x + 1  # ~\n"
    assert dataset.decode(dataset.encode(written)) == written
    assert dataset.decode(dataset.encode("\té")) == "    \N{REPLACEMENT CHARACTER}"


def test_a_folder_without_text(tmp_path):
    with pytest.raises(FileNotFoundError, match="at least 20 Python files"):
        dataset.load(tmp_path)


def test_streams_lie_side_by_side():
    assert training.streams(torch.arange(11, dtype=torch.uint8), 3).tolist() == [
        [0, 3, 6],
        [1, 4, 7],
        [2, 5, 8],
    ]


@pytest.mark.parametrize("cell", CELLS)
def test_loss_is_that_of_the_twin_on_torch_nn(cell, text):
    ours, theirs = model(cell), model(cell, layers_of=torch.nn)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
    for mine, other in zip(
        training.train(ours, text, steps=12),
        training.train(theirs, text, steps=12, ours=False),
        strict=True,
    ):
        assert abs(mine.bits - other.bits) < 2e-5 * mine.number


@pytest.mark.parametrize(
    "cell, options", [(cell, {}) for cell in CELLS] + [("gru", {"reset_before": True})], ids=str
)
def test_it_learns(cell, options, text):
    learner = model(cell, **options)
    before = training.bits_per_character(learner, text.held_out[:20_000])
    for _ in training.train(learner, text, steps=30):
        pass
    after = training.bits_per_character(learner, text.held_out[:20_000])
    assert before > 6.4 and after < 0.75 * before


def test_a_single_step_is_enough_to_train(text):
    (step,) = training.train(model("rnn"), text, steps=1)
    assert step.number == 1 and 6 < step.bits < 7


def test_writing_repeats_and_leaves_the_model_as_it_was(text):
    writer = model("gru").train()
    first, again = (training.write(writer, "def ", 20, seed=3) for _ in range(2))
    assert first == again and first.startswith("def ") and len(first) == 24
    assert writer.training and first != training.write(writer, "def ", 20, seed=4)


def test_bad_input():
    with pytest.raises(ValueError, match="cell must be one of lstm, gru, rnn"):
        model("elman")
    with pytest.raises(ValueError, match="only a GRU"):
        model("lstm", reset_before=True)
    with pytest.raises(ValueError, match="only a GRU"):
        model("gru", reset_before=True, layers_of=torch.nn)
