"""Recurrent layers of arrays; definition and arguments in ``csrc/rnn.h``.

The inputs' product is one of all tokens, by the BLAS that NumPy or CuPy has; the steps are a
kernel's.
"""

import math

import numpy as np

from pydl.array.library import Array, operands, sums_dtype
from pydl.shapes import expect, packed, weight_sizes

Pair = tuple[Array, Array]


def lstm(
    input: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None = None,
    bias_hh: Array | None = None,
    hx: Pair | None = None,
    *,
    weight_hr: Array | None = None,
    peephole: Array | None = None,
    batch_sizes: np.ndarray | None = None,
    reverse: bool = False,
) -> tuple[Array, Pair]:
    """One layer of LSTM in one direction over whole sequences.

    Args:
        input: (T, B, inputs), or with ``batch_sizes`` packed tokens (S, inputs).
        weight_ih, weight_hh, bias_ih, bias_hh: (4 H, inputs), (4 H, P), (4 H,), (4 H,), gates in
            PyTorch's order i f g o; P is H, or the projection's size.
        hx: h and c to start from, (B, P) and (B, H); zeros where it is None.
        weight_hr: (P, H), the projection of h (Sak et al. 2014).
        peephole: (3, H): what i and f see of the old c and o of the new (Gers et al. 2002).
        batch_sizes: (T,), int64, NumPy's: how many sequences reach each step, as in
            :class:`torch.nn.utils.rnn.PackedSequence`.
        reverse: from each sequence's last step to its first.

    Returns:
        The outputs, as the input with P features, and the last h and c of each sequence.

    Raises:
        TypeError, RuntimeError: see the module.

    Source: Hochreiter and Schmidhuber 1997; Gers et al. 2000; PyTorch's ``nn.LSTM``.
    """
    needed = {"input": input, "weight_ih": weight_ih, "weight_hh": weight_hh}
    optional = {"bias_ih": bias_ih, "bias_hh": bias_hh}
    optional |= {"weight_hr": weight_hr, "peephole": peephole}
    optional["hx[0]"], optional["hx[1]"] = hx or (None, None)
    y, h, c = _layer("lstm", 4, needed, optional, batch_sizes, reverse)
    return y, (h, c)


def gru(
    input: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None = None,
    bias_hh: Array | None = None,
    hx: Array | None = None,
    *,
    reset_after: bool = True,
    batch_sizes: np.ndarray | None = None,
    reverse: bool = False,
) -> Pair:
    """One layer of GRU in one direction over whole sequences: gates in PyTorch's order r z n, and
    h' = (1 - z) n + z h.

    Args:
        weight_ih, weight_hh, bias_ih, bias_hh: (3 H, inputs), (3 H, H), (3 H,), (3 H,).
        hx: h to start from, (B, H).
        reset_after: r times the product of h, as PyTorch and cuDNN have it; False: the product of r
            times h, as Cho et al. 2014 and ONNX do.

    The other arguments, results and errors are :func:`lstm`'s.

    Source: Cho et al. 2014; PyTorch's ``nn.GRU``.
    """
    needed = {"input": input, "weight_ih": weight_ih, "weight_hh": weight_hh}
    optional = {"bias_ih": bias_ih, "bias_hh": bias_hh, "hx[0]": hx}
    cell = "gru" if reset_after else "gru_reset_before"
    return _layer(cell, 3, needed, optional, batch_sizes, reverse)[:2]


def rnn(
    input: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None = None,
    bias_hh: Array | None = None,
    hx: Array | None = None,
    *,
    nonlinearity: str = "tanh",
    batch_sizes: np.ndarray | None = None,
    reverse: bool = False,
) -> Pair:
    """One layer of Elman's network in one direction over whole sequences.

    Args:
        weight_ih, weight_hh, bias_ih, bias_hh: (H, inputs), (H, H), (H,), (H,).
        hx: h to start from, (B, H).
        nonlinearity: ``tanh`` or ``relu``; ValueError for another.

    The other arguments, results and errors are :func:`lstm`'s.

    Source: Elman 1990; PyTorch's ``nn.RNN``.
    """
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
    needed = {"input": input, "weight_ih": weight_ih, "weight_hh": weight_hh}
    optional = {"bias_ih": bias_ih, "bias_hh": bias_hh, "hx[0]": hx}
    return _layer(f"rnn_{nonlinearity}", 1, needed, optional, batch_sizes, reverse)[:2]


