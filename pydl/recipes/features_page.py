"""The page of the recipe ``features``."""

from functools import partial

import torch

from pydl import measure
from pydl.recipes.features import LAYERS, SETTLED, Found, settled, strongest, way
from pydl.recipes.recipe import Options
from pydl.visualize import page, plots
from pydl.visualize.curves import curves
from pydl.visualize.thumbnails import heat, ink, own_scale, thumbnails

CONVOLUTIONS = ("act1", "act2")
MAPS = 3  # shown of each
EARLY, FIRST = 2, 10  # epochs: at which layers are compared, of which curves are drawn


def html(found: Found, options: Options) -> str:
    """The page; its plots go to ``options.output`` as files as well."""
    album = plots.Album(options.output)
    parts = [
        _tiles(found),
        _how_soon(found, album),
        *(_maps(found, layer) for layer in CONVOLUTIONS),
    ]
    lead = f"""LeNet-5 at several times of its training: what its maps answer to, and how soon that
        is what it will be. In the end it reads {100 * found.accuracy:.1f} % of the held-out
        digits."""
    versions = measure.versions(torch.device(options.device))
    return page.page("Features through training", lead, parts, versions)


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' * (count != 1)}"


def _tiles(found: Found) -> str:
    return page.tiles(
        [
            (_epochs(settled(curve)), f"until {LAYERS[layer]} is what it will be", True)
            for layer, curve in found.similar.items()
        ]
    )


def _maps(found: Found, layer: str) -> str:
    """Of some maps, the digits that excite them most by epoch, and below what they answer."""
    images = found.split.held_out.tensors[0][:, 0]
    by_epoch = [one[layer].cpu() for one in found.snapshots.values()]
    peaks = torch.stack([one.amax((0, 2, 3)) for one in by_epoch])  # [epochs, maps]
    count, alive = peaks.shape[1], (peaks > 0).all(0).nonzero().flatten().tolist()
    strips = []
    for number in alive[:: max(1, -(-len(alive) // MAPS))]:
        maps = [one[:, number] for one in by_epoch]
        which = [strongest(one) for one in maps]
        answers = torch.stack([one[best] for one, best in zip(maps, which, strict=True)])
        strips += [
            (thumbnails(images[which], ink), f"<b>map {number + 1}</b>: the digit"),
            (thumbnails(own_scale(answers), heat), "and the map"),
        ]
    name = LAYERS[layer]
    after = [str(epoch) for epoch in found.snapshots if epoch]
    return page.section(
        f"{name.capitalize()}: what excites a map most",
        page.paragraph(f"""
            From left to right: with fresh weights, then after {", ".join(after)} epochs.
            Above, the held-out digit that excites the map most at any one place; below, the map's
            answer to it after ReLU, each on a scale of its own. A map that has become what it will
            be goes on choosing the same digit. {len(strips) // 2} of the {len(alive)} maps that
            answer to any digit at all these times; there are {count}."""),
        page.gallery(strips, "100%"),
    )


def _how_soon(found: Found, album: plots.Album) -> str:
    """The numbers, and curves of the first epochs, in which most is decided."""
    similar = found.similar
    gone = {layer: way(curve) for layer, curve in similar.items()}
    pictures = []
    for name, title, values in (
        ("correlation", "Correlation with the end", similar),
        ("way", "Part of the way there", gone),
    ):
        series = {
            LAYERS[layer]: [(epoch, value) for epoch, value in curve.items() if epoch <= FIRST]
            for layer, curve in values.items()
        }
        image = album(name, partial(curves, half=True), title, "epochs", series)
        pictures.append(page.picture(image, title))
    first, *others = similar
    rows = [
        [LAYERS[layer], *(f"{value:.2f}" for value in curve.values()), str(settled(curve))]
        for layer, curve in similar.items()
    ]
    head = ["epochs", *map(str, similar[first]), f"{SETTLED} after"]
    nearest = min(found.snapshots, key=lambda epoch: abs(epoch - EARLY))
    order = sorted(gone, key=lambda layer: -gone[layer][nearest])
    after = [f"{100 * gone[layer][nearest]:.0f} % in {LAYERS[layer]}" for layer in order]
    true_of = (
        "of all four"
        if order == [*similar]
        else "of the lowest, but not of those above it among themselves"
        if order[0] == first
        else "of none"
    )
    return page.section(
        "How soon a layer is what it will be",
        page.paragraph(f"""
            The correlation of a map's, or a unit's, activations for all held-out digits with those
            that it has in the end, the mean over the layer. {LAYERS[first].capitalize()} comes to
            {SETTLED} after {_epochs(settled(similar[first]))}, the layers above it after
            {", ".join(str(settled(similar[layer])) for layer in others)}; but it began at
            {similar[first][0]:.2f}, for filters drawn at random answer to edges too."""),
        page.paragraph(f"""
            Of the way from there to the end {", ".join(after)} is gone after
            {_epochs(nearest)}. That lower layers come first, as Zeiler and Fergus saw it in a
            larger network, is true here {true_of}."""),
        page.side_by_side(*pictures),
        page.table(head, rows, numbers=range(1, len(head))),
    )
