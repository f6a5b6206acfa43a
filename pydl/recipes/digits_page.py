"""The page of the recipe ``digits``: what was learned, whether the operators are right, how fast
they are; its plots lie beside it as files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pydl import measure
from pydl.backends import BACKENDS
from pydl.data import Split
from pydl.models.summary import LayerRow
from pydl.train import Confusion, Epoch
from pydl.visualize import activations, page, plots
from pydl.visualize.operators import OperatorRow

_SHOWN = 24  # misread digits at most


@dataclass(frozen=True)
class Results:
    """What a run of the recipe found."""

    model: nn.Module
    digits: Split
    epochs: Sequence[Epoch]
    operators: Sequence[OperatorRow]
    served: Mapping[str, str]  # by layer, the backend
    layers: Sequence[LayerRow]
    target: float  # of the held-out accuracy
    backend: str  # asked for; "auto" where none was
    seed: int
    device: torch.device


def write(results: Results, folder: Path) -> Path:
    """Write ``index.html`` and the PNGs into ``folder``, which is made where it is missing.

    Returns:
        The page's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    album = plots.Album(folder)
    model = results.model.cpu()
    images, labels = results.digits.held_out.tensors
    probabilities = _predict(model, images)
    parts = [
        _tiles(results, len(images)),
        _network(results),
        _learning(results, album, len(images)),
        _confusion(results, album, labels, probabilities),
        _misread(album, images, labels, probabilities),
        _filters(album, model),
        _activations(album, model, images, labels, probabilities),
        _exactness(results),
        _speed(results, album),
    ]
    lead = """A small convolutional network learned to read handwritten digits on this machine a
        moment ago. This page shows what it learned, whether its operators compute correctly, and
        how fast they are."""
    html = page.page("LeNet-5 reads handwriting", lead, parts, measure.versions(results.device))
    target = folder / "index.html"
    target.write_text(html, encoding="utf-8")
    return target


@torch.no_grad()
def _predict(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Probabilities (N, classes)."""
    model.eval()
    return torch.cat([model(batch) for batch in images.split(256)]).softmax(1)


def _threads(results: Results) -> str:
    if results.device.type == "cuda":
        return "a GPU"
    count = torch.get_num_threads()
    return "one CPU thread" if count == 1 else f"{count} CPU threads"


def _tiles(results: Results, held_out: int) -> str:
    last = results.epochs[-1]
    accuracy = last.held_out_accuracy or 0.0
    right = round(accuracy * held_out)
    passed = sum(row.passed for row in results.operators)
    parameters = sum(row.parameters for row in results.layers)
    return page.tiles(
        [
            (
                f"{100 * accuracy:.1f} %",
                f"of {held_out} held-out digits read correctly ({right}); "
                f"the target is {100 * results.target:.0f} %",
                accuracy >= results.target,
            ),
            (
                f"{last.seconds:.1f} s",
                f"of training: {len(results.epochs)} epochs on {_threads(results)}",
                True,
            ),
            (f"{parameters:,}", "numbers learned: weights and biases", True),
            (
                f"{passed} of {len(results.operators)}",
                "operators agree with the float64 reference, gradients too",
                passed == len(results.operators),
            ),
        ]
    )


def _network(results: Results) -> str:
    def who_served(layer: str) -> str:
        backend = results.served.get(layer)
        if backend is None:
            return "PyTorch, torch.nn"
        if backend == "aten":
            return "PyTorch, called by pydl"
        about = f"{BACKENDS[backend].about} " if backend in BACKENDS else ""
        return f"pydl, {about}(<code>{backend}</code>)"

    rows = [
        [
            row.name,
            f"<code>{row.kind}</code>",
            "&times;".join(map(str, row.output_shape[1:])),
            f"{row.parameters:,}" if row.parameters else "",
            f"{row.multiply_adds:,}" if row.multiply_adds else "",
            who_served(row.name),
        ]
        for row in results.layers
    ]
    who = f"the backend <code>{results.backend}</code> was asked for."
    if results.backend == "auto":
        who = """a table made from measurements decides who serves an operator on this device, and
            where that is PyTorch's own, as for dense convolutions on a CPU, PyTorch is called."""
    return page.section(
        "The network",
        page.paragraph(f"""
            LeNet-5 (LeCun, Bottou, Bengio and Haffner, 1998; here with max pooling and ReLU) looks
            at a picture of 32&times;32 pixels. Two <b>convolutions</b> slide small filters over it
            and note where each one matches; after each, a <b>pool</b> keeps the strongest answer of
            every 2&times;2 patch; three fully connected layers turn what remains into ten scores,
            one per digit. The last column says whose code computed each layer: {who}"""),
        page.table(
            ["layer", "kind", "output", "parameters", "multiply-adds", "computed by"],
            rows,
            numbers=(3, 4),
        ),
    )


def _learning(results: Results, album: plots.Album, held_out: int) -> str:
    image = album("learning_curve", plots.learning_curve, results.epochs, results.target)
    return page.section(
        "Learning",
        page.paragraph(f"""
            The 1,797 digits come with scikit-learn: 8&times;8 pixels each, scaled up to
            32&times;32. A fifth of every digit, {held_out} images in all, was set aside and only
            used to count errors; the network never learned from them. (The same 13 people wrote
            both parts, so this says nothing about an unknown hand.) The others were shown in
            batches of 32, each turned, moved and scaled a little at random. They are counted in
            this distorted form and while the network still changes, so their curve starts lower.
            Seed {results.seed}."""),
        page.picture(image, "Loss and accuracy by epoch"),
    )


def _confusion(
    results: Results, album: plots.Album, labels: torch.Tensor, probabilities: torch.Tensor
) -> str:
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
            album("confusion_matrix", plots.confusion_matrix, counts, results.digits.classes),
            "Confusion matrix",
            narrow=True,
        ),
    )


