"""Cross entropy: every backend against the reference, and the reference against PyTorch and by
hand."""

import math

import pytest
import torch
from contract import (
    DTYPES,
    INSTRUCTION_SETS,
    Case,
    hold,
    instruction_set,
    opcheck,
    operand,
    run,
    servers,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from pydl import backends, functional, layout, nn

# arguments may also hold "soft" (the target is probabilities), "weighted", "ignored" (some targets
# are ignore_index)
CASES = (
    Case("rows of ten classes", (6, 10)),
    Case("rows longer than any block", (3, 5000), {"label_smoothing": 0.1}),
    Case("rows shorter than any vector", (7, 3), {"weighted": True}),
    Case("so many rows that few lanes have one", (1030, 260), {"ignored": True}),
    Case("and a loop over its classes", (1030, 600), {"reduction": "none"}),
    Case("one class", (4, 1, 3)),
    Case("more rows than a task", (150, 5), {"ignored": True}),
    Case("one sample without a batch", (7,)),
    Case("one sample's probabilities", (7,), {"soft": True, "reduction": "none"}),
    Case("pixels of a map", (2, 21, 9, 11)),
    Case("pixels, more than a block of any kernel", (1, 5, 40, 41), {"ignored": True}),
    Case("more classes than a block of any kernel", (1, 260, 3, 5), {"weighted": True}),
    Case("pixels, channels last", (2, 21, 5, 7), {"weighted": True}, "channels_last"),
    Case(
        "all at once, contiguous",
        (2, 6, 5, 7),
        {"weighted": True, "ignored": True, "label_smoothing": 0.3, "ignore_index": 2},
    ),
    Case(
        "all at once, channels last",
        (2, 19, 5, 7),
        {"weighted": True, "ignored": True, "label_smoothing": 0.3},
        "channels_last",
    ),
    Case("voxels", (2, 6, 3, 4, 5), {"reduction": "sum", "weighted": True}, "channels_last"),
    Case("a loss each", (2, 6, 5, 7), {"reduction": "none", "ignored": True}),
    Case("a loss each, channels last", (2, 6, 5, 7), {"reduction": "none"}, "channels_last"),
    Case("probabilities", (5, 10), {"soft": True}),
    Case("probabilities of pixels", (2, 6, 5, 7), {"soft": True, "weighted": True}),
    Case(
        "probabilities, smoothed, channels last",
        (2, 19, 5, 7),
        {"soft": True, "weighted": True, "label_smoothing": 0.1, "reduction": "sum"},
        "channels_last",
    ),
    Case("everything is ignored: 0 / 0", (3, 5), {"ignored": "all"}),
    Case("everything is ignored: 0", (3, 5, 4), {"ignored": "all", "reduction": "sum"}),
    Case("a slice of a larger map", (2, 6, 5, 3), {"label_smoothing": 0.1}, "sliced"),
    Case("an odd storage offset", (2, 6, 5, 3), {}, "offset"),
    Case("an expanded gradient", (2, 6, 5, 3), {"reduction": "none"}, "expanded"),
    Case("an empty batch", (0, 6, 4), {"reduction": "sum"}),
    Case("an empty batch's mean", (0, 6), {"soft": True}),
    Case("large values", (3, 9, 40), {}, values="large"),
    Case("large values in rows", (40, 9), {}, values="large"),
    Case("NaN", (3, 9, 17), {"reduction": "none"}, values="nan"),
    Case("-inf alone", (2, 5, 4), {"reduction": "none"}, values="minus infinity"),
)


def problem(case: Case, dtype: torch.dtype, device: str) -> tuple[torch.Tensor, tuple, dict]:
    """The input; target and weight; keywords."""
    keywords = dict(case.arguments)
    x = operand(case, dtype, device)
    generator = torch.Generator().manual_seed(3)
    positions = case.shape[:1] + case.shape[2:] if len(case.shape) > 1 else ()
    classes = case.shape[min(1, len(case.shape) - 1)]
    ignored = keywords.pop("ignored", False)
    if keywords.pop("soft", False):
        case = Case("", case.shape, view=case.view)
        target = operand(case, torch.float32, device, seed=4).softmax(1 % x.ndim)
        target = target.to(torch.bfloat16).to(dtype)
    else:
        target = torch.randint(classes, positions, generator=generator)
        if ignored:
            all_of_them = torch.ones(positions, dtype=torch.bool)
            some = torch.rand(positions, generator=generator) < 0.3
            target[all_of_them if ignored == "all" else some] = keywords.get("ignore_index", -100)
        target = target.to(device)
    weight = None
    if keywords.pop("weighted", False):
        weight = torch.rand(classes, generator=generator).to(torch.bfloat16).to(dtype).to(device)
    return x, (target, weight), keywords


def gradient(case: Case, loss: torch.Tensor) -> torch.Tensor:
    if case.view == "expanded":
        return torch.full((), 0.5, dtype=loss.dtype, device=loss.device).expand(loss.shape)
    return torch.linspace(0.5, 2, max(loss.numel(), 1)).to(loss)[: loss.numel()].view(loss.shape)


def differentiated(where, x, others, grad_of, **keywords):
    """The loss by ``where.cross_entropy`` and the gradient of x."""
    return run(lambda x: where.cross_entropy(x, *others, **keywords), [x], grad_of)


def doubled(tensors: tuple) -> list:
    return [t.double() if t is not None and t.is_floating_point() else t for t in tensors]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("server", servers("cross_entropy"))
def test_against_reference(server, case, dtype):
    backend, device = server
    x, others, keywords = problem(case, dtype, device)

    def grad(loss):
        return gradient(case, loss)

    theirs = differentiated(torch.nn.functional, x, others, grad, **keywords)
    ours = differentiated(functional, x, others, grad, **keywords, backend=backend)
    keywords["backend"] = "reference"
    exact = differentiated(functional, x.double(), doubled(others), grad, **keywords)
    for what, *three in zip(("loss", "grad_x"), ours, theirs, exact, strict=True):
        hold(*three, what)
    if backend != "aten":
        assert layout.memory_format(ours[1]) == layout.memory_format(x)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference_is_pytorch_in_float64(case):
    x, others, keywords = problem(case, torch.float64, "cpu")
    ours, theirs = (
        differentiated(f, x, others, lambda loss: gradient(case, loss), **keywords, **more)
        for f, more in (
            (functional, {"backend": "reference"}),
            (torch.nn.functional, {}),
        )
    )
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("server", servers("cross_entropy"))
def test_by_hand(server):
    """softmax([log 1, log 2, log 5]) = [1/8, 1/4, 5/8]."""
    backend, device = server
    x = torch.tensor([[1.0, 2.0, 5.0]], device=device).log()

    def loss(target, **more):
        target = torch.tensor(target, device=device)
        return functional.cross_entropy(x, target, backend=backend, **more).item()

    assert math.isclose(loss([1]), math.log(4), rel_tol=1e-6)
    smooth = 0.7 * math.log(4) + 0.1 * (math.log(8) + math.log(4) + math.log(8 / 5))
    assert math.isclose(loss([1], label_smoothing=0.3), smooth, rel_tol=1e-6)
    expected = 0.5 * math.log(8) + 0.5 * math.log(8 / 5)
    assert math.isclose(loss([[0.5, 0.0, 0.5]]), expected, rel_tol=1e-6)


@pytest.mark.parametrize("server", servers("cross_entropy"))
def test_a_class_that_does_not_exist(server):
    backend, device = server
    for shape in ((4, 3), (2, 3, 5, 7)):
        x = torch.randn(shape, device=device)
        for wrong in (3, -1, 2**40):
            target = torch.zeros(shape[:1] + shape[2:], dtype=torch.int64, device=device)
            target[-1] = wrong
            with pytest.raises(IndexError, match=f"Target {wrong} is out of bounds"):
                functional.cross_entropy(x, target, backend=backend)


@pytest.mark.parametrize("server", servers("cross_entropy"))
def test_masked_classes(server):
    """-inf on a class that no target asks for takes no part; on the target the loss is infinite."""
    backend, device = server
    for shape in ((4, 20), (2, 20, 17)):
        x = torch.randn(shape, device=device)
        x[:, 3:18] = -torch.inf
        target = torch.full(shape[:1] + shape[2:], 19, device=device)
        ours, theirs = (
            differentiated(f, x, [target], torch.ones_like, **more)
            for f, more in (
                (functional, {"backend": backend}),
                (torch.nn.functional, {}),
            )
        )
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other)
        assert functional.cross_entropy(x, target - 5, backend=backend) == torch.inf


