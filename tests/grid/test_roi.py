"""RoIAlign and RoI pooling: every backend against the reference, and the reference by hand and
against closed forms. PyTorch has neither operator; test_roi_loops.py has what stands in for it."""

import functools
import math

import pytest
import torch
from contract import (
    DTYPES,
    INSTRUCTION_SETS,
    Case,
    gradient,
    hold,
    instruction_set,
    laid_out,
    operand,
    run,
    servers,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from pydl import backends, functional, layout, nn

SERVERS = servers("roi")
OURS = [server for server in SERVERS if server.values[0][0] != "reference"]

# Of an image of 80 x 96 pixels under a map of a fraction of it: image, x1, y1, x2, y2.
BOXES = (
    (1, 8.5, 3.25, 60.75, 44.0),
    (0, 0.0, 0.0, 95.0, 79.0),
    (1, -20.0, -12.5, 30.0, 20.0),
    (0, 70.0, 60.0, 130.0, 110.0),
    (1, 33.3, 21.7, 35.1, 22.2),
    (0, 200.0, 200.0, 260.0, 240.0),
)
ALIGN = {"output_size": 7, "spatial_scale": 0.25, "sampling_ratio": 2}
CASES = (
    ("align", Case("Mask R-CNN's bins", (2, 5, 20, 24), ALIGN)),
    ("align", Case("half a pixel off", (2, 3, 20, 24), ALIGN | {"aligned": True})),
    ("align", Case("as many samples as pixels", (2, 3, 20, 24), ALIGN | {"sampling_ratio": -1})),
    ("align", Case("many samples", (2, 3, 20, 24), ALIGN | {"sampling_ratio": 5})),
    ("align", Case("one sample", (2, 3, 20, 24), ALIGN | {"sampling_ratio": 1})),
    ("align", Case("every axis its own", (2, 3, 20, 24), ALIGN | {"output_size": (2, 9)})),
    ("align", Case("one bin", (2, 3, 20, 24), ALIGN | {"output_size": 1, "sampling_ratio": 0})),
    ("align", Case("channels last", (2, 37, 20, 24), ALIGN, "channels_last")),
    ("align", Case("whole vectors of channels", (2, 24, 20, 24), ALIGN, "channels_last")),
    ("align", Case("more channels than a thread's", (2, 19, 20, 24), ALIGN)),
    ("align", Case("a slice of a larger map", (2, 3, 20, 24), ALIGN, "sliced")),
    ("align", Case("an odd storage offset", (2, 3, 20, 24), ALIGN, "offset")),
    ("align", Case("an expanded gradient", (2, 3, 20, 24), ALIGN, "expanded")),
    ("align", Case("a map of one pixel", (2, 3, 1, 1), ALIGN)),
    ("align", Case("an infinite or NaN pixel elsewhere", (2, 3, 20, 24), ALIGN, values="nan")),
    ("align", Case("one channel", (2, 1, 20, 24), ALIGN, "channels_last")),
    ("pool", Case("Fast R-CNN's bins", (2, 5, 20, 24), {"output_size": 7, "spatial_scale": 0.25})),
    ("pool", Case("every axis its own", (2, 3, 20, 24), {"output_size": (3, 5)})),
    ("pool", Case("one bin", (2, 3, 20, 24), {"output_size": 1, "spatial_scale": 0.25})),
    ("pool", Case("ties", (2, 3, 20, 24), {"output_size": 4, "spatial_scale": 0.2}, values="ties")),
    (
        "pool",
        Case("NaN wins", (2, 3, 20, 24), {"output_size": 3, "spatial_scale": 0.25}, values="nan"),
    ),
    (
        "pool",
        Case(
            "minus infinity stays",
            (2, 3, 9, 9),
            {"output_size": 3, "spatial_scale": 0.1},
            values="minus infinity",
        ),
    ),
    (
        "pool",
        Case(
            "channels last",
            (2, 37, 20, 24),
            {"output_size": 3, "spatial_scale": 0.25},
            "channels_last",
            "ties",
        ),
    ),
    (
        "pool",
        Case(
            "NaN in channels last",
            (2, 5, 20, 24),
            {"output_size": 3, "spatial_scale": 0.25},
            "channels_last",
            "nan",
        ),
    ),
    (
        "pool",
        Case(
            "a slice of a larger map",
            (2, 3, 20, 24),
            {"output_size": 3, "spatial_scale": 0.25},
            "sliced",
        ),
    ),
    (
        "pool",
        Case(
            "an expanded gradient",
            (2, 3, 20, 24),
            {"output_size": 3, "spatial_scale": 0.25},
            "expanded",
        ),
    ),
)


def call(kind, x, boxes, arguments, backend):
    return getattr(functional, f"roi_{kind}")(x, boxes, **arguments, backend=backend)


def beside_reference(kind, x, boxes, arguments, backend):
    """Result and gradient by this backend, each with the reference's."""
    results = [
        run(lambda x, b=b: call(kind, x, boxes, arguments, b), [x], torch.cos)
        for b in (backend, "reference")
    ]
    return zip(*results, strict=True)


def boxes_for(dtype, device="cpu"):
    return torch.tensor(BOXES, dtype=dtype, device=device)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind, case", CASES, ids=str)
@pytest.mark.parametrize("server", SERVERS)
def test_against_reference(server, kind, case, dtype):
    """Where a float's rounding puts the samples is the definition's, so the reference in the same
    type stands for PyTorch in the yardstick; maxima only move, and come out the same."""
    backend, device = server
    x = operand(case, dtype, device)
    boxes = boxes_for(dtype, device)

    def pooled(backend, x):
        boxes_in = boxes.to(x.dtype)
        return run(
            lambda x: call(kind, x, boxes_in, case.arguments, backend),
            [x],
            lambda y: gradient(case, y),
        )

    ours, theirs = pooled(backend, x), pooled("reference", x)
    exact = pooled("reference", x.double())
    for name, mine, other, truth in zip(("y", "grad_x"), ours, theirs, exact, strict=True):
        if kind == "pool" and name == "y":
            torch.testing.assert_close(mine, other, rtol=0, atol=0, equal_nan=True)
        hold(mine, other, truth, name)
        assert layout.memory_format(mine) == layout.memory_format(x)


# by hand


@pytest.mark.parametrize("server", SERVERS)
def test_pooling_by_hand(server):
    """The lectures' map, a box of 3 x 4 pixels, four bins: rows 0-1 and 1-2, columns 0-1 and
    2-3."""
    backend, device = server
    x = torch.tensor(
        [[12, 20, 30, 0], [8, 12, 2, 0], [34, 70, 37, 4], [112, 100, 25, 12.0]], device=device
    )[None, None]
    box = torch.tensor([[0, 0, 0, 3, 2.0]], device=device)
    y = functional.roi_pool(x, box, 2, backend=backend)
    assert y.tolist() == [[[[20, 30], [70, 37]]]]
    # Halves are rounded away from zero, on either side of it.
    for edge, first in ((0.5, 1), (1.5, 2), (-0.5, -1), (0.49, 0)):
        box = torch.tensor([[0, edge, 0, edge, 0.0]], device=device)
        y = functional.roi_pool(x, box, 1, backend=backend)
        assert y.item() == (x[0, 0, 0, first].item() if first >= 0 else 0.0)


@pytest.mark.parametrize("server", SERVERS)
def test_aligning_a_ramp_gives_the_ramp_at_the_middle_of_each_bin(server):
    """Bilinear samples of a linear map are the map, and their mean is its value at their mean."""
    backend, device = server
    rows = torch.arange(16.0, dtype=torch.float64, device=device)[:, None]
    cols = torch.arange(20.0, dtype=torch.float64, device=device)
    x = (3 * rows - 2 * cols + 1)[None, None]
    box = torch.tensor([[0, 4.0, 6.0, 30.0, 24.0]], dtype=torch.float64, device=device)
    for aligned, ratio in ((False, 2), (True, 3), (True, -1)):
        y = functional.roi_align(x, box, (3, 4), 0.5, ratio, aligned, backend=backend)
        offset = 0.5 if aligned else 0
        at_y = 3.0 - offset + (torch.arange(3.0, device=device).double() + 0.5) * 9 / 3
        at_x = 2.0 - offset + (torch.arange(4.0, device=device).double() + 0.5) * 13 / 4
        torch.testing.assert_close(y[0, 0], 3 * at_y[:, None] - 2 * at_x + 1)


@pytest.mark.parametrize("view", ("contiguous", "channels_last"))
@pytest.mark.parametrize("server", SERVERS)
def test_a_box_over_the_map_gives_the_map(server, view):
    """Pixels that weigh nothing are not read: the map's infinities and NaNs stay where they are."""
    backend, device = server
    x = torch.randn(2, 3, 6, 9, device=device)
    x[0, 0, 2, 3], x[1, 2, 0, 0], x[1, 1, 5, 8] = torch.nan, torch.inf, -torch.inf
    x = laid_out(x, view)
    boxes = [torch.tensor([[0, 0, 9, 6.0]], device=device)] * 2
    y = functional.roi_align(x, boxes, (6, 9), sampling_ratio=1, aligned=True, backend=backend)
    torch.testing.assert_close(y, x, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("view", ("contiguous", "channels_last"))
@pytest.mark.parametrize("server", SERVERS)
def test_an_infinite_gradient_stays_in_the_pixels_of_its_bin(server, view):
    """A sample on a pixel gives its neighbours, which it weighs with 0, nothing."""
    backend, device = server
    x = laid_out(torch.zeros(1, 2, 8, 9, device=device), view)
    box = torch.tensor([[0, 2, 2, 6, 6.0]], device=device)  # samples at 3 and 5
    grad_y = torch.ones(1, 2, 2, 2, device=device)
    grad_y[:, 0, 0, 0] = torch.inf
    expected = torch.zeros_like(x)
    expected[:, :, 3:6:2, 3:6:2] = grad_y
    arguments = {"output_size": 2, "sampling_ratio": 1}
    _, grad_x = run(lambda x: call("align", x, box, arguments, backend), [x], lambda y: grad_y)
    assert torch.equal(grad_x, expected)


# boxes that are unlike others


ODD = {
    "NaN": (math.nan, 1, 5, 6),
    "infinite": (0, 0, math.inf, 6),
    "infinite both ways": (-math.inf, -math.inf, math.inf, math.inf),
    "beyond all integers": (-1e30, -1e30, 1e30, 1e30),
    "upside down": (6, 5, 1, 2),
    "upside down along one axis": (1, 5, 6, 2),
    "a point": (3, 3, 3, 3),
    "a point at the last edge": (7.5, 6.5, 7.5, 6.5),
    "off the map": (100, 100, 110, 120),
    "four million pixels": (-4e6, 0, 4e6, 6),
}


@pytest.mark.parametrize("aligned", (False, True))
@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("server", OURS)
def test_odd_boxes(server, name, aligned):
    """No crash, no endless loop, the reference's answer; what is not finite pools nothing."""
    backend, device = server
    box = torch.tensor([[0, *ODD[name]]], dtype=torch.float32, device=device)
    for view in ("contiguous", "channels_last"):
        x = laid_out(torch.randn(1, 2, 6, 7, device=device) + 9, view)
        for kind, arguments in (
            ("align", {"output_size": 3, "aligned": aligned}),
            ("align", {"output_size": 3, "aligned": aligned, "sampling_ratio": 2}),
            ("pool", {"output_size": 3}),
        ):
            for ours, theirs in beside_reference(kind, x, box, arguments, backend):
                torch.testing.assert_close(ours, theirs)
                assert (
                    torch.tensor(ODD[name], dtype=torch.float32).isfinite().all() or not ours.any()
                )


@pytest.mark.parametrize("server", SERVERS)
def test_nothing_to_pool(server):
    backend, device = server
    for kind in ("align", "pool"):
        for shape, boxes, size in (
            ((2, 3, 4, 5), 0, 2),
            ((0, 3, 4, 5), 0, 2),
            ((2, 0, 4, 5), 1, 2),
            ((2, 3, 4, 5), 1, 0),
        ):
            x = torch.randn(shape, device=device, requires_grad=True)
            y = call(kind, x, torch.zeros(boxes, 5, device=device), {"output_size": size}, backend)
            assert y.shape == (boxes, shape[1], size, size)
            y.sum().backward()
            assert not x.grad.any() and x.grad.shape == x.shape


@pytest.mark.parametrize("server", SERVERS)
def test_lists_and_views_of_boxes(server):
    """A list is numbered by its images; boxes may have any strides; they get no gradient."""
    backend, device = server
    x = torch.randn(2, 3, 20, 24, device=device)
    boxes = boxes_for(torch.float32, device)
    listed = [boxes[boxes[:, 0] == n, 1:] for n in range(2)]
    flat = torch.cat([boxes[boxes[:, 0] == n] for n in range(2)])
    strided = flat.new_zeros(len(flat), 10)[:, ::2].copy_(flat).requires_grad_()
    for kind in ("align", "pool"):
        y = call(kind, x, flat, {"output_size": 3, "spatial_scale": 0.25}, backend)
        for other in (listed, tuple(listed), strided):
            again = call(kind, x, other, {"output_size": 3, "spatial_scale": 0.25}, backend)
            assert torch.equal(y, again) and not again.requires_grad


@pytest.mark.parametrize("server", OURS)
def test_more_boxes_than_a_block_lists_at_once(server):
    """300 boxes on one pixel, so each of their gradients counts."""
    backend, device = server
    generator = torch.Generator().manual_seed(3)
    corners = torch.rand(300, 4, generator=generator) * 8
    corners[:, 2:] += corners[:, :2]
    numbers = torch.randint(2, (300, 1), generator=generator).float()
    boxes = torch.cat([numbers, corners], 1).to(device)
    for view in ("contiguous", "channels_last"):
        x = laid_out(torch.randn(2, 9, 12, 13, generator=generator).to(device), view)
        for kind in ("align", "pool"):
            for ours, theirs in beside_reference(kind, x, boxes, {"output_size": 2}, backend):
                torch.testing.assert_close(ours, theirs)


# derivatives and registration


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("kind", ("align", "pool"))
def test_derivatives(server, kind):
    backend, device = server
    x = torch.randn(2, 2, 7, 8, dtype=torch.float64, device=device, requires_grad=True)
    boxes = torch.tensor(
        [[0, 1, 1, 6, 5], [1, -2, 0, 3, 9.5], [0, 2.2, 3, 7.3, 6]], device=device
    ).double()

    def function(x):
        return call(kind, x, boxes, {"output_size": (2, 3)}, backend)

    torch.autograd.gradcheck(function, x, fast_mode=True)
    torch.autograd.gradgradcheck(function, x, fast_mode=True)


@pytest.mark.parametrize("server", SERVERS)
def test_operators_are_registered_correctly(server):
    backend, device = server
    x = torch.randn(2, 3, 9, 8, device=device)
    boxes = torch.tensor([[0, 1, 1, 6, 5], [1, -2, 0, 3, 9.5]], device=device)
    ops = torch.ops.pydl
    for view in ("contiguous", "channels_last"):
        x, last = laid_out(x, view), view == "channels_last"
        align = 0.5, 2, True
        torch.library.opcheck(ops.roi_align_forward.default, (x, boxes, [2, 3], *align, backend))
        y = ops.roi_align_forward(x, boxes, [2, 3], *align, backend)
        torch.library.opcheck(
            ops.roi_align_backward.default, (y, boxes, list(x.shape), *align, last, backend)
        )
        for index in (True, False):
            arguments = x, boxes, [2, 3], 0.5, index, backend
            torch.library.opcheck(ops.roi_pool_forward.default, arguments)
        y, index = ops.roi_pool_forward(x, boxes, [2, 3], 0.5, True, backend)
        arguments = y, index, boxes, list(x.shape), 0.5, last, backend
        torch.library.opcheck(ops.roi_pool_backward.default, arguments)


@pytest.mark.parametrize("server", SERVERS)
def test_compiles_whole(server):
    backend, device = server
    x = torch.randn(2, 3, 9, 8, device=device)
    boxes = [torch.tensor([[1, 1, 6, 5.0]], device=device), torch.zeros(0, 4, device=device)]

    def model(x):
        y = functional.roi_align(x, boxes, 3, sampling_ratio=2, backend=backend)
        return y * functional.roi_pool(x, boxes, 3, backend=backend)

    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for ours, theirs in zip(
        run(compiled, [x], torch.ones_like), run(model, [x], torch.ones_like), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", ("align", "pool"))
def test_the_same_bits_with_any_number_of_threads_and_every_instruction_set(kind):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(40, 4, generator=generator) * 20
    corners[:, 2:] += corners[:, :2]
    boxes = torch.cat([torch.randint(2, (40, 1), generator=generator).float(), corners], 1)
    threads = torch.get_num_threads()

    def slope(y):
        one = y[:, :1]
        return torch.linspace(-1, 1, one.numel()).reshape(one.shape).to(y.dtype).expand_as(y)

    for view in ("contiguous", "channels_last"):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            x = laid_out(torch.randn(2, 48, 30, 40, generator=generator).to(dtype), view)

            def pooled(x, boxes, backend="cpu"):
                def function(x):
                    return call(kind, x, boxes.to(x.dtype), {"output_size": 5}, backend)

                return run(function, [x], slope)

            truth = pooled(x[:, :3], boxes, "reference")
            for isa in INSTRUCTION_SETS:
                with instruction_set(isa):
                    seen = []
                    for count in (1, 2, 3):
                        torch.set_num_threads(count)
                        seen.append(pooled(x, boxes))
                    torch.set_num_threads(threads)
                    for other in seen[1:]:
                        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))
                    for ours, theirs in zip(seen[0], truth, strict=True):
                        torch.testing.assert_close(ours[:, :3], theirs)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*(st.integers(1, n) for n in (2, 20, 12, 40))),
    corners=st.lists(st.tuples(*[st.floats(-12, 50, width=32)] * 4), max_size=4),
    size=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    ratio=st.integers(-1, 3),
    aligned=st.booleans(),
    view=st.sampled_from(("contiguous", "channels_last", "sliced")),
    backend=st.sampled_from([server.values[0][0] for server in OURS if not server.marks[:-1]]),
)
def test_any_box(shape, corners, size, ratio, aligned, view, backend):
    x = laid_out(torch.randn(shape), view)
    boxes = torch.tensor([(i % shape[0], *c) for i, c in enumerate(corners)]).reshape(-1, 5)
    for kind, arguments in (
        ("align", {"sampling_ratio": ratio, "aligned": aligned}),
        ("pool", {}),
    ):
        arguments = {"output_size": size, "spatial_scale": 0.7} | arguments
        for ours, theirs in beside_reference(kind, x, boxes, arguments, backend):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


