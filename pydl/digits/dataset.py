"""The 1,797 handwritten digits that come inside scikit-learn, as LeNet-5 wants them."""

from dataclasses import dataclass

import torch

SIDE = 32  # pixels of LeNet-5's input


@dataclass(frozen=True)
class Digits:
    """Images (N, 1, 32, 32) with the training images' mean 0 and deviation 1, labels (N), and which
    are held out."""

    images: torch.Tensor
    labels: torch.Tensor
    train: torch.Tensor  # indices
    held_out: torch.Tensor  # indices

    def to(self, device: torch.device | str) -> "Digits":
        """The same on another device."""
        return Digits(
            *(t.to(device) for t in (self.images, self.labels, self.train, self.held_out))
        )


def load(seed: int = 0) -> Digits:
    """Scale the 8x8 images to 32x32 (bilinear) and hold a fifth of each digit out.

    Source: E. Alpaydin, C. Kaynak 1998, Optical Recognition of Handwritten Digits, UCI; the test
    part, as ``sklearn.datasets.load_digits`` gives it: 43 writers, counts of ink (0 to 16) on a
    grid of 8x8.

    Args:
        seed: of the split.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    labels = torch.from_numpy(digits.target).long()
    ink = torch.from_numpy(digits.images).float().div(16).unsqueeze(1)  # [N, 1, 8, 8]
    images = torch.nn.functional.interpolate(
        ink, size=(SIDE, SIDE), mode="bilinear", align_corners=False
    )
    train, held_out = train_test_split(
        range(len(labels)), test_size=0.2, stratify=digits.target, random_state=seed
    )
    images = (images - images[train].mean()) / images[train].std()
    return Digits(images, labels, torch.tensor(train), torch.tensor(held_out))