DERIVED = tuple(
    Case(reason, shape, arguments)
    for reason, shape, arguments in (
        ("rows", (4, 3), {}),
        ("columns", (2, 3, 4), {"weighted": True, "label_smoothing": 0.1, "ignored": True}),
        ("each", (2, 3, 4), {"reduction": "none", "weighted": True}),
        ("probabilities", (2, 3, 4), {"soft": True, "weighted": True, "label_smoothing": 0.1}),
    )
)


@pytest.mark.parametrize("case", DERIVED, ids=str)
@pytest.mark.parametrize("server", servers("cross_entropy"))
def test_derivatives(server, case):
    backend, device = server
    x, (target, weight), keywords = problem(case, torch.float64, device)
    leaves = [x.requires_grad_()]
    if target.is_floating_point():  # probabilities and their weights have gradients too
        leaves += [target.requires_grad_(), weight.requires_grad_()]

    def function(x, target=target, weight=weight):
        return functional.cross_entropy(x, target, weight, **keywords, backend=backend)

    torch.autograd.gradcheck(function, leaves, fast_mode=True)
    torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize("server", servers("cross_entropy"))
def test_forward_and_backward_of_different_backends_fit(server):
    backend, device = server
    for reason in ("all at once, contiguous", "a loss each", "probabilities of pixels"):
        case = next(case for case in CASES if case.reason == reason)
        x, others, keywords = problem(case, torch.float32, device)
        criterion = [
            keywords.get("ignore_index", -100),
            keywords.get("label_smoothing", 0.0),
            keywords.get("reduction", "mean"),
        ]
        ours = backends.function(backend, "cross_entropy_forward")(x, *others, *criterion)
        for other in ("reference", "aten"):
            theirs = backends.function(other, "cross_entropy_forward")(x, *others, *criterion)
            for mine, its in zip(ours, theirs, strict=True):
                torch.testing.assert_close(mine, its)
            grad = torch.ones_like(ours[0])
            torch.testing.assert_close(
                backends.function(backend, "cross_entropy_backward")(
                    grad, x, *others, *theirs[1:], *criterion
                ),
                backends.function(other, "cross_entropy_backward")(
                    grad, x, *others, *ours[1:], *criterion
                ),
            )


