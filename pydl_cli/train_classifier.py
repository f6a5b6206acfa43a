"""``pydl train NAME``: a classifier on images of one's own."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from torch import nn

    from pydl.data import Split
    from pydl.models import Model
    from pydl.train import augment as augmenting
    from pydl.train.schedules import Schedule

COMMAND = "NAME"


class NetworkOrCommand(TyperGroup):
    """A group of commands in which what is no command's name is a network's."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = [COMMAND, *args]
        return super().resolve_command(ctx, args)


class Rate(str, Enum):
    """How the learning rate changes."""

    constant = "constant"
    step = "step"
    cosine = "cosine"
    one_cycle = "one-cycle"
    slanted_triangle = "slanted-triangle"


class Change(str, Enum):
    """What becomes of images at random."""

    flip = "flip"
    crop = "crop"
    shift = "shift"
    turn = "turn"
    colour = "colour"
    grey = "grey"


class Low(str, Enum):
    """What operators compute in under autocast."""

    bfloat16 = "bfloat16"
    float16 = "float16"


def train(
    name: Annotated[str, typer.Argument(help="A network; `pydl summary` lists them.")],
    data: Annotated[
        str,
        typer.Option(
            help="A folder: a subfolder a class (or train and val of such), MNIST's four files, or "
            "CIFAR's binary files; or `digits`, which come with scikit-learn."
        ),
    ],
    epochs: Annotated[int, typer.Option(min=1, help="Times through the training images.")] = 10,
    batch: Annotated[int, typer.Option(min=1, help="Images of an update.")] = 32,
    rate: Annotated[float, typer.Option(min=0, help="The highest learning rate of SGD.")] = 0.01,
    schedule: Annotated[Rate, typer.Option(help="How the rate changes.")] = Rate.constant,
    augment: Annotated[
        list[Change] | None,
        typer.Option(help="Change training images at random; may be given several times."),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(help="Weights to begin with; scores of other classes begin anew."),
    ] = None,
    freeze: Annotated[
        str,
        typer.Option(
            help="What keeps its weights: backbone (all but the layers that give scores), the "
            "number of first layers with weights, or none."
        ),
    ] = "none",
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Written after every epoch; if it exists, the run goes on from it."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="A file with a line an epoch.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Where the weights go, .safetensors or .pth; NAME.pth if not given."),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            max=2**32 - 1,
            help="Of the split, the first weights, the order and the changes of the images.",
        ),
    ] = 0,
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Lay images out channels-last.")
    ] = False,
    autocast: Annotated[Low | None, typer.Option(help="Compute in fewer bits.")] = None,
) -> None:
    """Train a classifier on images of your own, and write its weights.

    Images are scaled to the network's input, grey ones repeated for its channels.
    """
    import torch
    from rich.console import Console
    from torch.utils.data import DataLoader

    from pydl import functional, models
    from pydl.data.fitted import Fitted
    from pydl.train import Csv, Settings, fit, transfer, with_heads
    from pydl_cli import weights

    model = models.find(name)
    output = output or Path(f"{name}.pth")
    weights.check(output)  # before the training, so that none is wasted
    model.check_classifier()
    split = _load(data, model, seed)
    shape = _shape(model, split)
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{len(split.train):,} images to learn from, {len(split.held_out):,} held out, "
        f"{len(split.classes)} classes. {split.source}."
    )
    torch.manual_seed(seed)
    network = model.for_classes(len(split.classes))
    if init is not None:
        state, left = transfer.fitting(network, weights.read(init)[0], len(split.classes))
        weights.load(network, state, init)
        if left:
            console.print(f"Not taken from {init}, of other classes: {', '.join(left)}")
    frozen = _freeze(network, freeze, len(split.classes))
    if frozen:
        console.print(f"{frozen:,} of {transfer.count(network):,} weights stay as they are")
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    fitted = Fitted(shape)
    order = torch.Generator().manual_seed(seed)
    fit(
        network,
        DataLoader(split.train, batch, shuffle=True, generator=order, collate_fn=fitted),
        epochs=epochs,
        held_out=DataLoader(split.held_out, max(batch, 64), collate_fn=fitted),
        schedule=_schedule(schedule, epochs),
        loss=with_heads(functional.cross_entropy),
        augment=_changes(augment or [], shape),
        settings=Settings(
            batch=batch,
            seed=seed,
            rate=rate,
            autocast=None if autocast is None else getattr(torch, autocast.value),
            channels_last=channels_last,
        ),
        checkpoint=checkpoint,
        logs=() if csv is None else (Csv(csv),),
        on_epoch=lambda epoch: console.print(
            f"epoch {epoch.number}: loss {epoch.loss:.4f}, held out {epoch.held_out_loss:.4f}; "
            f"{100 * (epoch.held_out_accuracy or 0):.2f} % of the held-out images right"
        ),
    )
    about = weights.About(name, split.classes, shape, split.mean, split.deviation)
    weights.write(network, output, about)
    console.print(f"Weights are in {output}")


