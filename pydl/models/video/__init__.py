"""Networks for clips, (N, C, T, H, W) of T frames, and how one for images becomes one."""

from pydl.models.video.c3d import c3d
from pydl.models.video.inflate import inflate
from pydl.models.video.lrcn import LRCN, lrcn_digits
from pydl.models.video.resnet import mc3_18, r2plus1d_18, r3d_18

__all__ = ["LRCN", "c3d", "inflate", "lrcn_digits", "mc3_18", "r2plus1d_18", "r3d_18"]
