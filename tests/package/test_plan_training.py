"""Launch plans of calls that want gradients, and the launches in them."""

import gc
import threading
from collections.abc import Callable

import pytest
import torch
from planned_calls import EACH, call, random
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from pydl import functional, layout, native, plan
from pydl.ops.derivatives import Function
from pydl.plan import Plans


def training_step(family: str, backend: str, device: str) -> tuple[torch.Tensor, list]:
    """The result of a call that wants gradients, and what it wants them of."""
    torch.manual_seed(1)
    function, args, wanted = call(family, device)
    for one in wanted:
        one.requires_grad_()
    return function(*args, backend=backend), wanted


def grads_of(y: torch.Tensor, wanted: list, **how: object) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(y, wanted, torch.ones_like(y), **how)


def batched(y: torch.Tensor, wanted: list) -> tuple[torch.Tensor, ...]:
    ones = torch.ones_like(y).expand(2, *y.shape)
    grads = torch.autograd.grad(y, wanted, ones, is_grads_batched=True)
    return tuple(one[1] for one in grads)


def in_another_thread(y: torch.Tensor, wanted: list) -> tuple[torch.Tensor, ...]:
    results = []
    thread = threading.Thread(target=lambda: results.append(grads_of(y, wanted)))
    thread.start()
    thread.join()
    return results[0]


def under_a_mode(y: torch.Tensor, wanted: list) -> tuple[torch.Tensor, ...]:
    with FlopCounterMode(display=False):
        return grads_of(y, wanted)


def profiled(y: torch.Tensor, wanted: list) -> tuple[torch.Tensor, ...]:
    with torch.profiler.profile():
        return grads_of(y, wanted)


def after_forgetting(y: torch.Tensor, wanted: list) -> tuple[torch.Tensor, ...]:
    plan.forget()
    return grads_of(y, wanted)


BACKWARDS = {
    "of a graph": lambda y, wanted: grads_of(y, wanted, create_graph=True),
    "batched": batched,
    "in another thread": in_another_thread,
    "under a mode": under_a_mode,
    "profiled": profiled,
    "after forgetting": after_forgetting,
}
CPU = [one for one in EACH if one.values[1] == "cpu"]


@pytest.mark.parametrize("backward", BACKWARDS.values(), ids=BACKWARDS)
@pytest.mark.parametrize(("family", "backend", "device"), CPU)
def test_a_planned_call_goes_backward_in_any_way(family, backend, device, backward):
    for _ in range(3):
        expected = grads_of(*training_step(family, backend, device))
    for _ in range(3):
        found = backward(*training_step(family, backend, device))
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)


def moved(x: torch.Tensor) -> torch.Tensor:
    """A copy of ``x`` whose elements lie in the opposite order of axes."""
    axes = tuple(reversed(range(x.ndim)))
    return x.new_empty(tuple(reversed(x.shape))).permute(axes).copy_(x)


@pytest.mark.parametrize(("family", "backend", "device"), CPU)
def test_what_a_hook_makes_of_a_saved_tensor_goes_backward(family, backend, device):
    for _ in range(3):
        expected = grads_of(*training_step(family, backend, device))
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x.detach(), moved):
        y, wanted = training_step(family, backend, device)
    for one, other in zip(grads_of(y, wanted), expected, strict=True):
        torch.testing.assert_close(one, other)


STRIDES = {
    "expanded": lambda y: torch.rand(y.shape[:1] + (1,) * (y.ndim - 1)).expand_as(y),
    "moved": lambda y: moved(torch.rand_like(y)),
    "unaligned": lambda y: torch.rand(y.numel() + 1)[1:].view_as(y),
}


@pytest.mark.parametrize("strides", STRIDES.values(), ids=STRIDES)
@pytest.mark.parametrize(("family", "backend", "device"), CPU)
def test_a_gradient_of_other_strides_is_another_call(family, backend, device, strides):
    for _ in range(3):
        grads_of(*training_step(family, backend, device))
    y, wanted = training_step(family, backend, device)
    for _ in range(3):
        grad_y = strides(y)
        found = torch.autograd.grad(y, wanted, grad_y, retain_graph=True)
        expected = torch.autograd.grad(y, wanted, grad_y.clone(), retain_graph=True)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)


