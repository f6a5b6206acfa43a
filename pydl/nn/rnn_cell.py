"""Recurrent cells: one step."""

import torch

from pydl.nn.rnn import HasOptions
from pydl.ops import rnn_cell as ops
from pydl.ops import rnn_checks as checks
from pydl.ops.rnn_options import Options

Pair = tuple[torch.Tensor, torch.Tensor]


class RNNCell(HasOptions, torch.nn.RNNCell):
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
        options = Options(layer_norm=layer_norm, **checks.options(zoneout))
        self._set_up(checks.rnn_kind(self.nonlinearity), options, [""])

    def forward(self, input: torch.Tensor, hx: torch.Tensor | None = None) -> torch.Tensor:
        return ops.forward(self, torch.nn.RNNCell, input, hx)


class LSTMCell(HasOptions, torch.nn.LSTMCell):
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
        options = Options(peephole=peephole, layer_norm=layer_norm, **checks.options(zoneout))
        self._set_up("lstm", options, [""])

    def forward(self, input: torch.Tensor, hx: Pair | None = None) -> Pair:
        return ops.forward(self, torch.nn.LSTMCell, input, hx)


class GRUCell(HasOptions, torch.nn.GRUCell):
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
        options = Options(reset_after, layer_norm=layer_norm, **checks.options(zoneout))
        self._set_up("gru", options, [""])

    def forward(self, input: torch.Tensor, hx: torch.Tensor | None = None) -> torch.Tensor:
        return ops.forward(self, torch.nn.GRUCell, input, hx)