def _load(data: str, model: "Model", seed: int) -> "Split":
    """The images, whatever they lie in.

    Raises:
        ValueError: nothing that is known lies there.
        FileNotFoundError: there is no such folder.
    """
    from pydl.data import cifar, digits, folder, idx

    if data == "digits":
        return digits.load(seed)
    path = Path(data)
    if not path.is_dir():
        raise FileNotFoundError(f"--data must be a folder or digits, and {path} is neither")
    if any(path.glob("train-images*idx3-ubyte*")):
        return idx.load(path)
    if (path / "data_batch_1.bin").is_file():
        return cifar.cifar10(path)
    if (path / "train.bin").is_file() and (path / "fine_label_names.txt").is_file():
        return cifar.cifar100(path)
    side = min(model.input[1:])
    held_out = [path / part for part in ("val", "valid", "test") if (path / part).is_dir()]
    if (path / "train").is_dir() and held_out:
        return folder.load(path / "train", held_out=held_out[0], size=side, channels=model.input[0])
    if not any(part.is_dir() and not part.name.startswith(".") for part in path.iterdir()):
        raise ValueError(
            f"{path} holds neither a subfolder of images a class, nor train-images-idx3-ubyte and "
            "its three fellows, nor CIFAR's data_batch_1.bin or train.bin"
        )
    return folder.load(path, seed, size=side, channels=model.input[0])


def _shape(model: "Model", split: "Split") -> tuple[int, ...]:
    """What the images are made: the small input of the network where they are no larger and it can
    be trained on that, otherwise its own.

    Raises:
        ValueError: the images have other channels, which are not one.
    """
    import torch

    from pydl.models.meta import hollow

    channels, *size = split.train[0][0].shape
    if channels not in (1, model.input[0]):
        raise ValueError(
            f"{model.name} takes {model.input[0]} channel{'s' * (model.input[0] > 1)}, "
            f"and these images have {channels}"
        )
    if model.small is None or max(size) > min(model.small[1:]):
        return model.input
    try:  # auxiliary heads may ask for more
        with torch.no_grad():
            hollow(model.build).train()(torch.zeros(2, *model.small, device="meta"))
    except (RuntimeError, ValueError):
        return model.input
    return model.small


def _freeze(network: "nn.Module", what: str, classes: int) -> int:
    """Fixes layers; returns how many weights that are.

    Raises:
        ValueError: ``what`` is not understood, or nothing would be left to learn.
    """
    from pydl.train import transfer

    if what == "none":
        return 0
    layers = list(transfer.weighted(network).values())
    if what == "backbone":
        fixed = transfer.backbone(network, classes)
    elif what.isdecimal():
        fixed = layers[: int(what)]
    else:
        raise ValueError(f"--freeze must be backbone, a number of layers or none, got {what!r}")
    if len(fixed) == len(layers):
        raise ValueError(f"--freeze {what} would leave nothing to learn: there are {len(layers)}")
    return transfer.freeze(fixed)


def _schedule(rate: Rate, epochs: int) -> "Schedule":
    from pydl.train import schedules

    if rate is Rate.step:
        return schedules.step(max(1, epochs // 3))
    named = {
        Rate.constant: schedules.constant,
        Rate.cosine: schedules.cosine,
        Rate.one_cycle: schedules.one_cycle,
        Rate.slanted_triangle: schedules.slanted_triangle,
    }
    return named[rate]()


def _changes(names: list[Change], shape: tuple[int, ...]) -> "augmenting.Augmentation | None":
    from pydl.train import augment as augmenting

    size = shape[1], shape[2]
    named: dict[Change, augmenting.Augmentation] = {
        Change.flip: augmenting.HorizontalFlip(),
        Change.crop: augmenting.Crop(size, padding=max(1, min(size) // 8)),
        Change.shift: augmenting.Translation(),
        Change.turn: augmenting.Rotation(),
        Change.colour: augmenting.ColourJitter(),
        Change.grey: augmenting.Grey(),
    }
    return augmenting.Compose(*(named[name] for name in names)) if names else None
