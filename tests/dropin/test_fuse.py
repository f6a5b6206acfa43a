"""Layers computed together by ``accelerate(model, fuse=True)``: right, and the same model."""

import copy
import pickle
import random

import pytest
import torch
from contract import hold
from fusible import MODELS, Basic, image, made, operators
from swaps import replica, saved
from torch import nn

import pydl


def fused(name: str) -> nn.Module:
    return pydl.accelerate(made(name), fuse=True)


def of(model: nn.Module, x: torch.Tensor, how: str) -> dict[str, torch.Tensor]:
    """The output and what a call changes; gradients where they are wanted."""
    model.train(how == "training")
    if how == "no gradients":
        with torch.no_grad():
            return {"output": model(x)}
    x = x.detach().requires_grad_()
    parameters = dict(model.named_parameters()) if how != "of the image" else {}
    for parameter in model.parameters():
        parameter.requires_grad_(how != "of the image")
    y = model(x)
    wanted = {"x": x, **parameters}
    grads = torch.autograd.grad((y * y).sum(), list(wanted.values()))
    named = {f"gradient of {name}": one for name, one in zip(wanted, grads, strict=True)}
    return {"output": y.detach(), **named, **dict(model.named_buffers())}


HOW = ("no gradients", "evaluation", "of the image", "training")


@pytest.mark.parametrize("layout", ("contiguous", "channels_last"))
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", MODELS)
def test_results_and_gradients(name, how, layout):
    x, model, stock = image(name), fused(name), made(name)
    assert pydl.report(model).fused
    if layout == "channels_last":
        format = torch.channels_last_3d if x.ndim == 5 else torch.channels_last
        x, model, stock = x.to(memory_format=format), model.to(memory_format=format), stock
        stock = stock.to(memory_format=format)
    expected = of(copy.deepcopy(stock).double(), x.double(), how)
    theirs, given = of(stock, x, how), x.clone()
    largest = max(one.abs().max().item() for one in expected.values())
    for _ in range(2):
        found = of(model, x, how)
        assert torch.equal(x, given) and list(found) == list(theirs)
        for key, one in found.items():
            if one.is_floating_point():
                assert one.stride() == theirs[key].stride(), key
                hold(one, theirs[key], expected[key], key, 16 * largest)
        if how == "training":
            break  # the statistics have moved


def test_what_is_computed_together():
    assert [str(one) for one in pydl.fusion.fused(fused("nested"))] == [
        "0.0.0 + 0.0.1 + 0.1",  # Sequentials are one
        "0.0 + 0.1 + 1",
        "0 + 1",
        "conv1 + bn1 + relu; conv2 + bn2 + residual + relu",
        "conv1 + bn1 + relu; conv2 + bn2 + residual + relu; shortcut.0 + shortcut.1",
        "0 + 1",
    ]
    assert str(pydl.report(fused("pooled"))).endswith(
        "(model): fused 0 + 1 + 2, 3 before the activation; 4 + 5, 6 before the activation; "
        "in training 0 + 1 + 2; 4 + 5, 6 before the activation"
    )
    small = dict(pydl.report(fused("small")).fused)[""]
    assert small.startswith("6 left out; 0 + 1 + 2; 3 + 4 + 5; 7 + 8, 9 before the activation")


def test_a_normalisation_is_folded_and_nothing_else_runs():
    model, x = fused("residual").eval(), image("residual")
    with torch.no_grad():
        seen = operators(model, x)
    assert {key for key in seen if "conv" in key} and not {key for key in seen if "norm" in key}
    assert {key for key in operators(model, x) if "norm" in key}  # gradients are wanted
    pydl.restore(model)
    with torch.no_grad():
        assert {key for key in operators(model, x) if "norm" in key}


def test_training_normalises_adds_and_activates_in_one():
    model, x = fused("residual").train(), image("residual")
    pydl.accelerate(model, backend="reference")
    assert pydl.report(model).fused  # as before
    seen = operators(model, x)
    assert "pydl::batch_norm_forward (reference)" in seen
    assert not {"aten::relu_", "aten::relu", "pydl::bias_act_forward (reference)"} & seen


# weights that change


def step(model):
    model.train()
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    model(image("residual")).square().sum().backward()
    optimiser.step()


def moved(model):
    with torch.no_grad():
        model.train()(image("residual"))


def without_a_version(change):
    """As hand-written optimisers and target networks do."""

    def apply(model):
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                change(tensor)

    return apply


def loaded(model):
    state = {name: one * 1.25 for name, one in model.state_dict().items()}
    model.load_state_dict(state)


