"""What the pages of recipes share whose networks write sentences."""

from collections.abc import Callable, Mapping, Sequence
from html import escape

import torch

from pydl import nn
from pydl.models.sequence.writer import Writer
from pydl.recipes.writing import Score
from pydl.train import Epoch
from pydl.visualize import page, plots
from pydl.visualize.curves import losses
from pydl.visualize.page import Picture
from pydl.visualize.thumbnails import grey, heat, thumbnails

WRONG = 12  # sentences that are not right


class Greedy(nn.Module):
    """The network writing by itself; ``more`` is what it reads beside its input."""

    def __init__(self, model: Writer, *more: torch.Tensor) -> None:
        super().__init__()
        self.model, self.more = model, more

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.model.write(input, *self.more).symbols


def scores(found: Mapping[str, Score], what: str) -> str:
    """Who wrote how well; ``what`` says who that is (HTML)."""
    rows = [
        [escape(name), f"{100 * one.exact:.1f}", f"{one.bleu:.1f}"] for name, one in found.items()
    ]
    return page.section(
        "Beside others",
        page.paragraph(f"{what} BLEU is sacrebleu's, of runs of up to four words."),
        page.table(["", "exactly right, %", "BLEU"], rows, numbers=(1, 2)),
    )


def learning(album: plots.Album, epochs: Sequence[Epoch], of: str) -> str:
    """Losses by epoch; ``of`` says of what, several of them."""
    title = "Cross entropy of a word"
    image = album("learning", losses, title, epochs, of)
    return page.section("Learning", page.picture(image, title))


def looks(image: torch.Tensor, text: Sequence[str], weights: torch.Tensor) -> str:
    """A picture (1, H, W) and, by the word, the same as bright as what was read of its places for
    that word, ``weights`` (T, S) of a square map."""
    side = int(weights.shape[1] ** 0.5)
    maps = weights[: len(text)].view(1, -1, side, side)
    large = nn.functional.interpolate(maps, image.shape[1:], mode="bilinear")[0]
    pictures = [(thumbnails(image, grey, limits=(0, 1)), "the picture")]
    for word, one in zip(text, large, strict=True):
        lit = image * (0.25 + 0.75 * one / one.max().clamp_min(1e-12))
        pictures.append((thumbnails(lit, heat, limits=(0, 1)), f"<b>{escape(word)}</b>"))
    return page.gallery(pictures, "4.5rem")


def wrong(
    right: Sequence[str],
    written: Sequence[str],
    picture: Callable[[int], Picture],
    least: str = "9rem",
) -> str:
    """The first sentences that are not right, each below its ``picture``, ``least`` wide."""
    which = [i for i, (one, other) in enumerate(zip(right, written, strict=True)) if one != other]
    if not which:
        return page.section("What is wrong", page.paragraph("Nothing."))
    pictures = [
        (picture(i), f"{escape(right[i])}; written: <b>{escape(written[i])}</b>")
        for i in which[:WRONG]
    ]
    return page.section(
        "What is wrong",
        page.paragraph(f"The first of the {len(which)} sentences that are not right."),
        page.gallery(pictures, least),
    )
