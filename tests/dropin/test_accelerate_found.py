"""What looks for torch.nn's layers in a model finds swapped ones: quantisation, fusion,
TorchScript, torch.fx, torch.compile."""

import io
import pickle

import pytest
import torch
from swaps import MAP, SEQUENCE, is_ours, layer, same
from torch.nn import utils

import pydl


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
        graphs = []

        def note(graph, args, graphs=graphs):
            graphs.append(graph)
            return graph

        with torch._dynamo.config.patch(allow_rnn=allowed):
            if not allowed:
                with pytest.raises(torch._dynamo.exc.Unsupported, match="allow_rnn"):
                    torch.compile(model, fullgraph=True, backend=note)(SEQUENCE)
            made = torch.compile(model, fullgraph=allowed, backend=note)
            for _ in range(2):
                model.zero_grad()
                y = made(SEQUENCE)
                y.backward()
                same(y, twin(SEQUENCE))
                same([parameter.grad for parameter in model.parameters()], expected)
        # None of pieces of the layer: torch.nn's gives none either.
        assert len(graphs) == allowed


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
