"""Operators on NumPy arrays: each against the reference, on the tables of its family, and what is
true of all: no PyTorch, no copy, which arrays are taken and which are refused."""

import array
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import test_batch_norm
import test_conv
import test_depthwise
import test_lrn
import test_pool
import test_pool_adaptive
import test_pool_lp
import test_softmax
import torch
from contract import Case, hold, operand

import pydl.array
from pydl import extension, functional
from pydl.array.library import Library

DTYPES = (torch.float32, torch.float64, torch.float16)
ONE_AXIS = Case("one axis", (2, 4, 11), {"padding": "same", "dilation": 3}, weight=(6, 4, 2))
LOPSIDED = Case("one more on the right", (1, 3, 7, 8), {"padding": "same"}, weight=(2, 3, 4, 2))
VOLUMES = Case(
    "volumes", (2, 3, 4, 6, 5), {"stride": (1, 2, 1), "padding": 1}, weight=(4, 3, 2, 3, 3)
)
ROWS = [
    *test_pool.ALL,
    *test_pool_lp.CASES,
    *test_pool_adaptive.ROWS,
    *(("local_response_norm", case) for case in test_lrn.CASES),
    *((name, case) for name in test_softmax.FUNCTIONS for case in test_softmax.CASES),
    *(("conv2d", case) for case in test_conv.CASES),
    ("conv1d", ONE_AXIS),
    ("conv2d", LOPSIDED),
    ("conv3d", VOLUMES),
    *(
        (f"conv{len(case.shape) - 2}d", case)
        for case in test_depthwise.CASES[::3]
        if "groups" in case.arguments or case.weight[0] == case.shape[1]
    ),
]


def of_row(name: str, case: Case, dtype: torch.dtype) -> tuple[list[torch.Tensor], dict]:
    """The operands of a row and its other arguments."""
    given = [operand(case, dtype, "cpu")]
    keywords = dict(case.arguments)
    if name.startswith("conv"):
        given += [
            operand(case, dtype, "cpu", case.weight, seed=2),
            operand(case, dtype, "cpu", case.weight[:1], seed=3),
        ]
        if case.weight[1] == 1 and case.shape[-len(case.weight) + 1] > 1:
            keywords.setdefault("groups", case.shape[-len(case.weight) + 1])
    return given, keywords


def three(name: str, case: Case, dtype: torch.dtype, run: Any) -> tuple[torch.Tensor, ...]:
    """What ``run`` makes of a row, what PyTorch makes of it (None where it does not), and the
    reference in float64."""
    given, keywords = of_row(name, case, dtype)
    try:
        theirs = getattr(torch.nn.functional, name)(*given, **keywords)
    except NotImplementedError:
        theirs = None
    exact = getattr(functional, name)(
        *(one.double() for one in given), **keywords, backend="reference"
    )
    return run(getattr(pydl.array, name), given, keywords), theirs, exact


