"""Triton's front end over every specialisation of a kernel that the suite makes.

The suite interprets the kernels, and Triton's interpreter runs much that its compiler refuses.
`make test` writes down what it launches (tests/launches.py), and this makes Triton's IR of each
line, without a GPU and without the passes that follow: hundredths of a second each. `make cubins`
runs it with the oldest Triton that is supported and with the newest.
"""

import importlib
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
import triton
from specialisation import specialisation

sys.path.append(str(Path(__file__).parents[1]))
from launches import read

PROCESSES = 2


def _value(kind: Any) -> Any:
    """The argument that a kind stands for."""
    if isinstance(kind, list):
        return tuple(_value(item) for item in kind)
    if isinstance(kind, dict):
        return torch.empty((), dtype=getattr(torch, kind["tensor"]), device="meta")
    return kind


def fault(line: str) -> str | None:
    """What the front end has against a line, None where nothing."""
    module, name, kinds = json.loads(line)
    kernel = getattr(importlib.import_module(module), name)
    try:
        specialisation(kernel, (), {name: _value(kind) for name, kind in kinds.items()}).ir()
    except Exception as error:
        return f"{module}.{name}: {type(error).__name__}: {error}\n  {line}"
    return None


def main(folder: Path) -> None:
    lines = read(folder)
    if not lines:
        sys.exit(f"{folder} has no launches: `make test` writes them down")
    with ProcessPoolExecutor(PROCESSES) as pool:
        faults = [fault for fault in pool.map(fault, lines, chunksize=16) if fault]
    print(f"Triton {triton.__version__}: {len(lines)} specialisations, {len(faults)} refused")
    sys.exit("\n".join(faults) or 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
