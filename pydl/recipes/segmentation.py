"""What the recipes for segmentation share: a small U-Net, its training, and the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import torch

from pydl import measure, nn
from pydl.data import Split
from pydl.data.masks import Colour
from pydl.models.segmentation.unet import UNet
from pydl.recipes.recipe import Options, publish
from pydl.train import Confusion, Epoch, History, Settings, evaluate, fit, schedules

if TYPE_CHECKING:
    from rich.console import Console

_RATE = 4e-3
_BATCH = 8
_SHOWN = 6  # pictures on the page


def network(split: Split) -> UNet:
    """A padded U-Net with batch normalisation, a quarter as wide as the paper's, three pools."""
    channels = split.train.tensors[0].shape[1]
    return UNet(channels, len(split.classes), padded=True, maps=16, depth=3, norm=True, dropout=0.0)


def train(
    model: nn.Module, split: Split, *, epochs: int, seed: int, console: "Console | None" = None
) -> History:
    """Adam with decoupled weight decay, a rate that rises and falls; the loss is the cross entropy,
    averaged over the pixels of a batch. The held-out pictures decide nothing."""

    def say(epoch: Epoch) -> None:
        if console is not None:
            console.print(
                f"epoch {epoch.number}: loss {epoch.loss:.4f}, "
                f"{100 * (epoch.accuracy or 0):.1f} % of the pixels right, {epoch.seconds:.0f} s",
                soft_wrap=True,
            )

    return fit(
        model,
        split.train,
        epochs=epochs,
        optimizer=torch.optim.AdamW(model.parameters(), _RATE, weight_decay=1e-4),
        schedule=schedules.one_cycle(warm_up=0.2),
        settings=Settings(batch=_BATCH, seed=seed, channels_last=True),
        on_epoch=say,
    )


def commonest(split: Split) -> Confusion:
    """The baseline: every held-out pixel is taken for the class that most training pixels have, for
    scenes the background."""
    labels = split.train.tensors[1]
    classes = len(split.classes)
    most = torch.bincount(labels[labels >= 0], minlength=classes).argmax()
    found = Confusion(classes)
    truth = split.held_out.tensors[1]
    scores = nn.functional.one_hot(most, classes).view(1, classes, 1, 1)
    found.update(scores.expand(len(truth), -1, *truth.shape[1:]), truth)
    return found


@dataclass(frozen=True)
class Result:
    """What a run found."""

    model: nn.Module
    split: Split
    colours: Sequence[Colour]
    seconds: float  # of training
    confusion: Confusion  # of the held-out pictures
    baseline: Confusion
    target: float | None  # of the mean Jaccard index
    names: Sequence[str]  # of the held-out pictures, where they have any


def learn(
    split: Split,
    colours: Sequence[Colour],
    options: Options,
    console: "Console",
    *,
    epochs: int,
    target: float | None,
    names: Sequence[str] = (),
) -> Result:
    """Trains a fresh network, holds it to the baseline, and says on a console what comes of it."""
    console.print(
        f"{len(split.train):,} pictures to learn from, {len(split.held_out):,} held out, "
        f"{len(split.classes)} classes of pixels. {split.source}.",
        soft_wrap=True,
    )
    torch.manual_seed(options.seed)
    model = network(split).to(options.device)
    history = train(
        model, split, epochs=options.epochs or epochs, seed=options.seed, console=console
    )
    found = evaluate(model, split.held_out, batch=32)
    assert found.confusion is not None
    made = Result(
        model,
        split,
        colours,
        history.epochs[-1].seconds,
        found.confusion,
        commonest(split),
        target,
        names,
    )
    for name, one in (("the network", made.confusion), ("the commonest class", made.baseline)):
        console.print(
            f"{name}: mean IoU {one.mean_jaccard:.3f}, {100 * one.accuracy:.1f} % of the pixels "
            f"right, {100 * one.mean_accuracy:.1f} % in the mean of classes",
            soft_wrap=True,
        )
    return made


def parts(made: Result, options: Options) -> list[str]:
    """What the page shows; the pictures lie beside it as files."""
    from pydl.visualize import page, shares  # which import matplotlib

    images = made.split.held_out.tensors[0][:_SHOWN].to(options.device)
    time = page.where_time_goes(shares.of_layers(made.model, images), "these pictures")
    return [_tiles(made), _pictures(made, options), _classes(made), time]