def _misread(
    album: plots.Album, images: torch.Tensor, labels: torch.Tensor, probabilities: torch.Tensor
) -> str:
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
    image = album(
        "misread", plots.read_digits, images[shown, 0], labels[shown], probabilities[shown]
    )
    return page.section(title, page.paragraph(said), page.picture(image, title))


def _filters(album: plots.Album, model: nn.Module) -> str:
    image = album("filters", plots.filters, model.get_parameter("conv1.weight").detach())
    return page.section(
        "What the first layer looks for",
        page.paragraph("""
            The six filters of the first convolution, 5&times;5 weights each, as they were learned:
            blue weights add ink, orange ones subtract it. A filter answers where the picture looks
            like it: an edge, a stroke in some direction, a corner."""),
        page.picture(image, "Six filters of 5 by 5 weights"),
    )


def _activations(
    album: plots.Album,
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    probabilities: torch.Tensor,
) -> str:
    right = (probabilities.argmax(1) == labels).nonzero().flatten()
    i = int(right[0]) if len(right) else 0
    seen = activations(model, images[i : i + 1], "act1", "act2")
    maps = {"after conv1": seen["act1"][0], "after conv2": seen["act2"][0]}
    image = album("activations", plots.activations, images[i, 0], maps)
    return page.section(
        "What the layers see in a digit",
        page.paragraph(f"""
            A held-out {labels[i].item()} on its way through the network, after each convolution and
            its ReLU, which sets negative answers to zero. Bright is a strong answer, black none;
            each map has its own scale. The first maps still look like the digit; the second ones,
            made from all six of the first and coarser, say where its parts are."""),
        page.picture(image, "Activations of both convolutions"),
    )


def _exactness(results: Results) -> str:
    return page.section(
        "Are the operators right?",
        page.paragraph("""
            Each operator the network calls was run once more on a batch of real digits, forward and
            backward, and compared with a reference that computes the definition in float64. The
            figures are the largest deviations, relative to the largest value. The bound is twice
            PyTorch's own deviation in float32 plus four roundings; the first layer's gradient with
            respect to the image is checked although training does not need it."""),
        page.checks_table(results.operators),
    )


def _speed(results: Results, album: plots.Album) -> str:
    image = album("speed", plots.speed, results.operators)
    return page.section(
        "How fast are they?",
        page.paragraph(f"""
            The same calls, pydl's and stock PyTorch's in turns in one process on
            {measure.device_name(results.device)} ({_threads(results)}), medians. <i>Copies</i> is
            pydl's time in units of one copy of the layer's input. Where PyTorch's own operator
            serves, both columns run the same code and the ratio is 1 but for noise and the cost of
            the call itself. Other programs on the machine disturb single figures;
            <code>bench/</code> measures with more care."""),
        page.picture(image, "Speed relative to PyTorch"),
        page.speed_table(results.operators),
    )
