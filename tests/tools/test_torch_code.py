"""How PyTorch launches its own CUDA kernels, as bench/torch_kernels.py has it, and the file that
came of counting them. The counting itself needs PyTorch's CUDA wheel, half a gigabyte, and is not
repeated here: it holds what each thread writes to what the operator computed, and says so where a
kernel, a grid or a parameter is not PyTorch's."""

import csv
import struct
import sys
from pathlib import Path

import machine_code
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import torch_composed
import torch_iterator
import torch_kernels
import torch_launches
import torch_reduce

ROWS = torch_kernels.read()
X = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)
LAST = X.contiguous(memory_format=torch.channels_last)


def test_axes_are_ordered_by_strides_and_joined_where_they_lie_in_a_row() -> None:
    assert torch_iterator.axes((X, X)).shape == (120,)
    assert torch_iterator.axes((LAST, LAST)).contiguous
    mixed = torch_iterator.axes((LAST, X))
    assert mixed.shape == (3, 20, 2) and mixed.strides == ((4, 12, 240), (80, 4, 240))
    one = X[:, :, :1, :1].contiguous()
    spread = torch_iterator.axes((X, one.expand(X.shape)), first=1)
    assert spread.shape == (20, 6) and spread.strides == ((4, 80), (0, 4))
    summed = torch_iterator.axes(
        (torch.empty(3).reshape(1, 3, 1, 1).expand(X.shape), X), reduced=True
    )
    assert summed.shape == (20, 2, 3) and summed.strides[0] == (0, 0, 4)


@pytest.mark.parametrize("divisor", (1, 2, 3, 7, 55, 3025, 1 << 30, (1 << 31) - 1))
def test_a_division_by_multiplication_divides(divisor: int) -> None:
    _, factor, shift = torch_iterator.divider(divisor)
    for n in (0, 1, divisor - 1, divisor, 5 * divisor + 1, 123_456_789, (1 << 31) - 1):
        n %= 1 << 31
        assert ((n * factor >> 32) + n) >> shift == n // divisor
    assert factor < 1 << 32


def test_an_offset_calculator_has_room_for_25_axes() -> None:
    data = torch_iterator.offsets((5, 24), ((4, 20), (8, -40)))
    assert len(data) == 4 + 25 * 12 + 25 * 2 * 4
    assert struct.unpack_from("<i3I", data) == (2, *torch_iterator.divider(5))
    assert struct.unpack_from("<4i", data, 304) == (4, 8, 20, -40)


def test_what_lies_in_a_row_takes_the_vectorized_kernel() -> None:
    x = torch.randn(3, 1000)
    one = torch_iterator.elementwise("f", torch_iterator.captured(b"1234"), x.relu(), x)
    assert one.kernel.startswith("vectorized_elementwise_kernel<4, f,") and one.grid == (3, 1, 1)
    count, held, _, *pointers = struct.unpack("<i4x4s4xQ2Q", one.parameters)
    assert (count, held) == (3000, b"1234") and pointers[1] == x.data_ptr()
    half = x.bfloat16()
    assert "<8, " in torch_iterator.elementwise("f", (1, b"\0"), half.relu(), half).kernel
    strided = torch_iterator.elementwise("f", (1, b"\0"), X, LAST)
    assert strided.kernel.startswith("elementwise_kernel<128, 2, ") and strided.block == (128, 1, 1)


@pytest.mark.parametrize(
    ("x", "dim", "grid", "block"),
    (
        (torch.empty(32, 2048, 7, 7), (2, 3), (4096, 1, 1), (32, 16, 1)),  # a warp for each
        (torch.empty(32, 144, 56, 56), (0, 2, 3), (144, 1, 1), (32, 16, 1)),  # a block for each
        (torch.empty(8, 1_000_000), (1,), (8, 66, 1), (64, 8, 1)),  # 66 blocks for each
    ),
)
def test_a_reduction_is_split_among_lanes_warps_and_blocks(x, dim, grid, block) -> None:
    one = torch_reduce.mean(x.mean(dim, keepdim=True), x)
    assert (one.block, one.grid) == (block, grid)
    assert not one.results


