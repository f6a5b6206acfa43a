"""What is kept of a network: the names and shapes of its state, and outputs for weights and an
input that are functions of their names."""

import hashlib

import torch
from golden.weights import fill, uniform
from torch import nn

SCORES = 32  # how many of the output's numbers are kept, of all outputs together


def filled(model: nn.Module) -> nn.Module:
    """``model``, built on the meta device, with the weights of weights.py, in evaluation mode."""
    model = model.to_empty(device="cpu")
    fill(model.state_dict())
    return model.eval()


def keys(model: nn.Module) -> str:
    """A digest of the names and shapes of ``state_dict``."""
    lines = [f"{name} {tuple(t.shape)}" for name, t in sorted(model.state_dict().items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def images(size: tuple[int, ...]) -> torch.Tensor:
    """Two images, or clips."""
    return uniform("images", (2, *size))


@torch.inference_mode()
def stages(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, list[float]]]:
    """The output, and of each child of the model that runs the mean and the deviation of what it
    gives."""
    found: dict[str, list[float]] = {}

    def see(name: str):
        def hook(_: nn.Module, __: object, y: object) -> None:
            if isinstance(y, torch.Tensor):
                found[name] = [y.double().mean().item(), y.double().std().item()]

        return hook

    handles = [child.register_forward_hook(see(name)) for name, child in model.named_children()]
    try:
        return model(x), found
    finally:
        for handle in handles:
            handle.remove()


def measure(model: nn.Module, size: tuple[int, ...]) -> dict:
    """All that is kept, of a model on the meta device. In float64: the deepest networks make a
    rounding error of float32 a difference of several per mille."""
    model = filled(model).double()
    y, found = stages(model, images(size).double())
    outputs = y.values() if isinstance(y, dict) else [y]
    return {
        "keys": keys(model),
        "input": list(size),
        "stages": found,
        "scores": [score for one in outputs for score in _some(one, SCORES // len(outputs))],
    }


def _some(y: torch.Tensor, count: int) -> list[float]:
    return y.flatten()[:: max(1, y.numel() // count)][:count].tolist()
