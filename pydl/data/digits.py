"""The 1,797 handwritten digits that come inside scikit-learn, as LeNet-5 wants them."""

from dataclasses import dataclass

import torch
from torch.utils.data import TensorDataset

from pydl.data.extras import require
from pydl.data.split import Split

SIDE = 32  # pixels of LeNet-5's input
SOURCE = (
    "E. Alpaydin, C. Kaynak 1998, Optical Recognition of Handwritten Digits, UCI: "
    "the test part, by 13 writers, from scikit-learn"
)
LICENCE = "CC BY 4.0 (UCI); scikit-learn's copy states none"


@dataclass(frozen=True)
class Ink:
    """The digits as they were counted, and which of them are held out."""

    ink: torch.Tensor  # [1797, 1, 8, 8] in 0 ... 1
    labels: torch.Tensor  # [1797]
    train: torch.Tensor  # indices
    held_out: torch.Tensor  # indices


def read(seed: int = 0) -> Ink:
    """Counts of ink on a grid of 8x8, with a fifth of each digit held out.

    Args:
        seed: of the split.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    require("sklearn")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    train, held_out = train_test_split(
        range(len(digits.target)), test_size=0.2, stratify=digits.target, random_state=seed
    )
    return Ink(
        torch.from_numpy(digits.images).float().div(16).unsqueeze(1),
        torch.from_numpy(digits.target).long(),
        torch.tensor(train),
        torch.tensor(held_out),
    )


def load(seed: int = 0, side: int = SIDE) -> Split:
    """The 8x8 images scaled to ``side`` pixels in height and width (bilinear), a fifth of each
    digit held out.

    The same 13 people wrote both parts: what is learnt here says nothing of an unknown hand.

    Args:
        seed: of the split.
        side: of the images; 8 leaves them as they were counted.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    digits = read(seed)
    images = torch.nn.functional.interpolate(
        digits.ink, size=(side, side), mode="bilinear", align_corners=False
    )
    mean, deviation = images[digits.train].mean(), images[digits.train].std()
    images = (images - mean) / deviation
    train, held_out = (
        TensorDataset(images[part], digits.labels[part]) for part in (digits.train, digits.held_out)
    )
    names = tuple(map(str, range(10)))
    return Split(
        train, held_out, names, (mean.item(),), (deviation.item(),), source=SOURCE, licence=LICENCE
    )
