"""The reference of RoIAlign and RoI pooling against loops written from the papers."""

import math

import pytest
import torch
from contract import operand
from test_roi import CASES, boxes_for, call


def bilinear(plane, y, x):
    """He et al.'s sample, by torchvision's rule for the edges."""
    height, width = len(plane), len(plane[0])
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = math.floor(y), math.floor(x)
    total = 0.0
    for row, of_row in ((top, 1 - (y - top)), (top + 1, y - top)):
        for col, of_col in ((left, 1 - (x - left)), (left + 1, x - left)):
            if of_row and of_col:
                total += of_row * of_col * plane[row][col]
    return total


def align_by_loops(x, boxes, output_size, spatial_scale, sampling_ratio, aligned):
    """Four pixels a sample, sample by sample."""
    y = torch.zeros(len(boxes), x.shape[1], *output_size, dtype=torch.float64)
    for k, (n, *corners) in enumerate(boxes.tolist()):
        x1, y1, x2, y2 = (c * spatial_scale - 0.5 * aligned for c in corners)
        least = -math.inf if aligned else 1.0
        high = max(y2 - y1, least) / output_size[0]
        wide = max(x2 - x1, least) / output_size[1]
        down = sampling_ratio if sampling_ratio > 0 else math.ceil(high)
        across = sampling_ratio if sampling_ratio > 0 else math.ceil(wide)
        for c in range(x.shape[1]):
            plane = x[int(n), c].tolist()
            for o in range(output_size[0]):
                for p in range(output_size[1]):
                    total = sum(
                        bilinear(
                            plane,
                            y1 + o * high + (i + 0.5) * high / down,
                            x1 + p * wide + (j + 0.5) * wide / across,
                        )
                        for i in range(down)
                        for j in range(across)
                    )
                    y[k, c, o, p] = total / max(down * across, 1)
    return y


def pool_by_loops(x, boxes, output_size, spatial_scale):
    y = torch.zeros(len(boxes), x.shape[1], *output_size, dtype=torch.float64)
    for k, (n, *corners) in enumerate(boxes.tolist()):
        corners = (c * spatial_scale for c in corners)
        x1, y1, x2, y2 = (math.copysign(math.floor(abs(c) + 0.5), c) for c in corners)
        high = max(y2 - y1 + 1, 1) / output_size[0]
        wide = max(x2 - x1 + 1, 1) / output_size[1]
        for c in range(x.shape[1]):
            for o in range(output_size[0]):
                for p in range(output_size[1]):
                    inside = [
                        x[int(n), c, row, col].item()
                        for row in range(x.shape[2])
                        for col in range(x.shape[3])
                        if math.floor(o * high) <= row - y1 < math.ceil((o + 1) * high)
                        and math.floor(p * wide) <= col - x1 < math.ceil((p + 1) * wide)
                    ]
                    y[k, c, o, p] = max(inside, default=0.0)
    return y


FEW = {"align": 9, "pool": 4}  # of each kind: loops take their time, and know no NaN


@pytest.mark.parametrize(
    "kind, case",
    [one for kind, few in FEW.items() for one in [case for case in CASES if case[0] == kind][:few]],
    ids=str,
)
def test_the_reference_is_what_loops_give(kind, case):
    x = operand(case, torch.float64, "cpu")[:, :2]
    boxes = boxes_for(torch.float64)
    size = case.arguments["output_size"]
    size = (size, size) if isinstance(size, int) else size
    scale = case.arguments.get("spatial_scale", 1.0)
    ours = call(kind, x, boxes, case.arguments, "reference")
    if kind == "pool":
        assert torch.equal(ours, pool_by_loops(x, boxes, size, scale))
    else:
        rest = case.arguments["sampling_ratio"], case.arguments.get("aligned", False)
        torch.testing.assert_close(ours, align_by_loops(x, boxes, size, scale, *rest))
