"""The page of the recipe ``restore-mri``."""

import torch

from pydl import measure
from pydl.recipes.recipe import Options
from pydl.recipes.restore_mri import CODE, HEAD, MEDIANS, NOISE, OURS, Result
from pydl.visualize import page, shares
from pydl.visualize.thumbnails import grey, signed, thumbnails

_SHOWN = ((1, 0), (4, 1))  # which of the held-out slices, of which volume
_MEDIAN = next(iter(MEDIANS))  # the one that is shown


def html(made: Result, options: Options) -> str:
    """The page."""
    scan = made.scan
    lead = f"""An autoencoder of 3-D convolutions, a pool and a transposed convolution learned from
        noisy blocks of a head what they had been. Held to median filters, on slices of the same
        head that it has not seen. The scan: {scan.source} ({scan.licence})."""
    noisy = made.found["noisy"].unsqueeze(1).to(options.device)
    parts = [
        _tiles(made),
        _slices(made),
        _scores(made),
        page.where_time_goes(shares.of_layers(made.model, noisy), "the held-out slices"),
    ]
    return page.page("A scan restored", lead, parts, measure.versions(torch.device(options.device)))


def _tiles(made: Result) -> str:
    measured = zip(made.scores[OURS], made.median, ("of all voxels", "in the head"), strict=True)
    return page.tiles(
        [
            *(
                (
                    f"{ours:.1f} dB",
                    f"peak signal-to-noise ratio {where}; the best median filter {median:.1f} dB",
                    ours > median,
                )
                for ours, median, where in measured
            ),
            (f"{made.scores['noisy'][1]:.1f} dB", "before anything was done", True),
            (f"{made.seconds[1]:.0f} s", f"of training on {made.blocks} blocks", True),
        ]
    )


def _slices(made: Result) -> str:
    return page.section(
        "Held-out slices",
        page.paragraph("""
            Above, what was given and what came back; below, the truth and what differs from it:
            blue where it is too bright, red where it is too dark."""),
        *(_slice(made, index, volume) for index, volume in _SHOWN),
    )


def _slice(made: Result, index: int, volume: int) -> str:
    clean = made.scan.held_out[volume, index]
    (top, left), (bottom, right) = (clean > HEAD).nonzero().aminmax(dim=0)

    def part(voxels: torch.Tensor) -> torch.Tensor:  # [1, H, W], where the head is
        return voxels[None, top : bottom + 1, left : right + 1]

    def picture(voxels: torch.Tensor) -> page.Picture:
        return thumbnails(part(voxels), grey, limits=(0, 1))

    limits = (-3 * NOISE, 3 * NOISE)
    shown = {name: made.found[name][volume, index] for name in (_MEDIAN, CODE, OURS)}
    given = f"slice {made.scan.slices[index]} of volume {volume + 1} with noise"
    pictures = [
        (picture(made.found["noisy"][volume, index]), f"<b>Input</b>: {given}"),
        *((picture(one), f"<b>{name.capitalize()}</b>") for name, one in shown.items()),
        (picture(clean), "<b>Truth</b>: as it was scanned"),
        *(
            (thumbnails(part(one - clean), signed, limits=limits), f"{name}: the difference")
            for name, one in shown.items()
        ),
    ]
    return page.gallery(pictures, "12rem")


def _scores(made: Result) -> str:
    rows = [[name, f"{all_:.2f}", f"{head:.2f}"] for name, (all_, head) in made.scores.items()]
    first, last = made.scan.slices[0], made.scan.slices[-1]
    return page.section(
        "Peak signal-to-noise ratio",
        page.paragraph(f"""
            Noise with a deviation of {NOISE} was added to a scan of a head whose brightest percent
            is 1; whatever was to restore it saw no more than that. Measured on slices {first} to
            {last} of both volumes, counted from 0. The networks learned from slices 0 to
            {first - 2} and {last + 2} to 23 of the same head, and from no other: of another head
            this says nothing. What was scanned has noise of its own, which counts as truth here.
            Most voxels are air, which a blur restores well; detail is in the head."""),
        page.table(["", "all voxels, dB", "in the head, dB"], rows, numbers=(1, 2)),
        page.paragraph(f"""
            <i>{CODE.capitalize()}</i> is the same network, trained in the same way, but that its
            first maps are not added to those that come back from the code. The code is half as
            large along each axis, and the pool before it keeps the greatest of 2&times;2&times;2
            voxels without their places."""),
    )
