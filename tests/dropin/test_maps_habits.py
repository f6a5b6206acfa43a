"""Pooling, unpooling and normalisation called as people call PyTorch's: in place afterwards, with
NumPy's integers, under autocast, with what makes no sense. Small and large are alike."""

import numpy
import pytest
import torch
from contract import servers
from test_maps_transforms import LARGE, OPERATORS, SMALL, F

from pydl import functional

BACKENDS = ("auto", "cpu", "reference")
SHAPES = pytest.mark.parametrize("shape", (SMALL, LARGE), ids=("small", "large"))


@pytest.mark.parametrize("change", ("relu_", "mul_", "add_"))
@pytest.mark.parametrize("name", OPERATORS)
@SHAPES
def test_results_may_be_changed_in_place(name, shape, change):
    # The reference is one program for every size, a slow one.
    for backend in BACKENDS if shape == SMALL else ("auto", "cpu"):
        grads = []
        torch.manual_seed(0)
        values = torch.rand(shape)
        for where, options in ((functional, {"backend": backend}), (F, {})):
            x = values.clone().requires_grad_()
            y = OPERATORS[name](where, x, **options)
            arguments = () if change == "relu_" else (2,)
            getattr(y, change)(*arguments).pow(2).sum().backward()
            grads.append(x.grad)
        torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5)


class Index:
    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


WHOLE = (numpy.int64(3), numpy.int32(3), numpy.uint8(3), Index(3), torch.tensor(3))
TAKES = (
    ("max_pool2d", lambda n: (n,)),
    ("max_pool2d", lambda n: (3, n, Index(1), numpy.int64(1))),
    ("max_pool2d", lambda n: ((n, n), [n, n])),
    ("avg_pool2d", lambda n: (n, n, numpy.int64(1))),
    ("avg_pool2d", lambda n: ((n, 3), [n, 3], 0, False, True, n)),
    ("lp_pool2d", lambda n: (2, n, n)),
    ("lp_pool2d", lambda n: (numpy.float32(2), (n, n))),
    ("adaptive_avg_pool2d", lambda n: (n,)),
    ("adaptive_avg_pool2d", lambda n: ((n, None),)),
    ("adaptive_max_pool2d", lambda n: ([n, n],)),
    ("local_response_norm", lambda n: (n,)),
)


def plain(value):
    if isinstance(value, tuple | list):
        return tuple(map(plain, value))
    return 3 if value in WHOLE else 1 if isinstance(value, Index | numpy.int64) else value


@pytest.mark.parametrize("number", WHOLE, ids=lambda number: type(number).__name__)
@pytest.mark.parametrize("name, arguments", TAKES)
@SHAPES
def test_whatever_is_an_index_is_a_size(name, arguments, number, shape):
    x = torch.rand(shape)
    given = arguments(number)
    expected = getattr(F, name)(x, *plain(arguments(3)))
    for backend in ("auto", "cpu"):
        mine = getattr(functional, name)(x, *given, backend=backend)
        torch.testing.assert_close(mine, expected)


AUTOCAST = [
    (f"{name}{axes}d", arguments)
    for axes in (1, 2, 3)
    for name, arguments in (
        ("max_pool", (2,)),
        ("avg_pool", (2,)),
        ("lp_pool", (2, 2)),
        ("adaptive_avg_pool", (3,)),
        ("adaptive_max_pool", (3,)),
        ("local_response_norm", (3,)),
    )
]


@pytest.mark.parametrize("low", (torch.bfloat16, torch.float16), ids=str)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.bfloat16), ids=str)
@pytest.mark.parametrize("name, arguments", AUTOCAST)
def test_autocast_on_a_cpu(name, arguments, dtype, low):
    """A result's dtype is PyTorch's at every size; so is the gradient's."""
    axes = int(name[-2])
    name = name[:-2] if "norm" in name else name
    for size in ((8,) * axes, {1: (40_000,), 2: (200, 200), 3: (34, 34, 34)}[axes]):
        x = torch.rand(2, 3, *size).to(dtype).requires_grad_()
        with torch.autocast("cpu", dtype=low):
            expected = getattr(F, name)(x, *arguments)
            for backend in ("auto", "cpu"):
                mine = getattr(functional, name)(x, *arguments, backend=backend)
                assert mine.dtype == expected.dtype, backend
                tolerance = 4 * torch.finfo(dtype).eps if dtype == torch.bfloat16 else 1e-5
                torch.testing.assert_close(mine, expected, rtol=tolerance, atol=tolerance)
                (grad,) = torch.autograd.grad(mine.sum(), x)
                assert grad.dtype == x.dtype


@pytest.mark.parametrize("low", (torch.bfloat16, torch.float16), ids=str)
def test_unpooling_under_autocast(low):
    y, index = F.max_pool2d(torch.rand(2, 3, 8, 8), 2, return_indices=True)
    with torch.autocast("cpu", dtype=low):
        for backend in ("auto", "cpu", "reference"):
            mine = functional.max_unpool2d(y.to(low), index, 2, backend=backend)
            assert mine.dtype == torch.float32


def boxes_of(x):
    return torch.tensor([[0, 1.3, 2.1, 7.7, 9.2], [1, 0.0, 0.0, 12.0, 5.4]], dtype=torch.float32)


