"""Recurrent layers and cells in the place of torch.nn's: on its own modules, under its
parametrisations, with what callers do to results, in PyTorch's words."""

import copy
import itertools
import types

import pytest
import torch
from torch.nn.utils import parametrizations, parametrize, prune

import pydl
from pydl import functional, nn

LAYERS = (
    ("RNN", {}),
    ("LSTM", {}),
    ("LSTM", {"proj_size": 3}),
    ("LSTM", {"bias": False, "bidirectional": True, "num_layers": 2}),
    ("GRU", {}),
)
CELLS = (("RNNCell", {}), ("RNNCell", {"bias": False}), ("LSTMCell", {}), ("GRUCell", {}))
OWN = (
    ("LSTM", {"peephole": True}),
    ("LSTM", {"layer_norm": True, "zoneout": 0.2, "recurrent_dropout": 0.3}),
    ("GRU", {"reset_after": False}),
    ("LSTMCell", {"peephole": True}),
    ("LSTMCell", {"layer_norm": True}),
    ("GRUCell", {"reset_after": False, "zoneout": 0.2}),
)
BACKENDS = (None, "cpu", "reference", "aten")


def tensors(results):
    """All of them, in order, out of nested tuples."""
    if isinstance(results, torch.Tensor):
        return [results]
    return [tensor for one in results for tensor in tensors(one)]


def is_cell(name):
    return name.endswith("Cell")


def example(name, dtype=torch.float64, steps=9):
    return torch.randn(*((3, 4) if is_cell(name) else (steps, 3, 4)), dtype=dtype)


def bound(module, backend=None):
    """A module of torch.nn with the forward of its counterpart, as ``accelerate`` swaps it."""
    counterpart = next(
        getattr(nn, cls.__name__)
        for cls in type(module).__mro__
        if cls.__module__ == "torch.nn.modules.rnn"
    )
    module.__dict__["forward"] = types.MethodType(counterpart.forward, module)
    module.__dict__["_pydl_backend"] = backend
    return module


def derived(module, x):
    """Results and the gradients of the input and of every parameter."""
    x = x.clone().requires_grad_()
    results = tensors(module(x))
    loss = sum((r * torch.linspace(-1, 1, r.numel()).view_as(r)).sum() for r in results)
    return [*results, *torch.autograd.grad(loss, [x, *module.parameters()])]


