"""Convolution: each backend against the reference, that against PyTorch and figures by hand."""

import pytest
import torch
from contract import DTYPES, Case, gradient, hold, opcheck, operand, run, servers
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pydl import backends, functional, layout

CASES = (
    Case("LeNet's five by five", (2, 1, 9, 10), {}, weight=(3, 1, 5, 5)),
    Case(
        "AlexNet's first: few channels, stride four",
        (1, 3, 19, 17),
        {"stride": 4},
        weight=(5, 3, 7, 7),
    ),
    Case("three by three with padding", (2, 5, 7, 6), {"padding": 1}, weight=(4, 5, 3, 3)),
    Case("one by one", (2, 6, 5, 4), {}, weight=(7, 6, 1, 1)),
    Case("one by one with stride drops pixels", (1, 4, 6, 7), {"stride": 2}, weight=(3, 4, 1, 1)),
    Case(
        "stride beyond the kernel leaves gaps", (1, 2, 11, 12), {"stride": 3}, weight=(3, 2, 2, 2)
    ),
    Case(
        "stride two, odd and even sizes",
        (1, 3, 8, 9),
        {"stride": 2, "padding": 1},
        weight=(4, 3, 3, 3),
    ),
    Case("dilation", (1, 3, 12, 11), {"dilation": 2, "padding": 2}, weight=(4, 3, 3, 3)),
    Case("two groups", (2, 6, 6, 5), {"groups": 2, "padding": 1}, weight=(4, 3, 3, 3)),
    Case(
        "depthwise with a multiplier",
        (1, 4, 7, 6),
        {"groups": 4, "padding": 1, "stride": 2},
        weight=(8, 1, 3, 3),
    ),
    Case(
        "depthwise, channels last",
        (2, 20, 7, 6),
        {"groups": 20, "padding": 1},
        "channels_last",
        weight=(20, 1, 3, 3),
    ),
    *(
        Case(
            f"depthwise, whole vectors of channels, stride {stride}, padding {padding}",
            (2, 72, *size),
            {"groups": 72, "padding": padding, "stride": stride},
            "channels_last",
            weight=(72, 1, 3, 3),
        )
        for stride, padding, size in ((1, 1, (9, 6)), (2, 1, (19, 7)), (1, 0, (6, 5)))
    ),
    *(
        Case(
            f"depthwise in strips, stride {stride}, padding {padding}",
            (3, 5, *size),
            {"groups": 5, "padding": padding, "stride": stride},
            weight=(5, 1, 3, 3),
        )
        for stride, padding, size in ((1, 1, (19, 35)), (2, 1, (35, 14)), (1, 3, (6, 5)))
    ),
    Case(
        "a depthwise multiplier with dilation and stride",
        (1, 3, 11, 9),
        {"groups": 3, "dilation": (2, 1), "stride": (2, 3), "padding": 2},
        "sliced",
        weight=(9, 1, 3, 2),
    ),
    Case(
        "one channel and many filters are no depthwise product",
        (1, 1, 8, 7),
        {"padding": 1},
        weight=(18, 1, 3, 3),
    ),
    Case(
        "dilation and stride share a factor, so that no tap reads most pixels",
        (1, 3, 13, 12),
        {"stride": (4, 2), "dilation": (2, 4), "padding": 3},
        weight=(4, 3, 3, 3),
    ),
    Case(
        "a map smaller than the stride",
        (2, 3, 2, 3),
        {"stride": 5, "padding": 1},
        weight=(4, 3, 2, 3),
    ),
    Case(
        "everything differs by axis",
        (2, 4, 12, 11),
        {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 3), "groups": 2},
        weight=(6, 2, 3, 2),
    ),
    Case(
        "'same' with an even kernel pads the right",
        (1, 2, 6, 7),
        {"padding": "same"},
        weight=(3, 2, 4, 2),
    ),
    Case(
        "'same' with dilation",
        (1, 2, 8, 7),
        {"padding": "same", "dilation": 2},
        weight=(2, 2, 3, 3),
    ),
    Case("padding wider than the kernel", (1, 2, 3, 4), {"padding": 3}, weight=(2, 2, 2, 2)),
    Case(
        "more channels than a tile of any kernel",
        (1, 70, 3, 3),
        {"padding": 1},
        weight=(67, 70, 3, 3),
    ),
    Case(
        "more pixels than one part of a split sum",
        (1, 2, 40, 30),
        {"padding": 1},
        weight=(2, 2, 3, 3),
    ),
    Case("channels last", (2, 9, 6, 7), {"padding": 1}, "channels_last", weight=(5, 9, 3, 3)),
    Case("a slice of a larger map", (2, 3, 6, 5), {"padding": 1}, "sliced", weight=(4, 3, 3, 3)),
    Case("an odd storage offset", (1, 3, 6, 5), {"padding": 1}, "offset", weight=(4, 3, 3, 3)),
    Case("an expanded gradient", (2, 3, 6, 5), {"stride": 2}, "expanded", weight=(4, 3, 3, 3)),
    Case("an empty batch gives zero weight gradients", (0, 3, 6, 5), {}, weight=(4, 3, 3, 3)),
    Case("unbatched", (3, 6, 5), {"padding": 1}, weight=(4, 3, 3, 3)),
)


