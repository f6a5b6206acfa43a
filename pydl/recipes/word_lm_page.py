"""The page of the recipe ``word-lm``."""

import math
from collections.abc import Mapping
from html import escape

import torch

from pydl import measure
from pydl.data.words import Words
from pydl.recipes.recipe import Options
from pydl.recipes.word_lm import FEED_FORWARD, RECURRENT, TRIGRAMS, Learned, better
from pydl.visualize import page, plots, shares
from pydl.visualize.curves import curves

_SHOWN = 64, 32  # steps and texts of which the time is shown


def html(options: Options, text: Words, found: Mapping[str, Learned]) -> str:
    """The page; its plot goes to ``options.output`` as a file as well.

    Args:
        options: of the run.
        text: what was learned and measured on.
        found: by the name of each model.
    """
    lead = f"""How well is the next word of a text known from those before it? Two networks and
        trigrams, which count, read {len(text.train):,} words, and were then asked about each of
        {len(text.held_out):,} others. A word is a name, a number, a mark or the end of a line; all
        but the {len(text.vocabulary) - 1:,} commonest count as one. The text:
        {escape(text.source)} ({escape(text.licence)})."""
    model = found[RECURRENT].model
    assert model is not None
    some = text.train[: math.prod(_SHOWN)].view(_SHOWN).to(options.device)
    time = shares.of_layers(model.eval(), some)
    parts = [
        _tiles(found),
        _scores(text, found),
        *_learning(options, found),
        *(_sample(name, one) for name, one in found.items()),
        page.where_time_goes(time, f"{_SHOWN[1]} texts of {_SHOWN[0]} words"),
    ]
    return page.page("The next word", lead, parts, measure.versions(torch.device(options.device)))


def _tiles(found: Mapping[str, Learned]) -> str:
    return page.tiles(
        [
            (
                f"{found[RECURRENT].perplexity:.1f}",
                f"perplexity of a held-out word by an {RECURRENT}, which is to be below that by "
                "trigrams",
                better(found),
            ),
            (f"{found[FEED_FORWARD].perplexity:.1f}", f"by a {FEED_FORWARD}", True),
            (f"{found[TRIGRAMS].perplexity:.1f}", f"by {TRIGRAMS}", True),
            (f"{found[RECURRENT].seconds:.0f} s", f"of training the {RECURRENT}", True),
        ]
    )


def _scores(text: Words, found: Mapping[str, Learned]) -> str:
    rows = [
        [
            escape(name),
            f"{one.perplexity:.2f}",
            f"{math.log2(one.perplexity):.3f}",
            f"{one.seconds:.1f}",
        ]
        for name, one in found.items()
    ]
    verdict = "knows" if better(found) else "does not know"
    return page.section(
        "Beside others",
        page.paragraph(f"""
            Perplexity says between how many words one would have to guess if all were as likely: of
            someone who knows nothing, {len(text.vocabulary):,}. The <i>{RECURRENT}</i> remembers
            what it has read, the <i>{FEED_FORWARD}</i> sees four words. <i>Trigrams</i> see two,
            and count; where they were never seen, shorter ones stand in (Kneser-Ney smoothing). The
            {RECURRENT} {verdict} the next word better than they do."""),
        page.table(["", "perplexity", "bits a word", "learned in, s"], rows, numbers=(1, 2, 3)),
    )


def _learning(options: Options, found: Mapping[str, Learned]) -> list[str]:
    series = {name: one.curve for name, one in found.items() if one.curve}
    if not series:
        return []
    title = "Perplexity of the words to learn from"
    ends = [curve[place][0] for curve in series.values() for place in (0, -1)]
    baseline = [(end, found[TRIGRAMS].perplexity) for end in (min(ends), max(ends))]
    series[f"{TRIGRAMS}, held-out words"] = baseline
    image = plots.Album(options.output)("learning", _curves, title, series)
    return [page.section("Learning", page.picture(image, title))]


def _curves(theme, title, series):
    return curves(theme, title, "step", series, log_y=True)


def _sample(name: str, one: Learned) -> str:
    written = f'<div class="scroll"><pre>{escape(one.sample)}</pre></div>'
    return page.section(f"Written by the {name}", written)
