"""Swapping the layers of a model: what PyTorch's own habits find afterwards is what they found."""

import copy
import gc
import io
import pickle
import subprocess
import sys
import types
import weakref

import pytest
import torch
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils._python_dispatch import TorchDispatchMode

import pydl
from pydl.accelerate import COUNTERPARTS

X = {axes: torch.randn(2, 4, *[9] * axes) for axes in (0, 1, 2, 3)}
SEQUENCE = torch.randn(9, 2, 4)


def inputs(name: str) -> tuple:
    if "Unpool" in name:
        return torch.nn.functional.max_pool2d(X[2][..., :8, :8], 2, return_indices=True)
    if name.endswith("Loss"):
        return X[0], torch.tensor([1, 3])
    if name in ("RNN", "LSTM", "GRU"):
        return (SEQUENCE,)
    if name.endswith("Cell"):
        return (X[0],)
    return (X[int(name[-2])] if name[-1] == "d" else X[2],)


def layer(name: str, library=torch.nn) -> torch.nn.Module:
    own = {"LocalResponseNorm": (3,), "Softmax": (1,), "LogSoftmax": (1,)}
    arguments = own.get(name, ())
    for word, given in (
        *(("ool", (2,)), ("LPPool", (2, 2)), ("Conv", (4, 6, 3)), ("BatchNorm", (4,))),
        *(("RNN", (4, 6)), ("LSTM", (4, 6)), ("GRU", (4, 6)), ("Lazy", ())),
    ):
        arguments = given if word in name else arguments
    return getattr(library, name)(*arguments)


def served(module: torch.nn.Module, *args) -> tuple:
    """What a module gives, and the gradients of it; with masks that a seed repeats."""
    torch.manual_seed(0)
    leaves = [a.detach().requires_grad_() if a.is_floating_point() else a for a in args]
    y = module(*leaves)
    y = y if isinstance(y, torch.Tensor) else torch.cat([t.flatten() for t in flat(y)])
    wanted = [t for t in (*leaves, *module.parameters()) if t.requires_grad]
    grads = torch.autograd.grad(y.square().sum(), wanted, allow_unused=True)
    return y.detach(), *(g for g in grads if g is not None)


def flat(y) -> list[torch.Tensor]:
    return [y] if isinstance(y, torch.Tensor) else [t for part in y for t in flat(part)]


def same(ours, theirs) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


NAMES = [cls.__name__ for cls in COUNTERPARTS if "Lazy" not in cls.__name__]
NAMES = [name for name in NAMES if name not in ("MaxUnpool1d", "MaxUnpool3d")]


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


class Ours(TorchDispatchMode):
    """Sees which operators are pydl's."""

    def __init__(self):
        super().__init__()
        self.seen = False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen |= function.namespace == "pydl"
        return function(*args, **kwargs or {})


def is_ours(module: torch.nn.Module, *args) -> bool:
    with Ours() as ours, torch.no_grad():
        module(*args)
    return ours.seen


@pytest.mark.parametrize("name", NAMES)
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


def replica(model: torch.nn.Module) -> torch.nn.Module:
    """As torch.nn.DataParallel makes one for each device."""
    made = {module: module._replicate_for_data_parallel() for module in model.modules()}
    for module, copied in made.items():
        for name, child in module._modules.items():
            copied._modules[name] = made[child]
        for name, parameter in module._parameters.items():
            setattr(copied, name, parameter if parameter is None else parameter.view_as(parameter))
    return made[model]


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


MAP = torch.randn(2, 4, 24, 24)


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


def saved(model):
    held = io.BytesIO()
    torch.save(model, held)
    held.seek(0)
    return torch.load(held, weights_only=False)


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


# parametrizations


def pruned(module, name):
    prune.l1_unstructured(module, name, 0.3)


def identity(module, name):
    """Of the bias as well."""
    for each in (name, name.replace("weight", "bias")):
        prune.identity(module, each)


def pruned_for_good(module, name):
    prune.l1_unstructured(module, name, 0.3)
    module(*(x.double() for x in inputs(type(module).__name__)))
    prune.remove(module, name)


def twice(module, name):
    parametrizations.weight_norm(module, name)
    parametrize.register_parametrization(module, name, torch.nn.Tanh())


def and_removed(apply, remove):
    def both(module, name):
        apply(module, name)
        remove(module, name)

    both.__name__ = f"{apply.__name__}_and_removed"
    return both


