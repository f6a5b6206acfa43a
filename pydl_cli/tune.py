"""``pydl tune``."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pydl_cli.parsing import built, cuda_missing, sizes_of, to_channels_last

if TYPE_CHECKING:
    import torch

    from pydl.dispatch import Key
    from pydl.tuning import Choice

# Without a model: a small and a large input of each number of axes, as real layers have them.
SHAPES = {
    2: ((512, 1000), (8192, 10)),
    3: ((64, 32, 256), (256, 1, 128)),
    4: ((1, 64, 56, 56), (16, 64, 56, 56)),
    5: ((2, 32, 8, 28, 28),),
}


def tune(
    model: Annotated[
        str | None,
        typer.Option(
            help="module:factory, which returns a model when it is called; without one, the "
            "families are measured at shapes that layers have."
        ),
    ] = None,
    input: Annotated[
        list[str] | None,
        typer.Option(help="The shape of the model's input, such as 1x3x224x224; once for each."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, float64, float16 or bfloat16.")] = "float32",
    channels_last: Annotated[bool, typer.Option("--channels-last", help="The layout.")] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; PyTorch's own number if not given.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.0, help="To measure each call, roughly.")] = 0.1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the calls only.")] = False,
    clear: Annotated[
        bool, typer.Option("--clear", help="Remove what earlier runs found, and stop.")
    ] = False,
) -> None:
    """Measure who is fastest on this machine, and let auto choose by that from now on.

    Every backend that can serve a call is compared with the reference and timed in turns with
    PyTorch's own operator. What was measured before with these versions is not measured again.
    """
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from pydl import backends, measure, tuning

    console = Console()
    if clear:
        removed = tuning.clear()
        console.print(f"Removed {len(removed)} files from {tuning.folder()}", soft_wrap=True)
        return
    types = {str(one).removeprefix("torch."): one for one in backends.FLOATING}
    if dtype not in types:
        raise ValueError(f"--dtype must be one of {', '.join(types)}, got {dtype!r}")
    if device not in ("cpu", "cuda"):
        raise ValueError(f"--device must be cpu or cuda, got {device!r}")
    if device == "cuda" and cuda_missing():
        raise RuntimeError(f"--device cuda: no GPU in sight; {cuda_missing()}")
    if (model is None) != (input is None):
        raise ValueError("--model needs an --input for each of its inputs, and --input a --model")
    if threads is not None:
        torch.set_num_threads(threads)
    made = _Maker(types[dtype], device, channels_last)
    if model is None:
        runs = list(_families(made))
    else:
        called = built("--model", model).to(device=device, dtype=types[dtype])
        if channels_last:
            to_channels_last(called)
        inputs = [made(_sizes(text)) for text in input or ()]
        runs = [lambda passes, run: run(called, *inputs, passes=passes)]

    passes = ("inference", "training")
    calls = [call for one in runs for call in one(passes, tuning.calls_of)]
    if dry_run:
        for family, key in dict.fromkeys(calls):
            console.print(_said(family, key), highlight=False)
        console.print(f"{len(set(calls))} calls would be measured.")
        return
    found: list[Choice] = []
    columns = (
        TextColumn("Tuning"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[at]}"),
    )
    try:
        with measure.settled(), Progress(*columns, console=console) as progress:
            task = progress.add_task("", total=len(set(calls)), at="")

            def keep(choice: "Choice") -> None:
                found.append(choice)
                progress.update(task, advance=1, at=_said(choice.family, choice.key))

            do = partial(tuning.tune, seconds=seconds, save=False, progress=keep)
            for one in runs:
                one(passes, do)
            progress.update(task, completed=len(set(calls)), at="")
    finally:
        if found:
            _show(console, found)
            console.print(f"Kept in {tuning.write(found)}", soft_wrap=True)
    if not found:
        console.print("Everything was measured before; `pydl tune --clear` forgets it.")


class _Maker:
    """Inputs of one dtype, device and layout."""

    def __init__(self, dtype: "torch.dtype", device: str, channels_last: bool) -> None:
        self.dtype, self.device, self.channels_last = dtype, device, channels_last

    def __call__(self, sizes: tuple[int, ...]) -> "torch.Tensor":
        import torch

        made = torch.randn(sizes, dtype=self.dtype, device=self.device)
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        if self.channels_last and len(sizes) in formats:
            made = made.contiguous(memory_format=formats[len(sizes)])
        return made


def _sizes(text: str) -> tuple[int, ...]:
    sizes = sizes_of(text)
    if not sizes:
        raise ValueError(f"--input must be such as 1x3x224x224, got {text!r}")
    return sizes


def _families(made: _Maker) -> Iterator[Callable[..., Any]]:
    """A call of each operator of each family at each of :data:`SHAPES`."""
    from pydl.backends import BACKENDS
    from pydl_cli.questions import FAMILIES, OPTIONS

    for family, row in FAMILIES.items():
        if family not in BACKENDS["aten"].families or family == "nll_loss":
            continue  # nobody to compare with, or nothing to gain
        options = {name: OPTIONS[name] for name in row.options}
        for axes in row.axes:
            for sizes in SHAPES.get(axes, ()):
                for call in row.calls.values():
                    yield _sample(call, made(sizes), options)


def _sample(
    call: Callable[..., object], x: "torch.Tensor", options: dict[str, object]
) -> Callable[..., Any]:
    def run(passes: tuple[str, ...], how: Callable[..., list]) -> list:
        out = []
        for one in passes:
            given = x.detach().requires_grad_(one == "training")
            out += how(lambda tensor: call(tensor, **options), given, passes=(one,))
        return out

    return run


def _said(family: str, key: "Key") -> str:
    """One call in a few words."""
    shape, dtype = "x".join(map(str, key.shape)), str(key.dtype).removeprefix("torch.")
    return f"{family} {shape} {dtype}{', training' if key.training else ''}"


def _show(console: Any, found: "list[Choice]") -> None:
    """What was won, and what PyTorch keeps."""
    from rich.table import Table

    table = Table("call", "fastest", "ratio to PyTorch", "us", "left out", title="Measured")
    kept = 0
    for choice in found:
        kept += choice.backend == "aten" and not choice.left_out
        if choice.backend == "aten" and not choice.left_out:
            continue
        took = ", ".join(f"{name} {time:.0f}" for name, time in choice.microseconds.items())
        left_out = "; ".join(f"{name}: {why}" for name, why in choice.left_out.items())
        ratio = "" if choice.ratio is None else f"{choice.ratio:.2f}x"
        table.add_row(_said(choice.family, choice.key), choice.backend, ratio, took, left_out)
    console.print(table)
    console.print(f"PyTorch's own is fastest, or as fast, at {kept} other calls.")