@pytest.mark.parametrize("server", servers("cross_entropy"))
def test_operators_are_registered_correctly(server):
    backend, device = server
    x = torch.randn(2, 6, 3, 5, device=device)
    target = torch.randint(6, (2, 3, 5), device=device)
    for map in (x, x.contiguous(memory_format=torch.channels_last)):
        for reduction in ("none", "mean"):
            criterion = (-100, 0.1, reduction, backend)
            arguments = (map, target, torch.rand(6, device=device))
            forward = torch.ops.pydl.cross_entropy_forward.default
            opcheck(forward, (*arguments, *criterion))
            loss, *saved = forward(*arguments, *criterion)
            opcheck(
                torch.ops.pydl.cross_entropy_backward.default,
                (torch.ones_like(loss), *arguments, *saved, *criterion),
            )


@pytest.mark.parametrize("server", servers("cross_entropy"))
@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    shape=st.tuples(*(st.integers(1, limit) for limit in (3, 40, 9, 9))),
    view=st.sampled_from(["contiguous", "channels_last", "sliced"]),
    soft=st.booleans(),
    weighted=st.booleans(),
    label_smoothing=st.sampled_from([0.0, 0.25, 1.0]),
    reduction=st.sampled_from(["none", "mean", "sum"]),
)
def test_any_shape(server, shape, view, **arguments):
    backend, device = server
    case = Case("any", shape, arguments, view=view)
    x, others, keywords = problem(case, torch.float32, device)
    ours, theirs = (
        differentiated(f, x, others, lambda loss: gradient(case, loss), **keywords, **more)
        for f, more in (
            (functional, {"backend": backend}),
            (torch.nn.functional, {}),
        )
    )
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=3e-5, atol=1e-5)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_every_instruction_set(isa):
    with instruction_set(isa):
        for dtype in DTYPES:
            for case in CASES:
                test_against_reference(("cpu", "cpu"), case, dtype)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_results_past_the_caches(isa):
    """A gradient of 16 MB and more is streamed where its rows begin lines of the cache."""
    with instruction_set(isa):
        for pixels in (1 << 20, (1 << 20) + 5):
            x, target = torch.randn(1, 4, pixels), torch.randint(4, (1, pixels))
            ours, theirs = (
                differentiated(f, x, [target], torch.ones_like, **more)
                for f, more in (
                    (functional, {"backend": "cpu"}),
                    (torch.nn.functional, {}),
                )
            )
            for mine, other in zip(ours, theirs, strict=True):
                torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("shape", ((700, 100), (3, 30, 1500)), ids=("rows", "columns"))
def test_the_same_bits_on_every_run_and_thread_count(shape):
    x, target = torch.randn(shape), torch.randint(30, shape[:1] + shape[2:])
    seen, threads = [], torch.get_num_threads()
    for count in (1, 2, 1):
        torch.set_num_threads(count)
        seen.append(
            run(lambda x: functional.cross_entropy(x, target, backend="cpu"), [x], torch.ones_like)
        )
    torch.set_num_threads(threads)
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))


@pytest.mark.parametrize(
    "server", [server for server in servers("cross_entropy") if server.values[0][0] != "aten"]
)
def test_no_probabilities_are_stored(server):
    backend, device = server
    x = torch.randn(2, 21, 8, 8, device=device, requires_grad=True)
    target = torch.randint(21, (2, 8, 8), device=device)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        functional.cross_entropy(x, target, backend=backend)
    sizes = sorted(t.numel() for t in saved if t.data_ptr() != x.data_ptr())
    assert sizes == [1, 128, 128, 128]  # the divisor; target, peak and total


