"""The augmentations: exact where there is something exact to compare with, and their ranges."""

import pytest
import torch

from pydl.train import augment


def images(count: int = 6, channels: int = 3, size: tuple[int, int] = (8, 8)) -> torch.Tensor:
    return torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(1))


def drawn(part: augment.Augmentation, x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return part(x, torch.Generator().manual_seed(seed))


EVERY = [
    augment.Grey(0.5),
    augment.HorizontalFlip(),
    augment.VerticalFlip(),
    augment.Crop((8, 8), padding=2),
    augment.ColourJitter(),
    augment.Translation(0.2),
    augment.Rotation(30),
    augment.Compose(augment.Grey(), augment.HorizontalFlip(), augment.Affine(9, 0.1, 0.1)),
]


@pytest.mark.parametrize("part", EVERY, ids=lambda part: type(part).__name__)
def test_seeds_shapes_and_dtypes(part: augment.Augmentation) -> None:
    for x in (images().double(), images(size=(8, 12))):
        if isinstance(part, augment.Crop) and x.shape[3] == 12:
            continue
        before = x.clone()
        y = drawn(part, x)
        assert y.shape == x.shape and y.dtype == x.dtype
        assert torch.equal(x, before) and torch.equal(y, drawn(part, x))
        assert not torch.equal(y, drawn(part, x, seed=1))


def test_some_are_changed_and_the_others_not() -> None:
    x = images(200)
    luminance = (x * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    for part, changed in (
        (augment.HorizontalFlip(), x.flip(3)),
        (augment.VerticalFlip(), x.flip(2)),
        (augment.Grey(0.5), luminance.expand_as(x)),
    ):
        y = drawn(part, x)
        turned = [torch.equal(a, b) for a, b in zip(y, changed, strict=True)]
        kept = [torch.equal(a, b) for a, b in zip(y, x, strict=True)]
        assert all(a != b for a, b in zip(turned, kept, strict=True))
        assert 70 < sum(turned) < 130


def test_crops_are_windows_of_the_image() -> None:
    x = images(50, size=(5, 6))
    windows = x.unfold(2, 3, 1).unfold(3, 4, 1).flatten(2, 3).movedim(2, 1)  # [N, 9, C, 3, 4]
    found = set()
    for y, there in zip(drawn(augment.Crop((3, 4)), x), windows, strict=True):
        (which,) = [i for i, window in enumerate(there) if torch.equal(y, window)]
        found.add(which)
    assert found == set(range(9))
    with pytest.raises(ValueError, match="no window of"):
        drawn(augment.Crop((6, 4)), x)


def test_jitter_around_its_means() -> None:
    x = images(channels=1)
    y = drawn(augment.ColourJitter(0.4, 0.0, 0.4), x)
    factors = (y / x).flatten(1)
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors))
    assert (factors > 0.6).all() and (factors < 1.4).all() and len(factors[:, 0].unique()) == 6
    y = drawn(augment.ColourJitter(0.0, 0.4, 0.0), x)
    torch.testing.assert_close(y.mean((1, 2, 3)), x.mean((1, 2, 3)))
    grey = images(channels=1).expand(-1, 3, -1, -1)
    torch.testing.assert_close(drawn(augment.ColourJitter(0.0, 0.0, 0.4), grey), grey)
    with pytest.raises(ValueError, match="three colours"):
        drawn(augment.Grey(), x)


class Fixed:
    """Affine with its extremes in place of random numbers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            augment,
            "_uniform",
            lambda images, generator, most: torch.full((len(images), 1, 1, 1), float(most)),
        )


@pytest.mark.parametrize("size", [(8, 8), (6, 10)])
def test_affine_where_pixels_meet_pixels(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    Fixed(monkeypatch)
    x = images(size=size)
    half = drawn(augment.Rotation(180), x)
    torch.testing.assert_close(half, x.flip(2, 3), rtol=1e-4, atol=1e-5)
    moved = drawn(augment.Translation(0.5), x)
    h, w = size[0] // 2, size[1] // 2
    torch.testing.assert_close(moved[..., :h, :w], x[..., h:, w:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(drawn(augment.Affine(), x), x, rtol=1e-4, atol=1e-5)
    quarter = drawn(augment.Rotation(90), x)
    middle = x[..., size[1] // 2 - size[0] // 2 :][..., : size[0]]
    into = quarter[..., size[1] // 2 - size[0] // 2 :][..., : size[0]]
    torch.testing.assert_close(into, middle.rot90(1, (2, 3)), rtol=1e-4, atol=1e-5)
