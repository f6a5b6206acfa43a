"""``pydl info``."""


def info() -> None:
    """Say which backends there are, why one is missing, and the versions in use."""
    import torch
    from rich.console import Console
    from rich.table import Table

    from pydl import backends, measure
    from pydl_cli.parsing import cuda_missing

    console = Console()
    table = Table(
        "backend", "", "what it is, or why it is missing", title="Backends", title_justify="left"
    )
    for name, available, detail in backends.report():
        mark = "[green]yes[/]" if available else "[yellow]no[/]"
        table.add_row(name, mark, detail)
    console.print(table)

    no_gpu = cuda_missing()
    device = "cpu" if no_gpu else "cuda"
    found = measure.versions(device)
    table = Table("", "", title="Versions", title_justify="left", show_header=False)
    for name, missing in (
        ("python", ""),
        ("torch", ""),
        ("numpy", "not installed"),
        ("triton", "not installed"),
    ):
        table.add_row(name, found[name] or missing)
    table.add_row("pydl", found["pydl"] or "a checkout that is not installed")
    table.add_row("processor", f"{measure.device_name('cpu')}, {torch.get_num_threads()} threads")
    table.add_row("CPU kernels", found["pydl_isa"] or "not built")
    table.add_row("CUDA kernels", found["pydl_cuda"] or "not built")
    table.add_row("auto goes by", _tables(device))
    if device == "cuda":
        gpu = f"{measure.device_name(device)}, capability {found['capability']}"
        table.add_row("GPU", f"{gpu}; CUDA {found['cuda']}, cuDNN {found['cudnn']}")
    else:
        table.add_row("GPU", f"none in sight; {no_gpu}")
    console.print(table)


def _tables(device: str) -> str:
    """What ``auto`` knows of this machine, and how it may know more."""
    from pydl import dispatch, tuning

    if device == "cuda":
        tuning.load(device)
    kind = dispatch.machine(device)
    rows = len(dispatch.read(kind))
    tuned = sum(map(len, dispatch.EXACT.values()))
    said = f"its table for {kind}, {rows} rows" if rows else f"PyTorch's own: no table for {kind}"
    if tuned:
        return f"{tuned} calls tuned on this machine, then {said}"
    return f"{said}; `pydl tune` measures this machine"
