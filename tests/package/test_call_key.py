"""What tells a call from others: that nothing passes for another call, by its key and by the guards
that stand in for it."""

import pytest
import torch
from planned_calls import Twice, x_of
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from pydl import plan, recorder
from pydl.plan import Plans


@pytest.fixture
def twice() -> Twice:
    return Twice()


def unaligned() -> torch.Tensor:
    return x_of(97)[1:].view(2, 3, 4, 4)


OTHERS = {
    "shape": lambda: x_of(2, 3, 4, 5),
    "strides": lambda: x_of().to(memory_format=torch.channels_last),
    "dtype": lambda: x_of(dtype=torch.float64),
    "device": lambda: x_of(device="meta"),
    "alignment": unaligned,
    "a gradient wanted": lambda: x_of(requires_grad=True),
    "a subclass": lambda: x_of().as_subclass(type("Own", (torch.Tensor,), {})),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_another_tensor_is_another_call(twice, other):
    for _ in range(2):
        twice(x_of())
    assert twice.goes_by_a_plan(x_of())
    assert not twice.goes_by_a_plan(other())


def test_where_memory_lies_does_not_matter_but_for_its_alignment(twice):
    for _ in range(2):
        twice(x_of())
    whole = x_of(200)
    x = whole[4:100].view(2, 3, 4, 4)  # 16 bytes from where the memory begins
    assert twice.goes_by_a_plan(x)
    assert torch.equal(twice(x), 2 * x)


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, True), (1, 1.0), (0.0, -0.0), ("a", None), ((1, 2), [1, 2]), ((1, 2), (1.0, True))],
)
def test_equal_constants_of_other_types_are_other_calls(one, other):
    seen = []

    def function(x: torch.Tensor, constant: object) -> torch.Tensor:
        seen.append(constant)
        return x

    plans = Plans(function)
    for constant in (one, one, one, other, other, other):
        plans.call((x_of(), constant), {})
    assert list(map(repr, seen)) == list(map(repr, (one, one, other, other)))


def test_a_name_of_an_argument_counts(twice):
    x = x_of()
    for _ in range(3):
        twice(x, 3)
    assert not twice.goes_by_a_plan(x, factor=3)


SETTINGS = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "forward mode": forward_ad.dual_level,
    "a mode of dispatch": lambda: FlopCounterMode(display=False),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "profiler": torch.profiler.profile,
}


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_a_setting_of_pytorch_counts(twice, setting):
    x = x_of()
    for _ in range(3):
        twice(x)
    with setting():
        assert not twice.goes_by_a_plan(x)
    assert twice.goes_by_a_plan(x)


def test_the_number_of_threads_counts(twice):
    x = x_of()
    for _ in range(3):
        twice(x)
    torch.set_num_threads(torch.get_num_threads() + 1)  # given back by a fixture
    assert not twice.goes_by_a_plan(x)


GUARDS = torch._C._dynamo.guards
PRIVATE = [(GUARDS, "TensorGuards"), (GUARDS, "GlobalStateGuard")]
PRIVATE += [(torch._C._dynamo, "guards"), (torch.autograd.profiler, "_is_profiler_enabled")]


def test_the_call_that_is_expected_is_told_without_a_key(twice, monkeypatch):
    for _ in range(3):
        twice(x_of())
    monkeypatch.setattr(plan, "key_of", None)
    x = x_of()
    assert torch.equal(twice(x), 2 * x)


@pytest.mark.parametrize(("owner", "name"), PRIVATE, ids=[name for _, name in PRIVATE])
def test_without_pytorchs_guards_keys_alone_tell(twice, monkeypatch, owner, name):
    monkeypatch.delattr(owner, name)
    for _ in range(3):
        twice(x_of())
    assert twice.plans.likely((x_of(),), {}, None) is recorder.STALE
    assert twice.goes_by_a_plan(x_of())
    assert not twice.goes_by_a_plan(x_of(), 3)


def test_guards_that_take_other_arguments_are_left_alone(twice, monkeypatch):
    monkeypatch.setattr(GUARDS, "TensorGuards", lambda *tensors: None)
    for _ in range(3):
        twice(x_of())
    assert twice.goes_by_a_plan(x_of())
