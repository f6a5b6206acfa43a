"""RNN, LSTM, GRU and their cells as layers: against torch.nn's, packed and unbatched, what they
have beyond it, swapped and compiled."""

import copy
import io
import itertools

import pytest
import torch
from contract import hold
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import pydl
from pydl import functional, nn

KINDS = (
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu"}),
    ("LSTM", {}),
    ("LSTM", {"proj_size": 3}),
    ("GRU", {}),
)
OWN = (
    ("LSTM", {"peephole": True}),
    ("LSTM", {"layer_norm": True}),
    ("LSTM", {"zoneout": (0.2, 0.4), "proj_size": 3}),
    ("LSTM", {"recurrent_dropout": 0.3, "peephole": True, "layer_norm": True, "zoneout": 0.1}),
    ("GRU", {"reset_after": False}),
    ("GRU", {"reset_after": False, "layer_norm": True, "recurrent_dropout": 0.5}),
    ("GRU", {"layer_norm": True, "zoneout": 0.3}),
    ("RNN", {"layer_norm": True, "recurrent_dropout": 0.2}),
)
LENGTHS = torch.tensor([2, 5, 4])


def ends(states):
    return states if isinstance(states, tuple) else (states,)


def run(module, x, hx=None, lengths=None):
    """Outputs and the gradients of the input, the states and every parameter."""
    x = x.clone().requires_grad_()
    hx = None if hx is None else tuple(h.clone().requires_grad_() for h in hx)
    given = x if lengths is None else pack_padded_sequence(x, lengths, enforce_sorted=False)
    y, last = module(given, hx if hx is None or len(hx) == 2 else hx[0])
    y = y if lengths is None else y.data
    outputs = [y, *ends(last)]
    grads = [torch.cos(torch.arange(o.numel(), dtype=o.dtype)).view(o.shape) for o in outputs]
    return [
        *outputs, *torch.autograd.grad(outputs, [x, *(hx or ()), *module.parameters()], grads)
    ]  # fmt: skip


def twins(name, dtype=torch.float32, backend=None, **arguments):
    torch.manual_seed(1)
    ours = getattr(nn, name)(4, 6, dtype=dtype, backend=backend, **arguments)
    torch.manual_seed(1)
    return ours, getattr(torch.nn, name)(4, 6, dtype=dtype, **arguments)


@pytest.mark.parametrize("backend", ("reference", "cpu"))
@pytest.mark.parametrize("name, options", KINDS)
def test_is_torchs(name, options, backend):
    """Layers, directions, batch_first, packed: outputs, last states, every gradient."""
    shapes = itertools.product((False, True), (1, 2), (False, True), (None, LENGTHS))
    for bidirectional, layers, batch_first, lengths in shapes:
        if lengths is not None and batch_first:
            continue
        more = {"bidirectional": bidirectional, "num_layers": layers, "batch_first": batch_first}
        ours, theirs = twins(name, torch.float64, backend, **options, **more)
        x = torch.randn((3, 5, 4) if batch_first else (5, 3, 4), dtype=torch.float64)
        count = layers * (2 if bidirectional else 1)
        h = torch.randn(count, 3, options.get("proj_size", 6), dtype=torch.float64)
        c = torch.randn(count, 3, 6, dtype=torch.float64)
        for hx in (None, (h, c) if name == "LSTM" else (h,)):
            for a, b in zip(run(ours, x, hx, lengths), run(theirs, x, hx, lengths), strict=True):
                torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16), ids=str)
@pytest.mark.parametrize("name, options", KINDS)
def test_halves(name, options, dtype):
    ours, theirs = twins(name, dtype, "cpu", **options)
    x = torch.randn(7, 3, 4).to(dtype)
    exact = run(copy.deepcopy(theirs).double(), x.double())
    for a, b, c in zip(run(ours, x), run(theirs, x), exact, strict=True):
        hold(a, b, c, name, terms=4 * c.abs().max().item())


