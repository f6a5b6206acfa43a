"""``pydl predict``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import torch

    from pydl.models import Model
    from pydl_cli.weights import About

# Of ImageNet's red, green and blue, which published weights were trained on; and how much larger
# than what they see images are scaled before they are cut out.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LARGER = 256 / 224


def predict(
    name: Annotated[str, typer.Argument(help="A network; `pydl summary` lists them.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    weights: Annotated[
        Path, typer.Option(help="The network's weights, .safetensors or .pth (a state_dict).")
    ],
    labels: Annotated[
        Path | None,
        typer.Option(help="A file with a class a line, if the weights do not name them."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Classes shown of an image.")] = 5,
) -> None:
    """Say what images show: the likeliest classes, with their probabilities.

    Weights of `pydl train` say how images are scaled. Of others they are scaled as torchvision does
    it for its own: the middle is cut out, and ImageNet's mean and deviation are taken.
    """
    import torch
    from rich.console import Console
    from rich.table import Table

    from pydl import models
    from pydl.data.extras import require
    from pydl_cli import weights as files

    require("PIL")
    model = models.find(name)
    if len(model.input) != 3:
        raise ValueError(f"{name} takes no images: it is {model.about}")
    state, about = files.read(weights)
    if about is not None and about.model != name:
        raise ValueError(f"{weights} has the weights of {about.model}, not of {name}")
    classes = files.classes_of(model, state)
    network = (model.build() if classes is None else model.for_classes(classes)).eval()
    files.load(network, state, weights)
    pixels = [_read(file, model, about) for file in images]  # all, before the first is looked at
    names = _names(labels, about)
    table = Table("image", "class", "probability")
    with torch.no_grad():
        for file, one in zip(images, pixels, strict=True):
            probabilities = network(one[None]).softmax(1)[0]
            if names is not None and len(names) != len(probabilities):
                raise ValueError(
                    f"{len(names)} names of classes do not fit {len(probabilities)} scores"
                )
            found = probabilities.topk(min(top, len(probabilities)))
            for place, (value, label) in enumerate(
                zip(found.values.tolist(), found.indices.tolist(), strict=True)
            ):
                said = str(label) if names is None else names[label]
                table.add_row("" if place else str(file), said, f"{100 * value:.2f} %")
    Console(highlight=False).print(table)


def _names(labels: Path | None, about: "About | None") -> tuple[str, ...] | None:
    if labels is not None:
        return tuple(
            line.strip() for line in labels.read_text("utf-8").splitlines() if line.strip()
        )
    return None if about is None else about.classes


def _read(file: Path, model: "Model", about: "About | None") -> "torch.Tensor":
    """[C, H, W], as the network wants it.

    Raises:
        OSError: there is no such file, or it is no image.
    """
    import numpy as np
    import PIL.Image
    import PIL.ImageOps
    import torch

    channels, height, width = model.input if about is None else about.input
    mean, deviation = (about.mean, about.deviation) if about else (_MEAN, _DEVIATION)
    if about is None and channels == 1:
        mean, deviation = (0.5,), (0.5,)
    try:
        with PIL.Image.open(file) as opened:
            picture = PIL.ImageOps.exif_transpose(opened)  # as the camera was held
            picture = picture.convert("RGB" if len(mean) == 3 else "L")
    except (OSError, SyntaxError) as error:  # what its decoders raise
        raise OSError(f"{file} cannot be read as an image ({error})") from error
    larger = 1.0 if about else _LARGER
    size = round(width * larger), round(height * larger)
    picture = PIL.ImageOps.fit(picture, size, PIL.Image.Resampling.BILINEAR)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    picture = picture.crop((left, top, left + width, top + height))
    pixels = torch.from_numpy(np.array(picture, np.float32)).div(255).view(height, width, len(mean))
    scaled = (pixels - torch.tensor(mean)) / torch.tensor(deviation)
    return scaled.permute(2, 0, 1).expand(channels, -1, -1).contiguous()