# what is refused


X, ONE = torch.randn(2, 3, 8, 8), torch.tensor([[0, 1, 1, 6, 5.0]])
BAD = (
    ((X[0], ONE, 2), RuntimeError, "Expected 4D"),
    ((X[:, :, :0], ONE, 2), RuntimeError, "non-zero size for its spatial dimensions"),
    ((X, ONE[0], 2), RuntimeError, r"a tensor \(K, 5\) or a list"),
    ((X, ONE[:, 1:], 2), RuntimeError, r"a tensor \(K, 5\) or a list"),
    ((X, [ONE[:, 1:]], 2), RuntimeError, "1 for 2 images"),
    ((X, [ONE, ONE], 2), RuntimeError, r"tensors \(L, 4\)"),
    ((X, [ONE[:, 1:], 3], 2), TypeError, "must be Tensor, not int"),
    ((X, "boxes", 2), TypeError, "must be Tensor or list of Tensors, not str"),
    ((X, ONE.double(), 2), RuntimeError, "should be the same"),
    ((X, ONE.to("meta"), 2), RuntimeError, "on the same device"),
    ((X, ONE, -1), RuntimeError, "output_size should be non-negative"),
    ((X, ONE, (1, 2, 3)), RuntimeError, "tuple of 2 ints"),
    ((X, ONE, 2.5), TypeError, "tuple of ints, not float"),
    ((X.long(), ONE, 2), RuntimeError, "serves float32"),
    (([X], ONE, 2), TypeError, "argument 'input' must be Tensor"),
)