def _operands(case: Case, dtype: torch.dtype, device: str) -> list[torch.Tensor]:
    x = operand(case, dtype, device)
    weight = operand(case, dtype, device, case.weight, seed=2)
    return [x, weight, operand(case, dtype, device, case.weight[:1], seed=3)]


def _all(case: Case, operands: list[torch.Tensor], function) -> list[torch.Tensor]:
    return run(
        lambda x, weight, bias: function(x, weight, bias, **case.arguments),
        operands,
        lambda y: gradient(case, y),
    )


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("server", servers("conv"))
def test_against_reference(server, case, dtype):
    backend, device = server
    operands = _operands(case, dtype, device)
    ours = _all(case, operands, lambda *a, **k: functional.conv2d(*a, **k, backend=backend))
    theirs = _all(case, operands, torch.nn.functional.conv2d)
    exact = _all(
        case,
        [o.double() for o in operands],
        lambda *a, **k: functional.conv2d(*a, **k, backend="reference"),
    )
    for what, *three in zip(
        ("y", "grad_x", "grad_weight", "grad_bias"), ours, theirs, exact, strict=True
    ):
        hold(*three, what)
    x, weight, _ = operands
    wants_channels_last = torch.channels_last in (
        layout.memory_format(x),
        layout.memory_format(weight),
    )
    if backend != "aten":
        assert (layout.memory_format(ours[0]) == torch.channels_last) == wants_channels_last


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference_is_pytorch_in_float64(case):
    operands = _operands(case, torch.float64, "cpu")
    ours = _all(case, operands, lambda *a, **k: functional.conv2d(*a, **k, backend="reference"))
    for mine, other in zip(ours, _all(case, operands, torch.nn.functional.conv2d), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("server", servers("conv"))
def test_lectures_edge_filter(server):
    """A 6 x 6 image, bright left and dark right, under the vertical edge filter: the edge stands
    out in the middle."""
    backend, device = server
    image = torch.tensor([10.0, 10, 10, 0, 0, 0], device=device).repeat(6, 1)[None, None]
    vertical = torch.tensor([1.0, 0, -1], device=device).repeat(3, 1)[None, None]
    y = functional.conv2d(image, vertical, backend=backend)
    assert y[0, 0].tolist() == [[0, 30, 30, 0]] * 4
    turned = functional.conv2d(image.mT, vertical.mT, backend=backend)
    assert turned[0, 0].tolist() == y[0, 0].mT.tolist()


@pytest.mark.parametrize("server", servers("conv"))
def test_ngs_output_table(server):
    """Andrew Ng's example (Deep Learning Specialization, course 4, week 1): a 6 x 6 image under the
    3 x 3 vertical edge filter, every output as he gives it."""
    backend, device = server
    image = torch.tensor(
        [
            [3.0, 0, 1, 2, 7, 4],
            [1, 5, 8, 9, 3, 1],
            [2, 7, 2, 5, 1, 3],
            [0, 1, 3, 1, 7, 8],
            [4, 2, 1, 6, 2, 8],
            [2, 4, 5, 2, 3, 9],
        ],
        device=device,
    )[None, None]
    vertical = torch.tensor([1.0, 0, -1], device=device).repeat(3, 1)[None, None]
    y = functional.conv2d(image, vertical, backend=backend)
    table = [[-5, -4, 0, 8], [-10, -2, 2, 3], [0, -2, -4, -7], [-3, -2, -3, -16]]
    assert y[0, 0].tolist() == table
    same = functional.conv2d(image, vertical, padding="same", backend=backend)
    assert same.shape == image.shape and same[0, 0, 1:-1, 1:-1].tolist() == table


@pytest.mark.parametrize("server", servers("conv"))
def test_lectures_sobel(server):
    """Both Sobel filters in one layer, on an edge that runs down and one that runs across."""
    backend, device = server
    image = torch.tensor([10.0, 10, 10, 0, 0, 0], device=device).repeat(6, 1)
    sobel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]], device=device)
    filters = torch.stack([sobel, sobel.mT])[:, None]
    for x, edge in ((image, 0), (image.mT, 1)):
        y = functional.conv2d(x[None, None], filters, backend=backend)[0]
        found = y[edge] if edge == 0 else y[edge].mT
        assert found.tolist() == [[0, 40, 40, 0]] * 4
        assert y[1 - edge].abs().max() == 0


