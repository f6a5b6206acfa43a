"""The page of the recipe ``classifiers``."""

from collections.abc import Mapping, Sequence
from html import escape

import torch

from pydl import measure
from pydl.recipes.classifiers_file import BASELINE, FACTOR, FIRST, TARGET, Curves, Row
from pydl.recipes.recipe import Options
from pydl.visualize import page, plots
from pydl.visualize.curves import overlaid


def html(rows: Sequence[Row], curves: Mapping[str, Curves], options: Options) -> str:
    """The page; its plot goes to ``options.output`` as a file as well."""
    parts = [_tiles(rows), _learned(rows), _curves(rows, curves, options), _served(rows)]
    lead = """Thirty years of networks learn the same task on this machine: to read handwritten
        digits. Each is trained beside a twin, the same network made of PyTorch's own layers."""
    return page.page("Classifiers", lead, parts, measure.versions(torch.device(options.device)))


def _tiles(rows: Sequence[Row]) -> str:
    good = sum(row.accuracy >= TARGET for row in rows)
    alike = sum(row.alike for row in rows)
    fastest = max(rows, key=lambda row: row.ratio)
    slowest = min(rows, key=lambda row: row.ratio)
    return page.tiles(
        [
            (
                f"{good} of {len(rows)}",
                f"networks read {100 * TARGET:.0f} % of the held-out digits or more; a linear "
                f"classifier reads {100 * rows[0].accuracy_baseline:.1f} %",
                good == len(rows),
            ),
            (
                f"{alike} of {len(rows)}",
                f"begin as their twins do: the first {FIRST} losses are as right as the twin's, "
                "within what rounding explains",
                alike == len(rows),
            ),
            (
                f"{fastest.ratio:.2f}&times;",
                f"as fast as its twin is a step of {escape(fastest.network)}, the best",
                True,
            ),
            (
                f"{slowest.ratio:.2f}&times;",
                f"as fast is one of {escape(slowest.network)}, the slowest beside its twin",
                slowest.ratio >= 0.95,
            ),
        ]
    )


def _learned(rows: Sequence[Row]) -> str:
    def accuracy(value: float) -> str:
        return f'<span class="{"ok" if value >= TARGET else "bad"}">{100 * value:.1f}</span>'

    cells = [
        [
            f"<code>{escape(row.network)}</code>",
            f"{row.pixels}&times;{row.pixels}",
            str(row.epochs),
            str(row.steps),
            accuracy(row.accuracy),
            accuracy(row.accuracy_twin),
            f"{row.error:.0e}",
            f"{row.error_twin:.0e}",
            f"{row.times:.1f}",
            f"{row.seconds:.0f}",
        ]
        for row in rows
    ]
    head = [
        "network",
        "images",
        "epochs",
        "steps",
        "held out, %",
        "its twin, %",
        "error",
        "its twin's",
    ]
    baseline = 100 * rows[0].accuracy_baseline
    return page.section(
        "What they learned",
        page.paragraph(f"""
            The 1,797 digits that come with scikit-learn, a fifth of each held out. For comparison,
            {BASELINE} on the 64 numbers of a digit reads {baseline:.1f} % of the held-out ones.
            Network and twin begin with the same weights and see the same images in the same order,
            32 at a time. <i>Error</i> is the largest of their first {FIRST} losses, relative to the
            same training in float64: both compute in float32 and round differently, and training
            makes more of it from step to step. In each of these steps ours may be {FACTOR} times as
            far off as the twin's; <i>times</i> is the worst. The last column is the processor's
            time for the network's own training."""),
        page.table([*head, "error", "its twin's", "times", "seconds"], cells, numbers=range(2, 10)),
    )


def _curves(rows: Sequence[Row], curves: Mapping[str, Curves], options: Options) -> str:
    series = {
        f"{row.network}: {100 * row.accuracy:.1f} %": (
            curves[row.network].ours,
            curves[row.network].twin,
        )
        for row in rows
    }
    title = "Loss of each step"
    image = plots.Album(options.output)("classifiers", overlaid, ("pydl", "its twin"), series)
    return page.section(
        "The same curves",
        page.paragraph("""
            The loss of each batch, before the step that learns from it; the twin's lies on top,
            thin. They part when rounding has been made much of; where only one line is to be seen,
            there are two."""),
        page.picture(image, title),
    )


def _served(rows: Sequence[Row]) -> str:
    def ratio(row: Row) -> str:
        kind = "win" if row.ratio >= 1.05 else "lose" if row.ratio < 0.95 else ""
        return f'<span class="{kind}">{row.ratio:.2f}&times;</span>'

    cells = [
        [
            f"<code>{escape(row.network)}</code>",
            f"{row.step_ms:.1f}",
            f"{row.step_ms_twin:.1f}",
            ratio(row),
            f"{100 * row.share:.1f} %",
            escape(row.served) or "none",
        ]
        for row in rows
    ]
    head = [
        "network",
        "pydl, ms",
        "its twin, ms",
        "ratio",
        "ours",
        "which: share (calls of a step)",
    ]
    loads, facts = [row.load for row in rows], rows[0].facts
    return page.section(
        "Who computed, and how fast",
        page.paragraph(f"""
            A step of training: forward, loss, all gradients, optimiser, on 32 images. Medians of
            steps of the network and its twin in turns, {escape(facts["threads"])} thread(s) of
            {escape(facts["device"])}; of one thread the processor's time. The machine's load was
            {min(loads):.1f} to {max(loads):.1f} meanwhile, on {escape(facts["cores"])} cores: above
            1 other programs ran too. <i>Ours</i> is the part of a
            step's time that this package's own kernels take, forward and backward, as the profiler
            saw it. The rest is PyTorch's: dense convolutions and fully connected layers first of
            all, which on a CPU it computes for both, so that where there is little else both are as
            fast."""),
        page.table(head, cells, numbers=(1, 2, 3, 4)),
    )
