"""The CUDA kernels of convolution that test_conv.py's small shapes do not reach: tiles that
shapes straddle, classes of residues, splits, the epilogue, every way operands can lie."""

from dataclasses import dataclass

import pytest
import torch
from contract import hold, laid_out, nearest_tf32

from pydl import backends, layout, native
from pydl.native import conv

pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif(backends.BACKENDS["cuda"].missing is not None, reason="no CUDA kernels"),
]
DEVICE = backends.BACKENDS["cuda"].devices[0]
TF32 = "tf32"  # float32, its products rounded


@dataclass(frozen=True)
class Shape:
    reason: str
    x: tuple[int, ...]
    weight: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    @property
    def window(self) -> tuple:
        axes = len(self.x) - 2
        return (
            self.stride or (1,) * axes,
            self.padding or (0,) * axes,
            self.dilation or (1,) * axes,
            self.groups,
        )

    def __str__(self) -> str:
        return self.reason.replace(" ", "-")


SHAPES = (
    Shape("one pixel and one filter", (1, 8, 1), (1, 8, 1)),
    Shape("channels that fill no chunk", (2, 13, 7, 6), (5, 13, 3, 3), padding=(1, 1)),
    Shape(
        "rows, columns and reduction a little over a tile",
        (1, 72, 9, 8),
        (72, 72, 3, 2),
        padding=(1, 1),
    ),
    Shape("a whole tile of everything", (1, 64, 8, 8), (64, 64, 1, 1)),
    Shape("two groups", (2, 32, 5, 7), (48, 16, 3, 3), padding=(1, 1), groups=2),
    Shape("stride two", (2, 16, 9, 8), (24, 16, 3, 3), (2, 2), (1, 1)),
    Shape("stride beyond the kernel", (1, 8, 11, 10), (16, 8, 2, 2), (3, 3)),
    Shape("stride beyond the input", (2, 8, 3, 2), (16, 8, 2, 2), (5, 4)),
    Shape(
        "stride and dilation with a common divisor",
        (1, 16, 11, 12),
        (8, 16, 3, 3),
        (4, 2),
        (2, 3),
        (2, 2),
    ),
    Shape(
        "everything differs by axis",
        (2, 16, 12, 11),
        (16, 8, 3, 2),
        (3, 1),
        (1, 2),
        (2, 3),
        2,
    ),
    Shape("one axis", (3, 16, 70), (8, 16, 5), (2,), (2,)),
    Shape("three axes", (1, 8, 5, 6, 7), (16, 8, 2, 3, 3), (1, 2, 2), (1, 1, 0), (2, 1, 1)),
    Shape("pixels in several splits", (2, 8, 20, 19), (8, 8, 3, 3), padding=(1, 1)),
    Shape("channels that half fill a chunk", (2, 5, 12, 11), (9, 5, 7, 7), (2, 2), (3, 3)),
    Shape("padding wider than the kernel", (1, 8, 3, 4), (8, 8, 2, 2), padding=(3, 3)),
    Shape("an empty batch", (0, 8, 5, 5), (16, 8, 3, 3)),
)


def _lies(t: torch.Tensor, view: str) -> torch.Tensor:
    if view == "channels_last" and t.ndim == 3:
        return t.transpose(1, 2).contiguous().transpose(1, 2)
    if view == "odd channels_last":  # channels are neighbours, but nothing is aligned
        wide = _lies(torch.cat([t, torch.zeros_like(t[:, :1])], 1), "channels_last")
        return wide[:, : t.shape[1]]
    return laid_out(t, view)


VIEWS = {  # of the maps, of the weight
    "contiguous": ("contiguous", "contiguous"),
    "channels_last": ("channels_last", "channels_last"),
    "maps channels_last": ("channels_last", "contiguous"),
    "unaligned": ("odd channels_last", "channels_last"),
}


def _operand(shape, dtype, view, seed):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return _lies(values.to(torch.float32 if dtype == TF32 else dtype).to(DEVICE), view)


