"""The page of the recipe ``digits``: what was learned, whether the operators are right, how fast
they are; its pictures (digits_pictures.py) lie beside it as files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pydl import measure
from pydl.backends import BACKENDS
from pydl.data import Split
from pydl.models.summary import LayerRow
from pydl.recipes import digits_pictures
from pydl.train import Epoch
from pydl.visualize import page, plots
from pydl.visualize.bars import bars
from pydl.visualize.operators import OperatorRow


@dataclass(frozen=True)
class Results:
    """What a run of the recipe found."""

    model: nn.Module
    digits: Split
    epochs: Sequence[Epoch]
    baselines: Mapping[str, float]  # by the learner, its held-out accuracy
    operators: Sequence[OperatorRow]
    served: Mapping[str, str]  # by layer, the backend
    layers: Sequence[LayerRow]
    target: float  # of the held-out accuracy
    backend: str  # asked for; "auto" where none was
    seed: int
    device: torch.device

    @property
    def accuracy(self) -> float:
        """Of the held-out digits, after the last epoch."""
        return self.epochs[-1].held_out_accuracy or 0.0


def write(results: Results, folder: Path) -> Path:
    """Write ``index.html`` and the PNGs into ``folder``, which is made where it is missing.

    Returns:
        The page's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = [tiles(results), *sections(results, plots.Album(folder))]
    lead = """A small convolutional network learned to read handwritten digits on this machine a
        moment ago. This page shows what it learned, whether its operators compute correctly, and
        how fast they are."""
    html = page.page("LeNet-5 reads handwriting", lead, parts, measure.versions(results.device))
    target = folder / "index.html"
    target.write_text(html, encoding="utf-8")
    return target


def sections(results: Results, album: plots.Album) -> list[str]:
    """What there is to say and to see of a run."""
    model = results.model.cpu()
    images, labels = results.digits.held_out.tensors
    probabilities = _predict(model, images)
    return [
        _learning(results, album, len(images)),
        digits_pictures.misread(images, labels, probabilities),
        digits_pictures.confusion(album, results.digits.classes, labels, probabilities),
        _network(results),
        digits_pictures.filters(album, model),
        digits_pictures.activations(album, model, images, labels, probabilities),
        _speed(results),
        _exactness(results),
    ]


@torch.no_grad()
def _predict(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Probabilities (N, classes)."""
    model.eval()
    return torch.cat([model(batch) for batch in images.split(256)]).softmax(1)


def threads(device: torch.device) -> str:
    """What computes, in words."""
    if device.type == "cuda":
        return "a GPU"
    count = torch.get_num_threads()
    return "one CPU thread" if count == 1 else f"{count} CPU threads"


def accuracy_tile(results: Results) -> page.Tile:
    """How many of the held-out digits are read."""
    accuracy, held_out = results.accuracy, len(results.digits.held_out)
    others = ", ".join(f"{name} {100 * part:.1f} %" for name, part in results.baselines.items())
    return (
        f"{100 * accuracy:.1f} %",
        f"of {held_out} held-out digits read correctly ({round(accuracy * held_out)}); "
        f"the target is {100 * results.target:.0f} %; {others}",
        accuracy >= results.target,
    )


def tiles(results: Results) -> str:
    """The figures of a run."""
    last = results.epochs[-1]
    passed = sum(row.passed for row in results.operators)
    parameters = sum(row.parameters for row in results.layers)
    return page.tiles(
        [
            accuracy_tile(results),
            (
                f"{last.seconds:.1f} s",
                f"of training: {len(results.epochs)} epochs on {threads(results.device)}",
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
    loss = album("loss", plots.loss_curve, results.epochs)
    accuracy = album("accuracy", plots.accuracy_curve, results.epochs, results.target)
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
        page.side_by_side(
            page.picture(loss, "Loss by epoch"), page.picture(accuracy, "Accuracy by epoch")
        ),
        _compared(results, held_out),
    )


def _compared(results: Results, held_out: int) -> str:
    """The network beside classical learners."""
    every = {"LeNet-5": results.accuracy, **results.baselines}
    rows = [
        [name, f"{100 * part:.1f}", str(held_out - round(part * held_out))]
        for name, part in sorted(every.items(), key=lambda one: -one[1])
    ]
    return page.paragraph("""
        Beside it what two classical learners make of the same pixels: a linear score for each digit
        (logistic regression), and the label of the training digit that is nearest, pixel by
        pixel.""") + page.table(["", "read, %", "misread"], rows, numbers=(1, 2))


def _exactness(results: Results) -> str:
    return page.section(
        "Are its operators right?",
        page.paragraph(f"""
            Each operator the network calls was run once more on a batch of real digits, forward and
            backward, and compared with a reference that computes the definition in float64. The
            figures are the largest deviations, relative to the largest value. The bound is twice
            PyTorch's own deviation in float32 plus four roundings; the first layer's gradient with
            respect to the image is checked although training does not need it.
            {page.checks_summary(results.operators)}"""),
        page.details("All deviations", page.checks_table(results.operators)),
    )


def _speed(results: Results) -> str:
    return page.section(
        "How fast are its operators?",
        page.paragraph(f"""
            The same layers, pydl's and stock PyTorch's in turns in one process on
            {measure.device_name(results.device)} ({threads(results.device)}), medians. LeNet-5 is
            small: most calls last microseconds. Where PyTorch's own operator serves, both sides run
            the same code, and the ratio is 1 but for noise and the cost of the call itself."""),
        bars(results.operators),
        page.details("All times", page.speed_table(results.operators)),
    )
