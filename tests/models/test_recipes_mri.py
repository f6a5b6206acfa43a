"""The recipe on a scan: what it learns from and measures on, and a short run of it."""

import io
import math
from pathlib import Path

import pytest
import torch
from rich.console import Console

pytest.importorskip("matplotlib")

from pydl import models
from pydl.recipes import Options, find, restore_mri


def test_decibels() -> None:
    clean = torch.zeros(2, 3)
    assert restore_mri.psnr(clean + 0.1, clean) == pytest.approx(20)
    where = torch.tensor([[True, False, False]] * 2)
    other = torch.where(where, 0.01, 1.0)
    assert restore_mri.psnr(other, clean, where) == pytest.approx(40)
    assert math.isinf(restore_mri.psnr(clean, clean))


def test_noise_is_drawn_anew_for_each_batch() -> None:
    x, generator = torch.ones(64, 1, 4, 4, 4), torch.Generator().manual_seed(0)
    first, second = (restore_mri.Noise(0.2)(x, generator) for _ in range(2))
    assert (first - x).std().item() == pytest.approx(0.2, rel=0.05)
    assert not torch.equal(first, second)


def test_held_out_slices_are_in_no_block() -> None:
    pytest.importorskip("nibabel")
    scan = restore_mri.mri.load()
    assert scan.held_out.shape == (2, 6, 96, 128) and list(scan.slices) == [9, 10, 11, 12, 13, 14]
    assert [part.shape for part in scan.train] == [(2, 8, 96, 128)] * 2
    learned = torch.cat(scan.train, 1)
    assert not any(
        torch.equal(slice_, other)
        for volume, others in zip(learned, scan.held_out, strict=True)
        for slice_ in volume
        for other in others
    )
    assert (learned > 1).float().mean().item() == pytest.approx(0.01, abs=1e-3)


def test_blocks_hold_enough_of_the_head() -> None:
    voxels = torch.rand(2, 8, 96, 128) * 0.09  # air
    voxels[1, :, 16:48, 16:48] += 0.5
    scan = restore_mri.mri.Scan((voxels[:, :8],), voxels[:, :6], range(6))
    clean, target = restore_mri.blocks(scan).tensors
    assert clean is target and clean.shape[1:] == (1, 6, 32, 32)
    # Twice two slices apart: the one that is all head, and those that hold half of that.
    assert len(clean) == 2 * 2 * 5
    for block in clean[: len(clean) // 2]:
        assert (block > 0.1).float().mean() >= 0.5
    assert torch.equal(clean[len(clean) // 2 :], clean[: len(clean) // 2].flip(4))
    whole = [block for block in clean[:, 0] if (block > 0.1).all()]
    assert torch.equal(whole[0], voxels[1, :6, 16:48, 16:48])


def test_filters_are_of_each_volume_alone() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    clean = torch.rand(2, 5, 6, 7)
    found = restore_mri.filtered(clean)
    assert list(found) == [*restore_mri.MEDIANS, *restore_mri.GAUSSIANS]
    for one, volume in zip(found["median of 3x3x3"], clean, strict=True):
        assert torch.equal(one, torch.from_numpy(ndimage.median_filter(volume.numpy(), 3)))
    for one, slice_ in zip(found["median of 3x3"][1], clean[1], strict=True):
        assert torch.equal(one, torch.from_numpy(ndimage.median_filter(slice_.numpy(), 3)))
    smooth = torch.from_numpy(ndimage.gaussian_filter(clean[1].numpy(), 0.7))
    assert torch.equal(found["Gaussian of 0.7 voxels"][1], smooth)


def result(ours: tuple[float, float]) -> restore_mri.Result:
    scores = dict.fromkeys(restore_mri.MEDIANS, (20.0, 19.0))
    scores["median of 5x5x5"] = (22.0, 18.0)
    scan = restore_mri.mri.Scan((), torch.zeros(0), range(0))
    model = models.autoencoder3d_skip()
    return restore_mri.Result(model, scan, {}, {**scores, restore_mri.OURS: ours}, 0, (0.0, 0.0))


def test_the_best_median_is_to_be_beaten_everywhere() -> None:
    assert result((22.1, 19.1)).better
    assert not result((21.9, 19.1)).better and not result((22.1, 18.9)).better


def test_a_scan_is_restored_and_a_page_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nibabel")
    pytest.importorskip("scipy")
    whole = restore_mri.mri.load()
    part = (slice(None), slice(None), slice(32, 64), slice(32, 64))
    small = restore_mri.mri.Scan((whole.train[1][part],), whole.held_out[part], whole.slices)
    monkeypatch.setattr(restore_mri.mri, "load", lambda: small)
    console = Console(file=io.StringIO(), width=120)
    assert not find("restore-mri").run(Options(tmp_path, epochs=1), console)  # it has seen too few
    said = console.file.getvalue()
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'class="tile missed"' in page
    filters = (*restore_mri.MEDIANS, *restore_mri.GAUSSIANS)
    every = ("noisy", *filters, restore_mri.CODE, restore_mri.OURS)
    assert all(f"{name}: " in said and f"<td>{name}</td>" in page for name in every)
    assert page.count("<picture>") == 16 and "<code>ConvTranspose3d</code>" in page


def test_a_network_gives_volumes_back() -> None:
    model = models.autoencoder3d().train()
    noisy = torch.rand(2, 4, 8, 8)
    assert restore_mri.restore(model, noisy).shape == noisy.shape
    assert not model.training