def compare(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


# on torch.nn's own modules


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name, options", LAYERS + CELLS)
def test_serves_a_module_of_torch(name, options, backend):
    theirs = getattr(torch.nn, name)(4, 6, dtype=torch.float64, **options)
    ours, x = bound(copy.deepcopy(theirs), backend), example(name)
    ours.zoneout = ours.peephole = ours.layer_norm = ours.reset_after = 0.9  # a user's own names
    ours.backend = "sox"
    compare(derived(ours, x), derived(theirs, x))


# weights that are no parameters


def each_weight(module):
    return [name for name, _ in list(module.named_parameters()) if name.startswith("weight_")]


def pruned(module):
    for number, name in enumerate(list(dict(module.named_parameters()))):
        torch.manual_seed(number)
        prune.random_unstructured(module, name, 0.4)


def with_mask_of_ones(module):
    for name in list(dict(module.named_parameters())):
        prune.identity(module, name)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def old_weight_norm(module):
    for name in each_weight(module):
        torch.nn.utils.weight_norm(module, name)


def old_spectral_norm(module):
    for number, name in enumerate(each_weight(module)):
        torch.manual_seed(number)
        torch.nn.utils.spectral_norm(module, name)


def weight_norm(module):
    for name in each_weight(module):
        parametrizations.weight_norm(module, name)


def spectral_norm(module):
    for number, name in enumerate(each_weight(module)):
        torch.manual_seed(number)
        parametrizations.spectral_norm(module, name)
    module.eval()  # in training each look at a weight is a step towards its norm


def orthogonal(module):
    parametrizations.orthogonal(module, each_weight(module)[1], use_trivialization=False)


class Doubled(torch.nn.Module):
    def forward(self, weight):
        return 2 * weight


def custom(module):
    for name in list(dict(module.named_parameters())):
        parametrize.register_parametrization(module, name, Doubled())


def weight_drop(module):
    """As language models drop connections: a parameter aside, the weight an attribute."""
    name = each_weight(module)[1]
    raw = getattr(module, name)
    delattr(module, name)
    module.register_parameter(f"{name}_raw", raw)
    setattr(module, name, raw * (torch.arange(raw.numel()).view_as(raw) % 3 > 0))


PARAMETRISATIONS = (
    *(pruned, with_mask_of_ones, old_weight_norm, old_spectral_norm, weight_norm, spectral_norm),
    *(orthogonal, custom, weight_drop),
)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("how", PARAMETRISATIONS, ids=lambda how: how.__name__)
@pytest.mark.parametrize("name, options", LAYERS + CELLS)
def test_under_a_parametrisation(name, options, how):
    for backend, swapped in itertools.product((None, "cpu", "reference"), (True, False)):
        results = []
        for mine in (True, False):
            torch.manual_seed(1)
            if mine and not swapped:
                module = getattr(nn, name)(4, 6, dtype=torch.float64, backend=backend, **options)
            else:
                module = getattr(torch.nn, name)(4, 6, dtype=torch.float64, **options)
                module = bound(module, backend) if mine else module
            how(module)
            torch.manual_seed(3)
            x = example(name)
            results.append(derived(module, x))
        compare(*results)


@pytest.mark.parametrize("backend", (None, "cpu"))
@pytest.mark.parametrize("name, options", LAYERS + CELLS + OWN[:1] + OWN[3:4])
def test_weights_given_for_a_call(name, options, backend):
    """torch.func.functional_call, and replicas, whose weights are plain attributes."""
    module = getattr(nn, name)(4, 6, dtype=torch.float64, backend=backend, **options)
    other = getattr(nn, name)(4, 6, dtype=torch.float64, backend=backend, **options)
    x = example(name)
    expected = tensors(other(x))
    made = torch.func.functional_call(module, dict(other.named_parameters()), (x,))
    compare(tensors(made), expected)
    replica = other._replicate_for_data_parallel()
    replica._parameters = {key: p for key, p in other._parameters.items() if p is None}
    for key, parameter in other.named_parameters():
        setattr(replica, key, parameter.detach().clone())
    compare(tensors(replica(x)), expected)


# results changed in place


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name, options", LAYERS[:1] + LAYERS[2:] + CELLS + OWN)
def test_results_may_be_changed_in_place(name, options, backend):
    """Where torch.nn's may, and where its fused LSTM's may not."""
    for steps in (3, 40):
        module = getattr(nn, name)(4, 6, dtype=torch.float64, backend=backend, **options).eval()
        x = example(name, steps=steps)
        expected = []
        for in_place in (False, True):
            results = tensors(module(x))
            loss = 0
            for number, result in enumerate(results):
                # A cell's tanh is kept by PyTorch's own, too.
                if in_place and not (name == "RNNCell" and backend in (None, "aten")):
                    result = result.mul_(number + 2.0).add_(1)
                else:
                    result = result * (number + 2.0) + 1
                loss = loss + result.square().sum()
            expected.append(torch.autograd.grad(loss, list(module.parameters())))
        compare(*expected)


@pytest.mark.parametrize("name", ("lstm", "gru", "rnn"))
def test_results_of_functions_may_be_changed_in_place(name):
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[name]
    weights = [torch.randn(gates * 5, n, dtype=torch.float64, requires_grad=True) for n in (4, 5)]
    x, grads = torch.randn(6, 3, 4, dtype=torch.float64), []
    for in_place in (False, True):
        results = tensors(getattr(functional, name)(x, *weights, backend="cpu"))
        results = [r.relu_() if in_place else r.relu() for r in results if r.numel()]
        grads.append(torch.autograd.grad(sum(r.square().sum() for r in results), weights))
    compare(*grads)


# devices, dtypes, sizes, words


@pytest.mark.parametrize("backend", (None, "aten", "reference"))
@pytest.mark.parametrize("name, options", LAYERS + CELLS + OWN)
def test_meta(name, options, backend):
    module = getattr(nn, name)(4, 6, device="meta", backend=backend, **options)
    x = example(name, torch.float32)
    expected = tensors(getattr(nn, name)(4, 6, **options)(x))
    for made, result in zip(tensors(module(x.to("meta"))), expected, strict=True):
        assert made.device.type == "meta"
        assert (made.shape, made.dtype) == (result.shape, result.dtype)


@pytest.mark.parametrize("autocast", (False, True))
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name, options", LAYERS + CELLS)
def test_dtypes_of_states(name, options, backend, autocast):
    """What torch.nn refuses is refused, and what it makes of the rest is made."""
    halves = torch.float16, torch.bfloat16
    for dtype, steps in itertools.product((*halves, torch.float64, None), (3, 40)):
        theirs = getattr(torch.nn, name)(4, 6, **options)
        ours = bound(copy.deepcopy(theirs), backend)
        x = example(name, torch.float32, steps)
        hx = None
        if dtype is not None:
            hx = tensors(theirs(x))[1:] if not is_cell(name) else tensors(theirs(x))
            hx = [torch.zeros_like(state, dtype=dtype) for state in hx]
            hx = tuple(hx) if "LSTM" in name else hx[0]
        made = []
        for module in (theirs, ours):
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                try:
                    made.append([(t.dtype, t.shape) for t in tensors(module(x, hx))])
                except RuntimeError as error:
                    unserved = "could not create a primitive" in str(error)
                    made.append("not on this processor" if unserved else "refused")
        if "not on this processor" not in made:
            assert made[0] == made[1], dtype


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ("RNNCell", "LSTMCell", "GRUCell"))
def test_a_cell_without_units(name, backend):
    for module in (getattr(torch.nn, name)(10, 0), getattr(nn, name)(10, 0, backend=backend)):
        x = torch.randn(3, 10, requires_grad=True)
        results = tensors(module(x))
        assert all(result.shape == (3, 0) for result in results)
        sum(result.sum() for result in results).backward()
        assert x.grad.eq(0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ("RNNCell", "LSTMCell", "GRUCell"))
