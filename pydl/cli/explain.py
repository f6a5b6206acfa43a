"""``pydl explain``."""

from typing import TYPE_CHECKING, Annotated

import typer

from pydl.cli.shapes import sizes_of

if TYPE_CHECKING:
    import torch


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
    cell: Annotated[str, typer.Option(help="A recurrent layer's, such as lstm or gru.")] = "lstm",
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
    sizes = sizes_of(shape)
    if not sizes:
        raise ValueError(f"--shape must be such as 16x96x55x55, got {shape!r}")
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
    if family.startswith("rnn"):
        for way, said in _cuda_paths(tensor, cell).items():
            console.print(f"CUDA, {way}: {said}", highlight=False)


def _cuda_paths(x: "torch.Tensor", cell: str) -> dict[str, str]:
    """How each pass of the CUDA kernels would go, on the device of x (steps, sequences, hidden)."""
    from pydl import backends, native, rnn_results

    if cell not in rnn_results.GATES:
        raise ValueError(f"--cell must be one of {', '.join(rnn_results.GATES)}, got {cell!r}")
    if x.ndim != 3:
        raise ValueError("--shape for rnn must be steps x sequences x hidden units")
    refusal = backends.refusal("cuda", "rnn", x)
    if refusal is not None:
        return {"both passes": f"cannot say: {refusal}"}
    _, sequences, hidden = x.shape
    weight = x.new_empty(rnn_results.GATES[cell] * hidden, hidden)
    path = native.library("cuda").functions.rnn_path
    return {
        name: path(weight, cell, sequences, False, backward)
        for name, backward in (("forward", False), ("backward", True))
    }
