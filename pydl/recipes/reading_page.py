"""What the pages of the recipes that read lines of text share."""

from collections.abc import Mapping, Sequence
from html import escape

from pydl.data.lines import Part
from pydl.recipes.reading import Score
from pydl.train import Epoch
from pydl.visualize import page, plots
from pydl.visualize.curves import losses
from pydl.visualize.thumbnails import grey, thumbnails

CTC = "CTC loss of a character"
WRONG = 12  # lines that are not right


def scores(found: Mapping[str, Score], what: str) -> str:
    """Who read how well; ``what`` says who that is (HTML)."""
    rows = [
        [escape(name), f"{100 * one.errors:.1f}", f"{100 * one.exact:.1f}"]
        for name, one in found.items()
    ]
    head = ["", "characters wrong, %", "lines right, %"]
    return page.section(
        "Beside others",
        page.paragraph(what),
        page.paragraph("""
            Characters that are wrong, missing or too many, over all that there are, by rapidfuzz's
            edit distance."""),
        page.table(head, rows, numbers=(1, 2)),
    )


def learning(album: plots.Album, trained: Mapping[str, Sequence[Epoch]]) -> str:
    """Losses by epoch, a plot for each training, by what its loss is."""
    pictures = [
        page.picture(album(f"learning{number or ''}", losses, title, epochs, "lines"), title)
        for number, (title, epochs) in enumerate(trained.items())
    ]
    return page.section("Learning", *pictures)


def wrong(part: Part, read: Sequence[str]) -> str:
    """The first lines that were not read right."""
    which = [i for i, text in enumerate(part.texts) if read[i] != text]
    if not which:
        return page.section("What is wrong", page.paragraph("Nothing."))
    pictures = [
        (
            thumbnails(part.images[i], grey, limits=(0, 1)),
            f"{escape(part.texts[i])}, read as <b>{escape(read[i]) or 'nothing'}</b>",
        )
        for i in which[:WRONG]
    ]
    return page.section(
        "What is wrong",
        page.paragraph(f"The first of the {len(which)} held-out lines that are not right."),
        page.gallery(pictures, "13rem"),
    )
