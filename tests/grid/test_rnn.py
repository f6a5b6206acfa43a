"""Recurrent layers in one direction: every backend against the reference by the contract's
functions, the reference against PyTorch. The layers are test_rnn_layers.py's."""

import itertools

import pytest
import torch
from contract import DTYPES, INSTRUCTION_SETS, hold, instruction_set, servers
from hypothesis import given, settings
from hypothesis import strategies as st

from pydl import backends, functional
from pydl.contract.rnn import GATES

CELLS = tuple(GATES)
# Reason, cell, sequences, hidden units, batch_sizes or steps, options.
CASES = (
    ("odd sizes", "lstm", 3, 37, 4, {}),
    ("whole vectors, a tile of rows and one more", "lstm", 7, 32, 3, {}),
    ("one sequence", "lstm", 1, 70, 5, {"reverse": True}),
    ("groups of vectors", "lstm", 2, 130, 2, {"peephole": True}),
    ("ragged", "lstm", 4, 9, [4, 4, 2, 1], {"drop": True}),
    ("ragged, backwards", "lstm", 4, 9, [4, 3, 3, 1], {"reverse": True, "zoneout": "mask"}),
    ("a projection", "lstm", 3, 21, [3, 2, 2], {"projection": 5, "zoneout": "mean"}),
    ("everything", "lstm", 5, 19, [5, 5, 2], {"norm": True, "peephole": True, "drop": True}
     | {"zoneout": "mask", "projection": 7, "reverse": True}),
    ("one step", "gru", 2, 18, 1, {}),
    ("many rows", "gru", 13, 16, 3, {"drop": True}),
    ("ragged", "gru", 4, 33, [4, 2, 2, 1], {"reverse": True, "zoneout": "mean"}),
    ("layer norm", "gru", 3, 20, 3, {"norm": True, "zoneout": "mask"}),
    ("odd sizes", "gru_reset_before", 3, 37, 4, {"drop": True}),
    ("groups of vectors", "gru_reset_before", 2, 130, 2, {"reverse": True}),
    ("ragged, layer norm", "gru_reset_before", 4, 11, [4, 4, 1], {"norm": True, "drop": True}),
    ("odd sizes", "rnn_tanh", 3, 70, 3, {"drop": True}),
    ("ragged, layer norm", "rnn_tanh", 4, 9, [4, 2, 1], {"norm": True, "reverse": True}),
    ("ragged", "rnn_relu", 4, 9, [4, 2, 2], {"zoneout": "mask"}),
)  # fmt: skip
IDS = [f"{cell}-{reason}".replace(" ", "-") for reason, cell, *_ in CASES]


def operands(case, dtype, device="cpu", seed=0):
    """The contract's tensors and what follows them, but for ``keep``."""
    _, cell, rows, hidden, sizes, options = case
    generator = torch.Generator().manual_seed(seed)
    gates, lstm = GATES[cell], cell == "lstm"
    out = options.get("projection", hidden)
    tokens = sum(sizes) if isinstance(sizes, list) else sizes * rows

    def normal(wanted, *shape, scale=1.0):
        if not wanted:
            return None
        values = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
        return values.to(torch.bfloat16).to(dtype).to(device)

    def mask(wanted, columns):
        made = (torch.rand(tokens, columns, generator=generator) < 0.4).byte().to(device)
        return made if wanted else None

    norm, zoneout = options.get("norm", False), options.get("zoneout")
    drop = (torch.rand(rows, out, generator=generator) < 0.5).to(dtype).to(device) * 2
    tensors = [
        normal(True, tokens, gates * hidden),
        normal(True, gates * hidden, out, scale=hidden**-0.5),
        normal(True, gates * hidden),
        normal(True, rows, out),
        normal(lstm, rows, hidden),
        normal("projection" in options, out, hidden, scale=hidden**-0.5),
        normal(options.get("peephole"), 3, hidden),
        normal(norm, gates * hidden),
        normal(norm and lstm, hidden),
        normal(norm and lstm, hidden),
        drop if options.get("drop") else None,
        mask(zoneout == "mask", out),
        mask(zoneout == "mask" and lstm, hidden),
        torch.tensor(sizes) if isinstance(sizes, list) else None,
    ]
    part = 0.25 if zoneout else 0.0
    return tensors, (cell, options.get("reverse", False), part, part, 1e-5)


def raised(tensors):
    return [t.double() if t is not None and t.is_floating_point() else t for t in tensors]


