"""``pydl explain``."""

from typing import Annotated

import typer

_RNN_CELLS = ("rnn_tanh", "rnn_relu", "lstm", "gru", "gru_reset_before")


def _sizes(text: str) -> tuple[int, ...]:
    """``16x96x55x55`` or ``16,96,55,55`` to numbers.

    Raises:
        ValueError: it is neither.
    """
    try:
        return tuple(int(part) for part in text.replace(",", "x").split("x"))
    except ValueError:
        raise ValueError(f"--shape must be such as 16x96x55x55, got {text!r}") from None


def explain(
    family: Annotated[
        str, typer.Argument(help="A family of operators, such as pool, lrn, depthwise or rnn.")
    ],
    shape: Annotated[
        str, typer.Option(help="Of the input; for rnn, steps x sequences x hidden units.")
    ],
    dtype: Annotated[str, typer.Option(help="float32, float64, float16 or bfloat16.")] = "float32",
    channels_last: Annotated[bool, typer.Option("--channels-last", help="How it lies.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    cell: Annotated[str, typer.Option(help=f"For rnn: {', '.join(_RNN_CELLS)}.")] = "lstm",
) -> None:
    """Say who serves a call under auto, by which measurement, and why the others do not.

    For recurrent layers also how the CUDA kernels would go about it: all steps in one kernel, or
    step by step, and why.
    """
    import torch
    from rich.console import Console
    from rich.table import Table

    from pydl import backends

    if not backends.serving(family):
        known = backends.BACKENDS["reference"].families
        raise ValueError(f"no family is called {family!r}; there are {', '.join(known)}")
    types = {str(one).removeprefix("torch."): one for one in backends.FLOATING}
    if dtype not in types:
        raise ValueError(f"--dtype must be one of {', '.join(types)}, got {dtype!r}")
    sizes = _sizes(shape)
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    if channels_last and len(sizes) not in formats:
        raise ValueError(f"--channels-last needs a shape of 4 or 5 axes, got {shape!r}")
    format = formats[len(sizes)] if channels_last else torch.contiguous_format
    tensor = torch.empty(sizes, dtype=types[dtype], device=device, memory_format=format)

    console = Console()
    chosen, row = backends.choose(family, "auto", tensor), backends.measured(family, tensor)
    console.print(f"[bold]{chosen}[/] serves {family} of {shape}, {dtype}, on {tensor.device}")
    if row is None:
        console.print("No measured row of the dispatch table fits it.")
    else:
        console.print(f"Measured: {row.evidence}", highlight=False)
    table = Table("backend", "could serve it by name", show_header=True)
    for name in backends.BACKENDS:
        table.add_row(name, backends.refusal(name, family, tensor) or "yes")
    console.print(table)
    if family == "rnn":
        for backward, said in _cuda_paths(sizes, types[dtype], cell).items():
            console.print(f"CUDA, {backward}: {said}", highlight=False)


def _cuda_paths(sizes: tuple[int, ...], dtype: object, cell: str) -> dict[str, str]:
    """How each pass of the CUDA kernels would go, on the device at hand."""
    import torch

    from pydl import backends, native

    if cell not in _RNN_CELLS:
        raise ValueError(f"--cell must be one of {', '.join(_RNN_CELLS)}, got {cell!r}")
    if len(sizes) != 3:
        raise ValueError("--shape for rnn must be steps x sequences x hidden units")
    missing = backends.BACKENDS["cuda"].missing
    if missing is None and not torch.cuda.is_available():
        missing = "no GPU"
    if missing is not None:
        return {"both passes": f"cannot say: {missing}"}
    _, sequences, hidden = sizes
    gates = {"lstm": 4}.get(cell, 3 if cell.startswith("gru") else 1)
    weight = torch.empty(1, gates * hidden, hidden, dtype=dtype, device="cuda")
    path = native.library("cuda").functions.rnn_path
    return {
        name: path(weight, _RNN_CELLS.index(cell), sequences, False, backward)
        for name, backward in (("forward", False), ("backward", True))
    }
