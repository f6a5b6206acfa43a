"""PyTorch's own samples and error inputs of these operators, run against ``pydl.functional``."""

import itertools
import random

import pytest
import torch
from contract import hold

pytest.importorskip("expecttest", reason="PyTorch's own test tables need the package expecttest")

from torch.testing._internal.common_methods_invocations import op_db

from pydl import backends, functional

CONVOLUTIONS = tuple(f"conv{kind}{axes}d" for axes in (1, 2, 3) for kind in ("", "_transpose"))
POOLS = tuple(f"{kind}_pool{axes}d" for axes in (1, 2, 3) for kind in ("max", "avg"))
ADAPTIVE = tuple(f"adaptive_{kind}_pool{axes}d" for axes in (1, 2, 3) for kind in ("max", "avg"))
UNPOOLS = tuple(f"max_unpool{axes}d" for axes in (1, 2, 3))
NAMES = (
    *CONVOLUTIONS,
    *POOLS,
    *ADAPTIVE,
    *UNPOOLS,
    "local_response_norm",
    "batch_norm",
    "softmax",
    "log_softmax",
    "cross_entropy",
    "relu",
    "leaky_relu",
)
# PyTorch lists these under other names, without their variants that convert the input first.
ELSEWHERE = {"softmax": "softmax", "log_softmax": "log_softmax"}
OPINFOS = {
    name: next(
        op
        for op in op_db
        if op.name == ELSEWHERE.get(name, f"nn.functional.{name}") and not op.variant_test_name
    )
    for name in NAMES
}

# Families that not every backend serves.
FAMILY = {"softmax": "softmax", "log_softmax": "softmax", "cross_entropy": "cross_entropy"}

# A gradient of ones gives these a gradient of 0, or of rounding errors alone.
CENTRED = ("batch_norm", "softmax", "log_softmax")

# Triton's interpreter takes minutes for all samples of these, so it gets only some of them.
INTERPRETED = {
    "max_pool1d": 24,
    "max_pool2d": 36,
    "max_pool3d": 40,
    "avg_pool3d": 3,
    "conv2d": 2,
    "conv3d": 5,
    "conv_transpose2d": 2,
    "conv_transpose3d": 4,
    "max_unpool1d": 3,
    "max_unpool2d": 4,
    "max_unpool3d": 3,
}

# PyTorch makes these of every combination of some options, hundreds for each name.
COMBINED = (*(name for name in NAMES if name.startswith("max_pool")), *UNPOOLS)

# Dense convolution on a CPU is PyTorch's own, which would check itself; so the definition and the
# kernels of a GPU are held to these samples, and the native kernels to those of the others.
PAIRS = [
    pytest.param(name, backend, id=f"{name}-{backend}")
    for name in NAMES
    for backend in (
        ("reference", "triton", "cuda") if name in CONVOLUTIONS else ("cpu", "triton", "cuda")
    )
    if FAMILY.get(name) is None or FAMILY[name] in backends.BACKENDS[backend].families
]


# Floating operands by which no operator has a gradient: running statistics, weights of classes.
CONSTANT = {"batch_norm": (1, 2), "cross_entropy": ("weight",)}


def _served(backend: str, device: str = "cpu") -> None:
    """Skips where the CUDA kernels are neither emulated here nor native to this device."""
    row = backends.BACKENDS[backend]
    if row.missing is not None or (row.devices and device not in row.devices):
        pytest.skip(f"{backend} does not serve a {device}: {row.missing or row.devices}")


def _detached(value, dtype=None):
    if isinstance(value, torch.Tensor):
        value = value.detach().clone()
        return value.to(dtype) if dtype and value.is_floating_point() else value
    return value


def _run(function, sample, dtype=None, **more):
    """The result and the gradients of every floating operand."""
    arguments = [_detached(sample.input, dtype), *(_detached(a, dtype) for a in sample.args)]
    keywords = {name: _detached(value, dtype) for name, value in sample.kwargs.items()}
    leaves = [
        value.requires_grad_()
        for place, value in itertools.chain(enumerate(arguments), keywords.items())
        if isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and place not in CONSTANT.get(function.__name__, ())
    ]
    y = function(*arguments, **keywords, **more)
    results = list(y) if isinstance(y, tuple) else [y]
    grad = gradient_for(results[0], function)
    return results, list(torch.autograd.grad(results[0], leaves, grad, allow_unused=True))