def _three(shape: Shape, dtype, views: tuple[str, str], gradients: bool = True):
    """The output and both gradients of one convolution: ours, PyTorch's, exact."""
    maps, bank = views
    x, weight = _operand(shape.x, dtype, maps, 1), _operand(shape.weight, dtype, bank, 2)
    bias = _operand(shape.weight[:1], dtype, "contiguous", 3)
    function = backends.function
    plain = (None, *map(list, shape.window[:3]), shape.groups, "none", 0.0)
    y_shape = function("reference", "conv_forward")(x, weight, bias, *plain).shape
    grad_y = _operand(y_shape, dtype, maps, 4)
    window = (*map(list, shape.window[:3]), shape.groups)

    def all_of(backend, x, weight, grad_y, bias):
        y = function(backend, "conv_forward")(x, weight, bias, *plain)
        if not gradients:
            return (y,)
        return (
            y,
            function(backend, "conv_grad_input")(grad_y, weight, list(shape.x[2:]), *window),
            function(backend, "conv_grad_weight")(grad_y, x, list(shape.weight[2:]), *window),
        )

    ours = all_of("cuda", x, weight, grad_y, bias)
    rounded = [nearest_tf32(t) if dtype == TF32 else t for t in (x, weight, grad_y)]
    theirs = all_of("aten", *rounded, bias)
    exact = all_of("reference", *(t.double() for t in rounded), bias.double())
    return ours, theirs, exact


def _hold(ours, theirs, exact, dtype, what: str) -> None:
    """The yardstick; but products of tf32 join one long float32 sum each, inside the tensor core,
    which cuts off where the emulator rounds: a unit of the largest value at most for each eight of
    the products, of which the longest sum here has 432. Rounding an operand in another way than to
    the nearest tf32 costs hundreds."""
    if dtype != TF32 or exact.numel() == 0:
        return hold(ours, theirs, exact, what)
    assert ours.shape == exact.shape and ours.dtype == theirs.dtype
    error, allowed = (ours - exact).abs().max(), 64 * 2.0**-23 * exact.abs().max()
    assert error <= allowed, f"{what}: error {error:.3g}, allowed {allowed:.3g}"


@pytest.fixture
def tf32(monkeypatch):
    monkeypatch.setattr(conv, "allows_tf32", lambda x: x.dtype == torch.float32)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16, TF32), ids=str)
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_against_reference(shape, view, dtype, tf32):
    results = _three(shape, dtype, VIEWS[view])
    for what, *three in zip(("y", "grad_x", "grad_weight"), *results, strict=True):
        _hold(*three, dtype, what)


MANY_GROUPS = (
    # As many tiles of 128 x 128 as a large convolution has, and little work in each.
    Shape("large tiles forward", (1, 512, 10, 13), (4608, 8, 1, 1), groups=64),
    Shape("large tiles backward", (1, 4608, 10, 13), (512, 72, 1, 1), groups=64),
)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16, TF32), ids=str)
@pytest.mark.parametrize("shape", MANY_GROUPS, ids=str)
def test_large_tiles(shape, dtype, tf32):
    results = _three(shape, dtype, VIEWS["channels_last"])
    for what, *three in zip(("y", "grad_x", "grad_weight"), *results, strict=True):
        _hold(*three, dtype, what)


DEPTHWISE = (
    Shape("a strip and a part of one", (2, 16, 9, 11), (16, 1, 3, 3), padding=(1, 1), groups=16),
    Shape("stride two", (2, 16, 8, 11), (16, 1, 3, 3), (2, 2), (1, 1), groups=16),
    Shape("step two along rows only", (1, 16, 5, 9), (16, 1, 2, 3), (1, 2), (0, 2), groups=16),
    Shape("dilation", (1, 8, 9, 10), (8, 1, 3, 3), (1, 1), (2, 2), (2, 2), groups=8),
    Shape("five by five", (1, 24, 9, 8), (24, 1, 5, 5), (2, 1), (2, 2), groups=24),
    Shape("a multiplier of three", (2, 8, 6, 7), (24, 1, 3, 3), (1, 2), (1, 1), groups=8),
    Shape("channels that fill no pack", (2, 13, 6, 5), (13, 1, 3, 3), padding=(1, 1), groups=13),
    Shape("three axes", (1, 16, 4, 5, 6), (16, 1, 3, 3, 3), (1, 2, 1), (1, 1, 1), (1, 1, 2), 16),
    Shape("one axis", (2, 40, 37), (40, 1, 3), (1,), (1,), groups=40),
    Shape("pixels in several splits", (3, 2, 40, 41), (2, 1, 3, 3), padding=(1, 1), groups=2),
    Shape("a last split with room to spare", (5, 264, 5, 4), (264, 1, 3, 3), (), (1, 1), (), 264),
    Shape("an empty batch", (0, 8, 5, 5), (8, 1, 3, 3), groups=8),
)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "dtype", (torch.float32, torch.float64, torch.float16, torch.bfloat16), ids=str
)
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("shape", DEPTHWISE, ids=str)
def test_depthwise_against_reference(shape, view, dtype):
    results = _three(shape, dtype, VIEWS[view])
    for what, *three in zip(("y", "grad_x", "grad_weight"), *results, strict=True):
        hold(*three, what)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("view", ("contiguous", "channels_last"))
