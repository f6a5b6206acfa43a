"""Recurrent layers."""

import inspect

import torch
from torch.nn.utils.rnn import PackedSequence

from pydl.nn import at_once
from pydl.nn.layer import Layer
from pydl.ops import rnn_checks as checks
from pydl.ops import rnn_layers as ops
from pydl.ops.rnn_options import PLAIN, Options

Tensors = tuple[torch.Tensor, ...]


class HasOptions(Layer):
    """The options of layers and cells beyond torch.nn's, read-only, and the parameters they add."""

    def _set_up(self, cell: str, options: Options, suffixes: list[str]) -> None:
        """Call after torch.nn's constructor; sets nothing where the options are torch.nn's."""
        if options == PLAIN:
            return
        self._pydl_options = options
        for suffix in suffixes:
            like = getattr(self, f"weight_hh{suffix}")
            for name, size in options.sizes(cell, like.shape[0]).items():
                parameter = torch.nn.Parameter(like.new_empty(size))
                self.register_parameter(name + suffix, parameter)
        if options.layer_norm or options.peephole:
            self.reset_parameters()

    @property
    def reset_after(self) -> bool:
        return self.__dict__.get("_pydl_options", PLAIN).reset_after

    @property
    def peephole(self) -> bool:
        return self.__dict__.get("_pydl_options", PLAIN).peephole

    @property
    def layer_norm(self) -> bool:
        return self.__dict__.get("_pydl_options", PLAIN).layer_norm

    @property
    def zoneout(self) -> tuple[float, float]:
        return self.__dict__.get("_pydl_options", PLAIN).zoneout

    @property
    def recurrent_dropout(self) -> float:
        return self.__dict__.get("_pydl_options", PLAIN).recurrent_dropout

    @property
    def eps(self) -> float:
        return self.__dict__.get("_pydl_options", PLAIN).eps

    def reset_parameters(self) -> None:
        """Sets gains to 1 and the bias of c's norm to 0; peepholes start like the other weights."""
        super().reset_parameters()  # type: ignore[misc]  # the base it is mixed into has it
        for name, parameter in self.named_parameters():
            if name.startswith("norm_"):
                torch.nn.init.ones_(parameter)
            elif name.startswith("bias_c"):
                torch.nn.init.zeros_(parameter)

    def extra_repr(self) -> str:
        said = super().extra_repr()
        backend = "" if self.backend is None else f", backend={self.backend!r}"
        own = str(self.__dict__.get("_pydl_options", PLAIN))
        return said.removesuffix(backend) + own + backend


class _Recurrent(HasOptions, torch.nn.RNNBase):
    """What RNN, LSTM and GRU share.

    A subclass of ``torch.nn.RNNBase`` and not of its counterpart, which ``torch.compile`` refuses
    whatever its ``forward`` does.
    """

    def __init_subclass__(cls, **kwargs) -> None:
        """A layer's signature is its constructor's; torch.nn's would be RNNBase's."""
        super(Layer, cls).__init_subclass__(**kwargs)
        if cls.__module__ == __name__:
            at_once.leave(cls, getattr(torch.nn, cls.__name__))
        own = inspect.signature(cls.__init__)
        named = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        cls.__signature__ = own.replace(parameters=named[1:])

    def _suffixes(self) -> list[str]:
        directions = ("", "_reverse") if self.bidirectional else ("",)
        return [f"_l{layer}{end}" for layer in range(self.num_layers) for end in directions]


