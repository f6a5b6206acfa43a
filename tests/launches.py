"""What Triton's kernels are launched with while tests run, written down for
tests/tools/front_end.py: a line of JSON for each kernel with the types and constants of its
arguments."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton.language as tl


def _kind(value: Any) -> Any:
    """An argument that is no constant as one that stands for all of its type: Triton compiles a
    kernel for the dtypes of its tensors, and knows of an integer whether it is 1 and whether it
    needs 64 bits."""
    if isinstance(value, tuple):
        return [_kind(item) for item in value]
    if isinstance(value, torch.Tensor):
        return {"tensor": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, int) and value != 1:
        return 2 if -(2**31) <= value < 2**31 else 2**40
    return value


def _line(kernel: Any, arguments: tuple, named: dict[str, Any]) -> str:
    parameters = inspect.signature(kernel.fn).parameters
    named = dict(zip(parameters, arguments, strict=False)) | named
    kinds = {
        name: named[name] if parameter.annotation is tl.constexpr else _kind(named[name])
        for name, parameter in parameters.items()
    }
    return json.dumps([kernel.fn.__module__, kernel.fn.__name__, kinds])


def recorded(launch: Callable, file: Path) -> Callable:
    """``launch`` of pydl.kernels.runtime, which writes each new line into this file as well."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = file.open("w", buffering=1)
    seen = set()

    def recording(kernel: Any, count: int, device: torch.device, *arguments: Any, **named: Any):
        line = _line(kernel, arguments, named)
        if line not in seen:
            seen.add(line)
            lines.write(line + "\n")
        launch(kernel, count, device, *arguments, **named)

    return recording


def read(folder: Path) -> list[str]:
    """The lines of all files of a folder, each once."""
    files = folder.glob("*.json")
    return sorted({line for file in files for line in file.read_text().splitlines()})