def _tiles(made: Result) -> str:
    from pydl.visualize import page

    ours, theirs = made.confusion, made.baseline
    target = "" if made.target is None else f"; the target is {made.target:g}"
    return page.tiles(
        [
            (
                f"{ours.mean_jaccard:.3f}",
                f"mean Jaccard index (IoU) of {len(made.split.held_out):,} held-out "
                f"pictures{target}",
                made.target is None or ours.mean_jaccard > made.target,
            ),
            (
                f"{theirs.mean_jaccard:.3f}",
                "mean Jaccard index where every pixel is taken for the commonest class",
                True,
            ),
            (f"{100 * ours.accuracy:.1f} %", "of their pixels right", True),
            (
                f"{made.seconds:.0f} s",
                f"of training on {len(made.split.train):,} pictures",
                True,
            ),
        ]
    )


def _pictures(made: Result, options: Options) -> str:
    from pydl.visualize import page, plots
    from pydl.visualize.segmentation import segmented

    images, truth = (tensor[:_SHOWN] for tensor in made.split.held_out.tensors)
    found = read(made.model, made.split)[:_SHOWN]
    mean, deviation = (
        torch.tensor(numbers).view(-1, 1, 1) for numbers in (made.split.mean, made.split.deviation)
    )
    seen = (images * deviation + mean).clamp(0, 1)
    album, pictures = plots.Album(options.output), []
    for number, (image, right, took) in enumerate(zip(seen, truth, found, strict=True), 1):
        part = (right == took)[right >= 0].double().mean().item()
        picture = album.keep(f"segmented{number}", segmented(image, right, took, made.colours))
        name = f"<b>{escape(made.names[number - 1])}</b>: " if made.names else ""
        pictures.append((picture, f"{name}{100 * part:.1f} % of its pixels read right"))
    void = "What is grey there does not count." if (truth < 0).any() else ""
    return page.section(
        "Held-out pictures",
        page.paragraph(f"""
            From left to right: the picture, what its pixels are, what the network takes them for,
            and where the two differ. {void}"""),
        page.gallery(pictures, "22rem"),
    )


def _classes(made: Result) -> str:
    from pydl.visualize import page

    ours, theirs = made.confusion, made.baseline
    pixels = ours.matrix.sum(1)
    rows = []
    for number, (name, colour) in enumerate(zip(made.split.classes, made.colours, strict=True)):
        swatch = f'<span style="color: rgb{tuple(colour)}">&#9632;</span>'
        figures = (ours.recall, ours.jaccard, theirs.jaccard)
        rows.append(
            [
                f"{swatch} {escape(name)}",
                f"{int(pixels[number]):,}",
                *(_said(one[number].item()) for one in figures),
            ]
        )
    means = [ours.mean_accuracy, ours.mean_jaccard, theirs.mean_jaccard]
    rows.append(["mean of the classes", f"{int(pixels.sum()):,}", *map(_said, means)])
    weighted = [ours.frequency_weighted_jaccard, theirs.frequency_weighted_jaccard]
    rows.append(["weighted by pixels", "", _said(ours.accuracy), *map(_said, weighted)])
    return page.section(
        "By class",
        page.paragraph("""
            Of the held-out pixels of each class: which part was read right (accuracy), and how many
            there are that are of the class and were read as it, of all that are either (Jaccard
            index, IoU). A class that occurs nowhere has none. Baseline: the Jaccard index where
            every pixel is taken for the commonest class."""),
        page.table(
            ["class", "pixels", "accuracy", "Jaccard index", "baseline"], rows, numbers=(1, 2, 3, 4)
        ),
    )


def _said(figure: float) -> str:
    return "" if figure != figure else f"{figure:.3f}"


def read(model: nn.Module, split: Split) -> torch.Tensor:
    """The classes that the network takes the pixels of the held-out pictures for: (N, H, W)."""
    images = split.held_out.tensors[0]
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        return torch.cat([model(some.to(device)).argmax(1).cpu() for some in images.split(32)])


def write(title: str, lead: str, made: Result, options: Options, console: "Console") -> None:
    """The page; ``lead`` is HTML."""
    from pydl.visualize import page

    versions = measure.versions(torch.device(options.device))
    publish(page.page(title, lead, parts(made, options), versions), options, console)
