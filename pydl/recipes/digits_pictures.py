"""The sections with pictures of the recipe ``digits``: what the network confuses, looks
for, sees."""

from collections.abc import Sequence

import torch
from torch import nn

from pydl import visualize
from pydl.train import Confusion
from pydl.visualize import page, plots
from pydl.visualize.thumbnails import heat, ink, own_scale, signed, thumbnails

_SHOWN = 24  # misread digits at most


def confusion(
    album: plots.Album, classes: Sequence[str], labels: torch.Tensor, probabilities: torch.Tensor
) -> str:
    """Which digit was taken for which."""
    confusion = Confusion(10)
    confusion.update(probabilities, labels)
    counts = confusion.matrix
    wrong = int(counts.sum() - counts.trace())
    said = (
        "No digit is off the diagonal."
        if not wrong
        else f"Off the diagonal (orange) are the {wrong} it misread."
    )
    return page.section(
        "Which digits are taken for which",
        page.paragraph(
            f"Each row is a digit as it was written, each column what the network read. {said}"
        ),
        page.picture(
            album("confusion_matrix", plots.confusion_matrix, counts, classes),
            "Confusion matrix",
            narrow=True,
        ),
    )


def misread(images: torch.Tensor, labels: torch.Tensor, probabilities: torch.Tensor) -> str:
    """The digits that were taken for others."""
    wrong = (probabilities.argmax(1) != labels).nonzero().flatten()
    if len(wrong):
        shown = wrong[:_SHOWN]
        title = "Misread digits"
        said = (
            f"All {len(wrong)} digits"
            if len(wrong) <= _SHOWN
            else f"The first {_SHOWN} of {len(wrong)} digits"
        )
        said += (
            " that the network got wrong, as it saw them: what 8&times;8 pixels keep of a stroke."
        )
    else:
        shown = probabilities.max(1).values.argsort()[:8]
        title = "The hardest digits"
        said = "No held-out digit was misread. These are the ones the network was least sure of."

    def caption(i: int) -> str:
        sure, read = probabilities[i].max(0)
        verdict = "win" if read == labels[i] else "lose"
        said = f'<b>{labels[i].item()}</b> read as <span class="{verdict}">{read.item()}</span>'
        return f"{said}<br>{100 * sure.item():.0f} % sure"

    digits = [(thumbnails(images[i], ink), caption(i)) for i in shown.tolist()]
    return page.section(title, page.paragraph(said), page.gallery(digits))


def filters(album: plots.Album, model: nn.Module) -> str:
    """The first layer's."""
    weight = model.get_parameter("conv1.weight").detach()[:, 0]
    most = weight.abs().max().item()
    image = album.keep("filters", thumbnails(weight, signed, limits=(-most, most)))
    return page.section(
        "What the first layer looks for",
        page.paragraph("""
            The six filters of the first convolution, 5&times;5 weights each, as they were learned:
            blue weights add ink, orange ones subtract it. A filter answers where the picture looks
            like it: an edge, a stroke in some direction, a corner."""),
        page.gallery([(image, f"one scale for all: full colour is {most:.1f}, none is 0")], "100%"),
    )


def activations(
    album: plots.Album,
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    probabilities: torch.Tensor,
) -> str:
    """What both convolutions make of a digit."""
    right = (probabilities.argmax(1) == labels).nonzero().flatten()
    i = int(right[0]) if len(right) else 0
    seen = visualize.activations(model, images[i : i + 1], "act1", "act2")
    first, second = seen["act1"][0], seen["act2"][0]
    shown = [
        (album.keep("digit", thumbnails(images[i], ink)), "<b>input</b> 32&times;32 pixels"),
        (
            album.keep("act1", thumbnails(own_scale(first), heat, columns=3)),
            "<b>after conv1</b> 6 maps of 28&times;28",
        ),
        (
            album.keep("act2", thumbnails(own_scale(second), heat, columns=4)),
            "<b>after conv2</b> 16 maps of 10&times;10",
        ),
    ]
    return page.section(
        "What the layers see in a digit",
        page.paragraph(f"""
            A held-out {labels[i].item()} on its way through the network, after each convolution and
            its ReLU, which sets negative answers to zero. Bright is a strong answer, black none;
            each map has its own scale. The first maps still look like the digit; the second ones,
            made from all six of the first and coarser, say where its parts are."""),
        page.gallery(shown, "13rem"),
    )
