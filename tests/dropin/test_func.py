"""torch.func on kernels asked for by name, beyond functions of one tensor: weights that are mapped
or move, one call of a kernel for all samples, what PyTorch has no operator for, randomness."""

from collections import Counter

import pytest
import torch
from transforms import normalised

from pydl import functional, nn

F, func = torch.nn.functional, torch.func


def _values(*shape):
    return torch.rand(shape, dtype=torch.float64) + 0.5


def _named(name, **options):
    return lambda where, *given, **backend: getattr(where, name)(*given, **options, **backend)


def _norm(training):
    def call(where, x, weight, bias, mean, var, **backend):
        if training and where is F:
            return normalised(x, weight, bias)
        running = (None, None) if training else (mean, var)
        return where.batch_norm(x, *running, weight, bias, training, **backend)

    return call


def _norm_act(where, x, weight, bias, residual, **backend):
    if where is functional:
        how = {"activation": "leaky_relu", "negative_slope": 0.2, "residual": residual}
        return functional.batch_norm_act(x, None, None, weight, bias, True, **how, **backend)
    return F.leaky_relu(normalised(x, weight, bias) + residual, 0.2)


def _conv_act(where, x, weight, bias, residual, **backend):
    if where is functional:
        return functional.conv2d_bias_act(
            x, weight, bias, padding=1, activation="relu", residual=residual, **backend
        )
    return F.relu(F.conv2d(x, weight, bias, padding=1) + residual)


def _locally_connected(where, x, weight, bias, **backend):
    if where is functional:
        return functional.locally_connected2d(x, weight, bias, **backend)
    windows = x.unfold(2, 3, 1).unfold(3, 3, 1)  # (N, C, OH, OW, KH, KW)
    return torch.einsum("nchwij,fcijhw->nfhw", windows, weight) + bias


MAP = _values(2, 4, 5, 5) - 1
CHANNELS = [_values(4) for _ in range(4)]
# A call, its operands, the backends that serve it.
WEIGHTED = {
    "conv2d": (
        _named("conv2d", stride=2, padding=1),
        (MAP, _values(3, 4, 3, 3), _values(3)),
        ("reference",),
    ),
    "conv2d in groups": (
        _named("conv2d", groups=2),
        (MAP, _values(6, 2, 3, 3), _values(6)),
        ("reference",),
    ),
    "depthwise": (
        _named("conv2d", padding=1, groups=4),
        (MAP, _values(8, 1, 3, 3), _values(8)),
        ("reference", "cpu"),
    ),
    "transposed depthwise": (
        _named("conv_transpose2d", stride=2, output_padding=1, groups=4),
        (MAP, _values(4, 1, 3, 3), _values(4)),
        ("reference", "cpu"),
    ),
    "conv2d_bias_act": (
        _conv_act,
        (MAP, _values(3, 4, 3, 3), _values(3), _values(2, 3, 5, 5) - 3),
        ("reference", "cpu"),
    ),
    "locally_connected2d": (
        _locally_connected,
        (MAP, _values(2, 4, 3, 3, 3, 3), _values(2, 3, 3)),
        ("reference", "cpu"),
    ),
    "batch_norm in training": (_norm(True), (MAP, *CHANNELS), ("reference", "cpu")),
    "batch_norm in evaluation": (_norm(False), (MAP, *CHANNELS), ("reference", "cpu")),
    "batch_norm_act": (_norm_act, (MAP, *CHANNELS[:2], MAP.flip(0)), ("reference", "cpu")),
}
ROWS = [(name, backend) for name, (*_, served) in WEIGHTED.items() for backend in served]
LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}


def _pair(name, backend, layout):
    call, operands, _ = WEIGHTED[name]
    format = LAYOUTS[layout]
    laid = [x.contiguous(memory_format=format) if x.ndim == 4 else x for x in operands]
    ours = lambda *given: call(functional, *given, backend=backend)  # noqa: E731
    return ours, (lambda *given: call(F, *given)), laid


def _some(count):
    """Of each of so many operands whether something happens to it: to all, to one, to all but
    one."""
    alone = [tuple(place == other for other in range(count)) for place in range(count)]
    others = [tuple(not chosen for chosen in one) for one in alone]
    return [(True,) * count, *alone, *others]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name, backend", ROWS)
