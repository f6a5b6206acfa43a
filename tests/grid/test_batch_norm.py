"""Batch normalisation: every backend against the reference, and the reference against PyTorch and
by hand."""

import itertools

import pytest
import torch
from contract import (
    DTYPES,
    INSTRUCTION_SETS,
    Case,
    gradient,
    hold,
    instruction_set,
    opcheck,
    operand,
    run,
    servers,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from pydl import backends, functional, layout

CASES = (
    Case("a map of two axes, odd sizes", (3, 5, 7, 9)),
    Case("no axes but batch and channels", (9, 19)),
    Case("one axis", (4, 6, 35)),
    Case("three axes", (2, 3, 2, 3, 5)),
    Case("with relu", (2, 6, 5, 11), {"activation": "relu"}),
    Case("with a slope", (2, 6, 5, 11), {"activation": "leaky_relu", "negative_slope": 0.25}),
    Case(
        "a slope below 0, whose sign no result shows",
        (2, 6, 5, 11),
        {"activation": "leaky_relu", "negative_slope": -0.5},
    ),
    Case("residual and relu", (3, 17, 5, 6), {"activation": "relu", "residual": True}),
    Case("residual alone", (3, 4, 5, 6), {"activation": "none", "residual": True}),
    Case(
        "channels last",
        (3, 21, 5, 6),
        {"activation": "relu", "residual": True},
        "channels_last",
    ),
    Case("channels last, few channels", (3, 3, 7, 6), {"activation": "relu"}, "channels_last"),
    Case("channels last, three axes", (2, 6, 2, 4, 3), {"activation": "relu"}, "channels_last"),
    Case("a slice of a larger map", (2, 6, 5, 3), {"activation": "relu"}, "sliced"),
    Case("a slice of more pixels than a chunk", (3, 2, 67, 71), {"activation": "relu"}, "sliced"),
    Case("a slice of one channel", (5, 1, 3, 3), {"activation": "relu"}, "sliced"),
    Case("a slice without axes", (5, 6), {"activation": "relu"}, "sliced"),
    Case("an odd storage offset", (2, 6, 5, 3), {"activation": "relu"}, "offset"),
    Case("an expanded gradient", (2, 6, 5, 3), {"activation": "relu"}, "expanded"),
    Case("an empty batch", (0, 6, 5, 3), {"activation": "relu"}),
    Case("one channel", (4, 1, 5, 5), {"activation": "relu"}),
    Case("planes of one whole warp", (2, 1, 4, 8), {"activation": "relu", "residual": True}),
    Case(
        "planes of whole vectors, more images than a thread takes",
        (5, 3, 6, 20),
        {"activation": "relu", "residual": True},
    ),
    Case("several vectors a thread, of different planes", (6, 2, 24, 40), {"activation": "relu"}),
    Case(
        "planes of a byte of the mask and a half",
        (6, 2, 2, 6),
        {"activation": "leaky_relu", "negative_slope": 0.25},
    ),
    Case(
        "channels last, pixels of whole vectors",
        (3, 24, 3, 3),
        {"activation": "relu", "residual": True},
        "channels_last",
    ),
    Case("one pixel an image", (8, 12, 1, 1), {"activation": "relu", "residual": True}),
    Case("a mean far from the spread", (4, 3, 9, 11), {"activation": "relu"}, values="far"),
    Case("no weight and no bias", (3, 5, 7, 9), {"activation": "relu", "affine": False}),
    Case("more pixels than a chunk of any kernel", (3, 2, 67, 71), {"activation": "relu"}),
    Case("several chunks of images", (40, 3, 13, 11), {"activation": "relu"}),
    Case("runs of pixels", (4, 40, 23, 29), {"activation": "relu"}, "channels_last"),
    Case("more channels than a block", (2, 300, 3, 3), {"activation": "relu"}, "channels_last"),
    Case("NaN spoils its channel and no other", (2, 9, 3, 4), {"activation": "relu"}, values="nan"),
)
# Triton's interpreter takes as long for each of the larger as for all others.
NAMES = ("y", "running_mean", "running_var", "grad_x", "grad_weight", "grad_bias", "grad_residual")


def operands(case, dtype, device, parameters=None):
    """x, and what goes with it: weight, bias, running statistics, residual."""
    values = case.values
    if values == "far":
        case = Case(case.reason, case.shape, view=case.view)
    x = operand(case, dtype, device)
    if values == "far":
        x = x / 16 + 64
    if values == "nan" and x.numel() > 0:  # in one channel
        keep = x[:, 4:5].clone()
        x = x.nan_to_num()
        x[:, 4:5] = keep
        x[0, 4].fill_(torch.nan)
    plain = Case("", case.shape[1:2])
    vectors = [operand(plain, torch.float64, device, seed=seed) for seed in (2, 3, 4, 5)]
    # Off the grid of x, or a value at the mean would be at the kink of the activation.
    vectors[2:] = vectors[2] * 1.0037, vectors[3].abs() + 0.5
    vectors = [v.to(parameters or dtype) for v in vectors]
    residual = operand(case, dtype, device, seed=6) if case.arguments.get("residual") else None
    affine = case.arguments.get("affine", True)
    return [x, *(vectors[:2] if affine else (None, None)), residual], vectors[2:]


def call(case, backend, training, given, running, momentum=0.3):
    """y, the running statistics, and the gradients of x, weight, bias and residual."""
    how = {k: v for k, v in case.arguments.items() if k in ("activation", "negative_slope")}
    how = {"activation": "none"} | how
    running = [r.clone() for r in running]
    there = [i for i, t in enumerate(given) if t is not None]

    def function(*leaves):
        full = [None] * 4
        for i, leaf in zip(there, leaves, strict=True):
            full[i] = leaf
        x, weight, bias, residual = full
        return functional.batch_norm_act(
            x,
            *running,
            weight,
            bias,
            training,
            momentum,
            1e-3,
            **how,
            residual=residual,
            backend=backend,
        )

    y, *grads = run(function, [given[i] for i in there], lambda y: gradient(case, y))
    named = {"y": y, "running_mean": running[0], "running_var": running[1]}
    return named | {NAMES[3 + i]: grad for i, grad in zip(there, grads, strict=True)}


def against_reference(backend, device, case, dtype, training, parameters=None, sums=1):
    """``sums``: how many times the usual units a sum that cancels, grad_weight, may be off."""
    given, running = operands(case, dtype, device, parameters)
    raised = [None if t is None else t.double() for t in given]
    exact = call(case, "reference", training, raised, [r.double() for r in running])
    ours = call(case, backend, training, given, running)
    theirs = call(case, "aten", training, given, running)
    for what, value in ours.items():
        if case.values == "nan" and what.startswith("running"):
            torch.testing.assert_close(value, theirs[what], equal_nan=True)
        else:
            cancels = what == "grad_weight" and exact[what].numel() > 0
            terms = sums * exact[what].abs().max().item() if cancels else 0.0
            hold(value, theirs[what], exact[what], what, terms)
    assert layout.memory_format(ours["y"]) == layout.memory_format(given[0])


@pytest.mark.gpu
@pytest.mark.parametrize("training", (True, False), ids=("training", "inference"))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("server", servers("batch_norm"))
def test_against_reference(server, case, dtype, training):
    against_reference(*server, case, dtype, training)


@pytest.mark.parametrize("training", (True, False), ids=("training", "inference"))
@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16), ids=str)
@pytest.mark.parametrize("server", servers("batch_norm"))
def test_half_maps_with_parameters_in_float32(server, dtype, training):
    case = Case("", (3, 5, 7, 9), {"activation": "relu"})
    against_reference(*server, case, dtype, training, torch.float32)