def test_which_operands_want_gradients_counts():
    def step(wants_of: tuple, function: Callable, **backend: str) -> tuple[torch.Tensor, ...]:
        torch.manual_seed(1)
        x, weight, bias = random(2, 4, 6, 6), random(4), random(4)
        wanted = [one for one, wants in zip((x, weight, bias), wants_of, strict=True) if wants]
        for one in wanted:
            one.requires_grad_()
        y = function(x, None, None, weight, bias, True, **backend)
        return torch.autograd.grad(y, wanted, torch.arange(y.numel()).view_as(y) / y.numel())

    for wants_of in 4 * [(True, True, True), (False, True, False), (True, False, True)]:
        found = step(wants_of, functional.batch_norm, backend="cpu")
        for one, other in zip(found, step(wants_of, torch.nn.functional.batch_norm), strict=True):
            torch.testing.assert_close(one, other)


def test_what_a_kernel_refuses_is_said_by_a_plan_too():
    x, logits = random(1, 1, 2, 2).requires_grad_(), random(4, 8).requires_grad_()
    indices, targets = torch.tensor([[[[0, 3], [5, 7]]]]), torch.arange(4)
    for _ in range(4):
        functional.max_unpool2d(x, indices, 2, backend="cpu").sum().backward()
        functional.cross_entropy(logits, targets, backend="cpu").backward()
    with pytest.raises(RuntimeError, match="invalid max index: 99"):
        functional.max_unpool2d(x, indices + 92, 2, backend="cpu")
    with pytest.raises(IndexError, match="Target 8 is out of bounds"):
        functional.cross_entropy(logits, targets + 5, backend="cpu")
    functional.max_unpool2d(x, indices, 2, backend="cpu").sum().backward()


def test_transforms_and_second_derivatives_go_past_plans():
    def norm(x: torch.Tensor) -> torch.Tensor:
        return functional.local_response_norm(x, 3, backend="cpu")

    x = random(1, 4, 5, 5).double().requires_grad_()
    for _ in range(4):
        (expected,) = torch.autograd.grad(norm(x).sum(), x)
    assert torch.equal(torch.func.grad(lambda x: norm(x).sum())(x), expected)
    assert torch.equal(torch.func.vmap(norm)(x[None])[0], norm(x))
    for _ in range(2):
        assert torch.autograd.gradgradcheck(norm, (x,))


@pytest.mark.parametrize("reentrant", [False, True], ids=["plain", "reentrant"])
def test_a_checkpoint_computes_a_planned_call_again(reentrant):
    def block(x: torch.Tensor) -> torch.Tensor:
        y = functional.max_pool2d(x, 2, backend="cpu")
        return functional.softmax(functional.relu(y, backend="cpu"), 1, backend="cpu")

    x = random(1, 4, 6, 6).requires_grad_()
    for _ in range(4):
        (expected,) = torch.autograd.grad(block(x).square().sum(), x)
        y = checkpoint(block, x, use_reentrant=reentrant)
        x.grad = None
        y.square().sum().backward()
        torch.testing.assert_close(x.grad, expected)


@pytest.mark.filterwarnings("ignore:Error detected in")
def test_a_planned_call_says_what_autograd_says():
    def step(x: torch.Tensor) -> torch.Tensor:
        return functional.relu(x.sin(), backend="cpu")

    for _ in range(4):
        x = random(1, 4, 6, 6).requires_grad_()
        y = step(x)
        assert y.grad_fn.name() == "_ActivationBackward"
        y.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()
        y = step(x).sum()
        y.backward()
        with pytest.raises(RuntimeError, match="second time"):
            y.backward()
    with pytest.raises(RuntimeError, match="returned nan"), torch.autograd.detect_anomaly():
        (step(x) * torch.nan).sum().backward()


def _alive() -> dict[int, torch.Tensor]:
    """Tensors with memory, of those that Python knows of."""
    gc.collect()
    found = (one for one in gc.get_objects() if issubclass(type(one), torch.Tensor))
    return {id(one): one for one in found if one.numel() > 0}


@pytest.mark.parametrize(("family", "backend", "device"), EACH)
def test_planned_calls_keep_no_memory_of_those_recorded(family, backend, device):
    plan.forget()
    before = _alive()
    for training in (True, False):
        for _ in range(4):
            with torch.set_grad_enabled(training):
                y, wanted = training_step(family, backend, device)
                if training:
                    grads_of(y, wanted)
                del y, wanted
    kept = _alive()
    assert not [kept[one].shape for one in kept.keys() - before.keys()]