utils = torch.nn.utils
OF_ANY = (pruned, identity, pruned_for_good, parametrizations.weight_norm, twice)
OF_MATRICES = (
    utils.weight_norm,
    and_removed(utils.weight_norm, utils.remove_weight_norm),
    utils.spectral_norm,
    and_removed(utils.spectral_norm, utils.remove_spectral_norm),
    parametrizations.spectral_norm,
    parametrizations.orthogonal,
    and_removed(parametrizations.weight_norm, parametrize.remove_parametrizations),
)
WEIGHTS = {name: "weight" for name in NAMES if name.startswith(("Conv", "BatchNorm"))}
WEIGHTS |= dict.fromkeys(("RNN", "LSTM", "GRU"), "weight_hh_l0")
WEIGHTS |= dict.fromkeys(("RNNCell", "LSTMCell", "GRUCell"), "weight_hh")
PARAMETRIZED = [
    pytest.param(name, apply, id=f"{name}-{apply.__name__}")
    for name in WEIGHTS
    for apply in OF_ANY + (() if "Batch" in name else OF_MATRICES)
]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name, apply", PARAMETRIZED)
def test_parametrizations(name, apply):
    """The same layer before and after a swap, and restored; the same keys of state_dict."""
    args, backend = tuple(x.double() for x in inputs(name)), "reference"
    made = {}
    for order in ("stock", "before", "after"):
        torch.manual_seed(7)
        module = made[order] = layer(name).double()
        if order == "after":
            pydl.accelerate(module, backend)
        apply(module, WEIGHTS[name])
        if order == "before":
            pydl.accelerate(module, backend)
    stock = made.pop("stock")
    keys = list(stock.state_dict())
    for _ in range(2):  # the second spectral norm starts at the first's vectors
        expected = served(stock, *args)
        for module in made.values():
            torch.testing.assert_close(served(module, *args), expected)
            assert list(module.state_dict()) == keys and pydl.report(module).swapped
    expected = served(stock, *args)
    for module in made.values():
        pydl.restore(module)
        torch.testing.assert_close(served(module, *args), expected)
        assert list(module.state_dict()) == keys and type(module).__name__ == type(stock).__name__
    if parametrize.is_parametrized(stock):
        for module in (stock, *made.values()):
            pydl.accelerate(module, backend) if module is not stock else None
            parametrize.remove_parametrizations(module, WEIGHTS[name])
        expected = served(stock, *args)
        for module in made.values():
            torch.testing.assert_close(served(module, *args), expected)
            assert type(module) is getattr(torch.nn, name)


def test_a_parametrized_layer_copies_and_refuses_to_be_pickled_as_torch_nns():
    module = pydl.accelerate(parametrizations.weight_norm(torch.nn.Conv2d(4, 6, 3)))
    twin = copy.deepcopy(module)
    torch.testing.assert_close(twin(MAP), module(MAP))
    assert pydl.report(twin).swapped and type(twin) is type(module)
    with pytest.raises(RuntimeError, match="parametrized modules is only supported through state"):
        pickle.dumps(module)
    assert pydl.report(module).swapped


# what looks for torch.nn's layers


def conv_bn_relu() -> torch.nn.Module:
    torch.manual_seed(2)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(4, 6, 3), torch.nn.BatchNorm2d(6), torch.nn.ReLU(), torch.nn.MaxPool2d(2)
    )
    model(MAP)
    return model.eval()


def fused(model):
    return torch.ao.quantization.fuse_modules(model, [["0", "1", "2"]])


def fused_pair(model):
    return torch.nn.Sequential(utils.fusion.fuse_conv_bn_eval(model[0], model[1]), *model[2:])


def fused_by_fx(model):
    from torch.fx.experimental.optimization import fuse

    made = fuse(model)
    assert [node.target for node in made.graph.nodes if node.op == "call_module"] == ["0", "2", "3"]
    return made


def quantised(model):
    model.qconfig = torch.ao.quantization.get_default_qconfig("x86")
    wrapped = torch.nn.Sequential(
        torch.ao.quantization.QuantStub(), model, torch.ao.quantization.DeQuantStub()
    ).eval()
    wrapped.qconfig = model.qconfig
    prepared = torch.ao.quantization.prepare(wrapped)
    prepared(MAP)
    made = torch.ao.quantization.convert(prepared)
    assert "Quantized" in str(made)
    return made


