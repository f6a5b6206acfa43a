"""Swapping the layers of a model, and what people do with one afterwards."""

import copy
import gc
import pickle
import subprocess
import sys
import types
import weakref

import pytest
import torch
from swaps import (
    MAP,
    NAMES,
    SEQUENCE,
    WITH_OPERATORS,
    inputs,
    is_ours,
    layer,
    replica,
    same,
    saved,
    served,
)

import pydl


@pytest.mark.parametrize("name", NAMES)
def test_a_swap_is_the_same_layer_served_by_another(name):
    module = layer(name).eval()
    args, before, held = inputs(name), pickle.dumps(module), set(vars(module))
    expected = served(module, *args)
    assert pydl.accelerate(module) is module
    assert type(module) is getattr(torch.nn, name) and pickle.dumps(module) == before
    assert pydl.report(module).swapped == [("", f"torch.nn.{name}", f"pydl.nn.{name}")]
    new = set(vars(module)) - held
    assert {key for key in new if not key.startswith("_")} <= {"forward"}
    same(served(module, *args), expected)
    assert pydl.restore(module) is module and set(vars(module)) == held


@pytest.mark.parametrize("name", WITH_OPERATORS)
def test_the_backend_asked_for_serves(name):
    module = layer(name).train()
    assert not is_ours(module, *inputs(name))
    pydl.accelerate(module, backend="reference")
    assert is_ours(module, *inputs(name))
    assert is_ours(copy.deepcopy(module), *inputs(name))
    assert is_ours(replica(module), *inputs(name))
    pydl.accelerate(module, backend="aten")
    assert not is_ours(module, *inputs(name))
    pydl.restore(module)
    with pydl.use_backend("reference"):
        assert not is_ours(module, *inputs(name))


# a model, and what people do with one


def net() -> torch.nn.Module:
    torch.manual_seed(1)
    shared = torch.nn.MaxPool2d(2)
    return torch.nn.Sequential(
        torch.nn.Conv2d(4, 6, 3, padding="same", padding_mode="reflect"),
        shared,
        torch.nn.Sequential(torch.nn.LocalResponseNorm(3), torch.nn.AvgPool2d(2), torch.nn.ReLU()),
        shared,
    )


def test_accelerate_and_restore():
    model = net()
    parameters, expected, layers = dict(model.named_parameters()), model(MAP), list(model.modules())
    assert pydl.accelerate(model) is model
    report = pydl.report(model)
    assert [name for name, _, _ in report.swapped] == ["0", "1", "2.0", "2.1", "2.2"]
    assert str(report).startswith("5 layers swapped, 0 left alone\n0: torch.nn.Conv2d -> pydl.nn.C")
    assert all(a is b for a, b in zip(layers, model.modules(), strict=True))
    assert all(parameters[name] is parameter for name, parameter in model.named_parameters())
    torch.testing.assert_close(model(MAP), expected)
    assert str(model) == str(net())
    assert len(pydl.report(pydl.accelerate(model)).swapped) == 5
    assert len(pydl.report(pydl.restore(model[2])).left) == 3
    assert [why for *_, why in pydl.report(model).left] == [
        "accelerate has not been called on it"
    ] * 3
    pydl.restore(model)
    twin = net()
    assert all(
        type(a) is type(b) and set(vars(a)) == set(vars(b))
        for a, b in zip(model.modules(), twin.modules(), strict=True)
    )


def test_a_layer_itself_a_tensor_and_an_unknown_backend():
    module = pydl.accelerate(torch.nn.MaxPool2d(2))
    assert str(pydl.report(module)).endswith("(model): torch.nn.MaxPool2d -> pydl.nn.MaxPool2d")
    for function in (pydl.accelerate, pydl.restore, pydl.report):
        with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got Tensor"):
            function(MAP)
    with pytest.raises(ValueError, match=r"backend must be one of auto, .*, got 'gpu'"):
        pydl.accelerate(module, backend="gpu")


def test_a_line_in_the_log(caplog):
    with caplog.at_level("INFO", logger="pydl"):
        pydl.restore(pydl.accelerate(net()))
    assert caplog.messages == [
        "accelerate: 5 layers swapped, 0 left alone",
        "restore: 0 layers swapped, 5 left alone",
    ]


# What makes another model of one, and whether its layers are swapped as well.
CLONES = {
    "deepcopy": (copy.deepcopy, True),
    "twice": (lambda model: copy.deepcopy(copy.deepcopy(model)), True),
    "a replica of DataParallel's": (replica, True),
    "copy": (lambda model: torch.nn.Sequential(*map(copy.copy, model)), False),
    "pickle": (lambda model: pickle.loads(pickle.dumps(model)), False),
    "an old pickle": (lambda model: pickle.loads(pickle.dumps(model, 0)), False),
    "torch.save": (saved, False),
    "compiled, then deepcopy": (lambda model: copy.deepcopy(compiled(model)), True),
}


def compiled(model):
    for part in model:
        part.compile(backend="eager")
    return model