@pytest.mark.parametrize("name, options", OWN)
def test_what_torch_has_not(name, options):
    """Native and reference agree, masks of one seed included; packed is each sequence alone."""
    for training, bidirectional in itertools.product((False, True), repeat=2):
        torch.manual_seed(2)
        more = {"num_layers": 2, "bidirectional": bidirectional, "dtype": torch.float64}
        layer = getattr(nn, name)(4, 6, **options, **more).train(training)
        for parameter in layer.parameters():  # norms begin as ones and zeros
            torch.nn.init.normal_(parameter, 0.1, 0.4)
        x, results = torch.randn(5, 3, 4, dtype=torch.float64), []
        for backend in ("reference", "cpu", "aten"):
            layer.backend = backend
            torch.manual_seed(5)
            results.append(run(layer, x, lengths=LENGTHS))
        for others in results[1:]:
            for a, b in zip(results[0], others, strict=True):
                torch.testing.assert_close(a, b)
        if training:
            continue
        packed = pack_padded_sequence(x, LENGTHS, enforce_sorted=False)
        y, last = layer(packed)
        y, _ = pad_packed_sequence(y)
        for sequence, length in enumerate(LENGTHS):
            alone, end = layer(x[:length, sequence])
            torch.testing.assert_close(y[:length, sequence], alone)
            for a, b in zip(ends(last), ends(end), strict=True):
                torch.testing.assert_close(a[:, sequence], b)


@pytest.mark.parametrize("backend", ("reference", "cpu", "aten"))
@pytest.mark.parametrize("name, options", KINDS[:3] + KINDS[4:] + OWN[:2] + OWN[4:5] + OWN[6:7])
def test_a_loop_of_cells_is_the_layer(name, options, backend):
    layer = getattr(nn, name)(4, 6, **options, dtype=torch.float64, backend=backend).eval()
    cell = getattr(nn, f"{name}Cell")(4, 6, **options, dtype=torch.float64, backend=backend).eval()
    cell.load_state_dict({n.removesuffix("_l0"): p for n, p in layer.state_dict().items()})
    x, state, outputs = torch.randn(5, 3, 4, dtype=torch.float64), None, []
    for step in x:
        state = cell(step, state)
        outputs.append(ends(state)[0])
    y, last = layer(x)
    torch.testing.assert_close(torch.stack(outputs), y)
    for a, b in zip(ends(state), ends(last), strict=True):
        torch.testing.assert_close(a, b[0])


@pytest.mark.parametrize("name", ("RNNCell", "LSTMCell", "GRUCell"))
@pytest.mark.parametrize("backend", ("reference", "cpu", None))
def test_cells_are_torchs(name, backend):
    ours, theirs = twins(name, backend=backend)
    for x in (torch.randn(3, 4), torch.randn(4)):
        h = torch.randn(*x.shape[:-1], 6)
        hx = (h, torch.randn_like(h)) if name == "LSTMCell" else h
        for given in (None, hx):
            mine, other = (ends(module(x, given)) for module in (ours, theirs))
            grads = [torch.randn_like(a) for a in mine]
            mine, other = (
                [*made, *torch.autograd.grad(made, list(module.parameters()), grads)]
                for made, module in ((mine, ours), (other, theirs))
            )
            for a, b in zip(mine, other, strict=True):
                torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ("LSTMCell", "GRUCell", "RNNCell"))
