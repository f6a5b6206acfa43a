"""What users of PyTorch's functions count on, held to PyTorch's own: the layout and dtype of
results and gradients, in-place operations on results, NumPy's numbers, other kinds of tensors."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as stock
from calls import CALLS, named

import pydl
from pydl import backends, functional, nn

IN_PLACE = [
    pytest.param(call, backend, size, id=f"{call}-{backend}-{size}")
    for call in CALLS
    for backend in ("auto", *named(call))
    for size in ("small", "large")
    if size == "small" or backend in ("auto", "cpu")
]


@pytest.mark.parametrize("call, backend, size", IN_PLACE)
def test_in_place_on_a_result(call, backend, size):
    """Runs in backward wherever PyTorch's does."""
    shape = getattr(call, size)
    if backend in ("triton", "cuda") and len(shape) > 2:
        shape = (1, *shape[1:])
    x = torch.linspace(-1, 1, torch.Size(shape).numel(), dtype=torch.float64).reshape(shape).sin()

    def gradient(function):
        leaf = x.float().requires_grad_()
        y = function(leaf)
        if y is leaf:
            pytest.skip("nothing dropped: the result is the input, a leaf")
        y.mul_(2.0)
        return torch.autograd.grad(y.square().sum(), leaf)[0]

    try:
        expected = gradient(call.theirs)
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)
        return
    ours = gradient(lambda x: call.ours(x, backend=backend))
    tiny = 1e-4 * max(expected.abs().max().item(), 1)
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=tiny)


def _channels_last(*shape):
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


VIEWS = {
    "contiguous": lambda: torch.randn(4, 6, 5, 7),
    "channels last": lambda: _channels_last(4, 6, 5, 7),
    "channels last, every second channel": lambda: _channels_last(4, 12, 5, 7)[:, ::2],
    "channels last, every second column": lambda: _channels_last(4, 6, 5, 14)[..., ::2],
    "permuted": lambda: torch.randn(5, 4, 7, 6).permute(1, 3, 0, 2),
    "permuted, images innermost": lambda: torch.randn(6, 7, 4, 5).permute(2, 0, 3, 1),
    "transposed": lambda: torch.randn(4, 6, 7, 5).mT,
    "a slice": lambda: torch.randn(6, 8, 7, 9)[1:5, 1:7, 1:6, 1:8],
    "expanded": lambda: torch.randn(1, 6, 5, 7).expand(4, 6, 5, 7),
}
_FILTERS, _TAPS = torch.randn(8, 6, 3, 3), torch.randn(6, 1, 3, 3)
# What a model's `.to(memory_format=torch.channels_last)` makes of a filter with one channel.
_TAPS_LAST = torch.empty_strided((6, 1, 3, 3), (9, 1, 3, 1)).copy_(_TAPS)
LAYOUTS = {
    "softmax": ("softmax", lambda where, x, **k: where.softmax(x, 1, **k)),
    "log softmax": ("softmax", lambda where, x, **k: where.log_softmax(x, -1, **k)),
    "relu": ("activation", lambda where, x, **k: where.relu(x, **k)),
    "leaky relu": ("activation", lambda where, x, **k: where.leaky_relu(x, 0.1, **k)),
    "dropout": ("dropout", lambda where, x, **k: where.dropout(x, 0.5, **k)),
    "dropout2d": ("dropout", lambda where, x, **k: where.dropout2d(x, 0.5, **k)),
    "batch norm": (
        "batch_norm",
        lambda where, x, **k: where.batch_norm(x, None, None, training=True, **k),
    ),
    "convolution": ("conv", lambda where, x, **k: where.conv2d(x, _FILTERS, **k)),
    "channels-last filters": (
        "conv",
        lambda where, x, **k: where.conv2d(x, _FILTERS.to(memory_format=torch.channels_last), **k),
    ),
    "depthwise": ("depthwise", lambda where, x, **k: where.conv2d(x, _TAPS, groups=6, **k)),
    "channels-last depthwise filters": (
        "depthwise",
        lambda where, x, **k: where.conv2d(
            x, _TAPS.to(memory_format=torch.channels_last), groups=6, **k
        ),
    ),
    "depthwise filters with channels-last strides": (
        "depthwise",
        lambda where, x, **k: where.conv2d(x, _TAPS_LAST, groups=6, **k),
    ),
    "transposed depthwise": (
        "depthwise",
        lambda where, x, **k: where.conv_transpose2d(x, _TAPS, groups=6, **k),
    ),
}


