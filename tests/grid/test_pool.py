"""Max and average pooling: every backend against the reference, and the reference against PyTorch
and by hand."""

import pytest
import torch
from contract import DTYPES, Case, gradient, hold, opcheck, operand, run, run_pytorch, servers
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pydl import backends, functional, layout

MAX_CASES = (
    Case("AlexNet's overlapping windows", (2, 5, 13, 15), {"kernel_size": 3, "stride": 2}),
    Case("LeNet's two by two", (2, 6, 8, 10), {"kernel_size": 2}),
    Case("odd size under an even window", (1, 3, 7, 9), {"kernel_size": 2}),
    Case("stride beyond the kernel leaves gaps", (1, 3, 11, 12), {"kernel_size": 2, "stride": 3}),
    Case("stride one with padding", (1, 4, 6, 7), {"kernel_size": 3, "stride": 1, "padding": 1}),
    Case(
        "ceil mode adds a window", (1, 3, 8, 10), {"kernel_size": 3, "stride": 2, "ceil_mode": True}
    ),
    Case(
        "ceil mode drops a window that would start in the padding",
        (1, 2, 7, 5),
        {"kernel_size": 2, "stride": 2, "padding": 1, "ceil_mode": True},
    ),
    Case("dilation", (1, 3, 11, 12), {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2}),
    Case(
        "everything differs by axis",
        (2, 3, 12, 11),
        {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0), "dilation": (1, 3)},
    ),
    Case("ties go to the first", (1, 4, 9, 9), {"kernel_size": 3, "stride": 2}, values="ties"),
    Case(
        "padding is not zero",
        (1, 3, 6, 6),
        {"kernel_size": 3, "stride": 2, "padding": 1},
        values="negative",
    ),
    Case("NaN wins", (1, 4, 9, 10), {"kernel_size": 3, "stride": 2, "padding": 1}, values="nan"),
    Case(
        "all -inf takes the first inside",
        (1, 2, 6, 6),
        {"kernel_size": 3, "stride": 2, "padding": 1},
        values="minus infinity",
    ),
    Case(
        "channels last",
        (2, 9, 9, 8),
        {"kernel_size": 3, "stride": 2, "padding": 1},
        "channels_last",
    ),
    Case(
        "channels last with NaN",
        (2, 17, 7, 8),
        {"kernel_size": 3, "stride": 2},
        "channels_last",
        "nan",
    ),
    Case("a slice of a larger map", (2, 3, 9, 8), {"kernel_size": 3, "stride": 2}, "sliced"),
    Case("an odd storage offset", (1, 3, 9, 8), {"kernel_size": 3, "stride": 2}, "offset"),
    Case("an expanded gradient", (2, 3, 9, 8), {"kernel_size": 3, "stride": 2}, "expanded"),
    Case("an empty batch", (0, 3, 9, 8), {"kernel_size": 3, "stride": 2}),
    Case("unbatched", (3, 9, 8), {"kernel_size": 3, "stride": 2}),
    Case(
        "a window of more taps than a byte counts", (1, 2, 19, 20), {"kernel_size": 17, "stride": 2}
    ),
    Case("wide enough for every vector length", (1, 2, 5, 83), {"kernel_size": 3, "stride": 2}),
    Case("two by two in every vector length", (1, 2, 5, 63), {"kernel_size": 2}, values="ties"),
    Case("two by two with NaN", (2, 3, 8, 36), {"kernel_size": 2}, values="nan"),
    Case("two by two of -inf", (1, 2, 6, 18), {"kernel_size": 2}, values="minus infinity"),
    Case("two wide and three high", (1, 3, 11, 17), {"kernel_size": (3, 2)}),
    Case("more planes than four threads have", (3, 7, 9, 8), {"kernel_size": 3, "stride": 2}),
    Case(
        "a window larger than the map", (2, 3, 1, 2), {"kernel_size": 3, "stride": 2, "padding": 1}
    ),
    Case(
        "channels last in whole vectors",
        (2, 16, 8, 9),
        {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
        "channels_last",
        "nan",
    ),
    Case(
        "channels last in whole vectors, two by two",
        (3, 8, 7, 6),
        {"kernel_size": 2, "ceil_mode": True},
        "channels_last",
        "ties",
    ),
    Case("channels last in no vectors", (5, 6, 7, 6), {"kernel_size": 2}, "channels_last", "ties"),
)

