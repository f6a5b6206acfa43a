"""A noisy scan of a head restored: a 3-D autoencoder against 3-D filters.

Denoising as an autoencoder learns it (Vincent, Larochelle, Bengio, Manzagol 2008, Extracting and
Composing Robust Features with Denoising Autoencoders): noise is added to blocks of the scan, and
the network learns to give back what they were. The filters that it is held to know nothing of
heads. All are measured on slices that were kept out of the training, in the middle of the head.

All that comes back of an autoencoder went through its code, from which a max pool has taken where
things are: in the head it loses more than a median filter does. So the one that counts leads its
first maps past the code, and the same network without that is shown beside it.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.utils.data import TensorDataset

from pydl import models, nn
from pydl.asked import use_backend
from pydl.data import mri
from pydl.models.autoencoder3d import Autoencoder3d
from pydl.recipes.recipe import Options, Recipe, publish
from pydl.train import Epoch, Settings, fit, schedules

if TYPE_CHECKING:
    from rich.console import Console

NOISE = 0.15  # the deviation of what is added; 1 is the scan's brightest percent
EPOCHS = 20
HEAD = 0.1  # as bright as that a voxel counts as the head's
OURS, CODE = "autoencoder with a skip connection", "autoencoder, all through its code"
MEDIANS = {"median of 3x3x3": (3, 3, 3), "median of 3x3": (1, 3, 3), "median of 5x5x5": (5, 5, 5)}
GAUSSIANS = {f"Gaussian of {voxels} voxels": voxels for voxels in (0.6, 0.7, 0.8, 0.9)}
_BLOCK = (6, 32, 32)  # slices, height, width
_STEP = (2, 16, 16)  # from one block to the next
_OF_HEAD = 0.3  # part of a block that has to be head: air teaches little


@dataclass(frozen=True)
class Noise:
    """An augmentation that adds noise from N(0, deviation) to each batch anew."""

    deviation: float = NOISE

    def __call__(self, volumes: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        drawn = torch.randn(volumes.shape, generator=generator) * self.deviation
        return volumes + drawn.to(volumes)


def blocks(scan: mri.Scan) -> TensorDataset:
    """Blocks (N, 1, 6, 32, 32) of the slices to learn from, and as mirrored, each its own
    target."""
    found = []
    for part in scan.train:
        for axis, (size, step) in enumerate(zip(_BLOCK, _STEP, strict=True), 1):
            part = part.unfold(axis, size, step)
        found.append(part.reshape(-1, 1, *_BLOCK))
    every = torch.cat(found)
    clean = every[(every > HEAD).float().mean((1, 2, 3, 4)) > _OF_HEAD]
    clean = torch.cat([clean, clean.flip(4)])
    return TensorDataset(clean, clean)


def train(
    model: nn.Module, data: TensorDataset, *, epochs: int, seed: int, console: "Console"
) -> float:
    """Adam on the mean squared error, a rate that rises to 0.003 and falls to 0; how many seconds
    it took."""

    def say(epoch: Epoch) -> None:
        error = -10 * math.log10(epoch.loss)
        console.print(f"epoch {epoch.number}: {error:.2f} dB, {epoch.seconds:.0f} s")

    history = fit(
        model,
        data,
        epochs=epochs,
        optimizer=torch.optim.Adam(model.parameters(), 3e-3),
        schedule=schedules.cosine(warm_up=0.05),
        loss=nn.functional.mse_loss,
        augment=Noise(),
        settings=Settings(batch=8, seed=seed),
        on_epoch=say,
    )
    return history.epochs[-1].seconds


def psnr(restored: torch.Tensor, clean: torch.Tensor, where: torch.Tensor | None = None) -> float:
    """The peak signal-to-noise ratio in decibels, the peak being 1; of the voxels ``where`` alone
    if they are given."""
    error = (restored - clean).square()
    return -10 * (error if where is None else error[where]).mean().log10().item()


def filtered(noisy: torch.Tensor) -> dict[str, torch.Tensor]:
    """What filters make of the volumes (N, D, H, W)."""
    from scipy import ndimage

    volumes = noisy.numpy()
    found = {name: ndimage.median_filter(volumes, (1, *size)) for name, size in MEDIANS.items()}
    for name, deviation in GAUSSIANS.items():
        found[name] = ndimage.gaussian_filter(volumes, (0, *[deviation] * 3))
    return {name: torch.from_numpy(one) for name, one in found.items()}


@dataclass(frozen=True)
class Result:
    """What a run found."""

    model: nn.Module  # with the skip connection
    scan: mri.Scan
    found: Mapping[str, torch.Tensor]  # by what made it: the held-out slices, [2, 6, 96, 128]
    scores: Mapping[str, tuple[float, float]]  # of each: decibels over all voxels, and in the head
    blocks: int  # that were learned from
    seconds: Sequence[float]  # of training: with the skip connection, without

    @property
    def median(self) -> tuple[float, float]:
        """The best that a median filter reaches, over all voxels and in the head."""
        whole, head = zip(*(self.scores[name] for name in MEDIANS), strict=True)
        return max(whole), max(head)

    @property
    def better(self) -> bool:
        """Whether the network beats every median filter, over all voxels and in the head."""
        pairs = zip(self.scores[OURS], self.median, strict=True)
        return all(ours > median for ours, median in pairs)


@torch.no_grad()
def restore(model: nn.Module, noisy: torch.Tensor) -> torch.Tensor:
    """Volumes (N, D, H, W) as the network gives them back."""
    device = next(model.parameters()).device
    return model.eval()(noisy.unsqueeze(1).to(device))[:, 0].cpu()


def _steps(options: Options, console: "Console") -> bool:
    from pydl.recipes import restore_mri_page  # which imports matplotlib

    scan = mri.load()
    clean, head = scan.held_out, scan.held_out > HEAD
    noisy = Noise()(clean, torch.Generator().manual_seed(options.seed + 1))
    data, epochs = blocks(scan), options.epochs or EPOCHS
    found, seconds = {"noisy": noisy, **filtered(noisy)}, []
    without = functools.partial(Autoencoder3d, norm=False)
    with use_backend(options.backend):
        for name, build in ((CODE, without), (OURS, models.autoencoder3d_skip)):
            console.print(f"{name}: {len(data)} blocks to learn from", soft_wrap=True)
            torch.manual_seed(options.seed)
            model = build().to(options.device)
            took = train(model, data, epochs=epochs, seed=options.seed, console=console)
            found[name] = restore(model, noisy)
            seconds.append(took)
        scores = {n: (psnr(one, clean), psnr(one, clean, head)) for n, one in found.items()}
        for name, (whole, inside) in scores.items():
            console.print(f"{name}: {whole:.2f} dB, in the head {inside:.2f} dB")
        made = Result(model, scan, found, scores, len(data), seconds)
        publish(restore_mri_page.html(made, options), options, console)
    return made.better


RECIPE = Recipe(
    "restore-mri",
    "an autoencoder takes noise off slices of a scan that it has not seen, better than median "
    "filters",
    ("nibabel", "scipy", "matplotlib"),
    _steps,
)
