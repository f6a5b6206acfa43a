"""The page of the recipe ``caption-regions``."""

from html import escape

import torch

from pydl import measure
from pydl.data import scenes
from pydl.recipes import writing_page
from pydl.recipes.caption_regions import NETWORK, TARGET, WHOLE, Result, crops, numbered, parts
from pydl.recipes.recipe import Options
from pydl.visualize import page, plots, shares
from pydl.visualize.page import Picture
from pydl.visualize.palette import DARK, LIGHT, Theme
from pydl.visualize.thumbnails import grey, png, thumbnails

SHOWN, LOOKS = 8, 4  # pictures with their regions, regions with what was read for each word
_LARGE = 4  # times as large as they are, for outlines as thin as a pixel
_OUTLINES = ("ours", "loss", "good")  # colours of a picture's regions, one after the other


def html(options: Options, learned: int, result: Result) -> str:
    """The page; its plots go to ``options.output`` as files as well.

    Args:
        options: of the run.
        learned: how many regions the network learned from.
        result: what was found.
    """
    album = plots.Album(options.output)
    lead = f"""A network saw {learned:,} regions of pictures, a handwritten digit in each, and for
        each a sentence that says which it is, how large and where, and then wrote of
        {len(result.right)} regions with digits that it had never seen. The digits:
        {escape(scenes.SOURCE)} ({escape(scenes.LICENCE)})."""
    some = result.held_out[:32]
    images = torch.stack([scene.image for scene in some]).to(options.device)
    regions = numbered([scene.boxes for scene in some]).to(options.device)
    time = shares.of_layers(writing_page.Greedy(result.model.eval(), regions), images)
    seen = crops(result.held_out)
    written = result.texts[NETWORK]
    longest = sorted(range(len(written)), key=lambda i: -len(written[i].split()))
    parted = [
        writing_page.looks(_larger(seen[i]), written[i].split(), result.weights[:, i])
        for i in longest[:LOOKS]
    ]
    sections = [
        _tiles(result),
        _pictures(result),
        page.section(
            "Where it looks",
            page.paragraph("""
                Four regions, scaled to a square as the network reads them. Below each word the
                region, bright where it was read for that word; each of its 4&times;4 places knows
                its coordinates in the picture as well."""),
            *parted,
        ),
        writing_page.scores(
            result.found,
            """Sentences about held-out digits. <i>The same network</i> learned in the same way,
            but each sentence with the whole picture in the place of its region. <i>The nearest
            region</i> is that of those learned whose pixels differ least, scaled alike.""",
        ),
        _parts(result),
        writing_page.learning(album, result.epochs, "regions"),
        writing_page.wrong(
            result.right, written, lambda i: thumbnails(seen[i], grey, limits=(0, 1)), "6rem"
        ),
        page.where_time_goes(time, f"{len(regions)} regions of {len(images)} pictures"),
    ]
    versions = measure.versions(torch.device(options.device))
    return page.page("Saying what is in a region", lead, sections, versions)


def _larger(pictures: torch.Tensor) -> torch.Tensor:
    """Each pixel of (C, H, W) as a square."""
    return pictures.repeat_interleave(_LARGE, 1).repeat_interleave(_LARGE, 2)


def _tiles(result: Result) -> str:
    ours, whole = result.found[NETWORK], result.found[WHOLE]
    others = max(one.exact for name, one in result.found.items() if name != NETWORK)
    return page.tiles(
        [
            (
                f"{100 * ours.exact:.1f} %",
                f"of {len(result.right)} sentences about held-out digits right to the last word; "
                f"the target is {100 * TARGET:.0f} %",
                ours.exact >= max(TARGET, others),
            ),
            (f"{ours.bleu:.1f}", "BLEU of all these sentences", True),
            (f"{100 * whole.exact:.1f} %", "right by the network told the whole picture", True),
            (f"{100 * others:.1f} %", "right by the best of three baselines", True),
            (f"{result.epochs[-1].seconds:.0f} s", "of training", True),
        ]
    )


def _outlined(image: torch.Tensor, boxes: list[list[float]], theme: Theme) -> bytes:
    """A picture (1, H, W) with its regions outlined in the colours of a theme."""
    pixels = _larger(image)[0, ..., None].repeat(1, 1, 3)
    for box, name in zip(boxes, _OUTLINES, strict=False):
        left, top, right, bottom = (round(_LARGE * place) for place in box)
        colour = torch.tensor([int(getattr(theme, name)[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        for rows, columns in (
            (slice(top, bottom), slice(left, left + 1)),
            (slice(top, bottom), slice(right - 1, right)),
            (slice(top, top + 1), slice(left, right)),
            (slice(bottom - 1, bottom), slice(left, right)),
        ):
            pixels[rows, columns] = colour
    return png(pixels[None].numpy(), columns=1)


def _pictures(result: Result) -> str:
    many = [i for i, scene in enumerate(result.held_out) if len(scene.boxes) > 1][:SHOWN]
    begin = torch.tensor([0, *(len(scene.boxes) for scene in result.held_out)]).cumsum(0).tolist()
    shown: list[tuple[Picture, str]] = []
    for i in many:
        scene = result.held_out[i]
        light, dark = (_outlined(scene.image, scene.boxes.tolist(), one) for one in (LIGHT, DARK))
        written = result.texts[NETWORK][begin[i] : begin[i + 1]]
        lines = [
            f'<b style="color:var(--{name})">{escape(text)}</b>'
            for text, name in zip(written, _OUTLINES, strict=False)
        ]
        shown.append(((light, dark), "<br>".join(lines)))
    return page.section(
        "Pictures and their regions",
        page.paragraph("""
            The first held-out pictures with several digits. Each region is outlined in the colour
            of the sentence that the network wrote about it."""),
        page.gallery(shown, "12rem"),
    )


def _parts(result: Result) -> str:
    rows = [
        [escape(name), *(f"{100 * part:.1f}" for part in parts(text, result.right))]
        for name, text in result.texts.items()
    ]
    return page.section(
        "What of it is right",
        page.paragraph("""
            Of all sentences, how many name the right size, the right digit, the right place."""),
        page.table(["", "size, %", "digit, %", "place, %"], rows, numbers=(1, 2, 3)),
    )