def present(t):
    return t if t.numel() else None


def backward_operands(grads, results, tensors):
    y, _, _, c, activated, normalised, rstd, _ = results
    saved = y, present(c), activated, present(normalised), present(rstd)
    return *grads, *saved, tensors[1], *tensors[3:]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=IDS)
@pytest.mark.parametrize("server", servers("rnn"))
def test_against_reference(server, case, dtype):
    """Results, what is kept and every gradient, against the reference in float64 and with the error
    of PyTorch's own operators in this dtype as the yardstick."""
    backend, device = server
    tensors, how = operands(case, dtype, device)
    reference, aten, ours = (
        backends.function(name, "rnn_forward") for name in ("reference", "aten", backend)
    )
    exact = reference(*raised(tensors), *how, True)
    theirs = aten(*tensors, *how, True)
    mine = ours(*tensors, *how, True)
    names = ("y", "h_n", "c_n", "c", "activated", "normalised", "rstd", "unprojected")
    # A layer norm magnifies by this factor what was rounded before it.
    amplified = exact[6].max().item() if exact[6].numel() else 0.0
    for name, a, b, c in zip(names, mine, theirs, exact, strict=True):
        if c.numel():
            hold(a, b, c, name, terms=0 if name == "rstd" else amplified)
    if backend != "aten":  # whose layer norm is another operator where its parts are kept
        for a, b in zip(ours(*tensors, *how, False)[:3], mine, strict=False):
            assert torch.equal(a, b)
    grads = [torch.randn_like(x) if x.ndim == 2 else None for x in mine[:3]]
    backward = backends.function(backend, "rnn_backward")
    mine = backward(*backward_operands(grads, mine, tensors), *how)
    exact = backends.function("reference", "rnn_backward")(
        *backward_operands(raised(grads), exact, raised(tensors)), *how
    )
    # PyTorch has no such function: the reference's rounding of the same kept tensors stands for it.
    theirs = backends.function("aten", "rnn_backward")(
        *backward_operands(grads, theirs, tensors), *how
    )
    for index, (a, b, c) in enumerate(zip(mine, theirs, exact, strict=True)):
        assert a.shape == b.shape and a.dtype == b.dtype
        if c.numel():
            hold(a, b, c, f"gradient {index}", terms=2 * c.abs().max().item())


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_the_references_gradient_is_that_of_its_forward(case):
    tensors, how = operands(case, torch.float64)
    leaves = [t.requires_grad_() if t is not None and i < 10 else t for i, t in enumerate(tensors)]
    function = backends.function("reference", "rnn_forward")
    results = function(*leaves, *how, True)
    ends = [x for x in results[:3] if x.numel()]
    grads = [torch.randn_like(x) for x in ends]
    wanted = [t for t in leaves[:10] if t is not None]
    exact = iter(torch.autograd.grad(ends, wanted, grads))
    exact = [None if t is None else next(exact) for t in leaves[:10]]
    grads = [*grads, None][:3]
    with torch.no_grad():
        given = backward_operands(grads, results, leaves)
        made = backends.function("reference", "rnn_backward")(*given, *how)
    for_gates, _, for_projected, for_h0, for_c0, for_peephole, for_norm, for_c = made
    pairs = [(for_gates, exact[0]), (for_h0, exact[3])]
    pairs += [(for_c0, exact[4])] if exact[4] is not None else []
    pairs += [(for_peephole, exact[6])] if exact[6] is not None else []
    if exact[7] is not None:
        pairs += [(for_norm[0], exact[7]), (for_norm[1], exact[2])]
    if exact[8] is not None:
        pairs += [(for_c[0], exact[8]), (for_c[1], exact[9])]
    if exact[5] is not None:
        pairs += [(for_projected.T @ results[-1], exact[5])]
    for mine, other in pairs:
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("case", CASES[::2], ids=IDS[::2])
def test_every_instruction_set(isa, case):
    with instruction_set(isa):
        test_against_reference(("cpu", "cpu"), case, torch.float32)