def trained_for_quantisation(model):
    model.train()
    model.qconfig = torch.ao.quantization.get_default_qat_qconfig("x86")
    made = torch.ao.quantization.prepare_qat(model)
    assert type(made[0]) is torch.ao.nn.qat.Conv2d
    return made.eval()


def scripted(model):
    return torch.jit.script(model)


def traced(model):
    return torch.jit.trace(model, MAP)


def traced_by_fx(model):
    made = torch.fx.symbolic_trace(model)
    assert [node.op for node in made.graph.nodes][1:-1] == ["call_module"] * len(model)
    return made


def compiled_whole(model):
    torch._dynamo.reset()
    return torch.compile(model, fullgraph=True, backend="aot_eager")


def called_functionally(model):
    held = dict(model.named_parameters()) | dict(model.named_buffers())
    return lambda x: torch.func.functional_call(model, held, (x,))


def data_parallel(model):
    return torch.nn.DataParallel(model)


FINDERS = (
    *(fused, fused_pair, fused_by_fx, quantised, trained_for_quantisation, scripted, traced),
    *(traced_by_fx, compiled_whole, called_functionally, data_parallel),
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("find", FINDERS, ids=lambda find: find.__name__)
def test_what_looks_for_layers_finds_them(find):
    theirs = find(conv_bn_relu())(MAP)
    model = pydl.accelerate(conv_bn_relu())
    made = find(model)
    torch.testing.assert_close(made(MAP), theirs)
    if find is not trained_for_quantisation:
        assert len(pydl.report(model).swapped) == 4
    if find in (scripted, traced):
        held = io.BytesIO()
        torch.jit.save(made, held)
        assert "pydl::" not in str(made.inlined_graph)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ("LSTM", "GRU"))
def test_quantize_dynamic(name):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(4)
            self.rnn, self.head = layer(name), torch.nn.Linear(6, 3)

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    made = []
    for model in (Model(), pydl.accelerate(Model())):
        kinds = {torch.nn.LSTM, torch.nn.GRU, torch.nn.Linear}
        made.append(torch.ao.quantization.quantize_dynamic(model, kinds))
        assert type(made[-1].rnn).__module__.startswith("torch.ao")
        assert isinstance(model.rnn, getattr(torch.nn, name))
    torch.testing.assert_close(made[0](SEQUENCE), made[1](SEQUENCE))


# TorchScript


def test_script_of_recurrent_layers_is_torch_nns():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = torch.nn.LSTM(4, 6)

        def forward(self, x):
            return self.rnn(x)[0]

    model = pydl.accelerate(Model())
    torch.testing.assert_close(torch.jit.script(model)(SEQUENCE), model(SEQUENCE))
    assert pydl.report(model).swapped


def test_script_of_our_own_layers_is_torch_nns():
    model = torch.nn.Sequential(pydl.nn.Conv2d(4, 6, 3), pydl.nn.MaxPool2d(2), pydl.nn.ReLU())
    expected, parameters = model(MAP), list(model.parameters())
    made = torch.jit.script(model)
    torch.testing.assert_close(made(MAP), expected)
    assert "pydl::" not in str(made.inlined_graph)
    # torch.jit.script puts what it compiles into the model: these kernels go on serving it.
    assert len(pydl.report(model).swapped) == 3 and torch.equal(model(MAP), expected)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))


REFUSED = {
    "asked by name": (
        lambda: pydl.nn.MaxPool2d(2, backend="cpu"),
        r"compiles torch\.nn's own MaxPool2d and cannot have backend 'cpu' serve it",
    ),
    "swapped by name": (
        lambda: pydl.accelerate(torch.nn.MaxPool2d(2), backend="cpu"),
        r"compiles torch\.nn's own MaxPool2d and cannot have backend 'cpu' serve it",
    ),
    "in no torch.nn": (
        lambda: pydl.nn.ConvBiasAct2d(4, 6, 3),
        "there is none for ConvBiasAct2d; use torch.jit.trace, torch.export or torch.compile",
    ),
}


@pytest.mark.parametrize("make, why", REFUSED.values(), ids=REFUSED)
def test_script_says_what_it_cannot(make, why):
    with pytest.raises(RuntimeError, match=why):
        torch.jit.script(torch.nn.Sequential(make()))