@pytest.mark.parametrize("training", (True, False), ids=("training", "inference"))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference_is_pytorch_in_float64(case, training):
    given, running = operands(case, torch.float64, "cpu")
    ours = call(case, "reference", training, given, running)
    theirs = call(case, "aten", training, given, running)
    for what in ours:
        torch.testing.assert_close(
            ours[what], theirs[what], rtol=1e-9, atol=1e-9, equal_nan=True, msg=what
        )


@pytest.mark.parametrize("server", servers("batch_norm"))
def test_by_hand(server):
    """A channel of 1, 2, 3, 6: mean 3, variance 14 / 4, unbiased 14 / 3."""
    backend, device = server
    x = torch.tensor([1.0, 2.0, 3.0, 6.0], device=device).reshape(2, 1, 2)
    running = torch.zeros(1, device=device), torch.ones(1, device=device)
    y = functional.batch_norm(x, *running, None, None, True, 0.5, 0.5, backend=backend)
    torch.testing.assert_close(y.flatten().cpu(), torch.tensor([-1.0, -0.5, 0.0, 1.5]))
    torch.testing.assert_close(running[0].cpu(), torch.tensor([1.5]))
    torch.testing.assert_close(running[1].cpu(), torch.tensor([0.5 + 7 / 3]))
    weight, bias = torch.tensor([2.0], device=device), torch.tensor([-3.0], device=device)
    given = torch.tensor([1.0], device=device), torch.tensor([3.5], device=device), weight, bias
    y = functional.batch_norm_act(x, *given, eps=0.5, activation="relu", backend=backend)
    torch.testing.assert_close(y.flatten().cpu(), torch.tensor([0.0, 0.0, 0.0, 2.0]))


