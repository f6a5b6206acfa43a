"""Layers to swap, inputs for them, and what to compare."""

import io

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pydl.swap import COUNTERPARTS

X = {axes: torch.randn(2, 4, *[9] * axes) for axes in (0, 1, 2, 3)}
MAP = torch.randn(2, 4, 24, 24)
SEQUENCE = torch.randn(9, 2, 4)


def inputs(name: str) -> tuple:
    if "Unpool" in name:
        return torch.nn.functional.max_pool2d(X[2][..., :8, :8], 2, return_indices=True)
    if name.endswith("Loss"):
        return X[0], torch.tensor([1, 3])
    if name in ("RNN", "LSTM", "GRU"):
        return (SEQUENCE,)
    if name.endswith("Cell"):
        return (X[0],)
    return (X[int(name[-2])] if name[-1] == "d" else X[2],)


def layer(name: str, library=torch.nn) -> torch.nn.Module:
    own = {"LocalResponseNorm": (3,), "Softmax": (1,), "LogSoftmax": (1,)}
    arguments = own.get(name, ())
    for word, given in (
        *(("ool", (2,)), ("LPPool", (2, 2)), ("Conv", (4, 6, 3)), ("BatchNorm", (4,))),
        *(("RNN", (4, 6)), ("LSTM", (4, 6)), ("GRU", (4, 6)), ("Lazy", ())),
    ):
        arguments = given if word in name else arguments
    return getattr(library, name)(*arguments)


def served(module: torch.nn.Module, *args) -> tuple:
    """What a module gives, and the gradients of it; with masks that a seed repeats."""
    torch.manual_seed(0)
    leaves = [a.detach().requires_grad_() if a.is_floating_point() else a for a in args]
    y = module(*leaves)
    y = y if isinstance(y, torch.Tensor) else torch.cat([t.flatten() for t in flat(y)])
    wanted = [t for t in (*leaves, *module.parameters()) if t.requires_grad]
    grads = torch.autograd.grad(y.square().sum(), wanted, allow_unused=True)
    return y.detach(), *(g for g in grads if g is not None)


def flat(y) -> list[torch.Tensor]:
    return [y] if isinstance(y, torch.Tensor) else [t for part in y for t in flat(part)]


def same(ours, theirs) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


NAMES = [cls.__name__ for cls in COUNTERPARTS if "Lazy" not in cls.__name__]
NAMES = [name for name in NAMES if name not in ("MaxUnpool1d", "MaxUnpool3d")]
# Those that run an operator of pydl's: NLLLoss has none, but PyTorch's own and the definition.
WITH_OPERATORS = [name for name in NAMES if name != "NLLLoss"]


class Ours(TorchDispatchMode):
    """Sees which operators are pydl's."""

    def __init__(self):
        super().__init__()
        self.seen = False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen |= function.namespace == "pydl"
        return function(*args, **kwargs or {})


def is_ours(module: torch.nn.Module, *args) -> bool:
    with Ours() as ours, torch.no_grad():
        module(*args)
    return ours.seen


def replica(model: torch.nn.Module) -> torch.nn.Module:
    """As torch.nn.DataParallel makes one for each device."""
    made = {module: module._replicate_for_data_parallel() for module in model.modules()}
    for module, copied in made.items():
        for name, child in module._modules.items():
            copied._modules[name] = made[child]
        for name, parameter in module._parameters.items():
            setattr(copied, name, parameter if parameter is None else parameter.view_as(parameter))
    return made[model]


def saved(model: torch.nn.Module) -> torch.nn.Module:
    """After ``torch.save`` and ``torch.load``."""
    held = io.BytesIO()
    torch.save(model, held)
    held.seek(0)
    return torch.load(held, weights_only=False)