@pytest.mark.parametrize("backend", ("auto", "reference"))
@pytest.mark.parametrize("name", ("conv2d", "conv_transpose2d"))
@pytest.mark.parametrize("last", ("neither", "input", "weight"))
def test_layout_of_a_weight_s_gradient(name, last, backend):
    formats = {True: torch.channels_last, False: torch.contiguous_format}
    x = torch.randn(2, 6, 20, 20).contiguous(memory_format=formats[last == "input"])
    weight = torch.randn(6, 2, 3, 3).contiguous(memory_format=formats[last == "weight"])
    seen = []
    for where, keywords in ((stock, {}), (functional, {"backend": backend})):
        leaf = weight.detach().requires_grad_()
        groups = 3 if name == "conv2d" else 2
        y = getattr(where, name)(x, leaf, groups=groups, **keywords)
        seen.append(torch.autograd.grad(y.sum(), leaf)[0].stride())
    assert seen[0] == seen[1]


@pytest.mark.parametrize("backend", ("auto", "cpu", "reference"))
@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name, backend):
    """Strides of result and gradient, for gradients of either layout."""
    family, call = LAYOUTS[name]
    if backend != "auto" and backend not in backends.serving(family):
        pytest.skip(f"{backend} does not serve {family}")

    def strides(where, x, grad_last, **keywords):
        leaf = x.detach().requires_grad_()
        y = call(where, leaf, **keywords)
        grad = torch.randn(y.shape)
        if grad_last:
            grad = grad.contiguous(memory_format=torch.channels_last)
        return y.stride(), torch.autograd.grad(y, leaf, grad)[0].stride()

    for view, make in VIEWS.items():
        x = make()
        for grad_last in (False, True):
            ours = strides(functional, x, grad_last, backend=backend)
            assert ours == strides(stock, x, grad_last), (view, grad_last)


# Of each call an input of each dtype, in words.
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_ROWS, _TARGET = torch.randn(6, 5), torch.arange(6) % 5
_STATISTICS = torch.zeros(4), torch.ones(4)
AUTOCAST = {
    "convolution": lambda where, x, **k: where.conv2d(x, torch.ones(4, 4, 3, 3).to(x), **k),
    "float32 filters": lambda where, x, **k: where.conv2d(
        x, torch.ones(4, 1, 3, 3), torch.ones(4), groups=4, **k
    ),
    "softmax": lambda where, x, **k: where.softmax(x, 1, **k),
    "softmax in bfloat16": lambda where, x, **k: where.softmax(x, 1, dtype=torch.bfloat16, **k),
    "log softmax": lambda where, x, **k: where.log_softmax(x, 1, **k),
    "relu": lambda where, x, **k: where.relu(x, **k),
    "dropout": lambda where, x, **k: where.dropout(x, **k),
    "batch norm": lambda where, x, **k: where.batch_norm(x, *_STATISTICS, training=True, **k),
    "cross entropy": lambda where, x, **k: where.cross_entropy(x, _classes(x), **k),
    "cross entropy, each": lambda where, x, **k: where.cross_entropy(
        x, _classes(x), reduction="none", **k
    ),
    "cross entropy, float32 weights": lambda where, x, **k: where.cross_entropy(
        x, _classes(x), torch.ones(4), **k
    ),
    "cross entropy of probabilities": lambda where, x, **k: where.cross_entropy(
        x, torch.full(x.shape, 0.25), **k
    ),
    "nll loss": lambda where, x, **k: where.nll_loss(x, _classes(x), torch.ones(4), **k),
}


def _classes(x):
    return torch.zeros(x.shape[0], *x.shape[2:], dtype=torch.int64)