def by_numpy(function: Any, given: list[torch.Tensor], keywords: dict) -> torch.Tensor:
    """With arrays in the memory of the tensors, nobody's to write to."""
    arrays = [one.numpy() for one in given]
    for one in arrays:
        one.flags.writeable = False
    return torch.from_numpy(function(*arrays, **keywords))


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results start as NaN, or as an absurd integer."""
    allocate = Library.empty

    def empty(*args: Any, **kwargs: Any) -> Any:
        made = allocate(*args, **kwargs)
        made[...] = np.nan if made.dtype.kind == "f" else 119
        return made

    monkeypatch.setattr(Library, "empty", empty)


# against the reference


@pytest.mark.native
@pytest.mark.in_turns("dtype")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name, case", ROWS, ids=str)
def test_against_reference(name, case, dtype):
    ours, theirs, exact = three(name, case, dtype, by_numpy)
    hold(ours, theirs, exact, name)


def three_of_batch_norm(case: Case, dtype: torch.dtype, convert: Any) -> tuple[Any, ...]:
    """Ours of operands made by ``convert``, PyTorch's, and the reference's in float64."""
    (x, weight, bias, residual), running = test_batch_norm.operands(case, dtype, "cpu")
    how = {k: v for k, v in case.arguments.items() if k in ("activation", "negative_slope")}
    how = {"activation": "none", "eps": 1e-3} | how

    def run(function, convert, **more):
        given = [one if one is None else convert(one) for one in (x, *running, weight, bias)]
        added = None if residual is None else convert(residual)
        return function(*given, **how, residual=added, **more)

    return (
        run(pydl.array.batch_norm, convert),
        run(functional.batch_norm_act, torch.Tensor.clone, backend="aten"),
        run(functional.batch_norm_act, torch.Tensor.double, backend="reference"),
    )


@pytest.mark.native
@pytest.mark.in_turns("dtype")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", test_batch_norm.CASES, ids=str)
def test_batch_norm_against_reference(case, dtype):
    ours, theirs, exact = three_of_batch_norm(case, dtype, torch.Tensor.numpy)
    hold(torch.from_numpy(ours), theirs, exact, "batch_norm")


def test_batch_norm_of_halves_takes_statistics_in_float32():
    case = test_batch_norm.CASES[0]
    (x, weight, bias, _), running = test_batch_norm.operands(
        case, torch.float16, "cpu", torch.float32
    )
    given = x, *running, weight, bias
    ours = pydl.array.batch_norm(*(one.numpy() for one in given))
    theirs = functional.batch_norm(*given, backend="cpu")
    assert torch.equal(torch.from_numpy(ours), theirs)


RAGGED = np.array([4, 3, 3, 1])
LAYERS = (
    ("lstm", 4, {}),
    ("lstm", 4, {"reverse": True, "hx": True}),
    ("lstm", 4, {"weight_hr": (3, 5), "peephole": (3, 5), "batch_sizes": RAGGED}),
    ("gru", 3, {"hx": True, "bias": False}),
    ("gru", 3, {"reset_after": False, "batch_sizes": RAGGED, "reverse": True}),
    ("rnn", 1, {"hx": True}),
    ("rnn", 1, {"nonlinearity": "relu"}),
)


def layer(name: str, gates: int, options: dict, dtype: torch.dtype) -> tuple[list, dict]:
    """A recurrent layer's tensors and keywords: 5 units, 4 sequences of 6 inputs each."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    keywords = dict(options)
    for shaped in ("weight_hr", "peephole"):
        if shaped in keywords:
            keywords[shaped] = normal(*keywords[shaped])
    projected = 3 if "weight_hr" in options else 5
    x = normal(RAGGED.sum(), 6) if "batch_sizes" in options else normal(7, 4, 6)
    given = [x, normal(gates * 5, 6), normal(gates * 5, projected)]
    if keywords.pop("bias", True):
        given += normal(gates * 5), normal(gates * 5)
    if keywords.pop("hx", False):
        h, c = normal(4, projected), normal(4, 5)
        keywords["hx"] = (h, c) if name == "lstm" else h
    return given, keywords


def converted(value: Any, convert: Any) -> Any:
    """The tensors in it."""
    if isinstance(value, torch.Tensor):
        return convert(value)
    return tuple(map(convert, value)) if isinstance(value, tuple) else value


def of_layer(function: Any, given: list, keywords: dict, convert: Any, **more: Any) -> list:
    """y and the states, in a row."""
    keywords = {name: converted(value, convert) for name, value in keywords.items()}
    y, states = function(*map(convert, given), **keywords, **more)
    return [y, *(states if isinstance(states, tuple) else [states])]


def three_of_layer(
    name: str, gates: int, options: dict, dtype: torch.dtype, convert: Any
) -> list[tuple[Any, ...]]:
    """Each result of a layer: ours of operands made by ``convert``, PyTorch's, and the reference's
    in float64."""
    given, keywords = layer(name, gates, options, dtype)
    tensors = dict(keywords)
    if "batch_sizes" in keywords:
        tensors["batch_sizes"] = torch.from_numpy(RAGGED)

    def raised(tensor):
        return tensor.double() if tensor.is_floating_point() else tensor

    ours = of_layer(getattr(pydl.array, name), given, keywords, convert)
    function = getattr(functional, name)
    theirs = of_layer(function, given, tensors, torch.Tensor.clone, backend="aten")
    exact = of_layer(function, given, tensors, raised, backend="reference")
    return list(zip(ours, theirs, exact, strict=True))


@pytest.mark.native
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name, gates, options", LAYERS)
def test_recurrent_layers_against_reference(name, gates, options, dtype):
    for mine, *others in three_of_layer(name, gates, options, dtype, torch.Tensor.numpy):
        hold(torch.from_numpy(mine), *others, name)


@pytest.mark.parametrize("name", ("max_pool2d", "adaptive_max_pool2d"))
@pytest.mark.parametrize("shape", ((2, 3, 9, 8), (3, 9, 8)))
def test_indices_are_pytorchs(name, shape):
    x = (torch.randn(shape) * 2).round()
    y, index = getattr(pydl.array, name)(x.numpy(), 3, return_indices=True)
    theirs = getattr(torch.nn.functional, name)(x, 3, return_indices=True)
    assert torch.equal(torch.from_numpy(y), theirs[0])
    assert torch.equal(torch.from_numpy(index), theirs[1])


@pytest.mark.parametrize("norm", (float("inf"), float("-inf")))
def test_infinite_norms(norm):
    x = torch.randn(2, 3, 9, 8)
    ours = pydl.array.lp_pool2d(x.numpy(), norm, 3, 2)
    theirs = functional.lp_pool2d(x, norm, 3, 2, backend="reference")
    assert torch.equal(torch.from_numpy(ours), theirs)