def test_trace_by_name_says_so():
    model = pydl.accelerate(torch.nn.MaxPool2d(2), backend="cpu")
    with pytest.raises(RuntimeError, match="backend 'cpu' cannot become part of a graph"):
        torch.jit.trace(model, MAP)


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


# torch.compile


def test_compiles_whole_with_batch_norm_and_dropout():
    def make():
        torch.manual_seed(5)
        return torch.nn.Sequential(
            *(torch.nn.Conv2d(4, 6, 3), torch.nn.BatchNorm2d(6), torch.nn.ReLU()),
            *(torch.nn.LocalResponseNorm(3), torch.nn.MaxPool2d(2), torch.nn.AvgPool2d(2)),
            *(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Dropout(0.5)),
        )

    torch._dynamo.reset()
    model, twin = pydl.accelerate(make()), pydl.accelerate(make())
    made = torch.compile(model, fullgraph=True, backend="aot_eager")
    for x in (MAP, MAP):
        torch.manual_seed(6)
        y = made(x)
        torch.manual_seed(6)
        expected = twin(x)
        torch.testing.assert_close(y, expected)
        y.sum().backward(), expected.sum().backward()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    torch.testing.assert_close(model.state_dict(), twin.state_dict())


def test_a_compiled_layer_sees_another_backend():
    torch._dynamo.reset()
    for module in (pydl.nn.MaxPool2d(2), pydl.accelerate(torch.nn.MaxPool2d(2))):
        seen = []

        def note(graph, args, seen=seen):
            seen.append(str(graph.graph))
            return graph

        made = torch.compile(module, fullgraph=True, backend=note)
        made(MAP)
        pydl.accelerate(module, backend="reference")
        if isinstance(module, pydl.nn.MaxPool2d):
            module.backend = "reference"
        made(MAP)
        assert len(seen) == 2 and "reference" in seen[1] and "reference" not in seen[0]


@pytest.mark.parametrize("name", ("RNN", "LSTM", "GRU"))
def test_recurrent_layers_break_the_graph_as_torch_nns_and_can_join_it(name):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(8)
            self.before, self.rnn, self.after = torch.nn.Tanh(), layer(name), torch.nn.Linear(6, 3)

        def forward(self, x):
            return self.after(self.rnn(self.before(x))[0]).square().sum()

    model, twin = pydl.accelerate(Model()), Model()
    twin(SEQUENCE).backward()
    expected = [parameter.grad for parameter in twin.parameters()]
    for allowed in (False, True):
        torch._dynamo.reset()
        with torch._dynamo.config.patch(allow_rnn=allowed):
            if not allowed:
                with pytest.raises(torch._dynamo.exc.Unsupported, match="allow_rnn"):
                    torch.compile(model, fullgraph=True, backend="aot_eager")(SEQUENCE)
            made = torch.compile(model, fullgraph=allowed, backend="aot_eager")
            for _ in range(2):
                model.zero_grad()
                y = made(SEQUENCE)
                y.backward()
                same(y, twin(SEQUENCE))
                same([parameter.grad for parameter in model.parameters()], expected)


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


# pydl.nn's own layers


def test_our_own_layers_are_leaves():
    model = torch.nn.Sequential(
        *(pydl.nn.Conv2d(4, 6, 3), pydl.nn.BatchNormAct2d(6), pydl.nn.SpatialResponseNorm(3)),
        *(pydl.nn.LPPool2d(2, 2), pydl.nn.LocallyConnected2d(6, 2, 11, 3)),
    ).eval()
    made = traced_by_fx(model)
    torch.testing.assert_close(made(MAP), model(MAP))
    torch.testing.assert_close(pickle.loads(pickle.dumps(model))(MAP), model(MAP))

    class Own(pydl.nn.MaxPool2d):
        def forward(self, input):
            return super().forward(input) * 2

    # As of a subclass of torch.nn's, what it computes is in the graph.
    nodes = torch.fx.symbolic_trace(torch.nn.Sequential(Own(2))).graph.nodes
    assert [node.op for node in nodes] == [
        "placeholder",
        "call_function",
        "call_function",
        "output",
    ]


def test_the_backend_of_a_layer():
    module = pydl.nn.MaxPool2d(2)
    assert module.backend is None
    module.backend = "reference"
    assert is_ours(module, MAP) and str(module).endswith("backend='reference')")
    with pytest.raises(ValueError, match="got 'gpu'"):
        module.backend = "gpu"
    module.backend = None
    assert "backend" not in str(module)
