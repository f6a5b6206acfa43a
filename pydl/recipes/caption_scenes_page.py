"""The page of the recipe ``caption-scenes``."""

from html import escape

import torch

from pydl import measure
from pydl.data import scenes
from pydl.recipes import writing_page
from pydl.recipes.caption_scenes import FREQUENT, NEAREST, NETWORK, POINTING, TARGET, Result
from pydl.recipes.recipe import Options
from pydl.visualize import page, plots, shares
from pydl.visualize.thumbnails import grey, thumbnails

SHOWN = 4  # pictures with what was read for each word


def html(options: Options, learned: int, result: Result) -> str:
    """The page; its plots go to ``options.output`` as files as well.

    Args:
        options: of the run.
        learned: how many pictures the network learned from.
        result: what was found.
    """
    album = plots.Album(options.output)
    lead = f"""A network saw {learned:,} pictures of handwritten digits, each with a sentence that
        says which they are and where they lie of each other, its convolutions having learned
        before which digits there are, and then wrote of
        {len(result.held_out)} pictures whose digits it had never seen. The digits:
        {escape(scenes.SOURCE)} ({escape(scenes.LICENCE)})."""
    some = torch.stack([scene.image for scene in result.held_out[:32]]).to(options.device)
    time = shares.of_layers(writing_page.Greedy(result.model.eval()), some)
    parts = [
        _tiles(result),
        _looks(result),
        writing_page.scores(
            result.found,
            """Sentences about held-out digits. <i>The nearest picture</i> is that training picture
            whose pixels differ least.""",
        ),
        writing_page.learning(album, result.epochs, "pictures"),
        writing_page.wrong(
            [scene.sentence for scene in result.held_out],
            result.texts[NETWORK],
            lambda i: thumbnails(result.held_out[i].image, grey, limits=(0, 1)),
        ),
        page.where_time_goes(time, f"{len(some)} pictures, written about word by word"),
    ]
    versions = measure.versions(torch.device(options.device))
    return page.page("Saying what is in a picture", lead, parts, versions)


def _tiles(result: Result) -> str:
    ours, others = (
        result.found[NETWORK],
        max(result.found[name].exact for name in (FREQUENT, NEAREST)),
    )
    return page.tiles(
        [
            (
                f"{100 * ours.exact:.1f} %",
                f"of {len(result.held_out)} sentences about held-out digits right to the last "
                f"word; the target is {100 * TARGET:.0f} %",
                ours.exact >= max(TARGET, others),
            ),
            (f"{ours.bleu:.1f}", "BLEU of all these sentences", True),
            (
                f"{100 * result.pointing:.1f} %",
                "of the digits named in right sentences are where the network looks most when it "
                "writes their name",
                result.pointing >= POINTING,
            ),
            (f"{100 * others:.1f} %", "right by the better of two baselines", True),
            (f"{result.epochs[-1].seconds:.0f} s", "of training", True),
        ]
    )


def _looks(result: Result) -> str:
    order = sorted(
        range(len(result.held_out)), key=lambda i: -len(result.texts[NETWORK][i].split())
    )
    galleries = [
        writing_page.looks(
            result.held_out[i].image, result.texts[NETWORK][i].split(), result.weights[:, i]
        )
        for i in order[:SHOWN]
    ]
    return page.section(
        "Where it looks",
        page.paragraph("""
            The longest sentences that it wrote about held-out pictures. Below each word the
            picture, bright where the network read it for that word; elsewhere it is dimmed."""),
        *galleries,
    )
