"""The page of the recipe ``translate-numbers``."""

from collections.abc import Mapping, Sequence
from html import escape

import torch

from pydl import measure, nn
from pydl.data import pairs as texts
from pydl.models.sequence.translator import Translator
from pydl.recipes import translation
from pydl.recipes.recipe import Options
from pydl.recipes.translate_numbers import CROSSING, TARGET, Result
from pydl.recipes.translation import Score, Task
from pydl.visualize import page, plots, shares
from pydl.visualize.attention import matrix
from pydl.visualize.curves import curves

SHOWN, WRONG = 4, 12  # matrices, and translations that are not right


class _Read(nn.Module):
    """The translator on sources alone, with the targets that belong to them."""

    def __init__(self, model: Translator, target: torch.Tensor, lengths: torch.Tensor) -> None:
        super().__init__()
        self.model, self.target, self.lengths = model, target, lengths

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        return self.model(source, self.target, self.lengths)[0]


def html(
    options: Options,
    task: Task,
    ours: Result,
    blind: Result,
    scores: Mapping[str, Score],
    crossing: Sequence[bool],
) -> str:
    """The page; its plots go to ``options.output`` as files as well.

    Args:
        options: of the run.
        task: what was learned from and measured on.
        ours: what the network with attention found.
        blind: what the one without found.
        scores: of the held-out names, by who wrote them.
        crossing: of names that end in ones and tens, whether attention crossed there.
    """
    album = plots.Album(options.output)
    lead = f"""Numbers have names in every language, and in German their ones come before their
        tens. A network read {len(task.pairs.train):,} English names word by word beside the German
        ones, which it wrote letter by letter, and was then asked for others. The names:
        {escape(task.pairs.source)} ({escape(task.pairs.licence)})."""
    (source, lengths, target), _ = translation.batch_of(task, task.pairs.held_out[:32])
    device = torch.device(options.device)
    reader = _Read(ours.model.eval(), target.to(device), lengths)
    time = shares.of_layers(reader, source.to(device))
    parts = [
        _tiles(ours, blind, scores, crossing),
        _matrices(album, task, ours),
        _scores(scores),
        _learning(album, ours, blind),
        _wrong(task, ours),
        page.where_time_goes(time, "32 names, letter by letter with the right one before each"),
    ]
    return page.page("Naming numbers in German", lead, parts, measure.versions(device))


def _tiles(
    ours: Result, blind: Result, scores: Mapping[str, Score], crossing: Sequence[bool]
) -> str:
    part = sum(crossing) / len(crossing)
    return page.tiles(
        [
            (
                f"{100 * ours.score.exact:.1f} %",
                f"of {len(ours.written)} held-out names right to the last letter; the target is "
                f"{100 * TARGET:.0f} %",
                ours.score.exact >= TARGET,
            ),
            (f"{100 * blind.score.exact:.1f} %", "by the same network without attention", True),
            (f"{100 * scores['word by word'].exact:.1f} %", "translated word by word", True),
            (
                f"{100 * part:.1f} %",
                f"of {len(crossing)} names with ones and tens in which attention lies on the ones "
                "first, and then on the tens before them",
                part > CROSSING,
            ),
            (f"{ours.epochs[-1].seconds:.0f} s", "of training", True),
        ]
    )


def _matrices(album: plots.Album, task: Task, ours: Result) -> str:
    by_length = sorted(task.pairs.held_out, key=lambda pair: -len(pair[0]))
    some = by_length[: SHOWN * 10 : 10]
    written, weights = translation.translate(ours.model, task, [english for english, _ in some])
    pictures = []
    for number, ((english, _), german, weight) in enumerate(
        zip(some, written, weights, strict=True), 1
    ):
        read = [*texts.words(english), "(end)"]
        letters = [*german, "."][: len(weight)]
        image = album(f"attention{number}", matrix, weight, read, letters)
        pictures.append(page.picture(image, f"Which words of {english!r} were read when"))
    return page.section(
        "What is read when",
        page.paragraph("""
            A column for each letter written, the point being the end; a row for each word of the
            source. The darker, the more of the attention: each column adds up to 1. Hundreds and
            thousands follow the source, while ones and tens cross; not in every name, for the
            encoder has read each word's neighbours as well."""),
        *pictures,
    )


def _scores(scores: Mapping[str, Score]) -> str:
    rows = [
        [escape(name), f"{100 * one.exact:.1f}", f"{one.chrf:.1f}"] for name, one in scores.items()
    ]
    return page.section(
        "Beside others",
        page.paragraph("""
            Held-out names. <i>Without attention</i> is the same network, trained in the same way,
            whose decoder knows the last state of the encoder and nothing else. <i>Word by word</i>
            puts each English word's German one in its place. chrF is sacrebleu's F-score of
            character n-grams."""),
        page.table(["", "exactly right, %", "chrF"], rows, numbers=(1, 2)),
    )


def _learning(album: plots.Album, ours: Result, blind: Result) -> str:
    title = "Cross entropy of a letter, held-out names"
    series = {
        name: [(epoch.number, epoch.held_out_loss or 0.0) for epoch in one.epochs]
        for name, one in (("with attention", ours), ("without attention", blind))
    }
    image = album("learning", curves, title, "epoch", series)
    return page.section("Learning", page.picture(image, title))


def _wrong(task: Task, ours: Result) -> str:
    rows = [
        [escape(english), escape(right), escape(found)]
        for (english, right), found in zip(task.pairs.held_out, ours.written, strict=True)
        if found != right
    ]
    if not rows:
        return page.section("What is wrong", page.paragraph("Nothing."))
    return page.section(
        "What is wrong",
        page.paragraph(f"The first of the {len(rows)} held-out names that are not right."),
        page.table(["English", "German", "written"], rows[:WRONG]),
    )