def gradient_for(y, function):
    """Ones or, where those would not do, waves, the same numbers in every dtype."""
    if function.__name__ not in CENTRED:
        return torch.ones_like(y)
    waves = torch.cos(torch.arange(y.numel(), dtype=torch.float64))
    return waves.bfloat16().to(y).reshape(y.shape)


def cancelling(name, sample) -> float:
    """The size of the terms of a normalisation's gradient, which cancel where a channel has few
    values."""
    if name != "batch_norm" or not sample.kwargs.get("training") or sample.input.numel() == 0:
        return 0.0
    x, eps = sample.input.detach().double(), sample.kwargs.get("eps", 1e-5)
    var = x.var([0, *range(2, x.ndim)], correction=0)
    weight = sample.args[2] if len(sample.args) > 2 else sample.kwargs.get("weight")
    scale = 1 if weight is None else weight.detach().double().abs()
    return 3 * (scale / (var + eps).sqrt()).max().item()


class Few:
    """The yardstick for results of a few numbers: PyTorch's error in one of them is a single draw,
    near 0 as often as not, so they are gathered over an operator's samples. An error counts in
    units of the sum of the absolute terms, which is what rounding goes by."""

    most = 16

    def __init__(self) -> None:
        self.ours, self.theirs = [0.0], [0.0]

    def add(self, ours, theirs, exact, terms) -> None:
        terms = terms.abs().clamp_min(torch.finfo(torch.float64).tiny)
        own_rounding = 2 * torch.finfo(ours.dtype).eps * exact.abs()
        self.ours += (((ours - exact).abs() - own_rounding) / terms).flatten().tolist()
        self.theirs += ((theirs - exact).abs() / terms).flatten().tolist()

    def hold(self) -> None:
        assert max(self.ours) <= 2 * max(self.theirs), (max(self.ours), max(self.theirs))


DTYPES = (torch.float64, torch.float32, torch.bfloat16)


def _some(samples, name, backend, dtype, whole):
    """Of the combinations of options, without ``--whole``, each backend is given each once, a third
    of them in each dtype, so with two backends a dtype sees two thirds of them. Drawn, so that no
    option goes with a dtype."""
    if backend == "triton":
        return itertools.islice(samples, 0, None, INTERPRETED.get(name, 1))
    if whole or name not in COMBINED:
        return samples
    own, draw = DTYPES.index(dtype) + ("cpu", "cuda").index(backend), random.Random(0)
    return (sample for sample in samples if (draw.randrange(3) + own) % 3 == 0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "backend"), PAIRS)
def test_every_sample(name, backend, dtype, pytestconfig):
    _served(backend)
    checked, few = 0, Few()
    gathers = name in CONVOLUTIONS and dtype != torch.float64
    samples = OPINFOS[name].sample_inputs("cpu", dtype, requires_grad=True)
    for sample in _some(samples, name, backend, dtype, pytestconfig.getoption("--whole")):
        ours = _run(getattr(functional, name), sample, backend=backend)
        exact = _run(getattr(torch.nn.functional, name), sample, torch.float64)
        try:
            theirs = _run(getattr(torch.nn.functional, name), sample)
        except NotImplementedError:  # it averages no halves over three axes on a CPU
            theirs = [[None] * len(part) for part in exact]
        terms = exact
        if gathers:
            absolute = sample.transform(lambda a: a.abs() if isinstance(a, torch.Tensor) else a)
            terms = _run(getattr(torch.nn.functional, name), absolute, torch.float64)
        for mine, other, reference, of_terms in zip(
            *(y + grads for y, grads in (ours, theirs, exact, terms)), strict=True
        ):
            if reference is None or not reference.is_floating_point():
                assert (mine is None and reference is None) or torch.equal(mine, reference)
            elif gathers and other.numel() < Few.most:
                few.add(mine, other, reference, of_terms)
            else:
                said = f"{name}{sample.args}{sample.kwargs}"
                hold(mine, other, reference, said, cancelling(name, sample))
        checked += 1
    assert checked > 2
    few.hold()


@pytest.mark.parametrize(
    ("name", "backend"),
    [pair for pair in PAIRS if OPINFOS[pair.values[0]].error_inputs_func is not None],
)
def test_every_error_input(name, backend):
    _served(backend)
    for error in OPINFOS[name].error_inputs("cpu"):
        sample = error.sample_input
        with pytest.raises(error.error_type):
            getattr(functional, name)(sample.input, *sample.args, **sample.kwargs, backend=backend)