@pytest.mark.parametrize("kind", ("align", "pool"))
@pytest.mark.parametrize("arguments, error, message", BAD)
def test_bad_input(arguments, error, message, kind):
    for backend in ("reference", "cpu", "cuda", None):
        if backend is None or backends.BACKENDS[backend].devices in ((), ("cpu",)):
            with pytest.raises(error, match=message):
                getattr(functional, f"roi_{kind}")(*arguments, backend=backend)


@pytest.mark.parametrize("number", (2, -1, math.nan, 1e30))
@pytest.mark.parametrize("kind", ("align", "pool"))
def test_a_box_of_no_image(kind, number):
    """Refused where asking costs nothing; a GPU's kernels read nothing for it."""
    box = torch.tensor([[number, 1, 1, 6, 5.0]])
    for backend in ("reference", "cpu"):
        with pytest.raises(RuntimeError, match=r"invalid batch index.*2 images"):
            call(kind, X, box, {"output_size": 2}, backend)
    if backends.BACKENDS["cuda"].devices == ("cpu",):
        pool = functools.partial(call, kind, arguments={"output_size": 2}, backend="cuda")
        y, grad = run(lambda x: pool(x, box), [X], torch.ones_like)
        assert not y.any() and not grad.any()


def test_auto_is_served_without_pytorchs_own_operator():
    assert backends.choose("roi", None, X) == "cpu"
    assert backends.choose("roi", None, X.to("meta")) == "reference"
    with pytest.raises(RuntimeError, match="'aten' does not serve roi; reference, cpu, cuda do"):
        functional.roi_pool(X, ONE, 2, backend="aten")
    y = functional.roi_align(X.to("meta"), ONE.to("meta"), 2)
    assert y.shape == (1, 3, 2, 2) and y.device.type == "meta"


def test_layers():
    align, pool = nn.RoIAlign(3, 0.5, 2, aligned=True), nn.RoIPool((2, 3), spatial_scale=0.5)
    assert torch.equal(align(X, ONE), functional.roi_align(X, ONE, 3, 0.5, 2, True))
    assert torch.equal(pool(X, ONE), functional.roi_pool(X, ONE, (2, 3), 0.5))
    assert (
        str(align) == "RoIAlign(output_size=3, spatial_scale=0.5, sampling_ratio=2, aligned=True)"
    )
    assert str(pool) == "RoIPool(output_size=(2, 3), spatial_scale=0.5)"
    assert "backend='reference'" in str(nn.RoIPool(2, 1.0, backend="reference"))
