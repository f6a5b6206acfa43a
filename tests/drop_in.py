"""What a layer shares with its counterpart in torch.nn: a table of features and layers.

``tests/dropin/test_drop_in.py`` runs it, ``bench/readme.py`` prints it. A feature is a function
that makes a layer and its counterpart for inputs of a shape and compares what they do;
``drop_in_layers.py`` has the layers.
"""

import copy
import io
import pickle
from collections.abc import Callable

import numpy as np
import torch
from contract import hold
from drop_in_layers import Layer, Size

import pydl


def first(result: object) -> torch.Tensor:
    """The tensor of a result: of a recurrent layer's, the outputs."""
    while not isinstance(result, torch.Tensor):
        result = result[0]
    return result


def outcome(function: Callable[[], object]) -> object:
    """What a call returns, or the kind of error that it raises."""
    try:
        return function()
    except Exception as error:
        return type(error)


def same(ours: object, stock: object, what: str, values: bool = True, terms: float = 1) -> None:
    """Equal results: kind, dtype, shape, strides, what autograd knows of them, and values, each
    the sum of so many ``terms`` of about 1, whose rounding errors add up in PyTorch's too."""
    if isinstance(stock, type):
        assert ours is stock, f"{what}: {ours!r}, stock raises {stock!r}"
        return
    assert not isinstance(ours, type), f"{what} raises {ours!r}, stock does not"
    ours, stock = first(ours), first(stock)
    for name in ("dtype", "shape", "requires_grad", "is_leaf", "layout", "device"):
        a, b = getattr(ours, name), getattr(stock, name)
        assert a == b, f"{what}: {name} {a}, stock {b}"
    assert (ours.grad_fn is None) == (stock.grad_fn is None), f"{what}: grad_fn"
    assert ours.stride() == stock.stride() or ours.numel() == 0, (
        f"{what}: strides {ours.stride()}, stock {stock.stride()}"
    )
    if values and ours.device.type != "meta":
        half = ours.dtype in (torch.float16, torch.bfloat16)
        close = (
            {"rtol": 2e-2, "atol": 2e-2}
            if half
            else {"rtol": 1e-4, "atol": max(1e-5, 2e-6 * terms**0.5)}
        )
        torch.testing.assert_close(ours.detach(), stock.detach(), **close, msg=f"{what}: values")