def assigned(model):
    state = {name: one * 1.25 for name, one in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def in_place(model):
    with torch.no_grad():
        model.conv1.weight[0, 0, 0, 0] += 3
        model.bn1.bias[1] -= 2


def replaced(model):
    model.conv2 = copy.deepcopy(model.conv2)
    nn.init.normal_(model.conv2.weight)
    model.bn2 = nn.BatchNorm2d(6, eps=0.5).eval()


CHANGES = {
    "a step of training": step,
    "statistics alone": moved,
    "load_state_dict": loaded,
    "load_state_dict, assigned": assigned,
    "in place": in_place,
    "through data": without_a_version(lambda tensor: tensor.data.mul_(1.5)),
    "through NumPy": without_a_version(lambda tensor: tensor.detach().numpy().__imul__(1.5)),
    "another tensor": without_a_version(lambda tensor: setattr(tensor, "data", tensor * 1.5)),
    "eps": lambda model: setattr(model.bn1, "eps", 0.3),
    "layers": replaced,
    "double and back": lambda model: model.double().float(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_it_follows_changes(change):
    torch.manual_seed(3)
    model, stock, x = fused("residual"), made("residual"), image("residual")
    for one in (model, stock):
        torch.manual_seed(4)
        with torch.no_grad():
            one.eval()(x)
        change(one)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), stock.eval()(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.state_dict(), stock.state_dict())


def test_modes_of_layers():
    """A frozen normalisation while the rest learns, and dropout that goes on in evaluation."""
    model, stock, x = fused("small"), made("small"), image("small")
    for one in (model, stock):
        one.train()
        one[1].eval(), one[1].requires_grad_(False)
        one[6].eval()
    torch.testing.assert_close(model(x), stock(x))
    torch.testing.assert_close(model.state_dict(), stock.state_dict())
    for one in (model, stock):
        one.eval()
        one[6].train()
        one[6].p = 1.0
    with torch.no_grad():
        torch.testing.assert_close(model(x), stock(x))
        assert (model[:7](x) == 0).all()


# the same model


def test_restored_to_the_bit():
    model, x = made("nested"), image("nested")
    parameters, state = dict(model.named_parameters()), copy.deepcopy(model.state_dict())
    held = [set(vars(module)) for module in model.modules()]
    expected, pickled = model.eval()(x), pickle.dumps(model)
    model = pydl.accelerate(model, fuse=True)
    with torch.no_grad():
        model(x)
    assert all(parameters[name] is one for name, one in model.named_parameters())
    assert pickle.dumps(model) == pickled
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key])
    report = pydl.report(pydl.restore(model))
    assert not report.fused and not report.swapped
    assert [set(vars(module)) for module in model.modules()] == held
    assert torch.equal(model(x), expected)


CLONES = {
    "deepcopy": (copy.deepcopy, True),
    "a replica of DataParallel's": (replica, True),
    "copy": (copy.copy, False),
    "pickle": (lambda model: pickle.loads(pickle.dumps(model)), False),
    "torch.save": (saved, False),
}


@pytest.mark.parametrize("clone, is_fused", CLONES.values(), ids=CLONES)
@torch.no_grad()
def test_clones(clone, is_fused):
    model, x = fused("residual").eval(), image("residual")
    expected = model(x)
    twin = clone(model)
    assert ("" in dict(pydl.report(twin).fused)) == is_fused and pydl.report(model).fused
    torch.testing.assert_close(twin(x), expected)
    if clone is copy.deepcopy:
        twin.conv1.weight.mul_(2)
        assert not torch.equal(twin(x), expected) and torch.equal(model(x), expected)


def compiled(model, x):
    torch._dynamo.reset()
    return torch.compile(model, fullgraph=True, backend="aot_eager")


def functional(model, x):
    held = dict(model.named_parameters()) | dict(model.named_buffers())
    return lambda x: torch.func.functional_call(model, held, (x,))


def distributed(model, x):
    return nn.parallel.DistributedDataParallel(model)


SEEN = {
    "torch.compile": compiled,
    "torch.export": lambda model, x: torch.export.export(model, (x,)).module(),
    "torch.jit.trace": lambda model, x: torch.jit.trace(model, x),
    "torch.jit.script": lambda model, x: torch.jit.script(model),
    "torch.fx": lambda model, x: torch.fx.symbolic_trace(model),
    "torch.vmap": lambda model, x: lambda x: torch.vmap(model)(x[None])[0],
    "functional_call": functional,
    "autocast": lambda model, x: torch.autocast("cpu", torch.bfloat16)(model),
    "in float64": lambda model, x: lambda x: model.double()(x.double()).float(),
    "DataParallel": lambda model, x: nn.DataParallel(model),
    "DistributedDataParallel": distributed,
}


