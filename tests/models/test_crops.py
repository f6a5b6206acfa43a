"""Windows for testing: their places, their order, and what is averaged over them."""

import pytest
import torch

from pydl.train import crops

# Pixels that say where they are: row and column.
IMAGES = (10 * torch.arange(6.0)[:, None] + torch.arange(7.0)).expand(2, 3, 6, 7)


def test_windows_lie_where_torchvisions_do() -> None:
    windows = crops.five_crop(IMAGES, (3, 4))
    assert windows.shape == (5, 2, 3, 3, 4)
    # Half of a room of three is rounded to the even 2, as Python and torchvision do.
    assert windows[:, 1, 2, 0, 0].tolist() == [0, 3, 30, 33, 22]
    rows, columns = 10 * torch.arange(3.0)[:, None], torch.arange(4.0)
    first = windows[:, :, :, :1, :1]
    assert torch.equal(windows, (first + rows + columns).expand_as(windows))
    assert torch.equal(crops.centre_crop(IMAGES, (3, 4))[0], windows[4])
    assert crops.centre_crop(IMAGES, (5, 6))[0, 0, 0, 0, 0] == 0


def test_ten_are_five_and_those_of_the_mirror_image() -> None:
    windows = crops.ten_crop(IMAGES, (3, 4))
    assert windows[:, 0, 0, 0, 0].tolist() == [0, 3, 30, 33, 22, 6, 3, 36, 33, 24]
    assert torch.equal(windows[5:], crops.five_crop(IMAGES.flip(3), (3, 4)))
    assert torch.equal(windows[5], windows[1].flip(3))


def test_where_one_window_fits_all_are_the_image() -> None:
    assert all(torch.equal(window, IMAGES) for window in crops.five_crop(IMAGES, (6, 7)))
    assert torch.equal(crops.ten_crop(IMAGES, (6, 7))[9], IMAGES.flip(3))
    for size in ((7, 7), (6, 8), (0, 4)):
        with pytest.raises(ValueError, match="no window of"):
            crops.centre_crop(IMAGES, size)


def test_scaled_images_keep_what_they_show() -> None:
    half, same, twice = crops.scaled(IMAGES, (0.5, 1.0, 2.0))
    assert same is IMAGES and half.shape == (2, 3, 3, 4) and twice.shape == (2, 3, 12, 14)
    torch.testing.assert_close(twice[..., 4:8, 4:8].mean(), IMAGES[..., 2:4, 2:4].mean())
    (grey,) = crops.scaled(torch.full((1, 1, 9, 9), 0.3), (0.7,))
    torch.testing.assert_close(grey, torch.full((1, 1, 6, 6), 0.3))


def test_probabilities_are_averaged_and_not_scores() -> None:
    model = torch.nn.Sequential(torch.nn.Dropout(0.9), torch.nn.Flatten())
    scores = torch.tensor([[[9.0, 0.0]], [[0.0, 1.0]]]).view(2, 1, 1, 1, 2)  # of two windows
    found = crops.averaged(model, scores)
    torch.testing.assert_close(found, scores.flatten(2).softmax(2).mean(0))
    assert found.argmax().item() == 0 and model.training and model[0].training