@pytest.mark.parametrize("channels_last", (False, True))
def test_no_hidden_copies(channels_last, monkeypatch):
    x = torch.randn(2, 5, 6, 7)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x

    def no_copy(tensor, like=None):
        assert tensor.is_contiguous(memory_format=like), "a hidden copy"
        return tensor

    monkeypatch.setattr(layout, "dense", no_copy)
    leaf = x.detach().requires_grad_()
    target = torch.rand_like(x) if channels_last else torch.randint(5, (2, 6, 7))
    functional.cross_entropy(leaf, target, backend="cpu").backward()
    assert layout.memory_format(leaf.grad) == layout.memory_format(x)


def test_other_dtypes_of_targets_and_old_arguments():
    x, target = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    for backend in ("cpu", "reference", "auto"):
        ours = functional.cross_entropy(x, target.to(torch.uint8), backend=backend)
        torch.testing.assert_close(ours, torch.nn.functional.cross_entropy(x, target))
        q = torch.rand(4, 3, dtype=torch.float64)
        ours = functional.cross_entropy(x, q, backend=backend)
        torch.testing.assert_close(ours, torch.nn.functional.cross_entropy(x, q), atol=1e-6, rtol=0)
        for old in ({"size_average": False}, {"reduce": False}, {"size_average": True}):
            with pytest.warns(UserWarning, match="will be deprecated"):
                ours = functional.cross_entropy(x, target, **old, backend=backend)
                theirs = torch.nn.functional.cross_entropy(x, target, **old)
            torch.testing.assert_close(ours, theirs)


def test_layer():
    x, target = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    arguments = {"weight": torch.rand(3), "ignore_index": 2, "label_smoothing": 0.1}
    ours = nn.CrossEntropyLoss(**arguments, backend="cpu")
    theirs = torch.nn.CrossEntropyLoss(**arguments)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    torch.testing.assert_close(ours(x, target), theirs(x, target))


@pytest.mark.parametrize("backend", ("cpu", "reference", "triton"))
def test_compiles_whole(backend):
    if backends.BACKENDS[backend].missing or "cuda" in backends.BACKENDS[backend].devices:
        pytest.skip(f"{backend} does not serve a CPU here")
    x = torch.randn(3, 7, 4, 4, requires_grad=True)
    q = torch.rand(3, 7, 4, 4)

    def function(x):
        return functional.cross_entropy(x.sin(), q, label_smoothing=0.1, backend=backend)

    loss = torch.compile(function, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(loss, function(x))
    torch.testing.assert_close(
        *(torch.autograd.grad(result, x)[0] for result in (loss, function(x)))
    )


X, T = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])


@pytest.mark.parametrize(
    "arguments, keywords, error, message",
    [
        (([1.0], T), {}, TypeError, "argument 'input' must be Tensor, not list"),
        ((X, [0]), {}, TypeError, "argument 'target' must be Tensor, not list"),
        ((X, T[:3]), {}, ValueError, r"batch_size \(4\) to match target batch_size \(3\)"),
        ((X, T[:, None]), {}, RuntimeError, "multi-target not supported"),
        ((X[0], T), {}, ValueError, "For 1D input, 1D target must have size 1, but got"),
        ((torch.randn(4, 3, 5), T), {}, RuntimeError, r"Expected target size \[4, 5\], got"),
        ((X, T.int()), {}, RuntimeError, "expected target dtype to be Long or Byte"),
        ((X, X.long()), {}, RuntimeError, "Expected floating point type for target"),
        ((X, X), {"ignore_index": 1}, RuntimeError, "ignore_index is not supported"),
        ((X, T, torch.ones(4)), {}, RuntimeError, "either for all 3 classes or no classes"),
        ((X, T, torch.ones(3).double()), {}, RuntimeError, "expected scalar type"),
        ((X, T), {"label_smoothing": 1.5}, RuntimeError, "must be between 0.0 and 1.0. Got: 1.5"),
        (
            (X, T),
            {"reduction": "average"},
            ValueError,
            "average is not a valid value for reduction",
        ),
        ((X[:, :0], T), {}, RuntimeError, "at least one class"),
        ((X, T, torch.ones(3, requires_grad=True)), {}, RuntimeError, "'weight'"),
        ((X.long(), T), {}, RuntimeError, "got torch.int64"),
    ],
)
def test_bad_input(arguments, keywords, error, message):
    for backend in ("reference", "cpu"):
        with pytest.raises(error, match=message):
            functional.cross_entropy(*arguments, **keywords, backend=backend)