@pytest.fixture
def alone(tmp_path):
    """A group of one process."""
    store = f"file://{tmp_path / 'store'}"
    torch.distributed.init_process_group("gloo", store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("see", SEEN.values(), ids=SEEN)
def test_what_sees_a_model(see, alone):
    x, model, stock = image("residual"), fused("residual").eval(), made("residual").eval()
    expected = see(stock, x)(x)
    torch.testing.assert_close(see(model, x)(x), expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(see(model, x)(x), expected, rtol=1e-4, atol=1e-5)
    if see is distributed:
        for one in (model, stock):
            distributed(one.train(), x)(x).square().sum().backward()
        for ours, theirs in zip(model.parameters(), stock.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_hooks_run():
    model, x, seen = fused("residual").eval(), image("residual"), []
    expected = model(x)
    for name, layer in model.named_children():
        handles = [
            layer.register_forward_hook(lambda *_, name=name: seen.append(name)),
            layer.register_forward_pre_hook(lambda *_: None),
        ]
        torch.testing.assert_close(model(x), expected)
        assert seen == [name] * (2 if name == "relu" else 1)
        seen.clear()
        for handle in handles:
            handle.remove()
    handle = model.bn1.register_forward_hook(lambda *args: args[-1] * 0)
    assert not torch.allclose(model(x), expected)
    handle.remove()
    torch.testing.assert_close(model(x), expected)


def test_backward_hooks_run():
    model, seen = fused("residual"), []
    model.conv1.register_full_backward_hook(lambda *_: seen.append("conv1"))
    model(image("residual")).sum().backward()
    assert seen == ["conv1"]


@torch.no_grad()
def test_an_attribute_that_decides():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn, self.twice = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), False

        def forward(self, x):
            y = self.bn(self.conv(x))
            return y + y if self.twice else y

    model, x = pydl.accelerate(Gated().eval(), fuse=True), image("residual")
    assert pydl.report(model).fused
    y = model(x)
    model.twice = True
    torch.testing.assert_close(model(x), 2 * y)
    model.twice, model.conv.forward = False, torch.zeros_like
    torch.testing.assert_close(model(x), model.bn(torch.zeros_like(x)))
    del model.conv.forward
    model.bn = nn.Identity()
    torch.testing.assert_close(model(x), model.conv(x))


def test_a_backend_by_name_serves():
    model, x = fused("residual").eval(), image("residual")
    pydl.accelerate(model, backend="reference", fuse=True)
    with torch.no_grad():
        seen = operators(model, x)
        torch.testing.assert_close(model(x), made("residual").eval()(x), rtol=1e-4, atol=1e-5)
    assert "pydl::batch_norm_apply (reference)" in seen


# what torch.fx cannot follow


class Left(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.seen = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), []

    def both(self, x):
        return self.bn(self.conv(x))


class Deciding(Left):
    def forward(self, x):
        return self.both(x) if x.sum() > 0 else x


class Optional(Left):
    def forward(self, x, y=None):
        return self.both(x) if y is None else y


class Keeping(Left):
    def forward(self, x):
        self.kept = x
        self.seen.append(x)
        return self.both(x)


class Drawing(Left):
    def forward(self, x):
        return self.both(x) if random.random() < 2 else x


class Asking(Left):
    def forward(self, x):
        y = self.both(x)
        return y if isinstance(y, torch.Tensor) else x


LEFT = {
    Deciding: "torch.fx cannot follow its forward: symbolically traced variables cannot be used",
    Optional: "its forward need not be given 'y'",
    Keeping: "its forward changes its attribute 'kept'",
    Drawing: "its forward draws random numbers",
    Asking: "its forward asks for the type of what it computes",
}


@pytest.mark.parametrize("kind, why", LEFT.items(), ids=lambda one: getattr(one, "__name__", ""))
def test_what_is_left(kind, why):
    model, x = nn.Sequential(kind(), Basic()), image("residual")
    expected, held = model.eval()(x), dict(vars(model[0]))
    lengths = len(model[0].seen)
    report = pydl.report(pydl.accelerate(model, fuse=True))
    assert [name for name, _ in report.fused] == ["1", "1.shortcut"]
    ((name, said),) = report.unfused
    assert name == "0" and said.startswith(why)
    assert f"0: not fused, {why}" in str(report)
    assert vars(model[0]) == held and len(model[0].seen) == lengths
    torch.testing.assert_close(model(x), expected)
    assert not pydl.report(pydl.restore(model)).unfused