def test_double_backward_of_cells(name):
    cell = getattr(nn, name)(2, 3, dtype=torch.float64, backend="cpu")
    x, h = torch.randn(2, 2, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    hx = (h, torch.randn_like(h)) if name == "LSTMCell" else (h,)
    tensors = [x.requires_grad_(), *(t.requires_grad_() for t in hx)]

    def function(x, *hx):
        return ends(cell(x, hx if len(hx) == 2 else hx[0]))

    torch.autograd.gradgradcheck(function, tensors, fast_mode=True)


@pytest.mark.parametrize(
    "name, options, backend",
    [(*kind, None) for kind in (KINDS[0], KINDS[2], KINDS[4])]
    + [(*kind, "cpu") for kind in (*KINDS[3:4], *OWN[3:6])],
)
def test_compiles_whole(name, options, backend):
    """Where torch.compile refuses torch.nn's own; one graph, forward and backward."""
    torch._dynamo.reset()
    options = {**options, "dtype": torch.float64, "bidirectional": True}
    layer = getattr(nn, name)(4, 6, **options, backend=backend).eval()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(5, 3, 4, dtype=torch.float64)
    for a, b in zip(run(compiled, x), run(layer, x), strict=True):
        torch.testing.assert_close(a, b)
    if "peephole" in options:
        for a, b in zip(run(compiled, x, None, LENGTHS), run(layer, x, None, LENGTHS), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name, options", (("GRU", {}), ("LSTM", {"peephole": True})))
def test_sequences_that_came_sorted_compile_whole(name, options):
    """How many there are is then known only from the lengths."""
    torch._dynamo.reset()
    layer = getattr(nn, name)(4, 6, **options)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for lengths in ([9, 8, 8], [9, 3], [8, 4, 2, 1]):
        x = torch.randn(9, len(lengths), 4, requires_grad=True)
        results = []
        for module in (compiled, layer):
            y = module(pack_padded_sequence(x, torch.tensor(lengths)))[0].data
            results.append((y, *torch.autograd.grad(y.sum(), [x, *layer.parameters()])))
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b)


def test_auto_leaves_short_sequences_to_pytorch(monkeypatch):
    served = []
    monkeypatch.setattr(torch.nn.GRU, "forward", lambda self, x, hx: served.append(len(x)))
    layer = nn.GRU(64, 64)
    for steps in (1, 7, 8, 20):
        layer(torch.randn(steps, 16, 64))
    assert served == [1, 7]
    with pydl.use_backend("cpu"):
        layer(torch.randn(1, 16, 64))
    assert served == [1, 7]


@pytest.mark.parametrize("name, options", KINDS)
def test_is_its_twin(name, options):
    """Same weights for a seed, state_dict, representation; swapped and back."""
    ours, theirs = twins(name, **options)
    assert str(ours) == str(theirs)
    assert all(
        torch.equal(a, b)
        for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
    )
    saved = io.BytesIO()
    torch.save(ours.state_dict(), saved)
    saved.seek(0)
    theirs.load_state_dict(torch.load(saved))
    x = torch.randn(5, 3, 4)
    expected = run(theirs, x)
    model = pydl.accelerate(torch.nn.Sequential(theirs))
    assert [after for _, _, after in pydl.report(model).swapped] == [f"pydl.nn.{name}"]
    with pydl.use_backend("cpu"):
        for module in (model[0], copy.deepcopy(model)[0]):
            assert type(module) is getattr(torch.nn, name)
            for a, b in zip(run(module, x), expected, strict=True):
                torch.testing.assert_close(a, b)
    torch.testing.assert_close(pydl.restore(model)(x)[0], expected[0])


def test_options_are_said():
    layer = nn.LSTM(2, 3, peephole=True, layer_norm=True, zoneout=(0.1, 0.2), backend="cpu")
    assert str(layer) == (
        "LSTM(2, 3, peephole=True, layer_norm=True, zoneout=(0.1, 0.2), backend='cpu')"
    )
    assert str(nn.GRUCell(2, 3, reset_after=False)) == "GRUCell(2, 3, reset_after=False)"
    assert layer.norm_ih_l0.eq(1).all() and layer.bias_c_l0.eq(0).all()
    assert set(layer.state_dict()) == {
        f"{n}_l0"
        for n in (
            *("weight_ih", "weight_hh", "bias_ih", "bias_hh"),
            *("weight_peephole", "norm_ih", "norm_hh", "norm_c", "bias_c"),
        )
    }


def test_reset_before_is_the_lectures():
    """n = tanh(W x + U (r h)), h' = (1 - z) n + z h, by hand."""
    torch.manual_seed(0)
    cell = nn.GRUCell(2, 3, reset_after=False, dtype=torch.float64, backend="cpu")
    x, h = torch.randn(4, 2, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    w, u = cell.weight_ih.chunk(3), cell.weight_hh.chunk(3)
    b = (cell.bias_ih + cell.bias_hh).chunk(3)
    r = torch.sigmoid(x @ w[0].T + h @ u[0].T + b[0])
    z = torch.sigmoid(x @ w[1].T + h @ u[1].T + b[1])
    n = torch.tanh(x @ w[2].T + (r * h) @ u[2].T + b[2])
    torch.testing.assert_close(cell(x, h), (1 - z) * n + z * h)


def test_zoneout_and_dropout_keep_what_they_say():
    layer = nn.LSTM(3, 50, zoneout=(1.0, 1.0), backend="cpu")
    hx = torch.randn(1, 2, 50), torch.randn(1, 2, 50)
    _, last = layer(torch.randn(4, 2, 3), hx)
    assert torch.equal(last[0], hx[0]) and torch.equal(last[1], hx[1])
    layer = nn.RNN(3, 400, zoneout=0.3, backend="cpu")
    y, _ = layer(torch.randn(2, 1, 3))
    assert abs(y[0].eq(0).float().mean() - 0.3) < 0.1
    layer = nn.RNN(3, 5, recurrent_dropout=1.0, backend="cpu")
    plain = functional.rnn(
        x := torch.randn(4, 2, 3), *(p if "hh" not in n else torch.zeros_like(p)
                                     for n, p in layer.named_parameters() if "bias" not in n),
        bias_ih=layer.bias_ih_l0, bias_hh=layer.bias_hh_l0, backend="cpu",
    )  # fmt: skip
    torch.testing.assert_close(layer(x)[0], plain[0])


@pytest.mark.parametrize("name", ("LSTM", "GRU"))
def test_two_thousand_steps_do_not_drift(name):
    ours, theirs = twins(name, backend="cpu")
    x = torch.randn(2000, 2, 4)
    with torch.no_grad():
        exact = copy.deepcopy(theirs).double()(x.double())[0]
        hold(ours(x)[0], theirs(x)[0], exact, name)


def test_frozen_weights_get_no_gradient():
    layer = nn.GRU(4, 6, backend="cpu")
    layer.weight_hh_l0.requires_grad_(False)
    x = torch.randn(5, 3, 4, requires_grad=True)
    layer(x)[0].sum().backward()
    assert layer.weight_hh_l0.grad is None and layer.weight_ih_l0.grad is not None
    assert x.grad is not None


BAD = (
    (torch.zeros(2), None, ValueError, "Expected input to be 2D or 3D, got 1D instead"),
    (torch.zeros(5, 3, 3), None, RuntimeError, "input.size.-1. must be equal to input_size"),
    (torch.zeros(0, 3, 4), None, RuntimeError, "sequence length to be larger than 0"),
    (torch.zeros(5, 3, 4).double(), None, ValueError, "does not match weight dtype"),
    (torch.zeros(5, 3, 4), (torch.zeros(1, 6),) * 2, RuntimeError, "hx and cx should also be 3-D"),
    (torch.zeros(5, 4), (torch.zeros(1, 1, 6),) * 2, RuntimeError, "should also be 2-D"),
    (torch.zeros(5, 3, 4), (torch.zeros(1, 2, 6),) * 2, RuntimeError, "Expected hidden.0. size"),
)


@pytest.mark.parametrize("x, hx, error, message", BAD)
def test_bad_input(x, hx, error, message):
    """What torch.nn says, on every backend."""
    for backend in (None, "reference", "cpu"):
        with pytest.raises(error, match=message):
            nn.LSTM(4, 6, backend=backend)(x, hx)
    with pytest.raises(error):
        torch.nn.LSTM(4, 6)(x, hx)


def test_bad_options():
    with pytest.raises(ValueError, match="zoneout should be a probability"):
        nn.GRU(2, 3, zoneout=1.5)
    with pytest.raises(ValueError, match="Unknown nonlinearity 'sine'"):
        nn.RNN(2, 3, nonlinearity="sine")
    for module in (nn, torch.nn):
        for name in ("GRU", "RNN"):
            with pytest.raises(ValueError, match="proj_size argument is only supported for LSTM"):
                getattr(module, name)(2, 3, proj_size=1)
            with pytest.raises(TypeError, match="unexpected keyword argument 'sequence_first'"):
                getattr(module, name)(2, 3, sequence_first=True)