@pytest.mark.parametrize("server", servers("conv"))
def test_what_no_window_reads_is_no_factor(server):
    """Rows and columns beyond the last window, of a map whose kernels compute rows together."""
    backend, device = server
    x = torch.arange(2 * 3 * 8 * 10, device=device).reshape(2, 3, 8, 10).float().cos()
    x[:, :, 7:] = x[:, :, :, 9:] = float("nan")
    weight = torch.ones(3, 1, 3, 3, device=device, requires_grad=True)
    y = functional.conv2d(x, weight, stride=2, groups=3, backend=backend)
    (ours,) = torch.autograd.grad(y.sum(), weight)
    windows = x.unfold(2, 3, 2).unfold(3, 3, 2)
    torch.testing.assert_close(ours, windows.sum((0, 2, 3))[:, None])


@pytest.mark.parametrize("server", servers("conv"))
def test_derivatives(server):
    backend, device = server
    shapes = (1, 4, 5, 4), (4, 2, 3, 2), (4,)
    operands = [
        torch.randn(s, dtype=torch.float64, device=device, requires_grad=True) for s in shapes
    ]

    def function(x, weight, bias):
        return functional.conv2d(x, weight, bias, 2, 1, groups=2, backend=backend)

    torch.autograd.gradcheck(function, operands, fast_mode=True)
    torch.autograd.gradgradcheck(function, operands, fast_mode=True)


WINDOWS = (
    # input, weight, stride, padding, dilation, groups
    ((2, 4, 9), (6, 2, 3), [2], [1], [2], 2),
    ((2, 4, 6, 7), (6, 2, 3, 2), [2, 1], [1, 0], [1, 2], 2),
    ((1, 2, 4, 5, 6), (3, 2, 2, 3, 2), [1, 2, 2], [1, 1, 0], [2, 1, 1], 1),
    ((1, 3, 5, 6, 5), (4, 3, 3, 3, 3), [2, 2, 2], [1, 1, 1], [1, 1, 1], 1),
    ((1, 2, 8), (3, 2, 2), [3], [0], [1], 1),
    ((2, 3, 10), (6, 1, 3), [2], [1], [1], 3),
    ((1, 3, 4, 6, 5), (6, 1, 2, 3, 3), [1, 2, 2], [1, 1, 1], [1, 1, 2], 3),
)


@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize(
    "window",
    WINDOWS,
    ids=(
        "1d",
        "2d",
        "3d",
        "3d-stride-two",
        "1d-stride-beyond-the-kernel",
        "1d-depthwise-multiplier",
        "3d-depthwise-multiplier",
    ),
)
@pytest.mark.parametrize("server", servers("conv"))
def test_contract_over_one_to_three_axes(server, window, channels_last):
    backend, device = server
    shape, weight_shape, *window = window
    x, weight = torch.randn(shape, device=device), torch.randn(weight_shape, device=device)
    if channels_last and x.ndim > 3:
        x = x.contiguous(
            memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d
        )
    bias = torch.randn(weight_shape[0], device=device)
    call = {
        other: lambda name, other=other: backends.function(other, name)
        for other in (backend, "reference", "aten")
    }
    plain = (None, *window, "none", 0.0)
    grad_y = torch.randn_like(call["aten"]("conv_forward")(x, weight, bias, *plain))
    for name, arguments in (
        ("conv_forward", (x, weight, bias, *plain)),
        ("conv_forward", (x, weight, None, *plain)),
        ("conv_grad_input", (grad_y, weight, shape[2:], *window)),
        ("conv_grad_weight", (grad_y, x, weight_shape[2:], *window)),
        ("conv_grad_bias", (grad_y,)),
    ):
        ours = call[backend](name)(*arguments)
        for other in ("reference", "aten"):
            torch.testing.assert_close(ours, call[other](name)(*arguments), rtol=1e-4, atol=1e-4)