@pytest.mark.parametrize("case", CASES[:1] + CASES[7:8] + CASES[13:15], ids=str)
def test_the_same_bits_whatever_the_threads(case):
    case = (*case[:2], 24, 96, [24, 24, 5], case[5])
    tensors, how = operands(case, torch.float32)
    before, seen = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            made = backends.function("cpu", "rnn_forward")(*tensors, *how, True)
            grads = [torch.ones_like(x) if x.ndim == 2 else None for x in made[:3]]
            given = backward_operands(grads, made, tensors)
            seen.append((*made, *backends.function("cpu", "rnn_backward")(*given, *how)))
    finally:
        torch.set_num_threads(before)
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    cell=st.sampled_from(CELLS),
    hidden=st.integers(1, 40),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    reverse=st.booleans(),
    norm=st.booleans(),
)
def test_any_shape(cell, hidden, sizes, reverse, norm):
    sizes = sorted(sizes, reverse=True)
    case = ("", cell, sizes[0], hidden, sizes, {"reverse": reverse, "norm": norm and hidden > 3})
    test_against_reference(("cpu", "cpu"), case, torch.float64)


def layer_of(cell, **options):
    """functional's layer for a cell, its weights and input."""
    torch.manual_seed(3)
    gates, hidden, inputs = GATES[cell], 5, 3
    shapes = [(gates * hidden, inputs), (gates * hidden, hidden), (gates * hidden,)]
    weights = [torch.randn(s, dtype=torch.float64) for s in (*shapes, shapes[2])]
    if cell == "lstm":
        return functional.lstm, weights, options
    if cell.startswith("gru"):
        return functional.gru, weights, options | {"reset_after": cell == "gru"}
    return functional.rnn, weights, options | {"nonlinearity": cell[4:]}


# Interpreted, two cells that have all of the arithmetic between them.
DERIVED = [
    pytest.param(*server.values, cell, id=f"{server.id}-{cell}", marks=server.marks)
    for server in servers("rnn")
    for cell in (("lstm", "gru_reset_before") if server.values[0][0] == "triton" else CELLS)
]


@pytest.mark.parametrize("server, cell", DERIVED)
def test_derivatives(server, cell):
    """gradcheck and gradgradcheck of a layer on ragged sequences, initial states included."""
    backend, device = server
    run, weights, options = layer_of(cell)
    lstm = cell == "lstm"
    x = torch.randn(6, 3, dtype=torch.float64)
    states = [torch.randn(3, 5, dtype=torch.float64) for _ in range(2 if lstm else 1)]
    own = {"peephole": torch.randn(3, 5, dtype=torch.float64)} if lstm else {}
    tensors = [t.to(device).requires_grad_() for t in (x, *weights, *states, *own.values())]

    def function(x, w_ih, w_hh, b_ih, b_hh, *rest):
        hx = rest[:2] if lstm else rest[0]
        given = dict(zip(own, rest[len(states) :], strict=True))
        sizes = torch.tensor([3, 2, 1])
        y, end = run(
            x, w_ih, w_hh, b_ih, b_hh, hx, batch_sizes=sizes, backend=backend, **given, **options
        )
        return y, *(end if lstm else (end,))

    torch.autograd.gradcheck(function, tensors, fast_mode=True)
    torch.autograd.gradgradcheck(function, tensors, fast_mode=True)


@pytest.mark.parametrize("server", servers("rnn"))
def test_operators_are_registered_correctly(server):
    backend, device = server
    ops, tests = torch.ops.pydl, ("test_schema", "test_faketensor")
    for case in (CASES[7], CASES[10]):
        tensors, how = operands(case, torch.float32, device)
        torch.library.opcheck(
            ops.rnn_forward.default, (*tensors, *how, True, backend), test_utils=tests
        )
        made = ops.rnn_forward(*tensors, *how, True, backend)
        grads = [torch.randn_like(x) if x.ndim == 2 else None for x in made[:3]]
        given = (*backward_operands(grads, made, tensors), *how, backend)
        torch.library.opcheck(ops.rnn_backward.default, given, test_utils=tests)
    x, q, h = torch.randn(3, 12), torch.randn(3, 12), torch.randn(3, 4)
    given = (x, q, h, None, None, "gru", True, backend)
    torch.library.opcheck(ops.rnn_cell_forward.default, given, test_utils=tests)
    a = ops.rnn_cell_forward(*given)[2]
    given = (h, None, a, h, None, None, None, "gru", backend)
    torch.library.opcheck(ops.rnn_cell_backward.default, given, test_utils=tests)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cell, peeps", [(c, False) for c in CELLS[:4]] + [("lstm", True)])