# without PyTorch


def test_nothing_imports_pytorch():
    code = (
        "import sys, numpy as np, pydl, pydl.array as a\n"
        "x, w = np.ones((2, 4, 8, 8), 'f'), np.ones((4, 4, 3, 3), 'f')\n"
        "v, one = np.ones(4, 'f'), np.ones((16, 4), 'f')\n"
        "y = a.batch_norm(a.conv2d(x, w, padding=1), v, v)\n"
        "y = a.softmax(a.local_response_norm(a.max_pool2d(y, 2), 3), 1)\n"
        "a.conv2d(x, w[:, :1], groups=4), a.lstm(x[0], np.ones((16, 8), 'f'), one)\n"
        "assert pydl.array is a and not {'torch', 'cupy'} & sys.modules.keys()\n"
        "import torch\n"
        "torch.set_num_threads(3)\n"
        "print(pydl._C.cpu.max_threads(), bool(torch.isfinite(torch.ones(4) / 3).all()))\n"
        "maps = {line.split(maxsplit=5)[5] for line in open('/proc/self/maps') if 'gomp' in line}\n"
        "print(len(maps))\n"
        "print(pydl.functional.max_pool2d(torch.from_numpy(x), 2, backend='cpu').sum().item())\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    # PyTorch, imported later, finds the OpenMP run time that is there, and sets its threads.
    assert ran.stdout.split() == ["3", "True", "1", "128.0"], ran.stderr


# which arrays are taken


def is_taken(function: Any, given: Any, plain: np.ndarray) -> None:
    np.testing.assert_array_equal(function(given), function(plain))


LIES = {
    "every second": lambda x: x[::2, :, ::2],
    "backwards": lambda x: x[::-1, :, ::-1, ::-1],
    "Fortran's order": np.asfortranarray,
    "broadcast": lambda x: np.broadcast_to(x[:1, :1], x.shape),
    "transposed": lambda x: x.transpose(1, 0, 3, 2),
    "channels last": lambda x: np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1),
    "unaligned": lambda x: np.frombuffer(b"." + x.tobytes(), x.dtype, offset=1).reshape(x.shape),
}


@pytest.mark.native
@pytest.mark.parametrize("lies", LIES)
@pytest.mark.parametrize(
    "function",
    (
        lambda x: pydl.array.max_pool2d(x, 3, 2, 1),
        lambda x: pydl.array.adaptive_avg_pool2d(x, 3),
        lambda x: pydl.array.local_response_norm(x, 3),
        lambda x: pydl.array.softmax(x, 1),
        lambda x: pydl.array.conv2d(x, x[:2, :, :3, :3]),
        lambda x: pydl.array.conv2d(x, x[:1, :, :3, :3].swapaxes(0, 1), groups=x.shape[1]),
        lambda x: pydl.array.batch_norm(x, *abs(x[:1, :, 0, 0].repeat(2, 0)), residual=x),
        lambda x: pydl.array.rnn(x[0], x[0, 0], x[0, 1, :, : x.shape[2]]),
    ),
    ids=("max", "adaptive", "lrn", "softmax", "conv", "depthwise", "norm", "rnn"),
)
def test_however_it_lies(function, lies):
    x = np.random.default_rng(0).standard_normal((4, 4, 8, 8), np.float32)
    view = LIES[lies](x)
    before = view.copy()
    ours, plain = function(view), function(np.ascontiguousarray(before))
    for a, b in zip(ours, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(view, before)


def test_dense_operands_are_read_where_they_are_and_results_lie_as_they_do():
    library, x = Library("cpu", np), np.ones((2, 6, 5, 4), np.float32)
    last = LIES["channels last"](x)
    for one in (x, last):
        one.flags.writeable = False
        assert library.dense(one) is one
    for function in (
        lambda x: pydl.array.avg_pool2d(x, 2),
        lambda x: pydl.array.local_response_norm(x, 3),
        lambda x: pydl.array.conv2d(x, np.ones((6, 1, 3, 3), "f"), groups=6),
        lambda x: pydl.array.batch_norm(x, np.ones(6, "f"), np.ones(6, "f"), residual=x.copy()),
    ):
        assert function(x).flags.c_contiguous
        assert np.moveaxis(function(last), 1, -1).flags.c_contiguous


def test_what_shares_its_memory_is_taken(tmp_path):
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 4))
    np.save(tmp_path / "x.npy", x)

    def function(x):
        return pydl.array.max_pool2d(x, 2)

    is_taken(function, torch.from_numpy(x), x)  # by DLPack
    is_taken(function, memoryview(x), x)
    is_taken(function, np.load(tmp_path / "x.npy", mmap_mode="r"), x)
    flat = array.array("d", x[0, 0, 0])
    np.testing.assert_array_equal(pydl.array.softmax(flat, 0), pydl.array.softmax(x[0, 0, 0], 0))


