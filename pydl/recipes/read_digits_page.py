"""The page of the recipe ``read-digits``."""

from html import escape

import torch

from pydl import functional, measure
from pydl.data.lines import Lines
from pydl.recipes import read_digits, reading_page
from pydl.recipes.read_digits import ATTENDED, NETWORK, SEGMENTED, TARGET, Result
from pydl.recipes.recipe import Options
from pydl.visualize import page, plots, shares
from pydl.visualize.attention import matrix
from pydl.visualize.thumbnails import grey, thumbnails

SHOWN = 4  # lines with what each of their columns says


def html(options: Options, data: Lines, result: Result) -> str:
    """The page; its plots go to ``options.output`` as files as well.

    Args:
        options: of the run.
        data: what was learned from and measured on.
        result: what was found.
    """
    album = plots.Album(options.output)
    lead = f"""A network read {len(data.train.texts):,} lines of handwritten digits and was told
        what they say, not where each digit stands, and then read
        {len(data.held_out.texts)} lines of digits that it had never seen. The digits:
        {escape(data.source)} ({escape(data.licence)})."""
    some = data.held_out.images[:32].to(options.device)
    time = shares.of_layers(result.model.eval(), some)
    parts = [
        _tiles(result),
        _columns(album, data, result),
        _attended(album, data, result),
        reading_page.scores(
            result.found,
            """Held-out lines. <i>The likeliest symbol of each column</i>: repeated ones are taken
            once, blanks left out. <i>Prefix search</i> adds up all the ways in which the columns
            may spell a text. <i>A decoder with attention</i> has learned, with columns of its own,
            to write one character after the other. <i>Connected pixels and logistic
            regression</i>: bright pixels that are connected are a digit, which a linear score of
            its 64 numbers reads; it learned from digits at their true places. <i>Nearest
            neighbour</i>: what the most similar training line says.""",
        ),
        reading_page.learning(
            album,
            {
                reading_page.CTC: result.epochs,
                "Cross entropy of a character, with attention": result.attentive.epochs,
            },
        ),
        reading_page.wrong(data.held_out, result.texts[NETWORK]),
        page.where_time_goes(time, "32 lines"),
    ]
    versions = measure.versions(torch.device(options.device))
    return page.page("Reading strings of digits", lead, parts, versions)


def _tiles(result: Result) -> str:
    ours, attended, theirs = (result.found[name] for name in (NETWORK, ATTENDED, SEGMENTED))
    target = min(TARGET, theirs.errors)
    return page.tiles(
        [
            (
                f"{100 * ours.errors:.1f} %",
                "of the characters in held-out lines wrong, missing or too many; the target is "
                f"{100 * target:.0f} %",
                ours.errors <= target,
            ),
            (
                f"{100 * attended.errors:.1f} %",
                "of the characters wrong by the decoder with attention",
                attended.errors <= target,
            ),
            (f"{100 * ours.exact:.1f} %", "of the lines right from end to end", True),
            (f"{100 * theirs.errors:.1f} %", f"of the characters wrong by {SEGMENTED}", True),
            (f"{result.epochs[-1].seconds:.0f} s", "of training", True),
        ]
    )


def _columns(album: plots.Album, data: Lines, result: Result) -> str:
    symbols = ["(blank)", *result.alphabet.characters]
    said = functional.softmax(result.scores, 2)
    pictures = []
    for i in range(SHOWN):
        line = thumbnails(data.held_out.images[i], grey, limits=(0, 1))
        text, read = data.held_out.texts[i], result.texts[read_digits.NETWORK][i]
        image = album(f"columns{i + 1}", matrix, said[:, i], symbols, [""] * len(said))
        pictures += [
            page.gallery([(line, f"{text}, read as {escape(read)}")], fill=True),
            page.picture(image, f"What each column of {text} says"),
        ]
    return page.section(
        "What each column says",
        page.paragraph("""
            Below each line what the network says of its columns, from left to right: the darker,
            the likelier the symbol. Most columns are blank, and a digit takes one or two, which
            nobody has told it."""),
        *pictures,
    )


def _attended(album: plots.Album, data: Lines, result: Result) -> str:
    pictures = []
    for i in range(SHOWN):
        line = thumbnails(data.held_out.images[i], grey, limits=(0, 1))
        text, read = data.held_out.texts[i], result.texts[ATTENDED][i]
        weights = result.attentive.weights[: len(read) + 1, i].T  # [T, L]
        written = [*read, "(end)"][: weights.shape[1]]
        image = album(f"attention{i + 1}", matrix, weights, written, [""] * len(weights))
        pictures += [
            page.gallery([(line, f"{text}, read as {escape(read)}")], fill=True),
            page.picture(image, f"Which columns are read for {text}"),
        ]
    return page.section(
        "Which columns are read for each character",
        page.paragraph("""
            The same lines, read by the decoder with attention. It has the same kind of columns,
            and writes one character after the other, from top to bottom: the darker a column, the
            more of the attention it has; each row adds up to 1."""),
        *pictures,
    )