@pytest.mark.parametrize("server", servers("batch_norm"))
def test_every_other_plane(server):
    """Dense but for the outermost axis: one distance says where the pixels of a plane lie, but not
    those of the next."""
    backend, device = server
    x = torch.randn(2, 3, 6, 3, 4, device=device)[:, :, ::2]
    y, dense = (
        functional.batch_norm(x, None, None, training=True, backend=backend)
        for x in (x, x.contiguous())
    )
    torch.testing.assert_close(y, dense)


@pytest.mark.parametrize("format", (torch.contiguous_format, torch.channels_last), ids=str)
@pytest.mark.parametrize("server", servers("batch_norm"))
def test_every_other_row(server, format):
    """With gaps, so that no vectors are read, and of several runs of pixels."""
    backend, device = server
    sliced = torch.randn(3, 34, 46, 29, device=device).contiguous(memory_format=format)[:, :, 1::2]
    grad_y = torch.randn(3, 34, 23, 29, device=device)
    seen = []
    for x in (sliced, sliced.contiguous(memory_format=format)):
        leaf = x.detach().requires_grad_()
        y = functional.batch_norm_act(
            leaf, None, None, training=True, activation="relu", backend=backend
        )
        seen.append((y.detach(), *torch.autograd.grad(y, leaf, grad_y)))
    torch.testing.assert_close(*seen)


@pytest.mark.parametrize("server", servers("batch_norm"))
def test_residual_in_another_layout(server):
    """Of planes that are a whole warp's, so that a warp's next piece would begin after the map."""
    backend, device = server
    x, residual = torch.randn(2, 2, 3, 4, 8, device=device).unbind()
    running = torch.zeros(3, device=device), torch.ones(3, device=device)
    last = residual.contiguous(memory_format=torch.channels_last)
    y, same = (
        functional.batch_norm_act(x, *running, activation="relu", residual=r, backend=backend)
        for r in (last, residual)
    )
    torch.testing.assert_close(y, same)


ACTIVATIONS = (("none", 0.0), ("relu", 0.0), ("leaky_relu", 0.125))


