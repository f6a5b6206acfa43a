"""Recurrent layers."""

import inspect

import torch
from torch import _VF
from torch.nn.utils.rnn import PackedSequence

from pydl import backends, functional, rnn_results
from pydl.nn.layer import Layer
from pydl.ops import rnn as ops
from pydl.ops import rnn_checks as checks
from pydl.ops.rnn import Regularisation, Weights

States = tuple[torch.Tensor, ...]

# The parameters' names, in the order of Weights: `peephole` is the option.
PARAMETERS = tuple("weight_peephole" if field == "peephole" else field for field in Weights._fields)


def add_own_weights(
    module: torch.nn.Module, cell: str, like: torch.Tensor, suffix: str = ""
) -> None:
    """The parameters that torch.nn's layers do not have; ``like`` is weight_hh."""
    rows = like.shape[0]
    hidden = rows // rnn_results.GATES[cell]
    sizes = {"norm_ih": (rows,), "norm_hh": (rows,)} if module.layer_norm else {}
    if module.layer_norm and cell == "lstm":
        sizes |= {"norm_c": (hidden,), "bias_c": (hidden,)}
    if module.peephole:
        sizes["weight_peephole"] = (3, hidden)
    for name, size in sizes.items():
        module.register_parameter(name + suffix, torch.nn.Parameter(like.new_empty(size)))


def reset_norms(module: torch.nn.Module) -> None:
    """Gains 1 and the bias of c's norm 0; peepholes stay as the other weights begin."""
    for name, parameter in module.named_parameters():
        if name.startswith("norm_"):
            torch.nn.init.ones_(parameter)
        elif name.startswith("bias_c"):
            torch.nn.init.zeros_(parameter)


def own_repr(module: torch.nn.Module) -> str:
    """What a layer says of the options that torch.nn's has not."""
    said = ""
    if not module.reset_after:
        said += ", reset_after=False"
    for name in ("peephole", "layer_norm"):
        if getattr(module, name):
            said += f", {name}=True"
    if any(module.zoneout):
        h, c = module.zoneout
        said += f", zoneout={h if h == c else (h, c)}"
    if module.recurrent_dropout:
        said += f", recurrent_dropout={module.recurrent_dropout}"
    return said