AVERAGE_CASES = (
    Case("AlexNet's window", (2, 5, 13, 15), {"kernel_size": 3, "stride": 2}),
    Case("LeNet's two by two", (2, 6, 8, 10), {"kernel_size": 2}),
    Case("stride beyond the kernel leaves gaps", (1, 3, 11, 12), {"kernel_size": 2, "stride": 3}),
    Case("padding counts", (1, 4, 6, 7), {"kernel_size": 3, "stride": 1, "padding": 1}),
    Case(
        "padding does not count",
        (1, 4, 6, 7),
        {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
    ),
    Case(
        "what ceil mode adds never counts",
        (1, 3, 8, 10),
        {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    ),
    Case(
        "ceil mode without the padding",
        (1, 3, 8, 10),
        {
            "kernel_size": 3,
            "stride": 2,
            "padding": 1,
            "ceil_mode": True,
            "count_include_pad": False,
        },
    ),
    Case(
        "a divisor of one's own",
        (1, 3, 8, 10),
        {"kernel_size": 3, "stride": 2, "padding": 1, "divisor_override": 5},
    ),
    Case(
        "everything differs by axis",
        (2, 3, 12, 11),
        {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)},
    ),
    Case("the whole map", (2, 4, 7, 7), {"kernel_size": 7}),
    Case(
        "NaN stays in its windows",
        (1, 4, 9, 10),
        {"kernel_size": 3, "stride": 2, "padding": 1},
        values="nan",
    ),
    Case(
        "channels last",
        (2, 9, 9, 8),
        {"kernel_size": 3, "stride": 2, "padding": 1},
        "channels_last",
    ),
    Case("a slice of a larger map", (2, 3, 9, 8), {"kernel_size": 3, "stride": 2}, "sliced"),
    Case("an odd storage offset", (1, 3, 9, 8), {"kernel_size": 3, "stride": 2}, "offset"),
    Case("an expanded gradient", (2, 3, 9, 8), {"kernel_size": 3, "stride": 2}, "expanded"),
    Case("an empty batch", (0, 3, 9, 8), {"kernel_size": 3, "stride": 2}),
    Case("unbatched", (3, 9, 8), {"kernel_size": 3, "stride": 2}),
    Case("wide enough for every vector length", (1, 2, 5, 83), {"kernel_size": 3, "stride": 2}),
    Case("more planes than four threads have", (3, 7, 9, 8), {"kernel_size": 3, "stride": 2}),
    Case(
        "a window larger than the map", (2, 3, 1, 2), {"kernel_size": 3, "stride": 2, "padding": 1}
    ),
    Case(
        "channels last in whole vectors, the padding does not count",
        (2, 16, 8, 9),
        {
            "kernel_size": 3,
            "stride": 2,
            "padding": 1,
            "ceil_mode": True,
            "count_include_pad": False,
        },
        "channels_last",
    ),
    Case(
        "channels last in whole vectors, two by two",
        (3, 8, 7, 6),
        {"kernel_size": 2, "padding": 1, "ceil_mode": True},
        "channels_last",
    ),
)

# What one and three axes add to the tables above: that each axis is taken for what it is.
OTHER_AXES = (
    ("max_pool1d", Case("one axis", (2, 5, 19), {"kernel_size": 3, "stride": 2, "padding": 1})),
    ("max_pool1d", Case("one axis dilated", (1, 3, 17), {"kernel_size": 3, "dilation": 2})),
    ("max_pool1d", Case("one axis unbatched", (3, 12), {"kernel_size": 2, "ceil_mode": True})),
    ("avg_pool1d", Case("one axis", (2, 5, 19), {"kernel_size": 4, "stride": 3, "padding": 2})),
    ("avg_pool1d", Case("one axis sliced", (2, 3, 11), {"kernel_size": 3}, "sliced")),
    ("max_pool3d", Case("C3D's first pool", (1, 3, 4, 10, 12), {"kernel_size": (1, 2, 2)})),
    ("max_pool3d", Case("C3D's other pools", (2, 4, 6, 8, 10), {"kernel_size": 2})),
    ("max_pool3d", Case("something left over on each axis", (1, 3, 5, 7, 19), {"kernel_size": 2})),
    (
        "max_pool3d",
        Case(
            "three axes that all differ",
            (1, 3, 7, 8, 9),
            {
                "kernel_size": (2, 3, 3),
                "stride": (1, 2, 3),
                "padding": (1, 0, 1),
                "dilation": (2, 1, 1),
                "ceil_mode": True,
            },
            values="nan",
        ),
    ),
    (
        "max_pool3d",
        Case(
            "three axes channels last",
            (2, 5, 5, 6, 7),
            {"kernel_size": 3, "stride": 2, "padding": 1},
            "channels_last",
            "ties",
        ),
    ),
    ("max_pool3d", Case("three axes unbatched", (3, 4, 6, 7), {"kernel_size": 2})),
    (
        "avg_pool3d",
        Case(
            "three axes that all differ",
            (1, 3, 7, 8, 9),
            {
                "kernel_size": (2, 3, 4),
                "stride": (1, 2, 3),
                "padding": (1, 0, 2),
                "ceil_mode": True,
                "count_include_pad": False,
            },
        ),
    ),
    (
        "avg_pool3d",
        Case(
            "three axes channels last",
            (2, 5, 5, 6, 7),
            {"kernel_size": 3, "stride": 2, "padding": 1, "divisor_override": 7},
            "channels_last",
        ),
    ),
    ("avg_pool3d", Case("an empty batch of volumes", (0, 3, 4, 6, 7), {"kernel_size": 2})),
)

ALL = [
    *(("max_pool2d", case) for case in MAX_CASES),
    *(("avg_pool2d", case) for case in AVERAGE_CASES),
    *OTHER_AXES,
]
POOLS = pytest.mark.parametrize("name, case", ALL, ids=lambda value: str(value))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@POOLS
@pytest.mark.parametrize("server", servers("pool"))
def test_against_reference(server, name, case, dtype):
    backend, device = server
    ours, theirs = getattr(functional, name), getattr(torch.nn.functional, name)
    x = operand(case, dtype, device)
    pytorch = run_pytorch(lambda x: theirs(x, **case.arguments), [x], lambda y: gradient(case, y))
    if backend == "aten" and pytorch[0] is None:
        pytest.skip(f"PyTorch has no {name} of {dtype} on a CPU")
    three = (
        run(lambda x: ours(x, **case.arguments, backend=backend), [x], lambda y: gradient(case, y)),
        pytorch,
        run(
            lambda x: ours(x, **case.arguments, backend="reference"),
            [x.double()],
            lambda y: gradient(case, y),
        ),
    )
    for what, *each in zip(("y", "grad_x"), *three, strict=True):
        hold(*each, what)
    y = ours(x, **case.arguments, backend=backend)
    assert torch.equal(y.nan_to_num(), three[0][0].nan_to_num()), "inference and training differ"


@POOLS
def test_reference_is_pytorch_in_float64(name, case):
    x = operand(case, torch.float64, "cpu")
    ours, theirs = getattr(functional, name), getattr(torch.nn.functional, name)
    pairs = zip(
        run(
            lambda x: ours(x, **case.arguments, backend="reference"),
            [x],
            lambda y: gradient(case, y),
        ),
        run(lambda x: theirs(x, **case.arguments), [x], lambda y: gradient(case, y)),
        strict=True,
    )
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize(
    "name, case", [row for row in ALL if row[0].startswith("max")], ids=lambda value: str(value)
)
@pytest.mark.parametrize("server", servers("pool"))
def test_indices_are_pytorchs(server, name, case):
    backend, device = server
    x = operand(case, torch.float32, device)
    y, index = getattr(functional, f"{name}_with_indices")(x, **case.arguments, backend=backend)
    expected, expected_index = getattr(torch.nn.functional, name)(
        x, **case.arguments, return_indices=True
    )
    assert index.dtype == torch.int64 and torch.equal(index, expected_index)
    torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("server", servers("pool"))
def test_lectures_examples(server):
    """Two worked examples of 2 x 2 windows with stride 2."""
    backend, device = server
    first = torch.tensor([[2, 8, 9, 4], [3, 6, 5, 7], [3, 1, 6, 4], [2, 5, 7, 3.0]], device=device)[
        None
    ]
    assert functional.max_pool2d(first, 2, backend=backend).tolist() == [[[8, 9], [5, 7]]]
    second = torch.tensor(
        [[12, 20, 30, 0], [8, 12, 2, 0], [34, 70, 37, 4], [112, 100, 25, 12.0]], device=device
    )[None]
    assert functional.max_pool2d(second, 2, backend=backend).tolist() == [[[20, 30], [112, 37]]]
    assert functional.avg_pool2d(second, 2, backend=backend).tolist() == [[[13, 8], [79, 19.5]]]


@pytest.mark.parametrize("server", servers("pool"))
def test_derivatives(server):
    backend, device = server
    x = torch.randn(1, 2, 7, 6, dtype=torch.float64, device=device, requires_grad=True)
    for function in (
        lambda x: functional.max_pool2d(x, 3, 2, 1, backend=backend),
        lambda x: functional.max_pool2d(x, 2, return_indices=True, backend=backend)[0],
        lambda x: functional.avg_pool2d(x, 3, 2, 1, ceil_mode=True, backend=backend),
        lambda x: functional.max_pool1d(x.flatten(2), 3, 2, 1, backend=backend),
        lambda x: functional.avg_pool1d(x.flatten(2), 3, 2, 1, backend=backend),
        lambda x: functional.max_pool3d(x.unflatten(3, (2, 3)), (3, 2, 2), backend=backend),
        lambda x: functional.avg_pool3d(x.unflatten(3, (2, 3)), (3, 2, 2), backend=backend),
    ):
        torch.autograd.gradcheck(function, x, fast_mode=True)
        torch.autograd.gradgradcheck(function, x, fast_mode=True)


WINDOWS = (
    # kernel, stride, padding, dilation, input, output
    ([3], [2], [1], [1], [9], [5]),
    ([3, 2], [2, 2], [1, 0], [1, 2], [7, 8], [4, 3]),
    ([2, 3, 2], [2, 1, 2], [0, 1, 0], [1, 1, 1], [5, 5, 6], [3, 5, 3]),  # ceil mode along D
    ([2, 2, 2], [1, 1, 1], [0, 1, 0], [1, 2, 1], [3, 4, 3], [2, 4, 2]),
)


@pytest.mark.parametrize("window", ((2, 2, 1), (3, 2, 0)), ids=("side by side", "overlapping"))
@pytest.mark.parametrize("code", (9, 255))
def test_an_index_of_no_tap_is_refused(window, code):
    """Of a saved tensor that something else wrote to; nothing is read or written outside."""
    kernel, stride, rest = window
    out = [4, 6]
    size = [(n - 1) * stride + kernel + rest for n in out]
    index = torch.zeros(1, 3, *out, dtype=torch.uint8)
    index[0, 2, 3, 5] = code
    backward = backends.function("cpu", "max_pool_backward")
    with pytest.raises(ValueError, match="an index lies outside"):
        backward(torch.ones(1, 3, *out), index, size, [kernel] * 2, [stride] * 2, [0, 0], [1, 1])


@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize("window", WINDOWS, ids=("1d", "2d", "3d", "3d dilated"))
@pytest.mark.parametrize("server", servers("pool"))
def test_contract_over_one_to_three_axes(server, window, channels_last):
    """The contract functions: saved tensors of one backend fit the backward of another."""
    backend, device = server
    kernel, stride, padding, dilation, size, out = window
    x, grad_y = torch.randn(2, 3, *size, device=device), torch.randn(2, 3, *out, device=device)
    if channels_last and x.ndim > 3:
        x = x.contiguous(
            memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d
        )
    y = {}
    for index in ("none", "offset", "flat"):
        mine, taken = backends.function(backend, "max_pool_forward")(
            x, kernel, stride, padding, dilation, out, index
        )
        other, expected = backends.function("reference", "max_pool_forward")(
            x, kernel, stride, padding, dilation, out, index
        )
        assert taken.dtype == (torch.int64 if index == "flat" else torch.uint8)
        assert torch.equal(mine, other) and torch.equal(taken, expected)
        y[index] = taken
    for index in ("offset", "flat"):
        for other in ("reference", "aten"):
            arguments = (grad_y, y[index], size, kernel, stride, padding, dilation)
            mine = backends.function(backend, "max_pool_backward")(*arguments)
            torch.testing.assert_close(
                mine, backends.function(other, "max_pool_backward")(*arguments)
            )
    if dilation == [1] * len(size):
        for divide in ((True, 0), (False, 0), (True, 3)):
            arguments = (x, kernel, stride, padding, out, *divide)
            mine = backends.function(backend, "avg_pool_forward")(*arguments)
            torch.testing.assert_close(
                mine, backends.function("aten", "avg_pool_forward")(*arguments)
            )
            arguments = (grad_y, size, kernel, stride, padding, *divide, False)
            mine = backends.function(backend, "avg_pool_backward")(*arguments)
            torch.testing.assert_close(
                mine, backends.function("aten", "avg_pool_backward")(*arguments)
            )


@pytest.mark.parametrize("server", servers("pool"))
def test_operators_are_registered_correctly(server):
    backend, device = server
    contiguous = torch.randn(2, 3, 7, 8, device=device)
    ops, window = torch.ops.pydl, ([3, 3], [2, 2], [1, 1])
    for x in (contiguous, contiguous.contiguous(memory_format=torch.channels_last)):
        for index in ("none", "offset", "flat"):
            opcheck(ops.max_pool_forward.default, (x, *window, [1, 1], [4, 4], index, backend))
        y, offset = ops.max_pool_forward(x, *window, [1, 1], [4, 4], "offset", backend)
        opcheck(ops.max_pool_backward.default, (y, offset, [7, 8], *window, [1, 1], backend))
        opcheck(ops.avg_pool_forward.default, (x, *window, [4, 4], True, 0, backend))
        opcheck(
            ops.avg_pool_backward.default,
            (y, [7, 8], *window, False, 0, layout.channels_last(x), backend),
        )


@pytest.mark.parametrize("server", servers("pool"))
@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pad=st.tuples(st.booleans(), st.booleans()),
    ceil_mode=st.booleans(),
    count_include_pad=st.booleans(),
    view=st.sampled_from(["contiguous", "channels_last", "sliced"]),
)
def test_any_window(
    server, size, kernel, stride, dilation, pad, ceil_mode, count_include_pad, view
):
    backend, device = server
    case = Case("any", (1, 3, *size), view=view, values="ties")
    x = operand(case, torch.float32, device)
    padding = [k // 2 if p else 0 for k, p in zip(kernel, pad, strict=True)]
    for axis in zip(size, kernel, stride, padding, dilation, strict=True):
        # A dilated window may step over a small input; PyTorch's own backward then writes out of
        # bounds.
        assume(_every_window_holds_a_tap(*axis, ceil_mode))
    for name, arguments in (
        ("max_pool2d", (kernel, stride, padding, dilation, ceil_mode)),
        ("avg_pool2d", (kernel, stride, padding, ceil_mode, count_include_pad)),
    ):
        if name == "avg_pool2d" and dilation != (1, 1):
            continue
        ours, theirs = getattr(functional, name), getattr(torch.nn.functional, name)
        mine = run(lambda x: ours(x, *arguments, backend=backend), [x], lambda y: gradient(case, y))  # noqa: B023
        other = run(lambda x: theirs(x, *arguments), [x], lambda y: gradient(case, y))  # noqa: B023
        for a, b in zip(mine, other, strict=True):
            torch.testing.assert_close(a, b, rtol=2e-6, atol=2e-6)


def _every_window_holds_a_tap(
    size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> bool:
    reach = size + 2 * padding - dilation * (kernel - 1) - 1
    if reach < 0:
        return False
    windows = (reach + (stride - 1 if ceil_mode else 0)) // stride + 1
    starts = [w * stride - padding for w in range(windows) if w * stride < size + padding]
    return all(any(0 <= start + tap * dilation < size for tap in range(kernel)) for start in starts)


@pytest.mark.parametrize(
    "server", [server for server in servers("pool") if server.values[0][0] != "aten"]
)
def test_a_window_without_a_tap_has_no_gradient(server):
    """Dilated taps at -1 and 1 of a row of one: -inf, and nothing to send a gradient to."""
    backend, device = server
    x = torch.randn(1, 3, 1, 7, device=device, requires_grad=True)
    y = functional.max_pool2d(x, (2, 3), 1, (1, 1), (2, 1), backend=backend)
    y.backward(torch.ones_like(y))
    assert y.eq(-torch.inf).all() and x.grad.eq(0).all()
