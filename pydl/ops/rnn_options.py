"""What recurrent modules hold beyond torch.nn's: their options, and where their weights are."""

from typing import Any, NamedTuple, Protocol

from pydl.contract.rnn import GATES
from pydl.ops.rnn import Regularisation, Weights


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


class HasWeights(Protocol):
    """A recurrent module, layer or cell."""

    bias: bool


def weights_of(module: HasWeights, suffix: str, options: Options) -> Weights:
    """A module's weights, by attribute: pruned, parametrised and replicated ones are no
    parameters."""

    def read(name: str, there: bool = True) -> Any:
        return getattr(module, name + suffix) if there else None

    norm = options.layer_norm
    norm_c = norm and hasattr(module, f"norm_c{suffix}")
    return Weights(
        weight_ih=read("weight_ih"),
        weight_hh=read("weight_hh"),
        bias_ih=read("bias_ih", module.bias),
        bias_hh=read("bias_hh", module.bias),
        weight_hr=read("weight_hr", getattr(module, "proj_size", 0) > 0),
        peephole=read("weight_peephole", options.peephole),
        norm_ih=read("norm_ih", norm),
        norm_hh=read("norm_hh", norm),
        norm_c=read("norm_c", norm_c),
        bias_c=read("bias_c", norm_c),
    )