def test_any_operands_may_be_mapped(name, backend, layout):
    """Results and the gradients of each sample."""
    ours, theirs, operands = _pair(name, backend, layout)
    for chosen in _some(len(operands)):
        dims = tuple(0 if mapped else None for mapped in chosen)
        given = [
            torch.stack([x, 2 * x, x + 0.1]) if mapped else x
            for x, mapped in zip(operands, chosen, strict=True)
        ]
        results = []
        for function in (ours, theirs):
            pulled = func.grad(
                lambda *given, function=function: function(*given).sin().sum(),
                tuple(range(3)),
            )
            made = func.vmap(function, dims)(*given), func.vmap(pulled, dims)(*given)
            results.append(made)
        torch.testing.assert_close(*results, msg=lambda said, dims=dims: f"{dims}: {said}")


@pytest.mark.parametrize("name, backend", ROWS)
def test_any_operands_may_move(name, backend):
    ours, theirs, operands = _pair(name, backend, "contiguous")
    differentiable = 3 if name.startswith("batch_norm in") else len(operands)
    first, last = operands[:differentiable], operands[differentiable:]
    for chosen in _some(differentiable):
        moved = [x for x, moves in zip(first, chosen, strict=True) if moves]

        def pushed(function, chosen=chosen, moved=moved):
            def of_moved(*given):
                given = iter(given)
                all_of_them = [
                    next(given) if moves else x for x, moves in zip(first, chosen, strict=True)
                ]
                return function(*all_of_them, *last)

            tangents = tuple(x.cos() for x in moved)
            pushed = func.jvp(of_moved, tuple(moved), tangents)[1]
            again = func.jvp(  # forward over forward
                lambda *at: func.jvp(of_moved, at, tangents)[1], tuple(moved), tangents
            )[1]
            return pushed, again

        torch.testing.assert_close(
            pushed(ours), pushed(theirs), msg=lambda said, chosen=chosen: f"{chosen}: {said}"
        )


# One call of a kernel for all samples


def _launches(run):
    """How often each kernel of ours was called."""
    run()
    with torch.profiler.profile() as profile:
        run()
    return Counter(event.name for event in profile.events() if event.name.endswith("(cpu)"))


LSTM = nn.LSTM(5, 3, dtype=MAP.dtype, backend="cpu")
ONE_CALL = {
    "max_pool2d": lambda x: functional.max_pool2d(x, 2, backend="cpu"),
    "lp_pool2d": lambda x: functional.lp_pool2d(x, 2, 2, backend="cpu"),
    "local_response_norm": lambda x: functional.local_response_norm(x, 3, backend="cpu"),
    "softmax": lambda x: functional.softmax(x, 1, backend="cpu"),
    "batch_norm": lambda x: functional.batch_norm(x, None, None, training=True, backend="cpu"),
    "depthwise": lambda x: functional.conv2d(
        x, torch.ones(4, 1, 3, 3, dtype=x.dtype), groups=4, backend="cpu"
    ),
    "roi_align": lambda x: functional.roi_align(
        x, torch.tensor([[1.0, 0, 0, 3, 3]], dtype=x.dtype), 2, backend="cpu"
    ),
    "lstm": lambda x: LSTM(x.flatten(1, 2))[0],
}


@pytest.mark.parametrize("name", ONE_CALL)
def test_one_call_is_for_all_samples(name):
    function, batch = ONE_CALL[name], torch.stack([MAP, MAP + 1, -MAP])
    for run, passes in (
        (lambda: func.vmap(function)(batch), 1),
        (lambda: func.vmap(func.grad(lambda x: function(x).sum()))(batch), 2),
    ):
        counted = _launches(run)
        assert len(counted) >= passes and set(counted.values()) == {1}, counted


@pytest.mark.parametrize("name", ("avg_pool2d", "adaptive_avg_pool2d", "max_unpool2d", "roi_align"))
def test_the_tangent_of_what_is_linear_is_the_operator_itself(name):
    index = torch.arange(25).view(5, 5).expand(MAP.shape).contiguous()
    boxes = torch.tensor([[1.0, 0, 0, 3, 3]], dtype=MAP.dtype)
    given = {"max_unpool2d": (index, 1), "roi_align": (boxes, 2)}.get(name, (2,))
    call = getattr(functional, name)
    counted = _launches(
        lambda: func.jvp(lambda x: call(x, *given, backend="cpu"), (MAP,), (MAP + 1,))
    )
    assert list(counted.values()) == [2], counted


