"""A translator with attention learns to name numbers in German from their English names.

In German the ones come before the tens, "siebenundvierzig" for "forty-seven": who translates word
by word is wrong, and the order in which attention reads the words must cross. What the network has
to know is in the names alone; both are those of num2words, character by character in German.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pydl.asked import use_backend
from pydl.data import pairs as texts
from pydl.models.sequence.translator import Translator
from pydl.recipes import translation
from pydl.recipes.recipe import Options, Recipe, publish
from pydl.recipes.translation import Score, Task
from pydl.train import Epoch

if TYPE_CHECKING:
    from rich.console import Console

TARGET = 0.95  # of the held-out names exactly right
CROSSING = 0.5  # attention need not cross in every name: states hold words beside their own, too
TRAIN, HELD_OUT = 6000, 500
EPOCHS = 2
WIDTH = 5  # of the beam

_ONES = "ein|zwei|drei|vier|fünf|sechs|sieben|acht|neun"
_ENDS_CROSSED = re.compile(rf"({_ONES})und(\w+(?:zig|ßig))$")


@dataclass(frozen=True)
class Result:
    """What a network learned and wrote."""

    model: Translator
    epochs: Sequence[Epoch]
    written: Sequence[str]
    score: Score


def word_by_word(pairs: Sequence[texts.Pair]) -> list[str]:
    """The baseline: each English word by its German one, in the order of the English. "One" becomes
    "ein", as it does before hundreds, thousands and tens; "and" is left out."""
    from num2words import num2words

    german = {num2words(n): num2words(n, lang="de") for n in (*range(20), *range(20, 100, 10))}
    german |= {"one": "ein", "hundred": "hundert", "thousand": "tausend", "and": ""}
    return ["".join(german[word] for word in texts.words(english)) for english, _ in pairs]


def crossed(model: Translator, task: Task, pairs: Sequence[texts.Pair]) -> list[bool]:
    """Of each name that ends in ones and tens, whether more of the attention lay on the English
    ones than on the tens while the German ones were written, and less while the tens were. The
    names are the right ones."""
    found = []
    device = next(model.parameters()).device
    for pair in pairs:
        match = _ENDS_CROSSED.search(pair[1])
        if match is None:
            continue
        (source, lengths, target), _ = translation.batch_of(task, [pair])
        with torch.no_grad():
            _, weights = model(source.to(device), target.to(device), lengths)
        tens, ones = weights[:, 0, -3], weights[:, 0, -2]  # the last place is the end's
        further = ones - tens  # [T]
        first, second = (further[match.start(i) : match.end(i)].mean() for i in (1, 2))
        found.append(bool(first > 0 > second))
    return found


def learn(attention: str | None, task: Task, options: Options, console: "Console") -> Result:
    """A network with or without attention, trained on the names and asked for those held out."""
    console.print("With attention:" if attention else "Without attention, the same otherwise:")
    torch.manual_seed(options.seed)
    model = task.network(attention).to(options.device)
    epochs = translation.train(
        model, task, epochs=options.epochs or EPOCHS, options=options, console=console
    )
    sources, right = zip(*task.pairs.held_out, strict=True)
    written, _ = translation.translate(model, task, sources)
    return Result(model, epochs, written, translation.score(written, right))


def _steps(options: Options, console: "Console") -> bool:
    from pydl.recipes import translate_numbers_page  # which imports matplotlib

    task = Task.of(texts.numbers(TRAIN, HELD_OUT, options.seed))
    held_out = task.pairs.held_out
    sources, right = zip(*held_out, strict=True)
    with use_backend(options.backend):
        ours, blind = (learn(kind, task, options, console) for kind in ("additive", None))
        wide, _ = translation.translate(ours.model, task, sources, width=WIDTH)
        crossing = crossed(ours.model, task, held_out)
        scores = {
            "with attention": ours.score,
            f"with attention, the best of a beam of {WIDTH}": translation.score(wide, right),
            "without attention": blind.score,
            "word by word": translation.score(word_by_word(held_out), right),
        }
        html = translate_numbers_page.html(options, task, ours, blind, scores, crossing)
    for name, one in scores.items():
        console.print(f"{name}: {100 * one.exact:.1f} % exactly right, chrF {one.chrf:.1f}")
    part = sum(crossing) / len(crossing)
    console.print(f"ones and tens cross in {100 * part:.1f} % of {len(crossing)} names")
    publish(html, options, console)
    others = max(blind.score.exact, scores["word by word"].exact)
    return ours.score.exact >= max(TARGET, others) and part > CROSSING


RECIPE = Recipe(
    "translate-numbers",
    "a translator with attention names numbers in German from their English names, at least "
    f"{100 * TARGET:.0f} % of the held-out ones exactly; attention crosses in most",
    ("num2words", "sacrebleu", "matplotlib"),
    _steps,
)