@pytest.mark.parametrize("low", (torch.bfloat16, torch.float16), ids=str)
@pytest.mark.parametrize("name", AUTOCAST)
def test_dtypes_under_autocast(name, low):
    """The dtype that PyTorch gives, for every backend and size; errors where it raises them."""
    call = AUTOCAST[name]
    for dtype in DTYPES:
        for shape in ((2, 4, 6, 6), (8, 4, 64, 64)):
            x = torch.randn(shape).to(dtype)
            with torch.autocast("cpu", dtype=low):
                try:
                    expected = call(stock, x).dtype
                except RuntimeError:
                    with pytest.raises(RuntimeError):
                        call(functional, x)
                    continue
                served = ["auto"] if shape[0] == 8 else ["auto", "reference"]
                served += ["cpu"] * (name not in ("convolution", "nll loss"))
                for backend in served:
                    assert call(functional, x, backend=backend).dtype == expected, (dtype, backend)


INT, FLOAT = np.int64, np.float32
NUMPY = {
    "convolution": lambda where, n, f, x: where.conv2d(
        x, torch.ones(4, 1, 3, 3), None, n(2), n(1), n(1), n(4)
    ),
    "tuples": lambda where, n, f, x: where.conv2d(
        x, torch.ones(4, 1, 3, 3), None, (n(2), n(1)), (n(1), 0), 1, n(4)
    ),
    "transposed": lambda where, n, f, x: where.conv_transpose2d(
        x, torch.ones(4, 1, 3, 3), None, n(2), n(1), n(1), n(4), n(1)
    ),
    "softmax": lambda where, n, f, x: where.softmax(x, n(1)),
    "log softmax": lambda where, n, f, x: where.log_softmax(x, n(-1)),
    "leaky relu": lambda where, n, f, x: where.leaky_relu(x, f(0.25)),
    "batch norm": lambda where, n, f, x: where.batch_norm(
        x, torch.zeros(4), torch.ones(4), None, None, True, f(0.25), f(0.125)
    ),
    "cross entropy": lambda where, n, f, x: where.cross_entropy(
        x, _classes(x) + 1, ignore_index=n(-100), label_smoothing=f(0.25)
    ),
    "nll loss": lambda where, n, f, x: where.nll_loss(x, _classes(x) + 1, ignore_index=n(2)),
    "dropout of nothing": lambda where, n, f, x: where.dropout(x, f(0.0)),
}


@pytest.mark.parametrize("backend", ("auto", "cpu", "reference"))
@pytest.mark.parametrize("name", NUMPY)
def test_numpy_numbers(name, backend):
    if name == "nll loss" and backend == "cpu":
        pytest.skip("cpu does not serve nll_loss")
    for shape in ((2, 4, 6, 6), (8, 4, 64, 64)):
        x = torch.randn(shape)
        expected = NUMPY[name](stock, int, float, x)
        with pydl.use_backend(backend):
            ours = NUMPY[name](functional, INT, FLOAT, x)
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_meta_tensors(call):
    for shape in (call.small, call.large):
        x = torch.empty(shape, device="meta", requires_grad=True)
        y = call.ours(x)
        if y.requires_grad and y is not x:
            y.sum().backward()
            assert x.grad.shape == x.shape
        assert y.device.type == "meta" and y.shape == call.theirs(torch.empty(shape)).shape


class _Subclass(torch.Tensor):
    pass


