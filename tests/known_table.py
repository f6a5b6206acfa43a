"""A table as it may have been measured, by which tests let ``auto`` choose: with it they see both
sides of every choice, whatever was measured on the machine that they run on."""

from collections.abc import Iterator

import torch

from pydl import dispatch
from pydl.dispatch import FLOATING

HALVES = (torch.float16, torch.bfloat16)
SINGLE = (torch.float32,)


def _rows(family: str, dtypes: tuple, **limits: object) -> Iterator[dispatch.Row]:
    evidence = f"bench/results/some/{family}.csv: won"
    return (dispatch.Row(family, dtype, "cpu", evidence, **limits) for dtype in dtypes)


ROWS = [
    *_rows("pool", FLOATING, channels_last=False, least=100_000),
    *_rows("pool", FLOATING, channels_last=True, least=250_000),
    *_rows("pool3d", FLOATING[:2], channels_last=False, least=100_000),
    *_rows(
        "pool3d", FLOATING[:2], channels_last=True, least=1_000_000, function="avg_pool_forward"
    ),
    *_rows("pool_lp", FLOATING, least=100_000),
    *_rows("pool_adaptive", FLOATING, channels_last=False, least=100_000),
    *_rows("pool_pyramid", FLOATING, least=100_000),
    *_rows("lrn", FLOATING),
    *_rows("spatial_norm", FLOATING),
    *_rows("depthwise", SINGLE, channels_last=False, least_plane=196),
    *(
        row
        for function in ("conv_forward", "conv_grad_input")
        for row in _rows(
            *("depthwise", SINGLE),
            channels_last=True,
            least_plane=196,
            function=function,
            unit_stride=True,
        )
    ),
    *_rows("batch_norm", SINGLE, channels_last=False, least=100_000),
    *_rows("batch_norm_act", SINGLE, channels_last=False, least=100_000),
    *_rows("batch_norm_act", SINGLE, channels_last=True, least=4_000_000),
    *_rows("conv_bias_act", SINGLE),
    *_rows("depthwise_bias_act", SINGLE),
    *_rows("local", SINGLE),
    *_rows("softmax_columns", (*SINGLE, *HALVES), channels_last=False, least=2_000_000),
    *_rows("softmax_short_rows", (*SINGLE, *HALVES), channels_last=False, least=80_000),
    *_rows("cross_entropy", (*SINGLE, *HALVES), least=200_000),
    *_rows("dropout", (*SINGLE, *HALVES), least=16_384),
    *_rows("rnn", FLOATING, least=500),
    *_rows("rnn_lstm", (torch.float64, torch.float16), least=2_000),
    *_rows("rnn_own", FLOATING),
]
