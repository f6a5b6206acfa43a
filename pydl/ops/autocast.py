"""What autocast makes of an operator's operand, by PyTorch's own lists for each device.

PyTorch casts inside the operators that it calls, so only calls that this package serves ask here.
"""

from typing import Literal

import torch

from pydl.ops import checks

# What each kind of operator is computed in where autocast is on: float32, or autocast's own low
# precision. A kind that is not listed takes its operands as they come.
_CASTS: dict[str, dict[str, Literal["float32", "low"]]] = {
    "cpu": {
        "adaptive_avg_pool3d": "float32",
        "adaptive_max_pool3d": "float32",
        "avg_pool3d": "float32",
        # PyTorch averages the squares of maps of two or more axes with avg_pool3d.
        "local_response_norm_of_maps": "float32",
        "lp_pool3d": "float32",
        "max_pool3d": "float32",
        "max_unpool1d": "float32",
        "max_unpool2d": "float32",
        "max_unpool3d": "float32",
        "spatial_response_norm3d": "float32",
        "roi_align": "float32",
        "roi_pool": "float32",
        "nms": "float32",
        "conv": "low",
        "local": "low",
        "cross_entropy": "float32",
        "nll_loss": "float32",
    },
    "cuda": {
        # These are made of powers.
        "local_response_norm": "float32",
        "local_response_norm_of_maps": "float32",
        "lp_pool1d": "float32",
        "lp_pool2d": "float32",
        "lp_pool3d": "float32",
        "spatial_response_norm1d": "float32",
        "spatial_response_norm2d": "float32",
        "spatial_response_norm3d": "float32",
        "roi_align": "float32",
        "roi_pool": "float32",
        "nms": "float32",
        "conv": "low",
        "local": "low",
        "softmax": "float32",
        "cross_entropy": "float32",
        "nll_loss": "float32",
    },
}


def as_autocast(kind: str, x: torch.Tensor) -> torch.Tensor:
    """``x`` as autocast hands it to an operator of this kind: itself where autocast is off, has no
    rule, or leaves the dtype alone (float64, integers)."""
    low = checks.autocast_dtype(x)
    if low is None or x.dtype == torch.float64 or not x.is_floating_point():
        return x
    to = _CASTS.get(x.device.type, {}).get(kind)
    return x if to is None else x.to(torch.float32 if to == "float32" else low)