def test_taps_meet_only_their_rows(view, dtype):
    """The last row is infinite, and only the lowest taps meet it: rows of the output that a strip
    has room for, but the map has not, multiply nothing."""
    x = _operand((2, 16, 13, 9), dtype, view, 1)
    x[:, :, -1] = torch.inf
    grad_y = _operand((2, 16, 11, 7), dtype, view, 2).abs() + 1
    function = backends.function("cuda", "conv_grad_weight")
    grad_weight = function(grad_y, x, [3, 3], [1, 1], [0, 0], [1, 1], 16)
    assert (grad_weight[..., -1, :] == torch.inf).all()
    assert grad_weight[..., :-1, :].isfinite().all()


FEW_CHANNELS = (
    Shape("a tile and a part of one every way", (1, 3, 21, 70), (20, 3, 7, 7), (2, 2), (3, 3)),
    Shape("eleven by eleven", (1, 3, 43, 39), (8, 3, 11, 11), (4, 4), (2, 2)),
    Shape("groups of four", (2, 8, 9, 9), (6, 4, 3, 3), padding=(1, 1), groups=2),
    Shape("three axes", (1, 2, 4, 9, 10), (3, 2, 2, 3, 3), (1, 1, 2), (1, 1, 1), (1, 2, 1)),
    Shape(
        "rows too far apart for shared memory",
        (1, 1, 8, 9),
        (2, 1, 3, 3),
        (1, 1),
        (60, 60),
        (60, 60),
    ),
)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "dtype", (torch.float32, torch.float64, torch.float16, torch.bfloat16), ids=str
)
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("shape", FEW_CHANNELS, ids=str)
def test_few_channels_against_reference(shape, view, dtype):
    ours, theirs, exact = _three(shape, dtype, VIEWS[view], gradients=False)
    hold(ours[0], theirs[0], exact[0], "y")


ACTIVATIONS = (("none", 0.0), ("relu", 0.0), ("leaky_relu", 0.125), ("silu", 0.0))
EPILOGUES = (
    Shape("product", (2, 16, 7, 6), (72, 16, 3, 3), padding=(1, 1)),
    Shape("product in groups", (2, 16, 7, 6), (24, 8, 3, 3), padding=(1, 1), groups=2),
    Shape("depthwise", (2, 16, 7, 6), (16, 1, 3, 3), padding=(1, 1), groups=16),
    Shape("few channels", (2, 2, 7, 6), (18, 2, 3, 3), padding=(1, 1)),
)