class RNN(_Recurrent):
    """See :func:`pydl.functional.rnn` and :class:`torch.nn.RNN`, whose arguments come first.

    Args:
        layer_norm: of both products, with parameters norm_ih_l0, norm_hh_l0, ...
        zoneout, recurrent_dropout: as in :func:`pydl.functional.lstm`.

    >>> y, h = pydl.nn.RNN(8, 16)(torch.randn(5, 2, 8))
    >>> y.shape, h.shape
    (torch.Size([5, 2, 16]), torch.Size([1, 2, 16]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        *,
        layer_norm: bool = False,
        zoneout: float = 0.0,
        recurrent_dropout: float = 0.0,
        backend: str | None = None,
        **others: object,
    ) -> None:
        checks.no_projection(others)
        mode = checks.rnn_kind(nonlinearity).upper()
        given = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        super().__init__(mode, *given, 0, device, dtype, backend=backend)
        self.nonlinearity = nonlinearity
        regularisation = checks.options(zoneout, recurrent_dropout)
        options = Options(layer_norm=layer_norm, **regularisation)
        self._set_up(mode.lower(), options, self._suffixes())

    def forward(
        self, input: torch.Tensor | PackedSequence, hx: torch.Tensor | None = None
    ) -> tuple[torch.Tensor | PackedSequence, torch.Tensor]:
        return ops.forward(self, torch.nn.RNN.forward, input, hx)


class LSTM(_Recurrent):
    """See :func:`pydl.functional.lstm` and :class:`torch.nn.LSTM`, whose arguments come first.

    Args:
        peephole: with parameters weight_peephole_l0, ... of (3, H).
        layer_norm: of both products and of c, with parameters norm_ih_l0, norm_hh_l0, norm_c_l0,
            bias_c_l0, ...
        zoneout, recurrent_dropout: as in :func:`pydl.functional.lstm`.

    >>> y, (h, c) = pydl.nn.LSTM(8, 16, peephole=True)(torch.randn(5, 2, 8))
    >>> y.shape, h.shape, c.shape
    (torch.Size([5, 2, 16]), torch.Size([1, 2, 16]), torch.Size([1, 2, 16]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        *,
        peephole: bool = False,
        layer_norm: bool = False,
        zoneout: float | tuple[float, float] = 0.0,
        recurrent_dropout: float = 0.0,
        backend: str | None = None,
    ) -> None:
        given = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        super().__init__("LSTM", *given, proj_size, device, dtype, backend=backend)
        regularisation = checks.options(zoneout, recurrent_dropout)
        options = Options(peephole=peephole, layer_norm=layer_norm, **regularisation)
        self._set_up("lstm", options, self._suffixes())

    # torch.nn's forward calls them; there, too, two of them are not what the base class declares.
    check_forward_args = torch.nn.LSTM.check_forward_args  # type: ignore[assignment]
    get_expected_cell_size = torch.nn.LSTM.get_expected_cell_size
    permute_hidden = torch.nn.LSTM.permute_hidden  # type: ignore[assignment]

    def forward(
        self, input: torch.Tensor | PackedSequence, hx: Tensors | None = None
    ) -> tuple[torch.Tensor | PackedSequence, Tensors]:
        return ops.forward(self, torch.nn.LSTM.forward, input, hx)


class GRU(_Recurrent):
    """See :func:`pydl.functional.gru` and :class:`torch.nn.GRU`, whose arguments come first.

    Args:
        reset_after: False computes what the lectures, Cho et al. and ONNX call a GRU.
        layer_norm: of both products, with parameters norm_ih_l0, norm_hh_l0, ...
        zoneout, recurrent_dropout: as in :func:`pydl.functional.lstm`.

    >>> y, h = pydl.nn.GRU(8, 16, reset_after=False)(torch.randn(5, 2, 8))
    >>> y.shape, h.shape
    (torch.Size([5, 2, 16]), torch.Size([1, 2, 16]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        *,
        reset_after: bool = True,
        layer_norm: bool = False,
        zoneout: float = 0.0,
        recurrent_dropout: float = 0.0,
        backend: str | None = None,
        **others: object,
    ) -> None:
        checks.no_projection(others)
        given = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        super().__init__("GRU", *given, 0, device, dtype, backend=backend)
        regularisation = checks.options(zoneout, recurrent_dropout)
        options = Options(reset_after, layer_norm=layer_norm, **regularisation)
        self._set_up("gru", options, self._suffixes())

    def forward(
        self, input: torch.Tensor | PackedSequence, hx: torch.Tensor | None = None
    ) -> tuple[torch.Tensor | PackedSequence, torch.Tensor]:
        return ops.forward(self, torch.nn.GRU.forward, input, hx)
