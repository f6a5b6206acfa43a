"""A run's state in a file that is there whole or not at all, and the states of the random number
generators."""

import contextlib
import io
import os
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

_KIND, _FORMAT = "pydl.train checkpoint", 1


class CheckpointError(ValueError):
    """A file from which this run cannot go on; the message names it and says why."""


def write(state: dict[str, Any], path: Path) -> None:
    """Writes beside ``path`` and renames: whoever reads it, or whenever this process is killed, it
    holds the old state or the new one.

    What a killed process leaves (``<name>.partial``) is overwritten by the next write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        torch.save({"kind": _KIND, "format": _FORMAT, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    # The new name has to outlive a failure of the power as well. Not every system opens a folder.
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def parse(content: bytes, path: Path) -> dict[str, Any]:
    """The state in a file's content.

    Raises:
        CheckpointError: it is damaged, or something else; nothing of it is executed.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            damaged = file.testzip()  # torch.load does not compare the checksums
        if damaged is not None:
            raise ValueError(f"{damaged} does not have its checksum")
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever zipfile and the unpickler make of arbitrary bytes
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: it is damaged or of another kind ({reason})"
        ) from error
    if not isinstance(state, dict) or state.get("kind") != _KIND:
        raise CheckpointError(f"{path} is not a checkpoint of pydl.train.fit")
    if state["format"] != _FORMAT:
        raise CheckpointError(
            f"{path} is a checkpoint of format {state['format']!r}; this version reads {_FORMAT}"
        )
    return state


def random_state(device: torch.device) -> dict[str, Any]:
    """The states of the process's generators: PyTorch's, of the device too, Python's and
    NumPy's."""
    _, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "python": random.getstate(),
        "numpy": [np.asarray(keys).tolist(), int(position), int(has_gauss), float(gauss)],
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Brings back what :func:`random_state` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
    random.setstate(state["python"])
    keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state(  # noqa: NPY002
        ("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, gauss)
    )
