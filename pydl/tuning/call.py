"""A call that can be made again, by each backend that can serve it, and checked."""

import copy
import functools
from collections.abc import Callable

import torch
from torch.utils._pytree import tree_flatten, tree_map

from pydl import dispatch, measure
from pydl.asked import use_backend
from pydl.tuning.misses import noting

# A result may be this many times as far from the reference as PyTorch's, and this many units in
# the last place of the largest value further.
_TIMES, _UNITS = 2, 16


class Call:
    """A call with operands of its own, so that it can be made again and again."""

    def __init__(self, function: Callable[..., object], args: tuple, kwargs: dict) -> None:
        self.function = function
        self.args, self.kwargs = tree_map(_copied, (args, kwargs))
        leaves = tree_flatten((self.args, self.kwargs))[0]
        self.wanted = [one for one in leaves if isinstance(one, torch.Tensor) and one.requires_grad]
        for module in (one for one in leaves if isinstance(one, torch.nn.Module)):
            self.wanted += [one for one in module.parameters() if one.requires_grad]
        if not torch.is_grad_enabled():
            self.wanted = []

    def run(self, backend: str) -> list[torch.Tensor]:
        """Results and gradients by this backend."""
        named = "backend" in self.kwargs
        kwargs = {**self.kwargs, "backend": backend} if named else self.kwargs
        with use_backend(backend):
            results = tree_flatten(self.function(*self.args, **kwargs))[0]
        results = [one for one in results if isinstance(one, torch.Tensor)]
        ends = [one for one in results if one.requires_grad]
        results = [one.detach() for one in results]
        if not self.wanted or not ends:
            return results
        # Ones are an expanded tensor, which a gradient seldom is.
        grads = [torch.ones_like(one) for one in ends]
        return [
            *results,
            *torch.autograd.grad(ends, self.wanted, grads, allow_unused=True),
        ]

    def seeded(self, backend: str) -> list[torch.Tensor]:
        """The same, with the random numbers that every backend is to draw."""
        torch.manual_seed(0)
        return self.run(backend)

    def questions(self) -> list[tuple[str, torch.Tensor, dispatch.Key]]:
        """What the call asks ``backends.choose``, under ``auto``."""
        seen: list[tuple[str, torch.Tensor, dispatch.Key]] = []

        def note(family: str, tensor: torch.Tensor, key: dispatch.Key) -> None:
            seen.append((family, tensor, key))

        with noting(note):
            self.run("auto")
        return seen

    def actions(
        self, servers: list[str], left_out: dict[str, str], random: bool
    ) -> dict[str, measure.Action]:
        """A callable for each server that gives correct results. Fills in why others do not."""
        found: dict[str, list[torch.Tensor]] = {}
        for server in servers:
            try:
                found[server] = self.seeded(server)
            except torch.OutOfMemoryError:
                left_out[server] = "ran out of memory"
            except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
                left_out[server] = str(error).partition("\n")[0]
        ours = [one for one in found if one != "aten"]
        if ours:
            try:
                doubled = tree_map(_doubled, (self.args, self.kwargs))
                truth = Call(self.function, *doubled).seeded("reference")
            except (RuntimeError, ValueError, TypeError, MemoryError) as error:
                for server in ours:
                    said = str(error).partition("\n")[0]
                    left_out[server] = f"the reference cannot check it: {said}"
                    del found[server]
            else:
                theirs = None if random else found.get("aten")
                for server in ours:
                    if not correct(found[server], truth, theirs):
                        left_out[server] = "its results are not those of the reference"
                        del found[server]
        return {server: functools.partial(self.run, server) for server in found}


def correct(
    ours: list[torch.Tensor], truth: list[torch.Tensor], theirs: list[torch.Tensor] | None
) -> bool:
    """Whether results are as close to the reference as PyTorch's, within limits."""
    if len(ours) != len(truth):
        return False
    for i, (one, true) in enumerate(zip(ours, truth, strict=True)):
        if one is None or true is None:
            if one is not true:
                return False
            continue
        if not one.is_floating_point():
            continue  # indices: of ties, any
        size = max(float(true.abs().max()), 1.0) if true.numel() else 0.0
        bound = _UNITS * torch.finfo(one.dtype).eps * size
        if theirs is not None and len(theirs) == len(truth) and theirs[i] is not None:
            bound += _TIMES * _distance(theirs[i], true)
        if not _distance(one, true) <= bound:
            return False
    return True


def _distance(values: torch.Tensor, truth: torch.Tensor) -> float:
    return float((values.double() - truth).abs().max()) if truth.numel() else 0.0


def _copied(value: object) -> object:
    if not isinstance(value, torch.Tensor):
        return value
    # Memory of its own, laid out alike: an expanded tensor stays one.
    alike = value.detach()
    if value.numel() and 0 not in value.stride():
        alike = torch.empty_strided(
            value.shape, value.stride(), dtype=value.dtype, device=value.device
        ).copy_(alike)
    return alike.requires_grad_(value.requires_grad)


def _doubled(value: object) -> object:
    if isinstance(value, torch.nn.Module):
        return copy.deepcopy(value).double()
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return value
    return value.detach().double().requires_grad_(value.requires_grad)
