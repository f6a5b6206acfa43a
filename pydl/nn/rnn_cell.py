"""Recurrent cells: one step."""

import torch

from pydl import backends
from pydl.nn.layer import Layer
from pydl.nn.rnn import PARAMETERS, add_own_weights, own_repr, reset_norms
from pydl.ops import rnn_cell as ops
from pydl.ops import rnn_checks as checks
from pydl.ops.rnn import Regularisation, Weights

States = tuple[torch.Tensor, ...]


class _Cell(Layer):
    """What RNNCell, LSTMCell and GRUCell share."""

    peephole = False
    layer_norm = False
    reset_after = True
    zoneout = (0.0, 0.0)
    recurrent_dropout = 0.0  # a cell sees no sequence that one mask could be for
    eps = 1e-5

    def _set_up(self, layer_norm: bool, zoneout: float | tuple[float, float], peephole: bool):
        """Attributes only where they differ from what a swapped cell has."""
        how = checks.regularisation(zoneout, 0.0, False, self.eps)
        if any(how[:2]):
            self.zoneout = how[:2]
        if layer_norm:
            self.layer_norm = True
        if peephole:
            self.peephole = True
        if layer_norm or peephole:
            add_own_weights(self, self._kind, self.weight_hh)
            self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        reset_norms(self)

    def extra_repr(self) -> str:
        said = super().extra_repr()
        backend = "" if self.backend is None else f", backend={self.backend!r}"
        return said.removesuffix(backend) + own_repr(self) + backend

    @property
    def _kind(self) -> str:
        raise NotImplementedError

    def _step(self, name: str, input: torch.Tensor, states: States | None) -> States:
        if input.dim() not in (1, 2):
            raise ValueError(f"{name}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        for index, state in enumerate(states or ()):
            if state.dim() not in (1, 2):
                what = f"hx[{index}]" if len(states) == 2 else "hidden"
                raise ValueError(
                    f"{name}: Expected {what} to be 1D or 2D, got {state.dim()}D instead"
                )
        batched = input.dim() == 2
        x = input if batched else input.unsqueeze(0)
        if states is not None and not batched:
            states = tuple(state.unsqueeze(0) for state in states)
        parameters = self._parameters
        weights = Weights(*(parameters.get(name) for name in PARAMETERS))
        how = Regularisation(*self.zoneout, 0.0, self.training, self.eps)
        backend = backends.choose("rnn_cell", self.backend, x)
        given = states if states is None or len(states) == 2 else states[0]
        h, c = checks.states(name, self._kind, x, x.shape[0], given, weights)
        checks.weights(name, self._kind, x, weights)
        made = ops.cell(self._kind, x, h, c, weights, how, backend)
        return made if batched else tuple(state.squeeze(0) for state in made if state.dim() == 2)


class RNNCell(_Cell, torch.nn.RNNCell):
    """See :func:`pydl.functional.rnn_cell` and :class:`torch.nn.RNNCell`; its options are
    :class:`RNN`'s.

    >>> pydl.nn.RNNCell(8, 16)(torch.randn(2, 8)).shape
    torch.Size([2, 16])
    """

    def __init__(
        self,
        *args,
        layer_norm: bool = False,
        zoneout: float = 0.0,
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._set_up(layer_norm, zoneout, False)

    @property
    def _kind(self) -> str:
        return checks.rnn_kind(self.nonlinearity)

    def forward(self, input: torch.Tensor, hx: torch.Tensor | None = None) -> torch.Tensor:
        return self._step("RNNCell", input, None if hx is None else (hx,))[0]


class LSTMCell(_Cell, torch.nn.LSTMCell):
    """See :func:`pydl.functional.lstm_cell` and :class:`torch.nn.LSTMCell`; its options are
    :class:`LSTM`'s.

    >>> h, c = pydl.nn.LSTMCell(8, 16)(torch.randn(2, 8))
    >>> h.shape, c.shape
    (torch.Size([2, 16]), torch.Size([2, 16]))
    """

    def __init__(
        self,
        *args,
        peephole: bool = False,
        layer_norm: bool = False,
        zoneout: float | tuple[float, float] = 0.0,
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._set_up(layer_norm, zoneout, peephole)

    @property
    def _kind(self) -> str:
        return "lstm"

    def forward(
        self, input: torch.Tensor, hx: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        h, c = self._step("LSTMCell", input, hx)
        return h, c


class GRUCell(_Cell, torch.nn.GRUCell):
    """See :func:`pydl.functional.gru_cell` and :class:`torch.nn.GRUCell`; its options are
    :class:`GRU`'s.

    >>> pydl.nn.GRUCell(8, 16)(torch.randn(2, 8)).shape
    torch.Size([2, 16])
    """

    def __init__(
        self,
        *args,
        reset_after: bool = True,
        layer_norm: bool = False,
        zoneout: float = 0.0,
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        if not reset_after:
            self.reset_after = False
        self._set_up(layer_norm, zoneout, False)

    @property
    def _kind(self) -> str:
        return "gru" if self.reset_after else "gru_reset_before"

    def forward(self, input: torch.Tensor, hx: torch.Tensor | None = None) -> torch.Tensor:
        return self._step("GRUCell", input, None if hx is None else (hx,))[0]