@pytest.mark.parametrize("clone, swapped", CLONES.values(), ids=CLONES)
def test_clones(clone, swapped):
    model = net()[:2]
    pydl.accelerate(model)
    expected, twin = model(MAP), clone(model)
    assert len(pydl.report(twin).swapped) == (2 if swapped else 0)
    assert len(pydl.report(model).swapped) == 2
    torch.testing.assert_close(twin(MAP), expected)
    for part in twin:
        for value in vars(part).values():
            assert not isinstance(value, types.MethodType) or value.__self__ is part
    pydl.restore(twin)
    torch.testing.assert_close(twin(MAP), expected)
    assert len(pydl.report(model).swapped) == 2


def test_a_swapped_layer_is_freed():
    module = pydl.accelerate(torch.nn.Conv2d(3, 4, 3))
    watch = weakref.ref(module)
    del module
    gc.collect()
    assert watch() is None


def test_a_pickle_loads_without_pydl(tmp_path):
    model = pydl.accelerate(torch.nn.Sequential(net(), torch.nn.Flatten(), torch.nn.GRU(1176, 3)))
    torch.save(model, tmp_path / "model.pt")
    code = (
        "import sys; sys.modules['pydl'] = None\n"
        "import torch\n"
        f"model = torch.load({str(tmp_path / 'model.pt')!r}, weights_only=False)\n"
        "print(type(model[0][0]).__module__, type(model[2]).__module__)\n"
        "model[0](torch.zeros(1, 4, 24, 24))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["torch.nn.modules.conv", "torch.nn.modules.rnn"]


class Kept(torch.nn.GRU):
    """A user's own state, own names."""

    def __init__(self):
        super().__init__(4, 6)
        self.zoneout, self.backend, self.reset_after = 0.3, "sox", False
        self.handle = open  # what his state leaves out

    def __getstate__(self):
        state = super().__getstate__()
        state["handle"] = None
        return state


class KeptWhole(torch.nn.MaxPool2d):
    def __getstate__(self):
        return self.__dict__


class Copied(torch.nn.MaxPool2d):
    def __deepcopy__(self, memo):
        made = type(self)(self.kernel_size)
        made.was_copied = True
        return made


def test_a_users_own_state_and_copies_are_respected():
    gru = Kept()
    expected = gru(SEQUENCE)[0]
    pydl.accelerate(gru, backend="reference")
    for clone in (lambda m: pickle.loads(pickle.dumps(m)), copy.deepcopy, copy.copy):
        made = clone(gru)
        assert type(made) is Kept and made.handle is None and made.zoneout == 0.3
        torch.testing.assert_close(made(SEQUENCE)[0], expected)
    torch.testing.assert_close(gru(SEQUENCE)[0], expected)
    assert gru.handle is open and pydl.report(gru).swapped
    whole = pydl.accelerate(KeptWhole(2))
    assert pickle.loads(pickle.dumps(whole)).kernel_size == 2 and pydl.report(whole).swapped
    copied = copy.deepcopy(pydl.accelerate(Copied(2)))
    assert copied.was_copied and pydl.report(copied).swapped


@pytest.mark.parametrize("name", ("Conv2d", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell"))
def test_a_users_attributes_have_no_effect(name):
    module = layer(name)
    expected = served(module, *inputs(name))
    own = dict.fromkeys(("backend", "zoneout", "reset_after", "peephole", "layer_norm"), "sox")
    vars(module).update(own)
    pydl.accelerate(module, backend=None if name == "Conv2d" else "reference")
    same(served(module, *inputs(name)), expected)
    pydl.restore(module)
    assert {key: getattr(module, key) for key in own} == own


# what is left


class Doubled(torch.nn.MaxPool2d):
    def forward(self, input):
        return 2 * super().forward(input)


class Standardised(torch.nn.Conv2d):
    def _conv_forward(self, input, weight, bias):
        return super()._conv_forward(input, weight - weight.mean(), bias)


class Named(torch.nn.MaxPool2d):
    """A subclass that computes what its base computes."""


def patched() -> torch.nn.Module:
    module = torch.nn.MaxPool2d(2)
    module.forward = lambda input: input
    return module


LEFT = {
    "a subclass": (lambda: Doubled(2), "it overrides forward"),
    "a convolution": (lambda: Standardised(4, 2, 3), "it overrides _conv_forward"),
    "an instance": (patched, "it overrides forward"),
    "lazy": (lambda: torch.nn.LazyConv2d(2, 3), "it is lazy and has not seen an input yet"),
    "lazy, wrapped": (torch.nn.LazyBatchNorm2d, "it is lazy and has not seen an input yet"),
}


@pytest.mark.parametrize("make, why", LEFT.values(), ids=LEFT)
def test_what_is_left(make, why):
    module = pydl.accelerate(make())
    assert [reason for *_, reason in pydl.report(module).left] == [why]
    torch.manual_seed(3)
    expected = make()
    torch.manual_seed(3)
    module = pydl.accelerate(make())
    torch.manual_seed(3)
    y = module(MAP)
    torch.manual_seed(3)
    torch.testing.assert_close(y, expected(MAP))
    if "lazy" in why:
        assert pydl.report(pydl.accelerate(module)).swapped


def test_a_subclass_that_computes_as_its_base_is_swapped():
    named = pydl.accelerate(Named(2), backend="reference")
    assert type(named) is Named and is_ours(named, MAP)
    assert torch.equal(torch.fx.symbolic_trace(torch.nn.Sequential(named))(MAP), named(MAP))


def test_a_forward_put_over_ours_stays():
    """As hooks of other packages do that replace ``forward`` and call what was there."""
    module = pydl.accelerate(torch.nn.MaxPool2d(2))
    before = module.forward
    module.forward = lambda input: before(input) + 1
    pydl.restore(module)
    torch.testing.assert_close(module(MAP), torch.nn.functional.max_pool2d(MAP, 2) + 1)
    module.forward = before
    assert pydl.report(pydl.restore(module)).swapped == []
    torch.testing.assert_close(module(MAP), torch.nn.functional.max_pool2d(MAP, 2))


# hooks, sharing


def test_hooks_run_once():
    model, seen = net(), []
    model[0].register_forward_hook(lambda *_: seen.append("forward"))
    model[0].register_forward_pre_hook(lambda *_: seen.append("before"))
    model[0].register_full_backward_hook(lambda *_: seen.append("backward"))
    for change in (pydl.accelerate, copy.deepcopy, pydl.restore):
        model = change(model)
        model(MAP.clone().requires_grad_()).sum().backward()
        assert seen == ["before", "forward", "backward"]
        seen.clear()


def test_shared_weights_and_layers_in_two_models():
    first, second = net(), net()
    second[0] = first[0]
    pydl.accelerate(first)
    assert [name for name, *_ in pydl.report(second).swapped] == ["0"]
    second[1].weight = first[0].weight
    pydl.restore(second)
    assert [name for name, *_ in pydl.report(first).left] == ["0"]


def test_many_models_at_once():
    models = [pydl.accelerate(torch.nn.Conv2d(4, 6, 3)) for _ in range(3)]
    parameters, buffers = torch.func.stack_module_state(models)
    base = copy.deepcopy(models[0]).to("meta")
    made = torch.func.vmap(
        lambda p, b: torch.func.functional_call(base, (p, b), (MAP,)), randomness="error"
    )(parameters, buffers)
    same(made, torch.stack([model(MAP) for model in models]))


# torchvision, a package without kernels


def test_torchvisions_layers_are_swapped(monkeypatch):
    class RoIAlign(torch.nn.Module):
        """torchvision's constructor and attributes."""

        def __init__(self, output_size, spatial_scale, sampling_ratio, aligned=False):
            super().__init__()
            self.output_size, self.spatial_scale = output_size, spatial_scale
            self.sampling_ratio, self.aligned = sampling_ratio, aligned

        def forward(self, input, rois):
            raise AssertionError("not swapped")

    class RoIPool(torch.nn.Module):
        def __init__(self, output_size, spatial_scale):
            super().__init__()
            self.output_size, self.spatial_scale = output_size, spatial_scale

        def forward(self, input, rois):
            raise AssertionError("not swapped")

    ops = types.ModuleType("torchvision.ops")
    for cls in (RoIAlign, RoIPool):
        cls.__module__, cls.__qualname__ = f"torchvision.ops.{cls.__name__.lower()}", cls.__name__
        setattr(ops, cls.__name__, cls)
    model = torch.nn.ModuleList([RoIAlign(3, 0.5, 2, True), RoIPool(3, 0.5)])
    assert pydl.report(pydl.accelerate(model)).swapped == []
    monkeypatch.setitem(sys.modules, "torchvision.ops", ops)
    assert pydl.report(pydl.accelerate(model)).swapped == [
        (str(i), f"torchvision.ops.{name}", f"pydl.nn.{name}")
        for i, name in enumerate(("RoIAlign", "RoIPool"))
    ]
    boxes = torch.tensor([[0.0, 1, 1, 17, 15], [1, 0, 4, 20, 9]])
    ours = pydl.functional.roi_align(MAP, boxes, 3, 0.5, 2, True)
    torch.testing.assert_close(model[0](MAP, boxes), ours)
    torch.testing.assert_close(model[0](MAP, [boxes[:1, 1:], boxes[1:, 1:]]), ours)
    torch.testing.assert_close(model[1](MAP, boxes), pydl.functional.roi_pool(MAP, boxes, 3, 0.5))
    pydl.restore(model)
    with pytest.raises(AssertionError, match="not swapped"):
        model[0](MAP, boxes)


def test_a_package_without_its_extension_warns_once():
    code = (
        "import sys; sys.modules['pydl._C'] = None\n"
        "import warnings; warnings.simplefilter('always')\n"
        "import torch, pydl\n"
        "model = pydl.accelerate(torch.nn.MaxPool2d(2))\n"
        "model = pydl.accelerate(torch.nn.MaxPool2d(2))\n"
        "print(model(torch.ones(1, 1, 4, 4)).sum().item())\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "4.0\n"
    assert ran.stderr.count("PyTorch's own operators serve all of them") == 1
    assert "the extension pydl._C could not be imported" in ran.stderr
