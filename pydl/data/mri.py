"""A magnetic resonance scan of a head that comes inside nibabel: two volumes of 24 slices."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pydl.data.extras import require

SOURCE = "example4d.nii.gz of nibabel's own tests: two volumes of one head, written by FSL"
LICENCE = "MIT, as all of nibabel; of the scan itself nothing is stated"
# Held out in the middle of the head, where there is most to see; the slices above and below it are
# left out, for a slice looks like its neighbours.
HELD_OUT = slice(9, 15)
_LEARNED = (slice(0, 8), slice(16, 24))


@dataclass(frozen=True)
class Scan:
    """Both volumes, cut into blocks of neighbouring slices."""

    train: tuple[torch.Tensor, ...]  # [2, D, 96, 128] each, float32; 1 is their brightest percent
    held_out: torch.Tensor  # [2, 6, 96, 128]
    slices: range  # which of the 24 these six are
    source: str = SOURCE
    licence: str = LICENCE


def load() -> Scan:
    """Voxels of 2 x 2 x 2.2 mm; those below the first and above the last held-out slice are in
    neither part.

    Raises:
        MissingExtraError: nibabel is not installed.
        FileNotFoundError: its tests are not, as in a distribution's own package.
    """
    require("nibabel")
    import nibabel

    file = Path(nibabel.__file__).parent / "tests" / "data" / "example4d.nii.gz"
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is missing; nibabel's wheel has it: pip install --force-reinstall nibabel"
        )
    image = nibabel.Nifti1Image.from_filename(file)
    voxels = torch.from_numpy(image.get_fdata(dtype=np.float32))  # [128, 96, 24, 2]
    volumes = voxels.permute(3, 2, 1, 0).flip(2)  # the face upwards
    train = tuple(volumes[:, part] for part in _LEARNED)
    brightest = torch.cat([block.flatten() for block in train]).quantile(0.99)
    return Scan(
        tuple(block / brightest for block in train),
        volumes[:, HELD_OUT] / brightest,
        range(24)[HELD_OUT],
    )
