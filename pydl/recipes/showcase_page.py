"""The sections on an AlexNet-shaped network's layers: how fast, how exact, what they make of a
picture."""

import os
from collections.abc import Iterator, Sequence

import torch

from pydl import measure
from pydl.recipes.digits_page import threads
from pydl.recipes.showcase import LAYERS, WHOLE, Shown
from pydl.visualize import page, plots
from pydl.visualize.bars import bars, ratio
from pydl.visualize.operators import PASSES, OperatorRow
from pydl.visualize.thumbnails import heat, ink, thumbnails

_MAPS = 8  # shown of each layer
_ABOUT = {**LAYERS, WHOLE: "the whole network"}


def _measured(rows: Sequence[OperatorRow]) -> Iterator[tuple[OperatorRow, str]]:
    return ((row, kind) for row in rows for kind in PASSES)


def tiles(shown: Shown, others: Sequence[OperatorRow] = ()) -> list[page.Tile]:
    """The figures of single layers, those of other networks among them, and of the whole one."""
    timings = list(_measured([*shown.rows, *others]))
    verdicts = [row.verdict(kind) for row, kind in timings]
    ratios = [row.ratio(kind) for row, kind in timings]
    whole = shown.whole
    ours, theirs = (1e3 * whole.times["both"][who].median for who in ("ours", "theirs"))
    return [
        (
            f"{verdicts.count('win')} of {len(ratios)}",
            f"timings of single layers beat stock PyTorch, the best {ratio(max(ratios))}; "
            f"slower: {verdicts.count('lose')}, the worst {ratio(min(ratios))}",
            True,
        ),
        (
            ratio(whole.ratio("both")),
            f"as fast as stock PyTorch in a training step of a whole AlexNet-shaped network: "
            f"{ours:,.0f} ms against {theirs:,.0f} ms",
            whole.verdict("both") != "lose",
        ),
    ]


def sections(shown: Shown, album: plots.Album, backend: str, device: torch.device) -> list[str]:
    """What there is to say and to see."""
    return [_speed(shown, backend, device), _pictures(shown, album), _exactness(shown)]


def _listed(rows: Sequence[OperatorRow], verdict: str) -> str:
    found = [
        f"{_ABOUT[row.layer]}, {PASSES[kind]} ({ratio(row.ratio(kind))})"
        for row, kind in _measured(rows)
        if row.verdict(kind) == verdict
    ]
    return "; ".join(found)


def _speed(shown: Shown, backend: str, device: torch.device) -> str:
    rows = [*shown.rows, shown.whole]
    images, _, height, width = shown.whole.input
    lost = _listed(rows, "lose")
    slower = f"<b>Slower here:</b> {lost}." if lost else "Nothing was slower by more than 5 %."
    left = [
        f"{_ABOUT[row.layer]} ({row.layer})"
        for row in shown.rows
        if set(row.backends.values()) == {"aten"}
    ]
    who = f"The backend <code>{backend}</code> was asked for."
    if backend == "auto":
        here = f", and here {' and '.join(left)}" if left else ""
        who = f"""A table made from measurements decides who serves a call. What the kernels are no
            faster at is left to PyTorch: on a CPU always the dense convolutions, of which the
            whole network has two{here}. There both sides run the same code, and what differs from 1
            is noise and the cost of the call."""
    cores = os.cpu_count() or 1
    busy = ""
    if shown.load > cores:
        busy = f"""<b>The machine was busy meanwhile</b>: {shown.load:.0f} processes wanted its
            {cores} cores, so the figures are rough."""
    taken = [row.times[kind]["ours"].samples for row, kind in _measured(rows)]
    ours, theirs = (
        1e3 * sum(row.times["both"][side].median for row in shown.rows)
        for side in ("ours", "theirs")
    )
    return page.section(
        "How fast are the layers?",
        page.paragraph(f"""
            These are the layers of a network that begins as AlexNet does (Krizhevsky et al. 2012)
            and goes on with what came later: batch normalisation, a depthwise convolution, and a
            GRU, a recurrent layer, that reads the last map line by line. Pools take windows of
            3&times;3 at every second place; after the first convolution three kinds share a map.
            The network was given {images} pictures of {height}&times;{width} pixels. Each bar is
            one layer: how many times as fast as PyTorch's own layer with the same weights.
            {slower}"""),
        bars(rows, _ABOUT),
        page.paragraph(f"""{who} In a training step the {len(shown.rows)} layers take
            {ours:,.0f} ms here and {theirs:,.0f} ms in stock PyTorch; most of what remains of the
            network's step is the dense convolutions."""),
        page.paragraph(f"""
            Measured on {measure.device_name(device)}, {threads(device)}, float32, in one process:
            pydl's layer and PyTorch's took turns, {min(taken)} to {max(taken)} each, and their
            medians are compared. <i>Forward</i> saves nothing for a gradient; <i>forward +
            backward</i> is what training does. Other programs on the machine disturb single
            figures; <code>bench/</code> measures with more care. {busy}"""),
        page.details("All times", page.speed_table(rows)),
    )


def _pictures(shown: Shown, album: plots.Album) -> str:
    # The loudest map of each direction of the first filters, and the loudest of the second ones.
    loud = shown.maps["relu1"].var((1, 2)).view(_MAPS, -1)
    chosen = loud.argmax(1) + loud.shape[1] * torch.arange(_MAPS)
    later = shown.maps["bn2"].var((1, 2)).topk(_MAPS).indices
    stages = {
        "relu1": ("edges of one direction each: convolution, ReLU", chosen),
        "lrn1": ("response normalisation: loud maps hold each other down", chosen),
        "pool1.max": ("the greatest of 3&times;3", chosen),
        "pool1.average": ("the mean of 3&times;3", chosen),
        "pool1.l2": ("the root of the sum of squares of 3&times;3", chosen),
        "bn2": ("convolution, batch normalisation, ReLU", later),
        "pool3": ("depthwise convolution, batch normalisation, max pool", later),
        "pool4": ("max pool again: what the GRU reads, place by place", later),
    }
    found = []
    for name, (said, which) in stages.items():
        maps = shown.maps[name]
        _, height, width = maps.shape
        limits = 0.0, maps[which].max().item()
        image = album.keep(name, thumbnails(maps[which], heat, limits=limits))
        size = f"{_MAPS} of {len(maps)} maps, {height}&times;{width}"
        found.append((image, f"<b>{name}</b> {said}; {size}"))
    scenes = [
        (album.keep(f"scene{i}", thumbnails(picture, ink)), f"{'<b>input</b> ' * (i == 0)}{said}")
        for i, (picture, said) in enumerate(zip(shown.pictures, shown.sentences, strict=True))
    ]
    return page.section(
        "What the layers make of a picture",
        page.paragraph("""
            The input is scenes of real handwritten digits. Below are maps of the first one on its
            way through the network. The first filters are given, waves in eight directions such as
            AlexNet's own first layer learns; the later weights are random, for nothing was trained
            here. Bright is a strong answer, black none or a negative one; one scale holds for the
            maps of a row."""),
        page.gallery(scenes, "9rem", fill=True),
        page.gallery(found, "21rem"),
    )


def _exactness(shown: Shown) -> str:
    return page.section(
        "Are they right?",
        page.paragraph(f"""
            The output of each layer, and its gradient by its input and by each of its weights, were
            compared with a reference that computes the definition in float64. The bound is twice
            PyTorch's own deviation in float32 plus four roundings.
            {page.checks_summary(shown.rows)}"""),
        page.details("All deviations", page.checks_table(shown.rows)),
    )