@pytest.mark.parametrize(
    "dtype", (torch.float16, torch.bfloat16, TF32, torch.float32, torch.float64), ids=str
)
@pytest.mark.parametrize("activation, slope", ACTIVATIONS)
@pytest.mark.parametrize("shape", EPILOGUES, ids=str)
def test_epilogue(shape, activation, slope, dtype, monkeypatch):
    if dtype == TF32:
        monkeypatch.setattr(conv, "allows_tf32", lambda x: True)
    for view, other in (("contiguous", "channels_last"), ("channels_last", "contiguous")):
        x, weight = _operand(shape.x, dtype, view, 1), _operand(shape.weight, dtype, view, 2)
        bias = _operand(shape.weight[:1], dtype, "contiguous", 3)
        # The kernels of few channels multiply no matrices and round nothing.
        product = shape.weight[1] > 4
        rounded = [nearest_tf32(t) if dtype == TF32 and product else t for t in (x, weight)]
        geometry = (*map(list, shape.window[:3]), shape.groups)
        y_shape = (x.shape[0], weight.shape[0], *x.shape[2:])
        for residual in (_operand(y_shape, dtype, other, 4), None):
            for b in (bias, None):
                rest = (residual, *geometry, activation, slope)
                ours = backends.function("cuda", "conv_forward")(x, weight, b, *rest)
                theirs = backends.function("aten", "conv_forward")(*rounded, b, *rest)
                double = [None if t is None else t.double() for t in (*rounded, b, residual)]
                exact = backends.function("reference", "conv_forward")(
                    *double, *geometry, activation, slope
                )
                _hold(ours, theirs, exact, dtype, "y")


def test_float32_is_exact_unless_tf32_is_allowed(monkeypatch):
    x, weight = torch.randn(1, 16, 5, 5, device=DEVICE), torch.randn(8, 16, 1, 1, device=DEVICE)
    arguments = (x, weight, None, None, [1, 1], [0, 0], [1, 1], 1, "none", 0.0)
    forward = backends.function("cuda", "conv_forward")
    exact = backends.function("reference", "conv_forward")(
        x.double(), weight.double(), *arguments[2:]
    )
    errors = []
    for allowed in (False, True):
        monkeypatch.setattr(conv, "allows_tf32", lambda x, allowed=allowed: allowed)
        errors.append((forward(*arguments) - exact).abs().max().item())
    assert errors[0] < 1e-5 < 1e-4 < errors[1] < 1e-2


@pytest.mark.parametrize("dtype", (torch.float16, TF32), ids=str)
def test_results_repeat_and_do_not_depend_on_the_layout_of_the_result(dtype, tf32):
    shape = SHAPES[12]
    first, again = (_three(shape, dtype, VIEWS["channels_last"])[0] for _ in range(2))
    gathered = _three(shape, dtype, VIEWS["contiguous"])[0]
    for a, b, c in zip(first, again, gathered, strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)


@pytest.mark.parametrize("groups", (1, 8))
def test_coordinates_beyond_32_bits(groups):
    """Padding and dilation of 2^32, so that the middle tap alone is on the map; in 32 bits both are
    0, and every tap is."""
    far = 1 << 32
    x, weight = torch.randn(1, 8, 5, device=DEVICE), torch.randn(8, 8 // groups, 3, device=DEVICE)
    x, weight = x.half(), weight.half()
    wide, narrow = ([1], [far], [far], groups), ([1], [0], [1], groups)
    middle = weight[..., 1:2].contiguous()
    forward, grad_input, grad_weight = (
        backends.function("cuda", f"conv_{name}")
        for name in ("forward", "grad_input", "grad_weight")
    )
    y = forward(x, middle, None, None, *narrow, "none", 0.0)
    torch.testing.assert_close(forward(x, weight, None, None, *wide, "none", 0.0), y)
    for_x = grad_input(y, middle, [5], *narrow)
    torch.testing.assert_close(grad_input(y, weight, [5], *wide), for_x)
    for_weight = torch.zeros_like(weight)
    for_weight[..., 1:2] = grad_weight(y, x, [1], *narrow)
    torch.testing.assert_close(grad_weight(y, x, [3], *wide), for_weight)


def test_what_no_tap_covers_is_not_read():
    """The reduction is padded to whole steps: the chunks too many weigh nothing, not even an
    infinity, which lies where one more plane of taps would."""
    x, weight = torch.randn(1, 8, 2, 1, 1), torch.randn(8, 8, 1, 1, 1)
    x[:, :, 1] = torch.inf
    x, weight = x.half().to(DEVICE), weight.half().to(DEVICE)
    window = [1, 1, 1], [0, 0, 0], [1, 1, 1], 1
    for view in ("contiguous", "channels_last"):
        arguments = _lies(x, view), _lies(weight, view), None, None, *window, "none", 0.0
        y = backends.function("cuda", "conv_forward")(*arguments)
        assert y[:, :, 0].isfinite().all() and not y[:, :, 1].isfinite().any()


@pytest.mark.parametrize("size", ((6, 2, 20, 20), (2, 2, 5, 6, 10)), ids=str)
def test_the_gradient_of_a_bias_reads_a_part_of_a_map_alone(size):
    """Where threads come to the end of rows, planes and images, and past it, is NaN; and they come
    round twice."""
    whole = torch.full([n + 2 for n in size], torch.nan, device=DEVICE)
    grad_y = whole[tuple(map(slice, size))].copy_(torch.randint(-9, 9, size))
    exact = grad_y.transpose(0, 1).flatten(1).sum(1)
    assert torch.equal(backends.function("cuda", "conv_grad_bias")(grad_y), exact)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.bfloat16), ids=str)