class _Recurrent(Layer, torch.nn.RNNBase):
    """What RNN, LSTM and GRU share: the layers over each other, packed and unbatched input.

    A subclass of ``torch.nn.RNNBase`` and not of its counterpart, which ``torch.compile`` refuses
    whatever its ``forward`` does.
    """

    peephole = False
    layer_norm = False
    reset_after = True
    zoneout = (0.0, 0.0)
    recurrent_dropout = 0.0
    eps = 1e-5

    def __init_subclass__(cls, **kwargs) -> None:
        """A layer's signature is its constructor's; torch.nn's would be RNNBase's."""
        super(Layer, cls).__init_subclass__(**kwargs)
        own = inspect.signature(cls.__init__)
        cls.__signature__ = own.replace(parameters=list(own.parameters.values())[1:])

    def _set_up(
        self,
        layer_norm: bool,
        zoneout: float | tuple[float, float],
        recurrent_dropout: float,
        peephole: bool = False,
    ) -> None:
        """The options beyond torch.nn's, after its constructor; attributes only where they differ
        from what a swapped layer has."""
        how = checks.regularisation(zoneout, recurrent_dropout, False, self.eps)
        if any(how[:2]):
            self.zoneout = how[:2]
        if recurrent_dropout:
            self.recurrent_dropout = how.recurrent_dropout
        if layer_norm:
            self.layer_norm = True
        if peephole:
            self.peephole = True
        if layer_norm or peephole:
            for layer in range(self.num_layers):
                for suffix in self._suffixes(layer):
                    like = getattr(self, f"weight_hh{suffix}")
                    add_own_weights(self, self._cell, like, suffix)
            self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        reset_norms(self)

    def extra_repr(self) -> str:
        said = super().extra_repr()
        backend = "" if self.backend is None else f", backend={self.backend!r}"
        return said.removesuffix(backend) + own_repr(self) + backend

    @property
    def _cell(self) -> str:
        if self.mode == "GRU":
            return "gru" if self.reset_after else "gru_reset_before"
        return self.mode.lower()

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"][: 2 if self.bidirectional else 1]

    def _weights(self, suffix: str) -> Weights:
        parameters = self._parameters
        return Weights(*(parameters.get(name + suffix) for name in PARAMETERS))

    def forward(
        self,
        input: torch.Tensor | PackedSequence,
        hx: torch.Tensor | States | None = None,
    ) -> tuple[torch.Tensor | PackedSequence, torch.Tensor | States]:
        name, is_lstm = self.mode.partition("_")[0], self.mode == "LSTM"
        states = None if hx is None else hx if is_lstm else (hx,)
        if isinstance(input, PackedSequence):
            x, batch_sizes, sorted_indices, unsorted_indices = input
            if states is not None and sorted_indices is not None:
                states = tuple(state.index_select(1, sorted_indices) for state in states)
            sequences = len(sorted_indices) if sorted_indices is not None else int(batch_sizes[0])
            y, states = self._layers(x, batch_sizes, sequences, states)
            if unsorted_indices is not None:
                states = tuple(state.index_select(1, unsorted_indices) for state in states)
            y = PackedSequence(y, batch_sizes, sorted_indices, unsorted_indices)
            return y, states if is_lstm else states[0]
        if input.dim() not in (2, 3):
            tensor = " tensor" if name == "RNN" else ""
            raise ValueError(
                f"{name}: Expected input to be 2D or 3D, got {input.dim()}D{tensor} instead"
            )
        batched = input.dim() == 3
        if states is not None:
            self._check_rank(states, batched)
            states = states if batched else tuple(state.unsqueeze(1) for state in states)
        if not batched:
            x = input.unsqueeze(1)
        else:
            x = input.transpose(0, 1) if self.batch_first else input
        y, states = self._layers(x, None, x.shape[1], states)
        if not batched:
            y, states = y.squeeze(1), tuple(state.squeeze(1) for state in states)
        elif self.batch_first:
            y = y.transpose(0, 1)
        return y, states if is_lstm else states[0]

    def _check_rank(self, states: States, batched: bool) -> None:
        rank, kind = (3, "batched 3-D") if batched else (2, "unbatched 2-D")
        if all(state.dim() == rank for state in states):
            return
        given = f"{states[0].dim()}-D tensor"
        if len(states) == 2:
            given = f"({states[0].dim()}-D, {states[1].dim()}-D) tensors"
        what = "hx and cx" if len(states) == 2 else "hx"
        raise RuntimeError(f"For {kind} input, {what} should also be {rank}-D but got {given}")

    def _layers(
        self,
        x: torch.Tensor,
        batch_sizes: torch.Tensor | None,
        sequences: int,
        states: States | None,
    ) -> tuple[torch.Tensor, States]:
        """x is (T, B, inputs), or (S, inputs) where it is packed; the states are (layers times
        directions, B, ...)."""
        self._check_input(x, batch_sizes is not None)
        directions = 2 if self.bidirectional else 1
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)
        sizes = sizes if self.mode == "LSTM" else sizes[:1]
        shapes = [(self.num_layers * directions, sequences, size) for size in sizes]
        if states is None:
            states = tuple(x.new_zeros(shape) for shape in shapes)
        for state, shape, which in zip(states, shapes, ("[0]", "[1]"), strict=False):
            if state.shape != shape:
                which = f" hidden{which} size" if len(shapes) == 2 else " hidden size"
                raise RuntimeError(f"Expected{which} {shape}, got {list(state.shape)}")
        how = Regularisation(*self.zoneout, self.recurrent_dropout, self.training, self.eps)
        packed = batch_sizes is not None
        count = len(batch_sizes) if packed else len(x)
        family = checks.family(self._cell, self._weights("_l0"), how, steps=count, packed=packed)
        backend = self._backend(family, x)
        # torch.compile refuses PyTorch's, or unrolls it; the loop goes through as one operator.
        if backend == "aten" and family != "rnn_own" and not torch.compiler.is_compiling():
            return self._by_pytorch(x, batch_sizes, states)
        steps = x.shape[:2]
        if batch_sizes is None:
            x = x.flatten(0, 1)
        elif not torch.compiler.is_compiling():
            checks.sequences(self.mode, x, batch_sizes)
        ends: list[States] = []
        for layer in range(self.num_layers):
            if layer > 0 and self.dropout > 0 and self.training:
                x = functional.dropout(x, self.dropout, True, backend=self.backend)
            done = []
            for direction, suffix in enumerate(self._suffixes(layer)):
                first = [state[layer * directions + direction] for state in states]
                first = first if len(first) == 2 else [*first, None]
                weights = self._weights(suffix)
                args = weights, batch_sizes, direction == 1, how, backend
                y, *last = ops.layer(self._cell, x, *first, *args)
                done.append(y)
                ends.append(tuple(last))
            x = done[0] if directions == 1 else torch.cat(done, 1)
        states = tuple(torch.stack([end[which] for end in ends]) for which in range(len(states)))
        return x if batch_sizes is not None else x.view(*steps, x.shape[1]), states

    def _backend(self, family: str, x: torch.Tensor) -> str:
        backend = backends.choose(family, self.backend, x)
        # In a graph the loop would stand for PyTorch's operator, which was what auto chose.
        unasked = backend == "aten" and backends.asked(self.backend) == "auto"
        if unasked and torch.compiler.is_compiling():
            return "cpu" if backends.refusal("cpu", family, x) is None else backend
        return backend

    def _check_input(self, x: torch.Tensor, packed: bool) -> None:
        weight = self.weight_ih_l0
        if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
            raise ValueError(
                f"RNN input dtype ({x.dtype}) does not match weight dtype ({weight.dtype}). "
                f"Convert input: input.to({weight.dtype}), or convert model: model.to({x.dtype})"
            )
        axes = 2 if packed else 3
        if x.dim() != axes:
            raise RuntimeError(f"input must have {axes} dimensions, got {x.dim()}")
        if x.shape[-1] != self.input_size:
            raise RuntimeError(
                "input.size(-1) must be equal to input_size. Expected "
                f"{self.input_size}, got {x.shape[-1]}"
            )
        if not packed and x.shape[0] == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")

    def _by_pytorch(
        self, x: torch.Tensor, batch_sizes: torch.Tensor | None, states: States
    ) -> tuple[torch.Tensor, States]:
        self._update_flat_weights()
        run = getattr(_VF, self.mode.lower())
        given = states if self.mode == "LSTM" else states[0]
        weights = self._flat_weights, self.bias, self.num_layers, self.dropout, self.training
        if batch_sizes is None:
            y, *states = run(x, given, *weights, self.bidirectional, False)
        else:
            y, *states = run(x, batch_sizes, given, *weights, self.bidirectional)
        return y, tuple(states)


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
    ) -> None:
        mode = checks.rnn_kind(nonlinearity).upper()
        given = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        super().__init__(mode, *given, 0, device, dtype, backend=backend)
        self.nonlinearity = nonlinearity
        self._set_up(layer_norm, zoneout, recurrent_dropout)


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
        self._set_up(layer_norm, zoneout, recurrent_dropout, peephole)


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
    ) -> None:
        given = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        super().__init__("GRU", *given, 0, device, dtype, backend=backend)
        if not reset_after:
            self.reset_after = False
        self._set_up(layer_norm, zoneout, recurrent_dropout)