@pytest.mark.parametrize("training", (True, False), ids=("training", "inference"))
@pytest.mark.parametrize("epilogue", ACTIVATIONS, ids=[name for name, _ in ACTIVATIONS])
@pytest.mark.parametrize("server", servers("batch_norm"))
def test_derivatives(server, epilogue, training):
    backend, device = server
    shapes = (3, 2, 4), (2,), (2,), (3, 2, 4)
    leaves = [
        torch.randn(shape, dtype=torch.float64, device=device, requires_grad=True)
        for shape in shapes
    ]
    running = [torch.randn(2, dtype=torch.float64, device=device).abs() for _ in range(2)]

    def function(x, weight, bias, residual):
        copies = [r.clone() for r in running]
        rest = training, 0.1, 1e-2, *epilogue, residual
        return functional.batch_norm_act(x, *copies, weight, bias, *rest, backend=backend)

    torch.autograd.gradcheck(function, leaves, fast_mode=True)
    torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize("training", (True, False), ids=("training", "inference"))
@pytest.mark.parametrize("wanted", ("x", "weight", "bias", "residual"))
def test_one_gradient_by_itself(wanted, training):
    """Each leaf alone, first and second derivatives: what is not wanted is not made."""
    names = {"x": (3, 2, 4), "weight": (2,), "bias": (2,), "residual": (3, 2, 4)}
    tensors = {name: torch.randn(shape, dtype=torch.float64) for name, shape in names.items()}
    running = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    seen = []
    for backend in ("cpu", "aten"):
        leaves = tensors | {wanted: tensors[wanted].clone().requires_grad_()}
        affine = leaves["weight"], leaves["bias"]
        rest = training, 0.0, 1e-3, "leaky_relu", 0.3, leaves["residual"]
        y = functional.batch_norm_act(leaves["x"], *running, *affine, *rest, backend=backend)
        (first,) = torch.autograd.grad(y.pow(3).sum(), leaves[wanted], create_graph=True)
        (second,) = torch.autograd.grad(first.pow(2).sum(), leaves[wanted])
        seen.append((first, second))
    torch.testing.assert_close(*seen)


@pytest.mark.parametrize("server", servers("batch_norm"))
def test_forward_and_backward_of_different_backends_fit(server):
    backend, device = server
    for last in (False, True):
        x, residual, grad_y = torch.randn(3, 2, 11, 3, 5, device=device).unbind()
        format = torch.channels_last if last else torch.contiguous_format
        x = x.contiguous(memory_format=format)
        weight, bias = torch.randn(2, 11, device=device).unbind()
        how = 1e-3, "leaky_relu", 0.25
        made = {
            name: backends.function(name, "batch_norm_forward")(
                x, weight, bias, residual, *how, True
            )
            for name in (backend, "reference", "aten")
        }
        for other in ("reference", "aten"):
            torch.testing.assert_close(made[backend], made[other])
        _, mask, mean, var = made["reference"]
        rest = mean, var, weight, mask, *how, True
        grads = {
            name: backends.function(name, "batch_norm_backward")(grad_y, x, *rest)
            for name in (backend, "reference", "aten")
        }
        for other in ("reference", "aten"):
            torch.testing.assert_close(grads[backend], grads[other])
        # In parts, as processes that normalise together do it.
        run = {name: backends.function(backend, f"batch_norm_{name}") for name in PARTS}
        torch.testing.assert_close(run["stats"](x), (mean, var))
        y, mask = run["apply"](x, mean, var, weight, bias, residual, *how, True)
        torch.testing.assert_close(y, made["reference"][0])
        assert torch.equal(mask, made["reference"][1])
        sums = run["grad_sums"](grad_y, x, mean, var, mask, *how)
        torch.testing.assert_close(sums, grads["reference"][2:])
        rest = mean, var, weight, mask, *sums, 30.0, *how, True
        torch.testing.assert_close(run["grad_input"](grad_y, x, *rest), grads["reference"][:2])


PARTS = ("stats", "apply", "grad_sums", "grad_input")


