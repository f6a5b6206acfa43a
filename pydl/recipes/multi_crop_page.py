"""The page of the recipe ``multi-crop``."""

import torch

from pydl import measure
from pydl.recipes.multi_crop import (
    EXAMPLES,
    FIVE,
    ONE,
    SCALED,
    SCALES,
    TEN,
    TESTS,
    WINDOW,
    Found,
)
from pydl.recipes.recipe import Options
from pydl.train import crops
from pydl.visualize import page
from pydl.visualize.thumbnails import ink, thumbnails

PLACES = ("top left", "top right", "bottom left", "bottom right", "centre")
SHOWN = 3  # pictures for which the windows decide, and as many with which it is the other way


def html(found: Found, options: Options) -> str:
    """The page."""
    lead = """A network that has learned from windows of pictures answers for a window. What it says
        of several windows of one picture differs, and the mean is more often right."""
    parts = [_tiles(found), _errors(found), *_examples(found)]
    versions = measure.versions(torch.device(options.device))
    return page.page("Testing on many windows", lead, parts, versions)


def _percent(part: float) -> str:
    return f"{100 * part:.1f} %"


def _tiles(found: Found) -> str:
    one = found.plain[ONE].error
    return page.tiles(
        [
            (_percent(one), "of the held-out pictures read wrong in the centre alone", True),
            *(
                (_percent(found.plain[way].error), f"by the mean of {said}", met)
                for way, said, met in (
                    (FIVE, "five windows, corners and centre", found.plain[FIVE].error < one),
                    (TEN, "ten windows, those and their mirror images", True),
                    (SCALED, "fifteen windows, the five at three scales", True),
                )
            ),
        ]
    )


def _errors(found: Found) -> str:
    plain, with_mirrors = found.results.values()
    rows = [
        [way, str(one.windows), _percent(one.error), _percent(with_mirrors[way].error)]
        for way, one in plain.items()
    ]
    head = ["averaged", "windows", "wrong", "wrong, trained with mirrored ones"]
    one, five = plain[ONE].right, plain[FIVE].right
    mirrors = [
        f"from {_percent(results[FIVE].error)} to {_percent(results[TEN].error)} if trained {name}"
        for name, results in found.results.items()
    ]
    return page.section(
        "The error by what is averaged",
        page.paragraph(f"""
            LeNet-5 learned from random windows of 32&times;32 pixels of {EXAMPLES:,} pictures of
            40&times;40, in each of them a real digit that is moved, scaled and turned, and scraps
            of others. It was tested on {TESTS:,} pictures of held-out digits. Of these the mean of
            centre and corners gets {int((five & ~one).sum())} right that the centre alone gets
            wrong, for a digit that one window cuts off is whole in another, and
            {int((one & ~five).sum())} wrong that the centre gets right."""),
        page.paragraph(f"""
            With the mirror images of the five windows the error goes {" and ".join(mirrors)}:
            unlike the photographs for which this was invented, a mirrored digit is no digit. With
            the five windows at three scales ({", ".join(f"{scale:g}" for scale in SCALES)}) it goes
            from {_percent(plain[FIVE].error)} to {_percent(plain[SCALED].error)}, at three times
            the price."""),
        page.table(head, rows, numbers=(1, 2, 3)),
    )


def _examples(found: Found) -> list[str]:
    """Pictures in which one and five windows differ, if there are any."""
    one, five = (found.plain[way].right for way in (ONE, FIVE))
    won, lost = (pair.nonzero().flatten()[:SHOWN] for pair in (five & ~one, one & ~five))
    chosen = torch.cat([won, lost])
    if not len(chosen):
        return []
    pictures, labels = (tensor[chosen] for tensor in found.tests.tensors)
    mean, deviation = found.scaling
    device = next(found.network.parameters()).device
    windows = crops.five_crop((pictures - mean) / deviation, WINDOW).to(device)
    each = torch.stack([crops.averaged(found.network, some[None]).cpu() for some in windows])
    seen = crops.five_crop(pictures, WINDOW)
    said = page.paragraph("""
        Pictures that the centre alone gets wrong and the mean right, then some, if there are any,
        with which it is the other way. Below the picture stands what digit it is and what the mean
        says, below each window what the network reads there and how sure it is; orange is
        wrong.""")
    galleries = []
    for number, label in enumerate(labels.tolist()):
        shown = [(pictures[number], f"a {label}: the mean", each[:, number].mean(0))]
        shown += zip(seen[:, number], PLACES, each[:, number], strict=True)
        galleries.append(
            page.gallery(
                [
                    (
                        thumbnails(image, ink, limits=(0, 1)),
                        f"<b>{place}</b><br>{_answer(probabilities, label)}",
                    )
                    for image, place, probabilities in shown
                ]
            )
        )
    return [page.section("Five windows", said, *galleries)]


def _answer(probabilities: torch.Tensor, label: int) -> str:
    sure, read = probabilities.max(0)
    verdict = "win" if read == label else "lose"
    return f'<span class="{verdict}">{read.item()}</span>, {100 * sure.item():.0f} % sure'