EPILOGUES = (
    # bias, residual, activation, slope
    (True, True, "relu", 0.0),
    (True, False, "leaky_relu", 0.1),
    (False, True, "silu", 0.0),
    (True, True, "none", 0.0),
)
EPILOGUE_CASES = (
    Case("a product", (1, 17, 5, 4), {}, weight=(20, 17, 3, 3)),
    Case("channels last", (2, 9, 5, 4), {}, "channels_last", weight=(5, 9, 3, 3)),
    Case("depthwise", (2, 6, 5, 4), {"groups": 6}, weight=(6, 1, 3, 3)),
    Case(
        "depthwise, whole vectors of channels",
        (2, 16, 7, 5),
        {"groups": 16},
        "channels_last",
        weight=(16, 1, 3, 3),
    ),
    Case("a slice with stride", (1, 4, 7, 6), {"stride": 2}, "sliced", weight=(5, 4, 3, 3)),
    Case("NaN", (1, 4, 5, 4), {}, values="nan", weight=(5, 4, 1, 1)),
)
WITH_EPILOGUE = ("reference", "aten", "triton")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("epilogue", EPILOGUES, ids=lambda row: row[2])
@pytest.mark.parametrize("case", EPILOGUE_CASES, ids=str)
@pytest.mark.parametrize(
    "server", [server for server in servers("conv") if server.values[0][0] in WITH_EPILOGUE]
)
def test_epilogue(server, case, epilogue, dtype):
    """The forward with bias, residual and activation, against float64."""
    backend, device = server
    with_bias, with_residual, activation, slope = epilogue
    x, weight, bias = _operands(case, dtype, device)
    stride, groups = case.arguments.get("stride", 1), case.arguments.get("groups", 1)
    window = [stride] * 2, [1, 1], [1, 1], groups
    size = [(n + 2 - k) // stride + 1 for n, k in zip(x.shape[2:], weight.shape[2:], strict=True)]
    shape = (x.shape[0], weight.shape[0], *size)
    residual = operand(case, dtype, device, shape, seed=4) if with_residual else None
    operands = (x, weight, bias if with_bias else None, residual)
    ours, theirs, exact = (
        backends.function(name, "conv_forward")(*given, *window, activation, slope)
        for name, given in (
            (backend, operands),
            ("aten", operands),
            ("reference", [None if o is None else o.double() for o in operands]),
        )
    )
    if backend == "aten" and not torch.equal(ours.isnan(), exact.isnan()):
        pytest.skip("PyTorch's own convolution of float16 loses a NaN on this processor")
    hold(ours, theirs, exact, "y")


@pytest.mark.parametrize(
    "server", [server for server in servers("conv") if server.values[0][0] != "aten"]
)
def test_no_filters_give_empty_gradients(server):
    """PyTorch refuses such a convolution, and so does the operator; the kernels must not launch an
    empty grid for it."""
    backend, device = server
    grad_y, x = torch.randn(2, 0, 3, 3, device=device), torch.randn(2, 4, 5, 5, device=device)
    grad_weight = backends.function(backend, "conv_grad_weight")(
        grad_y, x, [3, 3], [1, 1], [0, 0], [1, 1], 1
    )
    assert grad_weight.shape == (0, 4, 3, 3)
    assert backends.function(backend, "conv_grad_bias")(grad_y).shape == (0,)


@pytest.mark.parametrize("server", servers("conv"))
def test_operators_are_registered_correctly(server):
    backend, device = server
    ops, window = torch.ops.pydl, ([2, 1], [1, 1], [1, 1], 2, backend)
    weight = torch.randn(6, 2, 3, 3, device=device)
    contiguous = torch.randn(2, 4, 6, 7, device=device)
    for x in (contiguous, contiguous.contiguous(memory_format=torch.channels_last)):
        plain = (None, *window[:-1], "none", 0.0, backend)
        grad_y = torch.randn_like(ops.conv_forward(x, weight, None, *plain))
        opcheck(ops.conv_forward.default, (x, weight, torch.randn(6, device=device), *plain))
        opcheck(ops.conv_grad_input.default, (grad_y, weight, [6, 7], *window))
        opcheck(ops.conv_grad_weight.default, (grad_y, x, [3, 3], *window))
        opcheck(ops.conv_grad_bias.default, (grad_y, backend))


@pytest.mark.parametrize("server", servers("conv"))
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    channels=st.sampled_from([(1, 1, 1), (3, 2, 1), (4, 6, 2), (3, 3, 3)]),
    view=st.sampled_from(["contiguous", "channels_last", "sliced"]),
)
def test_any_window(server, size, kernel, stride, padding, dilation, channels, view):
    backend, device = server
    c, f, groups = channels
    assume(
        all(
            n + 2 * p >= d * (k - 1) + 1
            for n, p, d, k in zip(size, padding, dilation, kernel, strict=True)
        )
    )
    case = Case(
        "any",
        (2, c, *size),
        {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups},
        view,
        weight=(f, c // groups, *kernel),
    )
    operands = _operands(case, torch.float32, device)
    ours = _all(case, operands, lambda *a, **k: functional.conv2d(*a, **k, backend=backend))
    for mine, other in zip(ours, _all(case, operands, torch.nn.functional.conv2d), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def test_frozen_operands_get_no_gradient_and_cost_none():
    x, weight = torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3, requires_grad=True)
    functional.conv2d(x, weight, backend="reference").sum().backward()
    assert x.grad is None and weight.grad is not None


def test_autocast_computes_in_the_low_precision():
    x, weight = torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = functional.conv2d(x, weight, backend="reference")
        assert y.dtype == torch.bfloat16 == torch.nn.functional.conv2d(x, weight).dtype
    y.float().sum().backward()
    assert weight.grad.dtype == torch.float32


X, W, B = torch.randn(1, 4, 8, 8), torch.randn(6, 4, 3, 3), torch.randn(6)
BAD = (
    (([1.0], W), {}, TypeError, "argument 'input' must be Tensor, not list"),
    ((X, [1.0]), {}, TypeError, "argument 'weight' must be Tensor, not list"),
    ((X, W, 3.0), {}, TypeError, "argument 'bias' must be Tensor, not float"),
    ((X[0, 0], W), {}, RuntimeError, "Expected 3D .* or 4D .*conv2d.*\\[8, 8\\]"),
    ((X, W[0]), {}, RuntimeError, "weight should have 4 dimensions"),
    ((X[:, :3], W), {}, RuntimeError, "to have 4 channels, but got 3 channels instead"),
    ((X, W), {"groups": 2}, RuntimeError, "to have 8 channels, but got 4 channels instead"),
    ((X, torch.randn(5, 2, 3, 3)), {"groups": 2}, RuntimeError, "divisible by 2"),
    ((X, W), {"groups": 0}, RuntimeError, "non-positive groups"),
    ((X, W), {"groups": 1.0}, TypeError, "argument 'groups' must be int"),
    ((X, W, B[:5]), {}, RuntimeError, "expected bias to be 1-dimensional with 6 elements"),
    ((X, W, B), {"stride": 0}, RuntimeError, "non-positive stride is not supported"),
    (
        (X, W, B),
        {"stride": (1, 2, 3)},
        RuntimeError,
        "expected stride to be a single integer value or a list of 2 values",
    ),
    ((X, W, B), {"padding": -1}, RuntimeError, "negative padding is not supported"),
    ((X, W, B), {"padding": "equal"}, RuntimeError, "Invalid padding string"),
    ((X, W, B), {"padding": "same", "stride": 2}, RuntimeError, "not supported for strided"),
    (
        (X, W, B),
        {"dilation": 4},
        RuntimeError,
        "Kernel size can't be greater than actual input size",
    ),
    ((X[..., :0], W), {"padding": 2}, RuntimeError, r"input shape: \[1, 4, 8, 0\]"),
    (
        (X, W.double()),
        {},
        RuntimeError,
        "Input type .*FloatTensor.* and weight type .*DoubleTensor.* should be the same",
    ),
    ((X, W, B.half()), {}, RuntimeError, "bias type .*HalfTensor"),
    ((X, W.to("meta")), {}, RuntimeError, "weight type .*meta.FloatTensor"),
    ((X.long(), W.long()), {}, RuntimeError, "got torch.int64"),
)


@pytest.mark.parametrize("arguments, keywords, error, message", BAD)
def test_bad_input(arguments, keywords, error, message):
    for backend in ("reference", "triton", "cuda"):
        if backends.BACKENDS[backend].devices in ((), ("cpu",)):
            with pytest.raises(error, match=message):
                functional.conv2d(*arguments, **keywords, backend=backend)
