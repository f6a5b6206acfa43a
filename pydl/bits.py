"""Masks of a bit an element, packed: element i of a row in bit i % 8 of byte i / 8, rows of whole
bytes (csrc/batch_norm.h)."""

import math

import torch

from pydl import layout

_PLACES = (1, 2, 4, 8, 16, 32, 64, 128)


def pack(flags: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The mask of booleans ``flags`` (N, C, spatial...) in the layout of the map ``x``."""
    rows = flags.flatten(2)  # (N, C, pixels)
    rows = rows.transpose(1, 2) if layout.mask_rows_are_pixels(x) else rows
    rows = torch.nn.functional.pad(rows.int(), (0, -rows.shape[2] % 8))
    places = torch.tensor(_PLACES, dtype=torch.int32, device=rows.device)
    bytes = rows.reshape(*rows.shape[:2], rows.shape[2] // 8, 8) * places
    return bytes.sum(-1).to(torch.uint8)


def unpack(mask: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The booleans, of the shape of the map ``x``."""
    places = torch.tensor(_PLACES, dtype=torch.uint8, device=mask.device)
    rows = (mask.unsqueeze(-1) & places).ne(0).reshape(*mask.shape[:2], mask.shape[2] * 8)
    plane, channels = math.prod(x.shape[2:]), x.shape[1]
    if layout.mask_rows_are_pixels(x):
        rows = rows[..., :channels].transpose(1, 2)
    return rows[..., :plane].reshape(x.shape)