# What PyTorch has no operator for, and what has several results


def _each(function, *batches):
    return torch.stack([function(*samples) for samples in zip(*batches, strict=True)])


@pytest.mark.parametrize("backend", ("cpu", "reference"))
@pytest.mark.parametrize("name", ("roi_align", "roi_pool"))
def test_regions_of_each_sample(name, backend):
    boxes = torch.tensor([[[0, 0, 0, 3, 3], [1, 1, 0, 4, 4]], [[1, 1, 1, 2, 4], [0, 0, 2, 4, 4]]])
    boxes, maps = boxes.double(), torch.stack([MAP, MAP.flip(-1)])

    def call(x, boxes):
        return getattr(functional, name)(x, boxes, 2, backend=backend)

    def gradient(x, boxes):
        return func.grad(lambda x: call(x, boxes).sin().sum())(x)

    for function in (call, gradient):
        torch.testing.assert_close(func.vmap(function)(maps, boxes), _each(function, maps, boxes))
        for dims, batch in (((0, None), maps), ((None, 0), boxes)):
            given = (batch, boxes[0]) if dims[1] is None else (maps[0], batch)
            found = func.vmap(function, dims)(*given)
            both = (maps, boxes[:1].expand(2, -1, -1)) if dims[1] is None else (maps[:1], boxes)
            expected = _each(function, *(one.expand(2, *one.shape[1:]) for one in both))
            torch.testing.assert_close(found, expected)
    tangent = func.jvp(lambda x: call(x, boxes[0]), (MAP,), (MAP.cos(),))[1]
    jacobian = func.jacrev(lambda x: call(x, boxes[0]))(MAP)
    torch.testing.assert_close(tangent, torch.einsum("kcijnfhw,nfhw->kcij", jacobian, MAP.cos()))


@pytest.mark.parametrize("backend", ("cpu", "reference"))
def test_a_box_in_an_image_of_the_next_sample_is_still_wrong(backend):
    boxes = torch.tensor([[2.0, 0, 0, 3, 3]], dtype=MAP.dtype)  # there are two images
    with pytest.raises(RuntimeError, match="invalid batch index"):
        func.vmap(lambda x: functional.roi_align(x, boxes, 2, backend=backend))(
            torch.stack([MAP, MAP])
        )


@pytest.mark.parametrize("backend", ("cpu", "reference"))
def test_indices_are_of_each_sample(backend):
    def call(where, **more):
        return lambda x: where.max_pool2d(x, 2, return_indices=True, **more)

    batch = torch.stack([MAP, MAP.flip(-1)])
    found, expected = (
        func.vmap(function)(batch) for function in (call(functional, backend=backend), call(F))
    )
    torch.testing.assert_close(found, expected)


def test_a_result_may_be_written_over():
    def call(where, **more):
        pool = lambda x: F.relu(where.max_pool2d(x, 2, **more) - 0, inplace=True)  # noqa: E731
        return func.grad(lambda x: func.vmap(pool)(x).sum())(torch.stack([MAP, MAP + 1]))

    torch.testing.assert_close(call(functional, backend="cpu"), call(F))


# Randomness


def test_dropout_is_as_random_as_vmap_says():
    ones = torch.ones(3, 200)

    def drop(x):
        return functional.dropout(x, 0.5, backend="cpu")

    with pytest.raises(RuntimeError, match="random operation while in randomness error mode"):
        func.vmap(drop)(ones)
    same = func.vmap(drop, randomness="same")(ones)
    assert torch.equal(same[0], same[1]) and same.unique().tolist() == [0, 2]
    different = func.vmap(drop, randomness="different")(ones)
    assert not torch.equal(different[0], different[1]) and different.unique().tolist() == [0, 2]
    gradient = func.vmap(func.grad(lambda x: drop(x).sum()), randomness="different")(ones)
    assert gradient.unique().tolist() == [0, 2] and not torch.equal(gradient[0], gradient[1])