def test_what_cudnn_serves_is_left_out() -> None:
    operators = torch_launches.OPERATORS
    weight = torch.randn(6, 3, 3, 3)
    settings = [1, 1], [1, 1], [1, 1], False, [0, 0]
    with pytest.raises(torch_composed.NotOwnError):
        list(operators["convolution"](torch.empty(2, 6, 4, 5), X, weight, None, *settings, 1))
    with pytest.raises(torch_composed.NotOwnError):
        list(
            operators["native_batch_norm"]((X,), X, *torch.ones(2, 3), None, None, True, 0.1, 1e-5)
        )
    own = operators["convolution"](X, X, weight[:3, :1], None, *settings, 3)
    assert [one.kernel for one in own] == [
        "at::native::conv_depthwise2d_forward_kernel<3, float, int>"
    ]


@pytest.mark.parametrize("name", ("classifier.relu-4096", "alexnet.pool1", "segnet.unpool1"))
def test_the_file_has_the_launches_that_a_pass_makes(name: str) -> None:
    case = next(one for one in machine_code.CASES if one.name == name)
    for dtype, layout in case.settings:
        for kind in machine_code.KINDS:
            made = torch_kernels.launches(torch_kernels.calls(case, dtype, layout, kind))
            found = [row for row in ROWS if row.key == (name, kind, dtype, layout)]
            assert [
                (operator, "x".join(map(str, one.grid)), "x".join(map(str, one.block)), one.bytes)
                for operator, one in made
            ] == [(row.operator, row.grid, row.block, row.bytes) for row in found]


def test_an_operator_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(NotImplementedError, match="roll"):
        torch_kernels.launches([torch_kernels.Call("roll", (X,), X)])


def test_a_thread_that_writes_something_else_is_an_error() -> None:
    y = torch.ones(4)
    one = torch_iterator.elementwise("f", (1, b"\0"), y, y)
    thread = torch_kernels.Thread((), b"", lambda address, width: bytes(width))
    thread.written[y.data_ptr() + 4] = struct.pack("<f", 1)
    torch_kernels.check(one, thread)
    thread.written[y.data_ptr() + 4] = struct.pack("<f", 2)
    with pytest.raises(AssertionError):
        torch_kernels.check(one, thread)


def test_the_figures_of_a_row_agree() -> None:
    assert {row.torch for row in ROWS} == {torch_kernels.VERSION}
    for row in ROWS:
        grid, block = (list(map(int, text.split("x"))) for text in (row.grid, row.block))
        threads = torch.tensor(grid + block).prod().item()
        issue = row.instructions * threads / machine_code.ISSUE * 1e6
        assert row.issue == pytest.approx(issue, rel=0.02, abs=1e-3)
        assert row.memory == pytest.approx(row.bytes / machine_code.MEMORY * 1e6, abs=1e-3)
        assert (row.kernel == "copy by the driver") == (row.instructions == 0)
        assert row.longest >= row.instructions


def test_the_model_has_these_figures() -> None:
    """bench/results/model/sm_90.csv joins each pass with the sums of its rows, and no row is of a
    pass that is not there."""
    passes: dict[tuple[str, ...], list[torch_kernels.Count]] = {}
    for row in ROWS:
        passes.setdefault(row.key, []).append(row)
    model = machine_code.ROOT / "bench/results/model/sm_90.csv"
    with model.open(newline="", encoding="utf-8") as file:
        rows = {
            tuple(row[name] for name in ("case", "kind", "dtype", "layout")): row
            for row in csv.DictReader(file)
        }
    assert passes.keys() <= rows.keys()
    for key, row in rows.items():
        counts = passes.get(key, [])
        found = [row["torch_memory_us"], row["torch_predicted_us"]]
        if not counts:
            assert found == ["", ""] and row["torch_instructions"] == ""
            continue
        sums = [
            sum(one.memory for one in counts),
            sum(max(one.issue, one.memory) for one in counts),
        ]
        again = f"{key}; `python bench/model.py` makes it anew"
        assert list(map(float, found)) == pytest.approx(sums, rel=1e-3, abs=1e-3), again
        ours, theirs = float(row["issue_us"]), sum(one.issue for one in counts)
        each = float(row["instructions"]) / ours * theirs  # of the same tensor's elements
        assert float(row["torch_instructions"]) == pytest.approx(each, rel=0.05)