def views(x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same numbers lying otherwise in memory."""
    made = {"contiguous": x}
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    if x.ndim in formats:
        last = x.contiguous(memory_format=formats[x.ndim])
        made["channels last"] = last
        twice = torch.cat([x, x], 1).contiguous(memory_format=formats[x.ndim])
        made["channels last, sliced"] = twice[:, ::2].copy_(x)
    if x.ndim > 2:
        made["transposed"] = x.transpose(-1, -2).contiguous().transpose(-1, -2)
    made["sliced"] = torch.cat([x, x], -1)[..., ::2].copy_(x)
    made["expanded"] = x[:1].expand(x.shape)
    return made


def _run(module: torch.nn.Module, layer: Layer, x: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(3)
    return first(module(x, *layer.more(x)))


def _grad_like(y: torch.Tensor) -> torch.Tensor:
    return torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)


def layouts(layer: Layer, shape: tuple[int, ...]) -> None:
    """Result and gradient for every view: dtype, strides, values."""
    ours, stock = layer.pair(shape)
    for view, x in views(torch.randn(shape)).items():
        results = []
        for module in (ours, stock):
            leaf = x.detach().requires_grad_()
            y = outcome(lambda m=module, leaf=leaf: _run(m, layer, leaf))
            made = {"result": y}
            if isinstance(y, torch.Tensor):
                wanted = {"input": leaf, **dict(module.named_parameters())}
                grads = torch.autograd.grad(y, list(wanted.values()), _grad_like(y))
                made |= {f"gradient of {n}": g for n, g in zip(wanted, grads, strict=True)}
            results.append(made)
        for name, expected in results[1].items():
            if layer.name.startswith("Locally") and name.endswith(("weight", "bias")):
                continue  # as the last of PyTorch's operators leaves them, which stand in for one
            summed = isinstance(expected, torch.Tensor) and expected.numel() < x.numel()
            terms = x.numel() / expected.numel() if summed else 1
            same(results[0][name], expected, f"{view}: {name}", not layer.random, terms)


def dtypes(layer: Layer, shape: tuple[int, ...]) -> None:
    """float64, float16, bfloat16; where stock has no kernel, ours may have one."""
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        ours, stock = (module.to(dtype) for module in layer.pair(shape))
        x = torch.randn(shape).to(dtype)
        expected = outcome(lambda s=stock, x=x: _run(s, layer, x))
        if isinstance(expected, type):
            continue
        y = _run(ours, layer, x)
        same(y, expected, str(dtype), False)
        if not layer.random:
            exact = _run(stock.double(), layer, x.double()).detach()
            hold(y.detach(), expected.detach(), exact, str(dtype), terms=exact.abs().max().item())


def no_gradients(layer: Layer, shape: tuple[int, ...]) -> None:
    """Inference mode, no_grad, and a frozen layer."""
    ours, stock = layer.pair(shape)
    x = torch.randn(shape)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            results = [_run(module, layer, x) for module in (ours, stock)]
        same(*results, mode.__name__, not layer.random)
        assert results[0].is_inference() == results[1].is_inference()
    for module in (ours, stock):
        module.requires_grad_(False)
    same(_run(ours, layer, x), _run(stock, layer, x), "frozen", not layer.random)


def in_place(layer: Layer, shape: tuple[int, ...]) -> None:
    """Writing over a result, then the backward: runs or raises as stock does."""
    ours, stock = layer.pair(shape)
    for name, change in (
        ("relu_", lambda y: y.relu_()),
        ("mul_", lambda y: y.mul_(2)),
        ("zero_", lambda y: y.zero_()),
    ):
        x, results = torch.randn(shape), []
        for module in (ours, stock):
            leaf = x.clone().requires_grad_()

            def run(module=module, leaf=leaf, change=change):
                y = change(_run(module, layer, leaf))
                return torch.autograd.grad(y, leaf, _grad_like(y))[0]

            results.append(outcome(run))
        if isinstance(results[1], type):
            continue  # what stock refuses ours may answer
        same(*results, name, not layer.random)


def autocast(layer: Layer, shape: tuple[int, ...]) -> None:
    """Result and gradient under autocast, for inputs in full and in low precision."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        ours, stock = layer.pair(shape)
        x, results = torch.randn(shape).to(dtype), []
        for module in (ours, stock):
            leaf = x.clone().requires_grad_()

            def run(module=module, leaf=leaf):
                with torch.autocast("cpu", torch.bfloat16):
                    return _run(module, layer, leaf)

            y = outcome(run)
            results.append((y, leaf))
        if isinstance(results[1][0], type):
            continue
        same(results[0][0], results[1][0], f"autocast of {dtype}", False)
        for y, leaf in results:
            y.backward(_grad_like(y))
            assert leaf.grad.dtype == dtype


def fx(layer: Layer, shape: tuple[int, ...]) -> None:
    """A leaf in a symbolic trace, as torch.nn's are."""
    x = torch.randn(shape)
    ours, _ = (module.eval() for module in layer.pair(shape))
    graph = torch.fx.symbolic_trace(_Call(ours, layer.more(x)))
    calls = [node.target for node in graph.graph.nodes if node.op.startswith("call_m")]
    assert calls == ["module"]
    same(graph(x), first(ours(x, *layer.more(x))), "traced")


class _Call(torch.nn.Module):
    """A module of an input alone."""

    def __init__(self, module: torch.nn.Module, more: tuple) -> None:
        super().__init__()
        self.module, self.more = module, more

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.module(x, *self.more)
        return y[0] if self.module.__class__.__name__ in _SEVERAL else y


# Layers that return outputs and states.
_SEVERAL = ("RNN", "LSTM", "GRU", "LSTMCell")


def _dynamic(layer: Layer, shape: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """The batch's axis, and a shape with another batch."""
    axis = 1 if layer.name in ("RNN", "LSTM", "GRU") else 0
    return axis, tuple(n + 3 if a == axis else n for a, n in enumerate(shape))


def export(layer: Layer, shape: tuple[int, ...]) -> None:
    """torch.export with a batch of any size; of one size where more than the input has it."""
    x = torch.randn(shape)
    ours, _ = (module.eval() for module in layer.pair(shape))
    axis, larger = _dynamic(layer, shape)
    if layer.more(x):
        program = torch.export.export(_Call(ours, layer.more(x)), (x,))
        same(program.module()(x), _run(ours, layer, x), "exported")
        return
    batch = torch.export.Dim("batch", min=2, max=1 << 20)
    x = x if x.shape[axis] > 1 else torch.cat([x, x], axis)
    program = torch.export.export(_Call(ours, ()), (x,), dynamic_shapes=({axis: batch},))
    other = torch.randn(larger)
    same(_run(program.module(), layer, other), _run(ours, layer, other), "exported")


def compiled(layer: Layer, shape: tuple[int, ...]) -> None:
    """One graph for sizes that change, forward and backward."""
    ours, _ = layer.pair(shape)
    x = torch.randn(shape)
    _, larger = _dynamic(layer, shape)
    torch._dynamo.reset()
    graphs = torch.compile(ours, fullgraph=True, dynamic=True, backend="aot_eager")
    for one in (x, torch.randn(larger)):
        results = []
        for module in (graphs, copy.deepcopy(ours)):
            leaf = one.clone().requires_grad_()
            y = _run(module, layer, leaf)
            results.append((y, torch.autograd.grad(y, leaf, _grad_like(y))[0]))
        for a, b in zip(*results, strict=True):
            assert a.dtype == b.dtype and a.shape == b.shape
            if not layer.random:
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def transforms(layer: Layer, shape: tuple[int, ...]) -> None:
    """torch.func's grad, vmap and jvp, and forward-mode duals."""
    ours, stock = (module.eval() for module in layer.pair(shape))
    x = torch.randn(shape)
    more = layer.more(x)

    def call(module):
        return lambda x: first(module(x, *more))

    t = torch.linspace(-1, 1, x.numel()).reshape(shape)
    for name, transform in (
        ("grad", lambda f: torch.func.grad(lambda x: f(x).square().sum())(x)),
        ("vmap", lambda f: torch.vmap(f)(torch.stack([x, t]))),
        ("jvp", lambda f: torch.func.jvp(f, (x,), (t,))[1]),
    ):
        expected = outcome(lambda tr=transform: tr(call(stock)))
        if isinstance(expected, type):
            continue
        same(transform(call(ours)), expected, name)


def copies(layer: Layer, shape: tuple[int, ...]) -> None:
    """deepcopy, copy, pickle and torch.save, and what becomes of the weights."""
    ours, _ = layer.pair(shape)
    x = torch.randn(shape)
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    expected = _run(ours.eval(), layer, x)
    for made in (
        copy.deepcopy(ours),
        copy.copy(ours),
        pickle.loads(pickle.dumps(ours)),
        torch.load(file, weights_only=False),
    ):
        assert str(made) == str(ours)
        same(_run(made.eval(), layer, x), expected, "copy")


def meta(layer: Layer, shape: tuple[int, ...]) -> None:
    """The meta device: shape, dtype, strides."""
    ours, stock = (module.to("meta") for module in layer.pair(shape))
    for view, x in views(torch.randn(shape)).items():
        x = x.to("meta")
        expected = outcome(lambda x=x: _run(stock, layer, x))
        if not isinstance(expected, type):
            same(_run(ours, layer, x), expected, view)


def numpy_arguments(layer: Layer, shape: tuple[int, ...]) -> None:
    """Sizes that are NumPy's integers, where stock takes them."""

    def of_numpy(value):
        if isinstance(value, tuple):
            return tuple(map(of_numpy, value))
        return np.int64(value) if type(value) is int else value

    x = torch.randn(shape)
    ours, _ = layer.pair(shape)
    sizes = (shape[a.axis] if isinstance(a, Size) else a for a in layer.arguments)
    arguments = tuple(map(of_numpy, sizes))
    if hasattr(torch.nn, layer.name):
        stock = outcome(lambda: _run(getattr(torch.nn, layer.name)(*arguments), layer, x))
        if isinstance(stock, type):
            return
    other = getattr(pydl.nn, layer.name)(*arguments, **(layer.own or {}))
    other.load_state_dict(ours.state_dict())
    other.train(layer.training)
    same(_run(other, layer, x), _run(ours, layer, x), "NumPy's", not layer.random)


def traced(layer: Layer, shape: tuple[int, ...]) -> None:
    """torch.jit.trace."""
    ours, stock = (module.eval() for module in layer.pair(shape))
    x = torch.randn(shape)

    def trace(module):
        call = _Call(module, layer.more(x))
        return torch.jit.trace(call, (x,), check_trace=False)(x)

    expected = outcome(lambda: trace(stock))
    if not isinstance(expected, type):
        same(trace(ours), expected, "traced")


def gradients(layer: Layer, shape: tuple[int, ...]) -> None:
    """Error against float64: at most twice stock's; of what draws numbers, in evaluation."""
    ours, stock = layer.pair(shape)
    if layer.random:
        ours, stock = ours.eval(), stock.eval()
    exact = copy.deepcopy(stock).double()
    x, results = torch.randn(shape), []
    for module, one in ((ours, x), (stock, x), (exact, x.double())):
        leaf = one.detach().clone().requires_grad_()
        y = _run(module, layer, leaf)
        wanted = [leaf, *module.parameters()]
        grads = torch.autograd.grad(y, wanted, _grad_like(y), allow_unused=True)
        results.append([y.detach(), *(g for g in grads if g is not None)])
    for a, b, c in zip(*results, strict=True):
        hold(a, b, c, layer.name, terms=4 * c.abs().max().item())


FEATURES: dict[str, Callable[[Layer, tuple[int, ...]], None]] = {
    "error against float64": gradients,
    "layout of results and gradients": layouts,
    "float64, float16, bfloat16": dtypes,
    "autocast": autocast,
    "no_grad, inference mode, frozen": no_gradients,
    "in-place operations on results": in_place,
    "torch.func, forward mode": transforms,
    "torch.compile, dynamic": compiled,
    "torch.export, dynamic batch": export,
    "torch.fx": fx,
    "torch.jit.trace": traced,
    "copy, pickle, save": copies,
    "meta tensors": meta,
    "NumPy integers": numpy_arguments,
}