def _layer(
    cell: str,
    gates: int,
    needed: dict[str, Array],
    optional: dict[str, Array],
    batch_sizes: np.ndarray | None,
    reverse: bool,
) -> tuple[Array, Array, Array]:
    """y, h_n and c_n, None where the cell has none."""
    name = cell.partition("_")[0]
    with operands(name, needed, optional) as (library, x, *arrays):
        given = dict(zip((*needed, *optional), (x, *arrays), strict=True))
        sequences = _sequences(name, x, batch_sizes)
        _sizes(name, gates, sequences, given)
        weight_ih, weight_hh, bias_ih = (
            given[one] for one in ("weight_ih", "weight_hh", "bias_ih")
        )
        projected, hidden = weight_hh.shape[1], len(weight_hh) // gates
        tokens = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
        for state, width in (("hx[0]", projected), ("hx[1]", hidden)):
            if state in given and given[state] is None:
                given[state] = library.arrays.zeros((sequences, width), x.dtype)
        y, h_n = (library.empty((rows, projected), tokens) for rows in (len(tokens), sequences))
        c_n = library.empty((sequences, hidden), tokens) if "hx[1]" in given else None
        work, sums = None, sums_dtype(x)
        if library.on_gpu:  # room for the kernel, csrc/rnn.h
            steps = len(x) if batch_sizes is None else len(batch_sizes)
            work = library.empty((steps + (gates + 2) * sequences * hidden,), tokens, sums)
        product = tokens.astype(sums, copy=False) @ weight_ih.T.astype(sums, copy=False)
        if bias_ih is not None:
            product += bias_ih
        read = ("bias_hh", "hx[0]", "hx[1]", "weight_hr", "peephole")
        products = product.astype(x.dtype, copy=False), weight_hh, *map(given.get, read)
        no_norm_nor_masks, nothing_kept = [None] * 6, [None] * 5
        if sequences > 0:
            library.call(
                "rnn_forward",
                *map(library.contiguous, products),
                *no_norm_nor_masks,
                *(library.contiguous(batch_sizes), cell, bool(reverse), 0.0, 0.0, 0.0),
                *(y, h_n, c_n, *nothing_kept, work),
            )
        return y.reshape(*x.shape[:-1], projected), h_n, c_n


def _sizes(name: str, gates: int, sequences: int, given: dict[str, Array]) -> None:
    """Those of parameters and states, checked."""
    inputs, weight_hh = given["input"].shape[-1], given["weight_hh"]
    if weight_hh.ndim != 2:
        raise RuntimeError(f"{name}: weight_hh should be a matrix, got shape {weight_hh.shape}")
    sizes = weight_sizes(gates, inputs, weight_hh, given.get("weight_hr") is not None)
    sizes["hx[0]"] = sequences, weight_hh.shape[1]
    sizes["hx[1]"] = sequences, len(weight_hh) // gates
    for what, array in given.items():
        if what != "input" and array is not None:
            expect(name, what, array, sizes[what])


def _sequences(name: str, x: Array, batch_sizes: np.ndarray | None) -> int:
    """How many sequences the tokens are of, checked."""
    axes = 3 if batch_sizes is None else 2
    if x.ndim != axes:
        raise RuntimeError(f"{name}: input must have {axes} dimensions, got {x.ndim}")
    if batch_sizes is None:
        if len(x) == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        return x.shape[1]
    vector = isinstance(batch_sizes, np.ndarray) and batch_sizes.ndim == 1
    if not vector or batch_sizes.dtype != np.int64:
        raise RuntimeError(f"{name}: batch_sizes should be a NumPy vector of int64")
    packed(name, batch_sizes.tolist(), len(x))
    return int(batch_sizes[0])