# which are refused

X, ROW = np.ones((1, 2, 4, 4), np.float32), np.ones((3, 1, 2), np.float32)
IH, HH = np.ones((12, 2), np.float32), np.ones((12, 3), np.float32)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda a: a.max_pool2d([[1.0]], 2), TypeError, "'input' must be a NumPy or CuPy array"),
        (lambda a: a.max_pool2d(None, 2), TypeError, "not NoneType"),
        (lambda a: a.conv2d(X, None), TypeError, r"conv2d\(\): argument 'weight' must be"),
        (lambda a: a.max_pool2d(np.ma.masked_array(X), 2), TypeError, "not MaskedArray"),
        (lambda a: a.max_pool2d(X.astype(int), 2), RuntimeError, "float16, got int64"),
        (lambda a: a.max_pool2d(X.astype(">f4"), 2), RuntimeError, "float16, got >f4"),
        (lambda a: a.max_pool2d(X.astype(complex), 2), RuntimeError, "got complex128"),
        (lambda a: a.max_pool2d(X, 2.5), TypeError, "must be tuple of ints, not float"),
        (lambda a: a.max_pool2d(X, 2, padding=2), RuntimeError, "pad should be at most half"),
        (lambda a: a.max_pool2d(X[0, 0], 2), RuntimeError, "Expected 3D .* or 4D .* input"),
        (lambda a: a.max_pool2d(X[:, :0], 2), RuntimeError, "with optional 0 dim batch"),
        (lambda a: a.max_pool2d(X, 5), RuntimeError, "Output size is too small"),
        (lambda a: a.avg_pool2d(X, 2, divisor_override=0), RuntimeError, "must be not zero"),
        (lambda a: a.lp_pool2d(X, 0, 2), ZeroDivisionError, "division by zero"),
        (lambda a: a.adaptive_avg_pool2d(X, (1, 2, 3)), RuntimeError, "output_size must be 2"),
        (lambda a: a.local_response_norm(X[0, 0], 3), ValueError, "Expected 3D or higher"),
        (lambda a: a.softmax(X, 4), IndexError, "Dimension out of range"),
        (lambda a: a.conv2d(X, X[:, :1]), RuntimeError, "weight of size .* expected input"),
        (lambda a: a.conv2d(X, X[0]), RuntimeError, "weight should have 4 dimensions"),
        (
            lambda a: a.conv2d(X, X.astype(float)),
            RuntimeError,
            "float32.* and weight type .float64",
        ),
        (lambda a: a.conv2d(X, X, padding="all"), RuntimeError, "Invalid padding string"),
        (
            lambda a: a.batch_norm(X, X[0, :, 0, 0], X[0, 0, 0]),
            RuntimeError,
            "vector of 2 elements",
        ),
        (lambda a: a.batch_norm(X, *np.ones((2, 2))), RuntimeError, "mixed dtype.* float64"),
        (lambda a: a.batch_norm(X, *np.ones((2, 2), "f"), eps=-1), ValueError, "non-negative"),
        (
            lambda a: a.batch_norm(X, *np.ones((2, 2), "f"), activation="silu"),
            ValueError,
            "got 'silu'",
        ),
        (lambda a: a.lstm(ROW[0], IH, HH), RuntimeError, "input must have 3 dimensions, got 2"),
        (lambda a: a.lstm(ROW, IH.T, HH), RuntimeError, r"Expected weight_ih size \(12, 2\)"),
        (
            lambda a: a.lstm(ROW, IH, HH, hx=(HH, HH)),
            RuntimeError,
            r"Expected hx\[0\] size \(1, 3\)",
        ),
        (lambda a: a.gru(ROW[:0], IH, HH), RuntimeError, "sequence length to be larger than 0"),
        (lambda a: a.rnn(ROW, IH, HH, nonlinearity="elu"), ValueError, "Unknown nonlinearity"),
        (
            lambda a: a.lstm(ROW[0], IH, HH, batch_sizes=np.array([1, 2])),
            RuntimeError,
            "batch_sizes should be positive and never grow",
        ),
        (
            lambda a: a.lstm(ROW[0], IH, HH, batch_sizes=[1]),
            RuntimeError,
            "batch_sizes should be a NumPy vector of int64",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call(pydl.array)


def test_a_missing_extension_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydl._C", None)
    monkeypatch.setattr(extension, "_extension", extension._extension.__wrapped__)
    with pytest.raises(RuntimeError, match=r"the extension pydl\._C could not be imported"):
        pydl.array.softmax(X, 1)
