"""Plain against residual networks by depth.

A deeper network could do whatever a shallower one does, with layers that pass on what they get; and
yet plain networks train worse beyond some depth, on the training images themselves. With shortcuts
around every two layers they do not (He, Zhang, Ren, Sun 2015, Deep Residual Learning for Image
Recognition, figure 6). The networks are the paper's for small images, with 20 to 56 layers; the
images are real digits, which takes minutes where the paper's take days.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch.utils.data import TensorDataset

from pydl import measure, models
from pydl.asked import use_backend
from pydl.data import Split, digits
from pydl.recipes.recipe import Options, Recipe, publish
from pydl.train import Epoch, Settings, fit, schedules

if TYPE_CHECKING:
    from rich.console import Console

DEPTHS = (20, 32, 44, 56)
KINDS = {"plain": False, "residual": True}
IMAGES = 600  # to learn from
EPOCHS, BATCH = 15, 64

# By the depth, the epochs of networks of one kind.
Curves = Mapping[int, Sequence[Epoch]]


def learn(depth: int, residual: bool, split: Split, options: Options) -> Sequence[Epoch]:
    """SGD with the paper's momentum and weight decay; the rate rises to 0.03 and falls to 0."""
    torch.manual_seed(options.seed)
    model = models.resnet_cifar(depth, channels=1, residual=residual).to(options.device)
    return fit(
        model,
        TensorDataset(*split.train[:IMAGES]),
        epochs=options.epochs or EPOCHS,
        held_out=split.held_out,
        schedule=schedules.cosine(warm_up=0.1),
        settings=Settings(batch=BATCH, seed=options.seed, rate=0.03, weight_decay=1e-4),
    ).epochs


def compare(options: Options, console: "Console") -> dict[str, Curves]:
    """By the kind, networks of each depth."""
    split = digits.load(options.seed, side=8)
    found: dict[str, dict[int, Sequence[Epoch]]] = {kind: {} for kind in KINDS}
    for depth in DEPTHS:
        for kind, residual in KINDS.items():
            found[kind][depth] = epochs = learn(depth, residual, split, options)
            last = epochs[-1]
            console.print(
                f"{kind}, {depth} layers: loss {last.loss:.4f}, "
                f"{100 * (last.accuracy or 0):.1f} % of the training images right, "
                f"{100 * (last.held_out_accuracy or 0):.1f} % of those held out "
                f"({last.seconds:.0f} s)",
                soft_wrap=True,
            )
    return dict(found)


def worse(by_depth: Curves) -> bool:
    """Whether the deepest network reads fewer of its training images than the shallowest, by more
    than one in a hundred."""
    shallow, deep = (by_depth[depth][-1].accuracy or 0.0 for depth in (DEPTHS[0], DEPTHS[-1]))
    return deep < shallow - 0.01


def _tiles(found: Mapping[str, Curves]) -> str:
    from pydl.visualize import page

    plain = worse(found["plain"])
    met = {"plain": (True, plain), "residual": (True, not worse(found["residual"]))}
    return page.tiles(
        [
            (
                f"{100 * (found[kind][depth][-1].accuracy or 0):.1f} %",
                f"of its training images read by a {kind} network of {depth} layers",
                good,
            )
            for kind in KINDS
            for depth, good in zip((DEPTHS[0], DEPTHS[-1]), met[kind], strict=True)
        ]
    )


def _html(found: Mapping[str, Curves], options: Options) -> str:
    from pydl.visualize import page, plots
    from pydl.visualize.curves import curves

    every = [one for by_depth in found.values() for epochs in by_depth.values() for one in epochs]
    span = 0.8 * min(one.loss for one in every), 1.25 * max(one.loss for one in every)
    album, draw = plots.Album(options.output), partial(curves, log_y=True, span=span, half=True)
    pictures = []
    for kind, by_depth in found.items():
        title = f"Training loss, {kind}"
        series = {
            f"{depth} layers": [(epoch.number, epoch.loss) for epoch in epochs]
            for depth, epochs in by_depth.items()
        }
        pictures.append(page.picture(album(kind, draw, title, "epoch", series), title))
    rows = [
        [
            f"{kind}, {depth} layers",
            f"{last.loss:.4f}",
            f"{100 * (last.accuracy or 0):.1f}",
            f"{100 * (last.held_out_accuracy or 0):.1f}",
        ]
        for depth in DEPTHS
        for kind in KINDS
        for last in found[kind][depth][-1:]
    ]
    epochs = options.epochs or EPOCHS
    steps = epochs * -(-IMAGES // BATCH)
    lead = """More layers can do all that fewer can, and yet plain networks get worse with depth at
        what they are trained on. With a shortcut around every two layers they do not."""
    parts = [
        _tiles(found),
        page.section(
            "By depth",
            page.paragraph(f"""
                The networks of He et al. for small images, of {DEPTHS[0]} to {DEPTHS[-1]} layers,
                plain and with shortcuts that have no weights of their own, so that each pair has
                the same number of them. They learned from {IMAGES} real digits of 8&times;8
                pixels, {epochs} times each, in batches of {BATCH}, with one seed. What counts here
                is the training images: a network that overfits is good at them. In {steps} steps it
                is seen who learns soon; the paper trains for 64,000 and still finds the plain
                network of 56 layers behind that of 20."""),
            page.side_by_side(*pictures),
            page.table(
                ["", "loss", "right, %", "held out, %"],
                rows,
                numbers=(1, 2, 3),
            ),
        ),
    ]
    versions = measure.versions(torch.device(options.device))
    return page.page("Plain and residual networks by depth", lead, parts, versions)


def _steps(options: Options, console: "Console") -> bool:
    with use_backend(options.backend):
        found = compare(options, console)
    publish(_html(found, options), options, console)
    return worse(found["plain"]) and not worse(found["residual"])


RECIPE = Recipe(
    "depth",
    f"a plain network of {DEPTHS[-1]} layers learns its training images worse than one of "
    f"{DEPTHS[0]}, a residual one does not",
    ("sklearn", "matplotlib"),
    _steps,
)
