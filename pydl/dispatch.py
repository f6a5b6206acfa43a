"""What ``auto`` chooses, by measurement: the rows of the dispatch table."""

import math
from dataclasses import dataclass

import torch

from pydl import layout

FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Row:
    """A measured choice of ``auto``. The first row that fits is taken; where none does,
    PyTorch's own operator is, or what stands in for it."""

    family: str
    device: str
    dtypes: tuple[torch.dtype, ...]
    backend: str
    evidence: str  # the file with the measurement
    channels_last: bool | None = None  # the layout it was measured for; None: either
    least: int = 0  # elements of the input below which PyTorch's own operator costs less
    least_plane: int = 0  # elements of one channel of one image, likewise
    functions: tuple[str, ...] = ()  # of the family's; empty: all
    unit_stride: bool | None = None  # the stride it was measured for; None: any

    def fits(self, tensor: torch.Tensor, function: str | None, unit_stride: bool | None) -> bool:
        """Whether the row decides on a call with this input; arguments as ``backends.choose``."""
        return (
            tensor.numel() >= self.least
            and (not self.functions or function in self.functions)
            and self.unit_stride in (None, unit_stride)
            and (self.least_plane == 0 or math.prod(tensor.shape[2:]) >= self.least_plane)
            and self.device == tensor.device.type
            and tensor.dtype in self.dtypes
            and self.channels_last
            in (None, layout.memory_format(tensor) is not torch.contiguous_format)
        )


_ROWS: tuple[Row, ...] = (
    Row(
        "pool",
        "cpu",
        FLOATING,
        "cpu",
        "bench/results/cpu/small.csv",
        channels_last=False,
        least=100_000,
    ),
    Row(
        "pool",
        "cpu",
        FLOATING,
        "cpu",
        "bench/results/cpu/small.csv",
        channels_last=True,
        least=250_000,
    ),
    # PyTorch averages no halves over three axes on a CPU.
    Row("pool3d", "cpu", (torch.float16, torch.bfloat16), "cpu", "bench/results/cpu/pool.csv"),
    Row(
        "pool3d",
        "cpu",
        (torch.float32, torch.float64),
        "cpu",
        "bench/results/cpu/pool.csv",
        channels_last=False,
        least=100_000,
    ),
    # Channels last it has maxima over three axes that are as fast.
    Row(
        "pool3d",
        "cpu",
        (torch.float32, torch.float64),
        "cpu",
        "bench/results/cpu/pool.csv",
        channels_last=True,
        least=1_000_000,
        functions=("avg_pool_forward",),
    ),
    # Nor, for that reason, does it have Lp pooling of halves.
    Row("pool_lp", "cpu", (torch.float16, torch.bfloat16), "cpu", "bench/results/cpu/pool.csv"),
    Row("pool_lp_any", "cpu", (torch.float16, torch.bfloat16), "cpu", "bench/results/cpu/pool.csv"),
    Row("pool_lp", "cpu", FLOATING, "cpu", "bench/results/cpu/pool.csv", least=100_000),
    # Channels last, adaptive pooling loses in training.
    Row(
        "pool_adaptive",
        "cpu",
        FLOATING,
        "cpu",
        "bench/results/cpu/pool.csv",
        channels_last=False,
        least=100_000,
    ),
    Row("pool_pyramid", "cpu", FLOATING, "cpu", "bench/results/cpu/pool.csv", least=100_000),
    Row("lrn", "cpu", FLOATING, "cpu", "bench/results/cpu/results.csv"),
    Row("spatial_norm", "cpu", FLOATING, "cpu", "bench/results/cpu/results.csv"),
    # On the smallest planes the native depthwise kernels are slower in either layout; channels last
    # with stride 2 too, and there the weight's gradient at most sizes.
    Row(
        "depthwise",
        "cpu",
        (torch.float32,),
        "cpu",
        "bench/results/cpu/depthwise.csv",
        channels_last=False,
        least_plane=196,
    ),
    Row(
        "depthwise",
        "cpu",
        (torch.float32,),
        "cpu",
        "bench/results/cpu/depthwise.csv",
        channels_last=True,
        least_plane=196,
        functions=("conv_forward", "conv_grad_input"),
        unit_stride=True,
    ),
    # Small maps and, without an activation, channels last lose.
    Row(
        "batch_norm",
        "cpu",
        (torch.float32,),
        "cpu",
        "bench/results/cpu/batch_norm.csv",
        channels_last=False,
        least=100_000,
    ),
    Row(
        "batch_norm_act",
        "cpu",
        (torch.float32,),
        "cpu",
        "bench/results/cpu/batch_norm.csv",
        channels_last=False,
        least=100_000,
    ),
    Row(
        "batch_norm_act",
        "cpu",
        (torch.float32,),
        "cpu",
        "bench/results/cpu/batch_norm.csv",
        channels_last=True,
        least=4_000_000,
    ),
    Row("conv_bias_act", "cpu", (torch.float32,), "cpu", "bench/results/cpu/epilogue.csv"),
    Row("local", "cpu", (torch.float32,), "cpu", "bench/results/cpu/epilogue.csv"),
    # PyTorch's kernel, too, runs at the speed of the exponential on long rows, and its relu at that
    # of memory: no row for these.
    Row(
        "softmax_columns",
        "cpu",
        (torch.float32, torch.float16, torch.bfloat16),
        "cpu",
        "bench/results/cpu/softmax.csv",
        channels_last=False,
        least=2_000_000,
    ),
    Row(
        "softmax_short_rows",
        "cpu",
        (torch.float32, torch.float16, torch.bfloat16),
        "cpu",
        "bench/results/cpu/softmax.csv",
        channels_last=False,
        least=80_000,
    ),
    Row(
        "cross_entropy",
        "cpu",
        (torch.float32, torch.float16, torch.bfloat16),
        "cpu",
        "bench/results/cpu/softmax.csv",
        least=200_000,
    ),
    Row(
        "dropout",
        "cpu",
        (torch.float32, torch.float16, torch.bfloat16),
        "cpu",
        "bench/results/cpu/softmax.csv",
        least=16_384,
    ),
    Row("rnn", "cpu", FLOATING, "cpu", "bench/results/cpu/rnn-short.csv", least=500),
    Row(
        "rnn_lstm",
        "cpu",
        (torch.float64, torch.float16),
        "cpu",
        "bench/results/cpu/rnn-1.csv",
        least=2_000,
    ),
    Row("rnn_own", "cpu", FLOATING, "cpu", "bench/results/cpu/rnn-1.csv"),
)

# The rows of each family or kind, in the order in which they are asked.
AUTO: dict[str, tuple[Row, ...]] = {}
for _row in _ROWS:
    AUTO[_row.family] = (*AUTO.get(_row.family, ()), _row)
# The fewest elements that any of them asks for, of each dtype.
LEAST: dict[tuple[str, torch.dtype], int] = {}
for _row in _ROWS:
    for _dtype in _row.dtypes:
        _key = _row.family, _dtype
        LEAST[_key] = min(_row.least, LEAST.get(_key, _row.least))