@pytest.mark.parametrize(
    "size, view",
    (
        ((2, 3, 100, 60), "contiguous"),  # two runs, whole turns of a thread's and a part
        ((3, 2, 33, 7), "contiguous"),  # rows that are no whole vectors
        ((2, 5, 3, 8), "contiguous"),  # threads without a part
        ((1, 40, 92, 92), "channels_last"),  # more runs than a warp joins at a time
        ((2, 7, 9, 8), "channels_last"),  # channels that are no whole vectors
        ((2, 64, 1, 3), "channels_last"),
    ),
    ids=str,
)
def test_the_gradient_of_a_bias_of_a_dense_map(size, view, dtype):
    grad_y = _lies(torch.randint(-9, 10, size).to(DEVICE, dtype), view)
    exact = grad_y.double().transpose(0, 1).flatten(1).sum(1).to(dtype)
    assert torch.equal(backends.function("cuda", "conv_grad_bias")(grad_y), exact)
    runs = native.library("cuda").functions.conv_grad_bias_runs
    assert runs(grad_y) > 0 and runs(grad_y[..., 1:]) == 0


@pytest.mark.parametrize("size", ((0, 3, 4, 5), (2, 3, 0, 5)), ids=str)
def test_the_gradient_of_a_bias_of_no_pixels(size):
    grad_bias = backends.function("cuda", "conv_grad_bias")(torch.empty(size, device=DEVICE))
    assert torch.equal(grad_bias, torch.zeros_like(grad_bias))


def test_the_gradient_of_a_bias_wants_room_for_its_runs():
    grad_y, grad_bias = torch.zeros(2, 3, 4, 5, device=DEVICE), torch.empty(3, device=DEVICE)
    library = native.library("cuda")
    for parts in (None, torch.empty(1, 2, 3, device=DEVICE)):
        with pytest.raises(ValueError, match="room for 1 x 3 partial sums"):
            library.call("conv_grad_bias", grad_y, grad_bias, parts, on=grad_y)


@pytest.mark.parametrize("channels, groups", ((8, 1), (2, 2)))
def test_the_gradient_of_no_filters(channels, groups):
    x, grad_y = torch.randn(1, channels, 5).half(), torch.empty(1, 0, 5).half()
    grad_weight = backends.function("cuda", "conv_grad_weight")(
        grad_y.to(DEVICE), x.to(DEVICE), [3], [1], [1], [1], groups
    )
    assert grad_weight.shape == (0, channels // groups, 3)


def test_room_for_partial_sums_is_checked():
    library = native.library("cuda")
    x, grad_y = torch.randn(1, 8, 5, device=DEVICE), torch.randn(1, 4, 5, device=DEVICE)
    x, grad_y = x.half(), grad_y.half()
    grad_weight = layout.empty((4, 8, 1), x)
    window = (1,), (0,), (1,), 1, False
    wanted = library.functions.conv_grad_weight_parts(grad_y, x, grad_weight, *window)
    assert wanted > 0
    for parts in (None, torch.empty(wanted - 1, device=DEVICE), torch.empty(wanted).half()):
        with pytest.raises(ValueError, match=f"room for {wanted} partial sums"):
            library.call("conv_grad_weight", grad_y, x, grad_weight, *window, parts, on=x)
