"""Files of weights: safetensors, or ``.pth`` as PyTorch writes a ``state_dict``."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pydl.models import Model

SUFFIXES = (".safetensors", ".pth", ".pt")
_KEY = "pydl"


@dataclass(frozen=True)
class About:
    """What a file of weights says of itself: which network, what its scores are of, and how its
    images were scaled."""

    model: str
    classes: tuple[str, ...]
    input: tuple[int, ...]  # C, H, W
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


def check(path: Path) -> None:
    """Raises where a file of this name cannot be written or read here.

    Raises:
        ValueError: its name ends in nothing known.
        ImportError: it takes safetensors, which is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"the name of a file of weights ends in {' or '.join(SUFFIXES)}, got {path}"
        )
    if path.suffix == ".safetensors":
        _safetensors()


def write(model: "nn.Module", path: Path, about: About) -> None:
    """Writes the model's ``state_dict`` and what is to be said of it."""
    check(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: one.detach().cpu().contiguous() for name, one in model.state_dict().items()}
    said = json.dumps(asdict(about))
    if path.suffix == ".safetensors":
        _safetensors().save_file(state, path, metadata={_KEY: said})
        return
    from collections import OrderedDict

    import torch

    # An attribute: to whoever loads the file the dictionary is a state_dict like any other.
    ordered = OrderedDict(state)
    setattr(ordered, _KEY, said)
    torch.save(ordered, path)


def read(path: Path) -> "tuple[dict[str, torch.Tensor], About | None]":
    """The tensors by name, and what the file says of itself; nothing of it is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else.
    """
    check(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        state, said = _read(path)
    except Exception as error:  # whatever zipfile, the unpickler and safetensors make of bytes
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} cannot be read as a file of weights ({reason})") from error
    if said is None:
        return state, None
    about: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in json.loads(said).items()
    }
    return state, About(**about)


def _read(path: Path) -> "tuple[dict[str, torch.Tensor], str | None]":
    if path.suffix == ".safetensors":
        _safetensors()
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            said = (file.metadata() or {}).get(_KEY)
            return {name: file.get_tensor(name) for name in file.keys()}, said  # noqa: SIM118
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise ValueError("it is no state_dict")
    return state, getattr(state, _KEY, None)


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError(
            "safetensors is not installed: pip install safetensors, or let the name of the file "
            "of weights end in .pth"
        ) from error
    return safetensors.torch


def classes_of(model: "Model", state: "dict[str, torch.Tensor]") -> int | None:
    """How many classes these weights of the network tell apart; None where they are as many as the
    network has by itself."""
    from pydl.models.meta import hollow

    own = hollow(model.build).state_dict()
    for name, tensor in state.items():
        if name in own and own[name].shape != tensor.shape:
            return len(tensor)
    return None


def load(model: "nn.Module", state: "dict[str, torch.Tensor]", path: Path) -> None:
    """Puts weights into the model.

    Raises:
        ValueError: they are another network's.
    """
    own = model.state_dict()
    wrong = [
        f"{name} is {_size(tensor)} there and {_size(own[name])} here"
        for name, tensor in state.items()
        if name in own and own[name].shape != tensor.shape
    ]
    wrong += [f"{name} is missing there" for name in own if name not in state]
    wrong += [f"{name} is unknown here" for name in state if name not in own]
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ValueError(f"{path} has the weights of another network: {wrong[0]}{more}")
    model.load_state_dict(state)


def _size(tensor: "torch.Tensor") -> str:
    return "x".join(map(str, tensor.shape)) or "one number"