def test_a_cell_that_does_not_know_whether_it_trains(name, backend):
    module = getattr(nn, name)(4, 6, backend=backend)
    del module.training
    assert tensors(module(torch.randn(3, 4)))[0].shape == (3, 6)


WORDS = (
    ((3, 11), None, RuntimeError, "input has inconsistent input_size: got 11 expected 10"),
    ((3, 10), (3, 21), RuntimeError, "hidden0 has inconsistent hidden_size: got 21, expected 20"),
    ((3, 10), (4, 20), RuntimeError, "Input batch size 3 doesn't match hidden0 batch size 4"),
    ((11,), None, RuntimeError, "input has inconsistent input_size: got 11 expected 10"),
    ((2, 3, 10), None, ValueError, "Expected input to be 1D or 2D, got 3D instead"),
    ((3, 10), (1, 3, 20), ValueError, "to be 1D or 2D, got 3D instead"),
)


@pytest.mark.parametrize("x, h, error, message", WORDS)
@pytest.mark.parametrize("name", ("RNNCell", "LSTMCell", "GRUCell"))
def test_words_of_cells(name, x, h, error, message):
    hx = None if h is None else torch.zeros(h)
    hx = (hx, hx) if hx is not None and name == "LSTMCell" else hx
    for backend in BACKENDS:
        with pytest.raises(error, match=message):
            getattr(nn, name)(10, 20, backend=backend)(torch.zeros(x), hx)
    with pytest.raises(error, match=message):
        getattr(torch.nn, name)(10, 20)(torch.zeros(x), hx)


# torch.func


FUNCTIONS = LAYERS[:3] + LAYERS[4:] + CELLS[:1] + CELLS[2:] + OWN


def scalar(module, options=None):
    return lambda x: sum(result.square().sum() for result in tensors(module(x)))


@pytest.mark.parametrize("backend", (None, "cpu", "reference"))
@pytest.mark.parametrize("name, options", FUNCTIONS)
def test_torch_func(name, options, backend):
    """grad, jacrev and the hessian, against autograd by the reference's arithmetic."""
    module = getattr(nn, name)(4, 6, dtype=torch.float64, backend=backend, **options).eval()
    twin = copy.deepcopy(module)
    twin.backend = "aten"
    x = example(name, steps=3)
    x = x[:2] if is_cell(name) else x[:, :2]
    compare([torch.func.grad(scalar(module))(x)], [
        torch.autograd.functional.jacobian(scalar(twin), x)
    ])  # fmt: skip
    rows = torch.func.jacrev(lambda x: tensors(module(x))[0])(x)
    compare([rows], [torch.autograd.functional.jacobian(lambda x: tensors(twin(x))[0], x)])
    second = torch.func.jacrev(torch.func.grad(scalar(module)))(x)
    compare([second], [torch.autograd.functional.hessian(scalar(twin), x)])


