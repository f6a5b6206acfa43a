"""The page of the recipe ``caption-scenes``."""

from html import escape

import torch

from pydl import measure, nn
from pydl.data import scenes
from pydl.models.sequence.captioner import Captioner
from pydl.recipes.caption_scenes import (
    FREQUENT,
    NEAREST,
    NETWORK,
    POINTING,
    SIDE,
    TARGET,
    Result,
)
from pydl.recipes.recipe import Options
from pydl.visualize import page, plots, shares
from pydl.visualize.curves import losses
from pydl.visualize.thumbnails import grey, heat, thumbnails

SHOWN, WRONG = 4, 12  # pictures with what was read for each word, and sentences that are not right


class _Greedy(nn.Module):
    """The network writing by itself."""

    def __init__(self, model: Captioner) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model.write(images).symbols


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
    time = shares.of_layers(_Greedy(result.model.eval()), some)
    parts = [
        _tiles(result),
        _looks(result),
        _scores(result),
        _learning(album, result),
        _wrong(result),
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
    galleries = []
    for i in order[:SHOWN]:
        text = result.texts[NETWORK][i].split()
        image = result.held_out[i].image
        maps = result.weights[: len(text), i]
        side = int(maps.shape[1] ** 0.5)
        large = nn.functional.interpolate(
            maps.view(1, len(text), side, side), (SIDE, SIDE), mode="bilinear"
        )[0]
        pictures = [(thumbnails(image, grey, limits=(0, 1)), "the picture")]
        for word, one in zip(text, large, strict=True):
            lit = image * (0.25 + 0.75 * one / one.max().clamp_min(1e-12))
            pictures.append((thumbnails(lit, heat, limits=(0, 1)), f"<b>{escape(word)}</b>"))
        galleries.append(page.gallery(pictures, "4.5rem"))
    return page.section(
        "Where it looks",
        page.paragraph("""
            The longest sentences that it wrote about held-out pictures. Below each word the
            picture, bright where the network read it for that word; elsewhere it is dimmed."""),
        *galleries,
    )


def _scores(result: Result) -> str:
    rows = [
        [escape(name), f"{100 * one.exact:.1f}", f"{one.bleu:.1f}"]
        for name, one in result.found.items()
    ]
    return page.section(
        "Beside others",
        page.paragraph("""
            Sentences about held-out digits. <i>The nearest picture</i> is that training picture
            whose pixels differ least. BLEU is sacrebleu's, of runs of up to four words."""),
        page.table(["", "exactly right, %", "BLEU"], rows, numbers=(1, 2)),
    )


def _learning(album: plots.Album, result: Result) -> str:
    title = "Cross entropy of a word"
    image = album("learning", losses, title, result.epochs, "pictures")
    return page.section("Learning", page.picture(image, title))


def _wrong(result: Result) -> str:
    pairs = zip(result.held_out, result.texts[NETWORK], strict=True)
    wrong = [(scene, text) for scene, text in pairs if text != scene.sentence]
    if not wrong:
        return page.section("What is wrong", page.paragraph("Nothing."))
    pictures = [
        (
            thumbnails(scene.image, grey, limits=(0, 1)),
            f"{escape(scene.sentence)}; written: <b>{escape(text)}</b>",
        )
        for scene, text in wrong[:WRONG]
    ]
    return page.section(
        "What is wrong",
        page.paragraph(f"The first of the {len(wrong)} sentences that are not right."),
        page.gallery(pictures, "9rem"),
    )
