"""One call of an operator, apart from the model it comes from: run by this package and by PyTorch,
checked, observed.

A :class:`Call` holds all that decides what a call costs (shapes, arguments, which gradients are
wanted) and nothing else. The demo takes its calls from a running model (layer_calls.py), the
benchmark from a table.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from pydl import backends, functional, plan
from pydl.models import stock

PASSES = ("forward", "both", "backward", "grad_input", "grad_weight")


# The tensors' names of operators that have neither weight nor bias.
_NAMES = {
    "cross_entropy": ("input", "target"),
    "nll_loss": ("input", "target"),
    "roi_align": ("input", "boxes"),
    "roi_pool": ("input", "boxes"),
    "nms": ("boxes", "scores"),
    "max_unpool1d": ("input", "indices"),
    "max_unpool2d": ("input", "indices"),
    "max_unpool3d": ("input", "indices"),
}


def _boxes(
    count: int, size: Sequence[float], shortest: float, generator: torch.Generator
) -> torch.Tensor:
    """Boxes (x1, y1, x2, y2) with coordinates up to this height and width, four times as long as
    the shortest at most."""
    draw = torch.rand(4, count, 2, device=generator.device, generator=generator)
    image = torch.tensor([size[1], size[0]], device=generator.device)
    extent = torch.minimum(shortest * (1 + 3 * draw[0]), image)
    start = draw[1] * (image - extent)
    return torch.cat([start, start + extent], 1)


def _indices(call: "Call", device: torch.device | str, generator: torch.Generator) -> torch.Tensor:
    """Where a pool of a random map, the arguments of this unpooling its own, found its maxima."""
    inputs = call.input[2:]

    def each(name: str, default: Any) -> tuple[int, ...]:
        given = call.arguments.get(name)
        given = default if given is None else given
        return (given,) * len(inputs) if isinstance(given, int) else tuple(given)

    window = each("kernel_size", None)
    stride, padding = each("stride", window), each("padding", 0)
    steps = zip(inputs, window, stride, padding, strict=True)
    usual = [(n - 1) * s - 2 * p + k for n, k, s, p in steps]
    sizes = [*call.input[:2], *each("output_size", usual)[-len(inputs) :]]
    map_ = torch.randn(sizes, device=device, generator=generator)
    pool = getattr(nn.functional, call.operator.replace("unpool", "pool"))
    found = pool(map_, window, stride, padding, ceil_mode=True, return_indices=True)[1]
    return found[tuple(slice(n) for n in call.input)].contiguous()


@dataclass(frozen=True)
class Call:
    """``operator`` of ``pydl.functional`` on an input of this shape.

    ``arguments`` are keywords that ``torch.nn.functional`` takes by the same names. ``grad_input``
    is False for the first layer of a network, whose input is an image that nothing is
    differentiated by.
    """

    operator: str
    input: tuple[int, ...]
    weight: tuple[int, ...] | None = None
    bias: tuple[int, ...] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    grad_input: bool = True
    target: tuple[int, ...] | None = None  # of class indices, a loss's
    boxes: int | None = None  # in an image as large as the input under spatial_scale
    residual: tuple[int, ...] | None = None  # what is added before the activation
    statistics: bool = False  # running mean and variance: a batch normalisation in inference

    def random(
        self,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.contiguous_format,
        seed: int = 0,
    ) -> list[torch.Tensor]:
        """Input, weight, bias and residual from N(0, 1), the weight scaled so that the output is
        about N(0, 1) too."""
        generator = torch.Generator(device).manual_seed(seed)
        tensors = []
        for name, shape in zip(self._names, self._shapes, strict=False):
            values = torch.randn(shape, device=device, generator=generator)
            if name == "weight":
                values /= values[0].numel() ** 0.5
            tensors.append(values.to(dtype))
        if self.statistics:
            mean = torch.randn(self.input[1], device=device, generator=generator)
            variance = torch.rand(self.input[1], device=device, generator=generator) + 0.5
            tensors += [mean.to(dtype), variance.to(dtype)]
        if self.target is not None:
            classes = self.input[1]
            tensors.append(torch.randint(classes, self.target, device=device, generator=generator))
        if self.operator.startswith("max_unpool"):
            tensors.append(_indices(self, device, generator))
        if self.boxes is not None:
            scale = self.arguments.get("spatial_scale", 1.0)
            size = [(n - 1) / scale for n in self.input[2:]]
            drawn = _boxes(self.boxes, size, min(size) / 14, generator).to(dtype)
            if self.operator == "nms":
                scores = torch.rand(self.boxes, device=device, generator=generator)
                return [drawn, scores.to(dtype)]
            tensors.append(torch.cat([torch.zeros_like(drawn[:, :1]), drawn], 1))
        if memory_format == torch.contiguous_format:
            return tensors
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        plain = torch.contiguous_format
        return [t.contiguous(memory_format=formats.get(t.ndim, plain)) for t in tensors]

    def empty(
        self, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> list[torch.Tensor]:
        """Tensors of the shapes and dtypes of :meth:`random`'s; indices and boxes are zeros."""
        if self.operator == "nms":
            assert self.boxes is not None
            return [torch.zeros(shape, device=device) for shape in ((self.boxes, 4), self.boxes)]
        shapes = [*self._shapes, *[self.input[1:2]] * 2 * self.statistics]
        tensors = [torch.empty(shape, device=device, dtype=dtype) for shape in shapes]
        indices = self.input if self.operator.startswith("max_unpool") else self.target
        if indices is not None:
            tensors.append(torch.zeros(indices, device=device, dtype=torch.int64))
        if self.boxes is not None:
            tensors.append(torch.zeros(self.boxes, 5, device=device, dtype=dtype))
        return tensors

    def ours(self, tensors: Sequence[torch.Tensor], backend: str | None = None) -> torch.Tensor:
        """The output by this package."""
        run = getattr(functional, self.operator)
        return run(**self.named(tensors), **self.arguments, backend=backend)

    def theirs(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """The output by stock PyTorch: its own operator or, where it has none, its own parts.

        Raises:
            ValueError: there are none for boxes in several images.
        """
        if self.boxes is not None and self.operator != "nms" and self.input[0] != 1:
            raise ValueError(f"{self.operator} by PyTorch's parts is of one image")
        own = getattr(nn.functional, self.operator, None) or getattr(stock, self.operator, None)
        if own is not None:
            return own(**self.named(tensors), **self.arguments)
        parts = getattr(functional, self.operator)
        return parts(**self.named(tensors), **self.arguments, backend="aten")

    def named(self, tensors: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors by the operator's names for them, in whichever order it takes them."""
        return dict(zip(self._names, tensors, strict=True))

    @property
    def _shapes(self) -> list[tuple[int, ...]]:
        """Of the tensors that may be differentiated by."""
        shapes = self.input, self.weight, self.bias, self.residual
        return [shape for shape in shapes if shape is not None]

    @property
    def _names(self) -> tuple[str, ...]:
        if self.operator in _NAMES:
            return _NAMES[self.operator]
        given = {"weight": self.weight, "bias": self.bias, "residual": self.residual}
        names = ("input", *(name for name, shape in given.items() if shape is not None))
        return (*names, "running_mean", "running_var") if self.statistics else names

    @property
    def passes(self) -> tuple[str, ...]:
        """The passes that the operator has."""
        if self.operator == "nms":
            return ("forward",)
        return tuple(one for one in PASSES if one != "grad_weight" or self.weight is not None)

    def runner(
        self,
        kind: str,
        run: Callable[[Sequence[torch.Tensor]], torch.Tensor],
        tensors: Sequence[torch.Tensor],
        grad_output: torch.Tensor | None,
    ) -> Callable[[], object]:
        """A callable without arguments that does one pass, ready to be timed.

        Args:
            kind: ``forward`` (inference: nothing is saved for a gradient), ``both`` (forward and
                the gradients of training), ``backward`` (those gradients alone), ``grad_input`` or
                ``grad_weight`` (one of them alone).
            run: takes the tensors to the output.
            tensors: as :meth:`random` makes them.
            grad_output: the gradient of the output; a forward alone needs none.

        Raises:
            ValueError: there is no such pass, or the operator has no such gradient.
        """
        if kind not in PASSES:
            raise ValueError(f"pass must be one of {', '.join(PASSES)}, got {kind!r}")
        if kind not in self.passes:
            what = "weight" if "both" in self.passes else "input"
            raise ValueError(f"{self.operator} has no {what} to differentiate by")
        plain = [t.detach() for t in tensors]
        if kind == "forward":
            return lambda: run(plain)
        parameters = [i for i, name in enumerate(self._names) if name in ("weight", "bias")]
        wanted = {"grad_input": [0], "grad_weight": parameters}.get(kind, self._differentiated())
        leaves = [t.clone().requires_grad_(i in wanted) for i, t in enumerate(plain)]
        sources = [leaves[i] for i in wanted]
        if kind == "both":
            return lambda: torch.autograd.grad(run(leaves), sources, grad_output)
        y = run(leaves)
        return lambda: torch.autograd.grad(y, sources, grad_output, retain_graph=True)

    def _differentiated(self) -> list[int]:
        count = len(self._shapes)
        return list(range(0 if self.grad_input or count == 1 else 1, count))

    def kept(
        self,
        run: Callable[[Sequence[torch.Tensor]], torch.Tensor],
        tensors: Sequence[torch.Tensor],
    ) -> int:
        """Bytes that stay in memory from a forward of training to its backward.

        Memory of the operands themselves, which are usually kept anyway, does not count; each piece
        of memory counts once, with the size that was allocated.
        """
        leaves = [t.detach() for t in tensors]
        for i in self._differentiated():
            leaves[i].requires_grad_()
        storages: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            run(leaves)
        own = {t.untyped_storage().data_ptr() for t in leaves}
        return sum(size for pointer, size in storages.items() if pointer not in own)

    def results(
        self,
        run: Callable[[Sequence[torch.Tensor]], torch.Tensor],
        tensors: Sequence[torch.Tensor],
        grad_output: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        """The output and, for a ``grad_output``, the gradient of each tensor, by name."""
        wanted = [t.is_floating_point() and grad_output is not None for t in tensors]
        if self.boxes is not None:
            wanted[1] = False
        if self.statistics:
            wanted[-2:] = False, False
        leaves = [t.detach().requires_grad_(one) for t, one in zip(tensors, wanted, strict=True)]
        # Every mask is drawn from the same state.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            y = run(leaves)
        found = {"output": y.detach()}
        if grad_output is not None:
            names = [f"grad_{name}" for name, t in self.named(leaves).items() if t.requires_grad]
            leaves = [t for t in leaves if t.requires_grad]
            found |= dict(zip(names, torch.autograd.grad(y, leaves, grad_output), strict=True))
        return found


@dataclass(frozen=True)
class Check:
    """How far a result is from the truth: the largest deviation, relative to the truth's largest
    magnitude."""

    result: str
    ours: float
    theirs: float
    bound: float

    @property
    def passed(self) -> bool:
        """Whether ours is within the bound; NaN is not."""
        return self.ours <= self.bound


def deviation(value: torch.Tensor, truth: torch.Tensor) -> float:
    """The largest absolute difference, relative to the largest magnitude of ``truth``; infinite for
    another shape."""
    if value.shape != truth.shape:
        return float("inf")
    if truth.numel() == 0:
        return 0.0
    scale = truth.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    return ((value.double() - truth).abs().max() / scale).item()


def check(
    call: Call,
    tensors: Sequence[torch.Tensor],
    grad_output: torch.Tensor | None,
    *,
    backend: str | None = None,
) -> list[Check]:
    """Hold a call's output and gradients to the float64 reference.

    The yardstick: ``error(ours) <= 2 * error(PyTorch, same dtype) + 4 * eps(dtype)``, errors as in
    :func:`deviation`; for boxes, 16 * eps(dtype) from the reference of that dtype. Where PyTorch's
    switch lets a GPU round the operands of a convolution to tf32, eps is tf32's.

    Args:
        call: the call.
        tensors: input, weight and bias it has.
        grad_output: the gradient of its output; None checks the output alone.
        backend: who computes ours; None leaves it to ``use_backend``.

    Returns:
        A row for the output and one for each gradient.
    """
    eps = precision(call.operator, tensors[0].dtype, tensors[0].device.type)
    # Where the bins of a box are depends on how its coordinates are rounded, which is part of the
    # definition: so its truth is the reference's in the same dtype, and PyTorch's parts, which may
    # round an edge the other way, are no excuse.
    rounded = call.boxes is not None
    doubles = [t.double() if t.is_floating_point() and not rounded else t for t in tensors]
    if grad_output is not None and call.operator.endswith("_act"):
        grad_output = off_kinks(grad_output, call.ours(doubles, "reference"), eps)
    exact_grad = None if grad_output is None else grad_output.to(doubles[0].dtype)
    exact = call.results(lambda t: call.ours(t, "reference"), doubles, exact_grad)
    ours = call.results(lambda t: call.ours(t, backend), tensors, grad_output)
    theirs = call.results(call.theirs, tensors, grad_output)
    return judged(exact, ours, theirs, eps, excused=not rounded)


def precision(operator: str, dtype: torch.dtype, device: str) -> float:
    """The distance from 1 to the next number that the products of an operator may keep."""
    tf32 = dtype == torch.float32 and device == "cuda" and torch.backends.cudnn.allow_tf32
    return 2.0**-10 if tf32 and operator.startswith("conv") else torch.finfo(dtype).eps


def off_kinks(grad_output: torch.Tensor, y: torch.Tensor, eps: float) -> torch.Tensor:
    """The gradient of an activation's output ``y`` without what passes its kink: there a rounding
    error turns a whole gradient on or off, in PyTorch's as in ours."""
    return grad_output.masked_fill(y.abs() <= 16 * eps * y.abs().max(), 0)


def judged(
    exact: Mapping[str, torch.Tensor],
    ours: Mapping[str, torch.Tensor],
    theirs: Mapping[str, torch.Tensor],
    eps: float,
    *,
    excused: bool = True,
) -> list[Check]:
    """A row for each result, by name; ``excused`` says whether PyTorch's errors excuse ours."""
    slack = (4 if excused else 16) * eps
    rows = []
    for name, truth in exact.items():
        # PyTorch's may be no number at all (a float16 sum that overflows): then it is no excuse.
        error = deviation(theirs[name], truth)
        error = error if math.isfinite(error) else 0.0
        bound = 2 * error + slack if excused else slack
        rows.append(Check(name, deviation(ours[name], truth), error, bound))
    return rows


@contextlib.contextmanager
def served() -> Iterator[set[str]]:
    """Collects the backends that serve calls inside the ``with`` block, seen where their functions
    are called.

    PyTorch's own operator, where ``auto`` or ``aten`` goes straight to it, leaves the set empty.
    """
    seen: set[str] = set()
    original = backends.implementation

    def observed(backend: str, name: str) -> Callable:
        seen.add(backend)
        return original(backend, name)

    backends.implementation = observed  # type: ignore[assignment]  # it is cached, this is not
    try:
        with plan.observed():
            yield seen
    finally:
        backends.implementation = original


@contextlib.contextmanager
def choosing(
    see: Callable[[str, str, torch.Tensor, tuple[str | None, bool | None]], str | None],
) -> Iterator[None]:
    """Lets ``see`` have every answer of :func:`pydl.backends.choose` inside the ``with`` block.

    Args:
        see: takes the backend that was chosen, the kind of call, its tensor, and the function and
            unit stride that were asked by. It may return another answer; what it raises stops the
            call that asked.
    """
    original = backends.choose

    def observed(
        kind: str,
        backend: str | None,
        tensor: torch.Tensor,
        function: str | None = None,
        unit_stride: bool | None = None,
        arguments: tuple = (),
    ) -> str:
        answer = original(kind, backend, tensor, function, unit_stride, arguments)
        return see(answer, kind, tensor, (function, unit_stride)) or answer

    backends.choose = observed  # type: ignore[assignment]  # whose names differ
    try:
        with plan.observed():
            yield
    finally:
        backends.choose = original
