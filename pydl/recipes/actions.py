"""What a digit does in a clip: a 3-D network tells moving, turning and growing apart, and the same
network that sees one frame cannot.

Place, size and angle of the digits are spread alike in the three motions (:mod:`pydl.data.scenes`),
so that whatever a network finds beyond chance is in the change from frame to frame. Held-out clips
are of held-out digits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.utils.data import TensorDataset

from pydl import models, nn
from pydl.asked import use_backend
from pydl.data import scenes
from pydl.recipes.recipe import Options, Recipe, publish
from pydl.train import Confusion, Epoch, Settings, evaluate, fit, schedules

if TYPE_CHECKING:
    from rich.console import Console

TARGET = 0.95  # of the held-out clips
NEAR_CHANCE = 0.4  # of 600 clips, more than three deviations beyond the third that guessing gets
CLIPS, HELD_OUT, FRAMES = 2000, 600, 8
EPOCHS = 14


@dataclass(frozen=True)
class Data:
    """Clips, with mean 0 and deviation 1, and which motion each shows."""

    train: TensorDataset  # [N, 1, 8, 32, 32]
    held_out: TensorDataset
    mean: float
    deviation: float


def load(count: int, held_out: int, seed: int) -> Data:
    """So many clips of the digits to learn from, and of those held out."""
    learned, others = (
        scenes.clips(number, FRAMES, seed=seed, held_out=kept)
        for number, kept in ((count, False), (held_out, True))
    )
    mean, deviation = learned.frames.mean().item(), learned.frames.std().item()
    train, measured = (
        TensorDataset((one.frames - mean) / deviation, one.motions) for one in (learned, others)
    )
    return Data(train, measured, mean, deviation)


def still(data: TensorDataset, frames: int = 1) -> TensorDataset:
    """The middle frame of each clip, so many times."""
    clips, motions = data.tensors
    middle = clips.shape[2] // 2
    return TensorDataset(
        clips[:, :, middle : middle + 1].expand(-1, -1, frames, -1, -1).contiguous(), motions
    )


def mirrored(clips: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each clip (T, H, W) of a batch (N, 1, T, H, W) backwards or not, left for right, top for
    bottom, rows for columns: its motion is still the same."""

    def drawn() -> torch.Tensor:
        return (torch.rand(len(clips), 1, 1, 1, 1, generator=generator) < 0.5).to(clips.device)

    for axis in (2, 3, 4):
        clips = torch.where(drawn(), clips.flip(axis), clips)
    return torch.where(drawn(), clips.transpose(3, 4), clips)


def train(
    model: nn.Module,
    data: TensorDataset,
    held_out: TensorDataset,
    *,
    epochs: int,
    seed: int,
    console: "Console",
) -> Sequence[Epoch]:
    """Adam and a rate that rises to 0.002 and falls to 0; the held-out clips decide nothing."""

    def say(epoch: Epoch) -> None:
        console.print(
            f"epoch {epoch.number}: loss {epoch.loss:.4f}, {100 * (epoch.accuracy or 0):.1f} % of "
            f"the clips right, {100 * (epoch.held_out_accuracy or 0):.1f} % of those held out, "
            f"{epoch.seconds:.0f} s",
            soft_wrap=True,
        )

    return fit(
        model,
        data,
        epochs=epochs,
        held_out=held_out,
        optimizer=torch.optim.Adam(model.parameters(), 2e-3),
        schedule=schedules.cosine(warm_up=0.1),
        augment=mirrored,
        settings=Settings(batch=32, seed=seed),
        on_epoch=say,
    ).epochs


@dataclass(frozen=True)
class Result:
    """How a network judged the held-out clips."""

    model: nn.Module
    epochs: Sequence[Epoch]
    confusion: Confusion


def learn(name: str, data: Data, options: Options, console: "Console") -> Result:
    """A network of the table trained on the clips, or on their middle frames if it sees one."""
    learned, held_out = data.train, data.held_out
    if models.find(name).input[1] == 1:
        learned, held_out = still(learned), still(held_out)
    console.print(f"{name}: {models.find(name).about}", soft_wrap=True)
    torch.manual_seed(options.seed)
    model = models.build(name).to(options.device)
    epochs = options.epochs or EPOCHS
    history = train(model, learned, held_out, epochs=epochs, seed=options.seed, console=console)
    return Result(model, history, judged(model, held_out))


def judged(model: nn.Module, data: TensorDataset) -> Confusion:
    """Which motion was taken for which."""
    confusion = evaluate(model, data).confusion
    assert confusion is not None
    return confusion


def _steps(options: Options, console: "Console") -> bool:
    from pydl.recipes import actions_page  # which imports matplotlib

    data = load(CLIPS, HELD_OUT, options.seed)
    with use_backend(options.backend):
        clip, frame = (learn(name, data, options, console) for name in ("c3d-digits", "c3d-frame"))
        stopped = judged(clip.model, still(data.held_out, FRAMES))
        html = actions_page.html(options, data, clip, frame, stopped)
    for name, confusion in (
        ("3-D network", clip.confusion),
        ("one frame", frame.confusion),
        ("3-D network, the clip stopped", stopped),
    ):
        console.print(f"{name}: {100 * confusion.accuracy:.1f} % of the held-out clips")
    publish(html, options, console)
    guessed = max(frame.confusion.accuracy, stopped.accuracy)
    return clip.confusion.accuracy >= TARGET and guessed < NEAR_CHANCE


RECIPE = Recipe(
    "actions",
    f"a 3-D network tells moving, turning and growing digits apart in {100 * TARGET:.0f} % of the "
    "held-out clips, one that sees a single frame guesses",
    ("sklearn", "matplotlib"),
    _steps,
)