@pytest.mark.parametrize("server", servers("batch_norm"))
def test_operators_are_registered_correctly(server):
    backend, device = server
    ops, how = torch.ops.pydl, (1e-3, "relu", 0.0)
    x, residual, grad_y = torch.randn(3, 2, 9, 3, 5, device=device).unbind()
    weight, bias = torch.randn(2, 9, device=device).unbind()
    for map in (x, x.contiguous(memory_format=torch.channels_last)):
        mean, var = ops.batch_norm_stats(map, backend)
        forward = (map, weight, bias, residual, *how, True, backend)
        _, mask, *_ = ops.batch_norm_forward(*forward)
        operands = (grad_y, map, mean, var, weight, mask)
        sums = ops.batch_norm_grad_sums(*operands[:4], mask, *how, backend)
        for name, arguments in {
            "stats": (map, backend),
            "forward": forward,
            "apply": (map, mean, var, *forward[1:]),
            "train": (
                *forward[:4],
                mean + 1,
                var + 1,
                torch.tensor(2, device=device),
                0.1,
                *forward[4:],
            ),
            "grad_sums": (*operands[:4], mask, *how, backend),
            "grad_input": (*operands, *sums, 30.0, *how, True, backend),
            "backward": (*operands, *how, False, backend),
        }.items():
            opcheck(getattr(ops, f"batch_norm_{name}").default, arguments)


@pytest.mark.parametrize("server", servers("batch_norm"))
@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    shape=st.tuples(*(st.integers(1, limit) for limit in (4, 20, 9, 9))),
    epilogue=st.sampled_from(ACTIVATIONS),
    residual=st.booleans(),
    training=st.booleans(),
    view=st.sampled_from(["contiguous", "channels_last", "sliced", "expanded"]),
)
def test_any_shape(server, shape, epilogue, residual, training, view):
    backend, device = server
    training = training and shape[0] * shape[2] * shape[3] > 1
    how = {"activation": epilogue[0], "negative_slope": epilogue[1], "residual": residual}
    case = Case("any", shape, how, view=view)
    given, running = operands(case, torch.float64, device)
    ours = call(case, backend, training, given, running)
    theirs = call(case, "aten", training, given, running)
    for what in ours:
        torch.testing.assert_close(ours[what], theirs[what], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("server", servers("batch_norm"))
def test_edges(server):
    """NaN and infinities in inference stay in their elements; relu stops an infinite gradient."""
    backend, device = server
    inf = torch.inf
    x = torch.tensor([-inf, -2.0, -0.0, 0, 3, inf, torch.nan, 1], device=device).reshape(1, 1, 8)
    running = torch.zeros(1, device=device), torch.ones(1, device=device)
    slice = x.repeat_interleave(2, dim=-1)[..., ::2]
    for map, activation in itertools.product((x, slice), ("relu", "leaky_relu")):
        seen = []
        for who in (backend, "aten"):
            leaf = map.detach().requires_grad_()
            y = functional.batch_norm_act(
                leaf, *running, eps=0.0, activation=activation, negative_slope=0.5, backend=who
            )
            grad = torch.full_like(y, inf if activation == "relu" else 2.0)
            seen.append((y.detach(), *torch.autograd.grad(y, leaf, grad)))
        torch.testing.assert_close(*seen, equal_nan=True, rtol=1e-5, atol=1e-30)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "server", [server for server in servers("batch_norm") if server.values[0][0] == "cuda"]
)
def test_more_runs_of_pixels_than_a_warp_joins_at_a_time(server):
    """Of 256 pixels each."""
    backend, device = server
    x, grad_y = torch.randn(2, 3, 3, 130, 131, device=device).unbind()
    x = x.contiguous(memory_format=torch.channels_last)
    mean, var = x.double().mean((0, 2, 3)), x.double().var((0, 2, 3), correction=0)
    moments = backends.function(backend, "batch_norm_stats")(x)
    torch.testing.assert_close(moments, (mean.float(), var.float()))
    sums = backends.function(backend, "batch_norm_grad_sums")(
        grad_y, x, *moments, None, 1e-3, "none", 0.0
    )
    xhat = (x.double() - mean[:, None, None]) / (var[:, None, None] + 1e-3).sqrt()
    exact = [(grad_y.double() * factor).sum((0, 2, 3)).float() for factor in (1, xhat)]
    torch.testing.assert_close(sums, tuple(exact), atol=1e-3, rtol=1e-4)