@pytest.mark.parametrize("name, options", FUNCTIONS)
def test_forward_mode_and_vmap(name, options):
    """PyTorch's values under auto and by name, of each sample by itself."""
    torch.manual_seed(2)
    module = getattr(nn, name)(4, 6, dtype=torch.float64, **options).eval()
    x = example(name, steps=40)
    run, ones = scalar(module), torch.ones_like(x)
    gradient = torch.autograd.functional.jacobian(run, x)
    batch = torch.stack((x, 2 * x))
    second = torch.autograd.functional.jacobian(run, 2 * x)
    for backend in (None, "cpu"):
        module.backend = backend
        _, tangent = torch.func.jvp(run, (x,), (ones,))
        compare([tangent], [gradient.sum()])
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, ones)
            made = torch.autograd.forward_ad.unpack_dual(run(dual)).tangent
            compare([made], [gradient.sum()])
        compare([torch.vmap(run)(batch)], [torch.stack([run(x), run(2 * x)])])
        compare([torch.vmap(torch.func.grad(run))(batch)], [torch.stack([gradient, second])])


@pytest.mark.parametrize("name, options", LAYERS[:3] + LAYERS[4:] + CELLS[:1] + CELLS[2:])
def test_a_hessian_in_one_call(name, options):
    module = getattr(nn, name)(4, 6, dtype=torch.float64, backend="cpu", **options)
    x = example(name, steps=2)[:2]
    compare(
        [torch.autograd.functional.hessian(scalar(module), x, vectorize=True)],
        [torch.autograd.functional.hessian(scalar(module), x)],
    )


# torch.compile


class Model(torch.nn.Module):
    def __init__(self, library, **options):
        super().__init__()
        self.embedding = torch.nn.Embedding(11, 4)
        self.gru = library.GRU(4, 6, 2, **options)
        self.lstm = library.LSTM(6, 5, **options)
        self.last = torch.nn.Linear(5, 11)

    def forward(self, tokens):
        y = self.last(self.lstm(self.gru(self.embedding(tokens))[0])[0])
        return torch.nn.functional.cross_entropy(y.flatten(0, 1), tokens.flatten())


@pytest.mark.in_turns("dynamic")
@pytest.mark.parametrize("dynamic", (None, True))
@pytest.mark.parametrize(
    "library, options", ((nn, {}), (nn, {"zoneout": 0.3, "layer_norm": True}), (torch.nn, {}))
)
def test_a_training_step_compiles(library, options, dynamic):
    """A model with a GRU and an LSTM, also of changing sizes; torch.nn's own are not compiled."""
    torch._dynamo.reset()
    torch.manual_seed(1)
    model = Model(library, **options).eval()
    twin = copy.deepcopy(model)
    if library is torch.nn:
        for module in (model.gru, model.lstm):
            bound(module)
    compiled = torch.compile(model, fullgraph=library is nn, backend="aot_eager", dynamic=dynamic)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.5) for m in (model, twin)]
    for steps, sequences in ((9, 3), (12, 5), (40, 16)):
        tokens, losses = torch.randint(0, 11, (steps, sequences)), []
        for run, optimizer in zip((compiled, twin), optimizers, strict=True):
            optimizer.zero_grad()
            loss = run(tokens)
            loss.backward()
            optimizer.step()
            losses.append(loss)
        compare(losses[:1], losses[1:])
        compare(*([p.grad for p in m.parameters()] for m in (model, twin)))


def test_use_backend_is_of_a_thread():
    """Layers ask for themselves, at every call."""
    module, x = nn.GRU(64, 64), torch.randn(2, 1, 64)
    with torch.no_grad(), pydl.use_backend("reference"):
        mine = module(x)[0]
    compare([mine], [module(x)[0].detach()])