def test_a_tensor_in_a_tuple_is_not_kept_as_a_constant():
    class Scaled(Function):
        @staticmethod
        def forward(x, factors):
            return plan.step(torch.mul, x, factors[0])

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.factors = inputs[1]

        @staticmethod
        def backward(ctx, grad_y):
            return grad_y * ctx.factors[0], None

    plans = Plans(lambda x, factor: Scaled.apply(x, (factor,)))
    for _ in range(4):
        x, factor = random(3).requires_grad_(), random(3)
        y = plans.call((x, factor), {})
        assert torch.equal(y, x * factor)
        assert torch.equal(*torch.autograd.grad(y.sum(), x), factor)


def test_results_without_elements_are_the_same_for_all_calls():
    seen = []

    class Doubled(Function):
        @staticmethod
        def forward(x):
            return plan.step(torch.mul, x, 2), layout.nothing(x), plan.step(torch.neg, x)

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.mark_non_differentiable(*output[1:])
            ctx.save_for_backward(*output[1:], None)

        @staticmethod
        def backward(ctx, grad_y, *_):
            nothing, negative, none = ctx.saved_tensors
            seen.append((nothing.shape, none))
            return plan.step(torch.mul, grad_y, negative)

    plans = Plans(lambda x: Doubled.apply(x)[::2])
    for _ in range(4):
        x = random(2, 3).requires_grad_()
        y, negative = plans.call((x,), {})
        assert torch.equal(y, 2 * x) and torch.equal(negative, -x)
        assert torch.equal(*torch.autograd.grad(y.sum(), x), -x)
    assert set(seen) == {(torch.Size([0]), None)}
    given_out = Plans(lambda x: Doubled.apply(x)[1])  # has no plan: it would be everyone's
    results = [given_out.call((x,), {}) for _ in range(4)]
    assert len(set(map(id, results))) == 4


def test_a_tuple_of_one_result_stays_one():
    class Halved(Function):
        @staticmethod
        def forward(x):
            return (plan.step(torch.mul, x, 0.5),)

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def backward(ctx, grad_y):
            return grad_y * 0.5

    plans = Plans(lambda x: Halved.apply(x)[0])
    for _ in range(4):
        x = random(2, 3).requires_grad_()
        y = plans.call((x,), {})
        assert torch.equal(y, x / 2)
        assert torch.equal(*torch.autograd.grad(y.sum(), x), torch.full_like(x, 0.5))


def test_calls_in_turns_go_by_their_own_plans():
    xs = [random(1, 4, side, side) for side in (4, 6, 8)]
    for order in ((0, 1, 2), (0, 1, 2), (0, 1, 2), (2, 1, 0), (0, 0, 1)):
        for place in order:
            for kernel in (2, 3):
                y = functional.max_pool2d(xs[place], kernel, backend="cpu")
                assert torch.equal(y, torch.nn.functional.max_pool2d(xs[place], kernel))


def test_a_launch_takes_the_memory_of_each_tensor():
    functions = native.library("cpu").functions
    x, y = random(1, 4, 6, 6), torch.zeros(1, 4, 6, 6)
    launch = functions.keep_bias_act_forward([x, y], x, None, None, y, "relu", 0.0, 1)
    other = -random(1, 4, 6, 6)
    launch(other, y)
    assert torch.equal(y, other.relu())
    launch(x, y, 2)
    assert torch.equal(y, x.relu())
    with pytest.raises(ValueError, match="a launch of 2 tensors got 1"):
        launch(x)
    with pytest.raises(AttributeError):
        launch(x, None)
    with pytest.raises(TypeError):
        launch(x, y, "threads")


def test_a_launch_finds_a_view_in_its_memory():
    functions, whole = native.library("cpu").functions, random(200) - 1
    y = torch.zeros(96)
    x = whole[8:104]
    views = x.view(1, 1, 96), y.view(1, 1, 96)
    launch = functions.keep_bias_act_forward(
        [whole, y], views[0], None, None, views[1], "relu", 0.0, 1
    )
    another = random(200) - 1
    launch(another, y)
    assert torch.equal(y, another[8:104].relu())