NOTHING = ((0, 3, 4, 5), (2, 3, 0, 5), (2, 0, 4, 5))


@pytest.mark.parametrize("server", servers("batch_norm"))
def test_statistics_of_nothing(server):
    """As one of several processes may have: a spread of 0, not of 0 / 0."""
    backend, device = server
    stats = backends.function(backend, "batch_norm_stats")
    for shape in NOTHING:
        zeros = [0.0] * shape[1]
        assert [s.tolist() for s in stats(torch.empty(shape, device=device))] == [zeros] * 2


@pytest.mark.parametrize("server", servers("batch_norm"))
def test_statistics_of_one_value(server):
    backend, device = server
    x = torch.randn(1, 4, 1, device=device)
    mean, var = backends.function(backend, "batch_norm_stats")(x)
    torch.testing.assert_close((mean, var), (x.flatten(), torch.zeros(4, device=device)))


@pytest.mark.parametrize("shape", NOTHING, ids=str)
@pytest.mark.parametrize("server", servers("batch_norm"))
def test_parts_of_nothing(server, shape):
    """A process whose share is empty joins the others with sums of 0."""
    backend, device = server
    run = {name: backends.function(backend, f"batch_norm_{name}") for name in PARTS}
    x, vector = torch.empty(shape, device=device), torch.ones(shape[1], device=device)
    how = 1e-3, "relu", 0.0
    y, mask = run["apply"](x, vector, vector, vector, vector, x, *how, True)
    assert y.shape == shape and mask.numel() == 0
    sums = run["grad_sums"](x, x, vector, vector, mask, *how)
    assert [s.tolist() for s in sums] == [[0.0] * shape[1]] * 2
    grads = run["grad_input"](x, x, vector, vector, vector, mask, *sums, 1.0, *how, True)
    assert all(grad.shape == shape for grad in grads)


@pytest.mark.parametrize("server", servers("batch_norm"))
def test_statistics_lose_no_digits(server):
    """A mean of 4096 deviations, first images far from the rest, and a channel of one value."""
    backend, device = server
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(6, 3, 40, 30, generator=generator)
    x[:, 0] += 4096
    x[0, 1] += 1000
    x[:, 2] = 7
    stats = backends.function(backend, "batch_norm_stats")
    for map in (x, x.contiguous(memory_format=torch.channels_last)):
        mean, var = (s.double().cpu() for s in stats(map.to(device)))
        exact, exact_mean = torch.var_mean(map.double(), (0, 2, 3), correction=0)
        torch.testing.assert_close(mean, exact_mean, rtol=3e-7, atol=0)
        # GPU kernels join in float32, whose grid at 4096 is a 2000th of the deviation.
        rtol = 5e-5 if backend in ("cuda", "triton") else 2e-6
        torch.testing.assert_close(var, exact, rtol=rtol, atol=0)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_every_instruction_set(isa):
    # PyTorch adds up in double. The kernels add up to 2,048 values in float32 first, in as many
    # partial sums as there are lanes: four here, each twice as long as AVX2's.
    sums = 4 if isa == "baseline" else 1
    with instruction_set(isa):
        for case in CASES:
            for dtype in DTYPES:
                for training in (True, False):
                    against_reference("cpu", "cpu", case, dtype, training, sums=sums)
        test_edges(("cpu", "cpu"))
        test_statistics_lose_no_digits(("cpu", "cpu"))