@pytest.mark.parametrize("server", servers("rnn_cell"))
def test_a_step(server, cell, peeps, dtype):
    """The fused cell against the reference, forward and backward."""
    backend, device = server
    gates, lstm, rows, hidden = GATES[cell], cell == "lstm", 5, 37
    torch.manual_seed(0)

    def normal(wanted, *shape):
        return torch.randn(shape).to(torch.bfloat16).to(dtype).to(device) if wanted else None

    given = [
        *(normal(True, rows, gates * hidden) for _ in range(2)),
        *(normal(cell == "gru", rows, hidden), normal(lstm, rows, hidden)),
        normal(peeps, 3, hidden),
    ]
    names = "reference", "aten", backend
    forward = [backends.function(name, "rnn_cell_forward") for name in names]
    exact = forward[0](*raised(given), cell, True)
    theirs, mine = forward[1](*given, cell, True), forward[2](*given, cell, True)
    for a, b, c in zip(mine, theirs, exact, strict=True):
        if c.numel():
            hold(a, b, c, "a step")
    grads = normal(True, rows, hidden), normal(lstm, rows, hidden)
    backward = [backends.function(name, "rnn_cell_backward") for name in names]

    def arguments(grads, results, given):
        return *grads, results[2], *given[2:4], present(results[1]), given[4], cell

    exact = backward[0](*arguments(raised(grads), exact, raised(given)))
    theirs = backward[1](*arguments(grads, theirs, given))
    mine = backward[2](*arguments(grads, mine, given))
    for a, b, c in zip(mine, theirs, exact, strict=True):
        if c.numel():
            hold(a, b, c, "its gradient", terms=2 * c.abs().max().item())


BAD = (
    ({"weight_hh": torch.zeros(12, 4)}, "Expected weight_hh size"),
    ({"bias_ih": torch.zeros(5)}, "Expected bias_ih size"),
    ({"bias_ih": None}, "bias_ih and bias_hh should be given both or neither"),
    ({"hx": (torch.zeros(2, 3), torch.zeros(1, 3))}, r"Expected hx\[1\] size"),
    ({"input": torch.zeros(4, 2)}, "input must have 3 dimensions, got 2"),
    ({"input": torch.zeros(0, 2, 2)}, "Expected sequence length to be larger than 0"),
    ({"weight_ih": torch.zeros(12, 2).double()}, "should be the same"),
    ({"input": torch.zeros(4, 2), "batch_sizes": torch.tensor([2, 3])}, "never grow"),
    ({"input": torch.zeros(4, 2), "batch_sizes": torch.tensor([2, 1])}, "add up to 3"),
    ({"norm_ih": torch.ones(12)}, "norm_ih and norm_hh should be given both or neither"),
)


@pytest.mark.parametrize("change, message", BAD)
def test_bad_input(change, message):
    good = {"input": torch.zeros(4, 2, 2), "weight_ih": torch.zeros(12, 2)}
    good |= {"weight_hh": torch.zeros(12, 3), "bias_ih": torch.zeros(12)}
    good |= {"bias_hh": torch.zeros(12)}
    for backend in ("reference", "aten", "cpu"):
        with pytest.raises(RuntimeError, match=message):
            functional.lstm(**good | change, backend=backend)


def test_what_saturates_and_what_is_not_a_number():
    """Gates of any size are exact at their limits; NaN stays in its sequence."""
    tensors, how = operands(("", "lstm", 3, 20, 2, {}), torch.float32)
    tensors[0][:, ::3] = torch.tensor([1e4, -1e4, torch.inf]).repeat(20)[
        : tensors[0][:, ::3].shape[1]
    ]
    tensors[0][1, 5] = torch.nan
    mine = backends.function("cpu", "rnn_forward")(*tensors, *how, True)
    exact = backends.function("reference", "rnn_forward")(*raised(tensors), *how, True)
    for a, b in zip(mine, exact, strict=True):
        torch.testing.assert_close(a.double(), b.double(), equal_nan=True, rtol=1e-5, atol=1e-6)


def test_combinations_of_options_agree():
    """Every subset of an LSTM's options, native against the reference."""
    options = [("norm", True), ("peephole", True), ("drop", True), ("projection", 6)]
    for chosen in itertools.product((False, True), repeat=len(options)):
        picked = dict(itertools.compress(options, chosen))
        case = ("", "lstm", 4, 17, [4, 3, 1], picked | {"zoneout": "mask"})
        test_against_reference(("cpu", "cpu"), case, torch.float64)