@pytest.mark.parametrize("server", servers("roi"))
@pytest.mark.parametrize("name", ("roi_align", "roi_pool"))
def test_boxes_may_be_float32_under_autocast(server, name):
    """Both are cast to float32, and the result is of the map's dtype, as torchvision's."""
    backend, device = server
    x = torch.rand(2, 3, 16, 16, device=device).to(torch.bfloat16).requires_grad_()
    boxes = boxes_of(x).to(device)
    pool = getattr(functional, name)
    with torch.autocast(device, dtype=torch.bfloat16):
        y = pool(x, boxes, 3, backend=backend)
        listed = pool(x, [boxes[:1, 1:], boxes[1:, 1:]], 3, backend=backend)
    exact = pool(x.float(), boxes, 3, backend=backend)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, exact.to(torch.bfloat16)) and torch.equal(y, listed)
    (grad,) = torch.autograd.grad(y.float().sum(), x)
    assert grad.dtype == torch.bfloat16
    with pytest.raises(RuntimeError, match="should be the same"):
        pool(x, boxes, 3, backend=backend)


X1, X, X3 = torch.rand(1, 3, 8), torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8, 8)
REFUSED = (
    ("max_pool2d", X, 2, 0),
    ("max_pool2d", X, 2, -1),
    ("max_pool2d", X, 2, 2, -1),
    ("max_pool2d", X, 2, 2, 2),
    ("max_pool2d", X, 9),
    ("max_pool2d", X, 2.0),
    ("max_pool2d", X[0, 0], 2),
    ("max_pool2d", torch.ones(0, 3, 1, 1), 2),
    ("max_pool1d", X1, (2, 2)),
    ("max_pool3d", X3, 2, 0),
    ("avg_pool1d", X1, (2, 2)),
    ("avg_pool2d", X, 2, 2, -1),
    ("avg_pool2d", X, 2, 2, 0, False, True, 0),
    ("avg_pool2d", X[:, :0], 2),
    ("avg_pool3d", X3, 2, 0),
    ("lp_pool2d", X, 2, 0),
    ("lp_pool2d", X, "2", 2),
    ("lp_pool2d", X, 0, 2),
    ("adaptive_avg_pool1d", X1, (2, 2)),
    ("adaptive_avg_pool2d", X, (2,)),
    ("adaptive_avg_pool2d", X, None),
    ("adaptive_avg_pool2d", X, -1),
    ("adaptive_max_pool2d", X[:, :0], 2),
    ("adaptive_avg_pool3d", X3[:, :0], 2),
    ("local_response_norm", X[0, 0], 3),
    ("local_response_norm", X, 0),
    ("local_response_norm", X, "3"),
)


@pytest.mark.parametrize("name, x, arguments", [(n, x, rest) for n, x, *rest in REFUSED])
def test_refusals_are_pytorchs(name, x, arguments):
    with pytest.raises(Exception) as expected:
        getattr(F, name)(x, *arguments)
    for backend in BACKENDS:
        with pytest.raises(type(expected.value)) as mine:
            getattr(functional, name)(x, *arguments, backend=backend)
        assert str(mine.value) == str(expected.value), backend


NOTHING = (
    ("adaptive_avg_pool1d", (0, 10), 5),
    ("adaptive_avg_pool2d", (1, 0, 8, 8), 2),
    ("adaptive_max_pool2d", (0, 8, 8), 2),
    ("adaptive_avg_pool2d", (2, 3, 8, 8), (0, 2)),
    ("adaptive_max_pool3d", (0, 3, 4, 4, 4), 0),
    ("max_pool2d", (0, 3, 8, 8), 2),
    ("avg_pool3d", (0, 3, 8, 8, 8), 2),
    ("local_response_norm", (0, 3, 8, 8), 3),
)


@pytest.mark.parametrize("name, shape, argument", NOTHING)
def test_nothing_of_nothing(name, shape, argument):
    x = torch.ones(shape)
    expected = getattr(F, name)(x, argument)
    for backend in BACKENDS:
        assert torch.equal(getattr(functional, name)(x, argument, backend=backend), expected)


@pytest.mark.parametrize("name", ("adaptive_avg_pool2d", "adaptive_max_pool2d"))
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_gradient_of_no_bins(name, backend):
    x = torch.rand(2, 3, 5, 5, requires_grad=True)
    y = getattr(functional, name)(x, (0, 2), backend=backend)
    with pytest.raises(RuntimeError, match="Expected grad_output to have non-zero size"):
        y.sum().backward()


@pytest.mark.parametrize("name, x", (("avg_pool2d", X), ("avg_pool3d", X3)))
def test_averages_into_out(name, x):
    out = torch.empty(0)
    assert getattr(functional, name)(x, 2, out=out) is out
    assert torch.equal(out, getattr(F, name)(x, 2))
    with pytest.raises(RuntimeError, match="'cpu' does not serve out="):
        getattr(functional, name)(x, 2, out=out, backend="cpu")


def test_no_boxes_and_quantized_ones():
    none = torch.empty(0)
    assert functional.batched_nms(none, none, none, 0.5).dtype == torch.int64
    assert functional.batched_nms(torch.empty(0, 4), none, none, 0.5).shape == (0,)
    whole = torch.quantize_per_tensor(torch.rand(1, 3, 8, 8), 0.1, 0, torch.quint8)
    for call in (
        lambda: functional.roi_align(whole, boxes_of(whole), 2),
        lambda: functional.roi_pool(whole, boxes_of(whole), 2),
        lambda: functional.nms(whole[0, 0, :, :4], torch.rand(8), 0.5),
    ):
        with pytest.raises(RuntimeError, match="quantized tensors are not served"):
            call()


def test_sampling_ratio_is_whatever_is_an_index():
    x = torch.rand(2, 3, 16, 16)
    expected = functional.roi_align(x, boxes_of(x), 3, 1.0, 2)
    assert torch.equal(functional.roi_align(x, boxes_of(x), 3, 1.0, numpy.int64(2)), expected)
    with pytest.raises(TypeError, match="'sampling_ratio' must be int, not float"):
        functional.roi_align(x, boxes_of(x), 3, 1.0, 2.5)
