"""What recurrent modules hold beyond torch.nn's: their options, and where their weights are."""

from typing import NamedTuple, Protocol

import torch

from pydl.contract.rnn import GATES
from pydl.entry import HasTensors, held
from pydl.ops.rnn import Regularisation


class Options(NamedTuple):
    """A module keeps them in its ``__dict__`` as ``_pydl_options``; one of torch.nn has none, which
    are the plain ones."""

    reset_after: bool = True
    peephole: bool = False
    layer_norm: bool = False
    zoneout: tuple[float, float] = (0.0, 0.0)
    recurrent_dropout: float = 0.0
    eps: float = 1e-5

    def regularisation(self, training: bool) -> Regularisation:
        return Regularisation(*self.zoneout, self.recurrent_dropout, training, self.eps)

    def sizes(self, cell: str, rows: int) -> dict[str, tuple[int, ...]]:
        """The parameters beyond torch.nn's, for a weight_hh of this many rows."""
        hidden = rows // GATES[cell]
        sizes: dict[str, tuple[int, ...]] = (
            {"norm_ih": (rows,), "norm_hh": (rows,)} if self.layer_norm else {}
        )
        if self.layer_norm and cell == "lstm":
            sizes |= {"norm_c": (hidden,), "bias_c": (hidden,)}
        if self.peephole:
            sizes["weight_peephole"] = (3, hidden)
        return sizes

    def __str__(self) -> str:
        """What a module says of them: those that are not the plain ones."""
        said = "" if self.reset_after else ", reset_after=False"
        for name in ("peephole", "layer_norm"):
            if getattr(self, name):
                said += f", {name}=True"
        if any(self.zoneout):
            h, c = self.zoneout
            said += f", zoneout={h if h == c else (h, c)}"
        if self.recurrent_dropout:
            said += f", recurrent_dropout={self.recurrent_dropout}"
        return said


PLAIN = Options()


class HasWeights(HasTensors, Protocol):
    """A recurrent module, layer or cell."""

    bias: bool


# In the order of Weights: torch.nn's, which a plain module of any kind has.
_PLAIN = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def weights_of(module: HasWeights, suffix: str, options: Options) -> list[torch.Tensor | None]:
    """A module's weights, in the order of ``Weights`` and without those after the last one that it
    may have."""
    weights: list[torch.Tensor | None] = [
        held(module, name + suffix) for name in _PLAIN[: 4 if module.bias else 2]
    ]
    projects = module.__dict__.get("proj_size", 0) > 0  # which cells have not
    if options is PLAIN and not projects:
        return weights
    norm = options.layer_norm
    norm_c = norm and hasattr(module, f"norm_c{suffix}")
    weights += [None] * (4 - len(weights))
    for name, there in (
        ("weight_hr", projects),
        ("weight_peephole", options.peephole),
        *(("norm_ih", norm), ("norm_hh", norm), ("norm_c", norm_c), ("bias_c", norm_c)),
    ):
        weights.append(held(module, name + suffix) if there else None)
    return weights
