"""``pydl explain``."""

from typing import TYPE_CHECKING, Annotated

import typer

from pydl_cli.parsing import built, cuda_missing, sizes_of, to_channels_last

if TYPE_CHECKING:
    import torch

    from pydl_cli.questions import Question


def explain(
    family: Annotated[
        str,
        typer.Argument(
            help="A family of operators, such as pool, lrn, depthwise or rnn; or module:factory, "
            "which returns a model when it is called."
        ),
    ],
    shape: Annotated[
        str, typer.Option(help="Of the input; for rnn, steps x sequences x hidden units.")
    ],
    dtype: Annotated[str, typer.Option(help="float32, float64, float16 or bfloat16.")] = "float32",
    channels_last: Annotated[bool, typer.Option("--channels-last", help="The layout.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    cell: Annotated[
        str | None, typer.Option(help="The recurrent cell, such as gru; lstm if not given.")
    ] = None,
    stride: Annotated[int | None, typer.Option(min=1, help="Of depthwise; 1 if not given.")] = None,
    dim: Annotated[int | None, typer.Option(help="Of softmax; the last if not given.")] = None,
    fuse: Annotated[
        bool, typer.Option("--fuse", help="Of a model: layers that follow each other together.")
    ] = False,
) -> None:
    """Say who serves a call under auto, by which measurement, and why the others do not.

    Of a model, layer by layer: who serves it, by which measurement, its time here and with
    PyTorch's own, its share of the whole, what was left alone and why.

    For recurrent layers also how the CUDA kernels would go about it: all steps in one kernel, or
    step by step, and why.
    """
    import torch
    from rich.console import Console
    from rich.table import Table

    from pydl import backends, dispatch
    from pydl.contract.rnn import GATES
    from pydl_cli.questions import FAMILIES, OPTIONS, asked

    of_model = ":" in family
    if not of_model and family not in FAMILIES:
        raise ValueError(f"no family is called {family!r}; there are {', '.join(FAMILIES)}")
    row = None if of_model else FAMILIES[family]
    given = {"stride": stride, "dim": dim, "cell": cell}
    options = {name: value for name, value in given.items() if value is not None}
    for name in options.keys() - set(row.options if row else ()):
        having = [one for one, other in FAMILIES.items() if name in other.options]
        raise ValueError(f"--{name} is for {', '.join(having)}, not for {family}")
    if cell not in (None, *GATES):
        raise ValueError(f"--cell must be one of {', '.join(GATES)}, got {cell!r}")
    types = {str(one).removeprefix("torch."): one for one in backends.FLOATING}
    if dtype not in types:
        raise ValueError(f"--dtype must be one of {', '.join(types)}, got {dtype!r}")
    if device not in ("cpu", "cuda"):
        raise ValueError(f"--device must be cpu or cuda, got {device!r}")
    missing = cuda_missing()
    if device == "cuda" and missing:
        raise RuntimeError(f"--device cuda: no GPU in sight; {missing}")
    sizes = sizes_of(shape)
    if not sizes:
        raise ValueError(f"--shape must be such as 16x96x55x55, got {shape!r}")
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    if channels_last and len(sizes) not in formats:
        raise ValueError(f"--channels-last needs a shape of 4 or 5 axes, got {shape!r}")
    if row is not None and len(sizes) not in row.axes:
        raise ValueError(f"--shape for {family} must be {row.shape}, got {shape!r}")
    format = formats[len(sizes)] if channels_last else torch.contiguous_format
    tensor = torch.empty(sizes, dtype=types[dtype], device=device, memory_format=format)

    if row is None:
        _explain_model(family, tensor, fuse)
        return
    console = Console()
    questions = asked(family, tensor, **options)
    for question, which in _apart(questions):
        what = f"{question.kind}{which} of {shape}, {dtype}, on {tensor.device}"
        console.print(f"[bold]{question.answer}[/] serves {what}")
        if question.row is None:
            console.print(
                f"No measured row of the table for {dispatch.machine(device)} fits it; "
                "`pydl tune` measures calls on this machine.",
                soft_wrap=True,
            )
        else:
            console.print(f"Measured: {question.row.evidence}", highlight=False)
    table = Table("backend", "could serve it by name", show_header=True)
    for name in backends.BACKENDS:
        refusal = backends.refusal(name, questions[0].kind, questions[0].tensor)
        table.add_row(name, refusal or "yes")
    console.print(table)
    if family.startswith("rnn") and len(sizes) == 3:
        for way, said in _cuda_paths(tensor, cell or OPTIONS["cell"]).items():
            console.print(f"CUDA, {way}: {said}", highlight=False)


def _explain_model(name: str, like: "torch.Tensor", fuse: bool) -> None:
    """The table of a model, for a random input that is ``like`` this one."""
    import torch

    import pydl

    model = built("the model", name, fuse=fuse).to(device=like.device, dtype=like.dtype)
    if like.ndim == 4 and not like.is_contiguous():
        to_channels_last(model)
    typer.echo(str(pydl.explain(model, torch.randn_like(like))))


def _apart(questions: "list[Question]") -> "list[tuple[Question, str]]":
    """One question of each group with the same answer for the same reason, and which questions they
    are, in words, where there are others."""
    groups: dict[tuple, list[Question]] = {}
    for one in questions:
        evidence = one.row and one.row.evidence
        groups.setdefault((one.kind, one.answer, evidence), []).append(one)
    if len(groups) == 1:
        return [(questions[0], "")]
    return [
        (group[0], f" ({', '.join(one.function or one.operator for one in group)})")
        for group in groups.values()
    ]


def _cuda_paths(x: "torch.Tensor", cell: str) -> dict[str, str]:
    """How each pass of the CUDA kernels would go, on the device of x (steps, sequences, hidden)."""
    from pydl import backends, native
    from pydl.contract.rnn import GATES

    refusal = backends.refusal("cuda", "rnn", x)
    if refusal is not None:
        return {"both passes": f"cannot say: {refusal}"}
    _, sequences, hidden = x.shape
    weight = x.new_empty(GATES[cell] * hidden, hidden)
    path = native.library("cuda").functions.rnn_path
    return {
        name: path(weight, cell, sequences, False, backward)
        for name, backward in (("forward", False), ("backward", True))
    }