KINDS = {
    "a subclass": lambda x: x.as_subclass(_Subclass),
    "sparse": lambda x: x.relu().to_sparse(),
    "quantised": lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
    "nested": lambda x: torch.nested.nested_tensor([x[0], x[1]]),
    "jagged": lambda x: torch.nested.nested_tensor([x[0], x[1]], layout=torch.jagged),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", CALLS, ids=str)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_other_kinds_of_tensors(call, kind):
    """Large ones too are PyTorch's under ``auto``: its result, or its error."""
    make = KINDS[kind]
    for shape in (call.small, call.large):
        x = make(torch.randn(shape))
        try:
            expected = call.theirs(x)
        except Exception as error:
            with pytest.raises(RuntimeError if isinstance(error, RuntimeError) else type(error)):
                call.ours(x)
            continue
        ours = call.ours(x)
        assert type(ours) is type(expected) and ours.layout == expected.layout
        if not ours.is_nested and not ours.is_quantized:
            torch.testing.assert_close(ours, expected)


ZERO = {
    "convolution": (lambda where, x, **k: where.conv2d(x, torch.ones(3, 4, 3, 3), **k), "conv"),
    "depthwise": (
        lambda where, x, **k: where.conv2d(x, torch.ones(4, 1, 3, 3), groups=4, **k),
        "depthwise",
    ),
    "batch norm": (
        lambda where, x, **k: where.batch_norm(x, *_STATISTICS, training=True, **k),
        "batch_norm",
    ),
    "softmax": (lambda where, x, **k: where.softmax(x, 1, **k), "softmax"),
    "relu": (lambda where, x, **k: where.relu(x, **k), "activation"),
    "dropout": (lambda where, x, **k: where.dropout(x, **k), "dropout"),
}


@pytest.mark.parametrize("name", ZERO)
@pytest.mark.parametrize("shape", ((0, 4, 5, 5), (0, 4, 2, 2), (2, 4, 0, 5), (0, 4, 3, 3)), ids=str)
def test_zero_images(name, shape):
    call, family = ZERO[name]
    for backend in ("auto", "cpu", "reference"):
        if backend != "auto" and backend not in backends.serving(family):
            continue
        x = torch.randn(shape)
        try:
            expected = call(stock, x)
        except RuntimeError as error:
            with pytest.raises(RuntimeError) as ours:
                call(functional, x, backend=backend)
            assert str(ours.value)[:40] == str(error)[:40]
            continue
        assert call(functional, x, backend=backend).shape == expected.shape


@pytest.mark.parametrize("training", (True, False))
@pytest.mark.parametrize("backend", ("auto", "cpu", "reference"))
def test_batch_norm_of_an_empty_float64_input_with_float32_statistics(backend, training):
    mean, var = torch.zeros(3), torch.ones(3)
    x = torch.ones(0, 3, dtype=torch.float64)
    y = functional.batch_norm(x, mean, var, training=training, backend=backend)
    assert y.shape == (0, 3) and y.dtype == torch.float64
    assert mean.eq(0).all() and var.eq(1).all()


_X = torch.randn(2, 4, 6, 6)
_W = torch.randn(4, 4, 3, 3)
_SCORES = torch.randn(2, 5, 3)
WORDS = [
    ("conv2d", (_X, _W), {"groups": 0}),
    ("conv2d", (_X, torch.randn(5, 2, 3, 3)), {"groups": 2}),
    ("conv2d", (_X, torch.randn(4, 3, 3, 3)), {}),
    ("conv2d", (_X, torch.randn(0, 4, 3, 3)), {}),
    ("conv2d", (_X, _W), {"stride": 0}),
    ("conv2d", (_X, _W), {"stride": (1, 2, 3)}),
    ("conv2d", (_X, _W), {"padding": -1}),
    ("conv2d", (_X, _W), {"padding": "around"}),
    ("conv2d", (_X, _W), {"padding": "same", "stride": 2}),
    ("conv2d", (_X, _W), {"dilation": 0}),
    ("conv2d", (_X, _W), {"dilation": 9}),
    ("conv2d", (_X, _W, torch.randn(5)), {}),
    ("conv2d", (torch.randn(6, 6), _W), {}),
    ("conv_transpose2d", (_X, torch.randn(3, 4, 3, 3)), {}),
    ("conv_transpose2d", (_X, _W), {"groups": 3}),
    ("conv_transpose2d", (_X, _W), {"output_padding": -1}),
    ("conv_transpose2d", (_X, _W, torch.randn(3)), {}),
    ("softmax", (_X, 4), {}),
    ("dropout", (_X, 1.5), {}),
    ("dropout", (_X, float("nan")), {}),
    ("dropout1d", (_X,), {}),
    ("dropout2d", (torch.randn(3),), {}),
    ("batch_norm", (_X, torch.zeros(3), torch.ones(3)), {}),
    ("batch_norm", (_X, torch.zeros(4), None), {}),
    ("batch_norm", (_X, torch.zeros(4), None), {"training": True}),
    ("batch_norm", (_X, None, None), {}),
    ("batch_norm", (_X, None, None), {"training": True, "eps": 0.0}),
    ("batch_norm", (torch.randn(1, 4, 1, 1), None, None), {"training": True}),
    ("cross_entropy", (_SCORES, torch.zeros(2, 4).long()), {}),
    ("cross_entropy", (_SCORES, torch.zeros(2).long()), {}),
    ("cross_entropy", (_SCORES, torch.zeros(3, 3).long()), {}),
    ("cross_entropy", (_SCORES, torch.zeros(2, 3)), {}),
    ("cross_entropy", (_SCORES, torch.zeros(2, 3).int()), {}),
    ("cross_entropy", (_SCORES[0], torch.zeros(2).long()), {}),
    ("cross_entropy", (_X, torch.zeros(2, 36).long()), {}),
    ("cross_entropy", (_X, torch.zeros(2, 6, 5).long()), {}),
    ("cross_entropy", (_SCORES, _SCORES.long()), {}),
    ("cross_entropy", (_SCORES, torch.zeros(2, 3).long(), torch.ones(4)), {}),
    ("cross_entropy", (_SCORES, torch.zeros(2, 3).long(), torch.ones(5).double()), {}),
    ("nll_loss", (_SCORES, torch.zeros(2, 4).long()), {}),
    ("nll_loss", (_SCORES, torch.full((2, 3), 7)), {}),
    ("nll_loss", (_SCORES, torch.zeros(2, 3).long()), {"reduction": "most"}),
]


@pytest.mark.parametrize("name, arguments, keywords", WORDS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_words(name, arguments, keywords):
    with pytest.raises(Exception) as theirs:
        getattr(stock, name)(*arguments, **keywords)
    for backend in ("auto", "reference"):
        with pytest.raises(type(theirs.value)) as ours:
            getattr(functional, name)(*arguments, **keywords, backend=backend)
        assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("name, axes", [("dropout2d", 5), ("dropout2d", 3), ("dropout3d", 3)])
def test_warnings_about_axes(name, axes):
    x = torch.randn([2] * axes)
    said = []
    for where, keywords in ((stock, {}), (functional, {}), (functional, {"backend": "cpu"})):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            getattr(where, name)(x, **keywords)
        said.append([str(warning.message) for warning in caught])
    assert said[0] and said[1] == said[0] and said[2] == said[0]


@pytest.mark.parametrize("backend", ("auto", "reference"))
@pytest.mark.parametrize("reduction", ("none", "mean", "sum"))
@pytest.mark.parametrize("shape", ((5,), (4, 5), (4, 5, 3), (2, 5, 3, 3), (2, 5, 2, 2, 2)), ids=str)
def test_nll_loss(shape, reduction, backend):
    classes = 5
    x = torch.log_softmax(torch.randn(shape, dtype=torch.float64), min(len(shape) - 1, 1))
    target = torch.randint(classes, (shape[0], *shape[2:]) if len(shape) > 1 else ())
    weight = torch.rand(classes, dtype=torch.float64)
    keywords = {"ignore_index": 1, "reduction": reduction}
    for given in ((), (weight,)):
        seen = []
        for where, more in ((stock, {}), (functional, {"backend": backend})):
            leaf = x.clone().requires_grad_()
            loss = where.nll_loss(leaf, target, *given, **keywords, **more)
            seen.append((loss, torch.autograd.grad(loss.nansum(), leaf)[0]))
        torch.testing.assert_close(*seen, equal_nan=True)
        layers = [where.NLLLoss(*given, **keywords)(x, target) for where in (torch.nn, nn)]
        torch.testing.assert_close(*layers, equal_nan=True)
