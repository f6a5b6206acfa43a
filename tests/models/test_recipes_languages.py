"""The recipe that says which language a name is in: its names, its baselines, and a short run."""

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

pytest.importorskip("sklearn")
pytest.importorskip("babel")
pytest.importorskip("matplotlib")

from pydl.data import phrases
from pydl.recipes import Options, find, name_languages


def test_names_are_held_out_in_all_languages() -> None:
    made = phrases.names(0, ("de", "nl", "fr"))
    assert list(made.classes) == ["German", "Dutch", "French"]
    assert not {*made.train} & {*made.held_out}
    every = dict(made.train + made.held_out)
    assert every["Österreich"] == 0 and every["Oostenrijk"] == 1 and every["Autriche"] == 2
    where = [{text for text, _ in part} for part in (made.train, made.held_out)]
    names = ("Österreich", "Oostenrijk", "Autriche")
    assert [sum(name in part for name in names) for part in where] in ([3, 0], [0, 3])
    assert made == phrases.names(0, ("de", "nl", "fr")) != phrases.names(1, ("de", "nl", "fr"))
    assert "Malta" not in every  # in German and in Dutch


def test_lines_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "said.tsv"
    file.write_text("".join(f"text {i}\t{('no', 'yes')[i % 2]}\n" for i in range(20)))
    made = phrases.load(file)
    assert made.classes == ["no", "yes"] and len(made.train) == 18 and len(made.held_out) == 2
    assert all(int(text.split()[1]) % 2 == number for text, number in made.train)
    file.write_text("".join(f"text {i}\tyes\n" for i in range(20)))
    with pytest.raises(ValueError, match=r"at least two classes in .*, got 'yes' alone"):
        phrases.load(file)


def test_a_bag_does_not_see_the_order() -> None:
    made = [("ab", 0), ("ba", 1)] * 4
    data = phrases.Phrases(made, made, ("first", "second"), "", "")
    assert name_languages.bag(made, data).accuracy == 0.5
    data = phrases.Phrases(made, [("aa", 0), ("bb", 1)], ("first", "second"), "", "")
    assert name_languages.bag([("aaa", 0), ("bbb", 1)], data).accuracy == 1
    assert name_languages.few([("a", 1), ("b", 1), ("c", 0)], 1) == [("a", 1), ("c", 0)]


def test_an_lstm_sees_the_order(tmp_path: Path) -> None:
    made = [("ab", 0), ("ba", 1)] * 200
    data = phrases.Phrases(made, made, ("first", "second"), "", "")
    task = name_languages.Task(data, Options(tmp_path))
    torch.manual_seed(0)
    model = name_languages.SequenceClassifier(len(task.vocabulary), 2, embedding=8, hidden=16)
    task.learn(model, 12)
    assert task.judge(model).accuracy == 1


def test_languages_leave_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = phrases.names(0)
    short = phrases.Phrases(
        made.train[:200], made.held_out[:64], made.classes, made.source, made.licence
    )
    monkeypatch.setattr(phrases, "names", lambda seed: short)
    monkeypatch.setattr(name_languages, "FEW", 2)
    console = Console(file=io.StringIO(), width=120)
    assert not find("name-languages").run(Options(tmp_path, epochs=1), console)
    said = console.file.getvalue()
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "bag of characters, logistic regression: " in said
    assert "<code>LSTM</code>" in page and 'class="tile missed"' in page
    assert "held-out names that are not right" in page and (tmp_path / "confusion.png").is_file()
