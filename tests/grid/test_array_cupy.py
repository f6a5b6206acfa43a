"""Operators on CuPy arrays by the CUDA kernels, emulated: each against the reference, on the tables
of its family; with a stand-in for CuPy where there is no GPU."""

import sys
from types import SimpleNamespace
from typing import Any

import cupy_stand_in
import numpy as np
import pytest
import test_array
import test_batch_norm
import torch
from contract import hold

import pydl.array
from pydl import extension

pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif(torch.cuda.is_available(), reason="the emulated kernels stand aside"),
]
poisoned = test_array.poisoned
ROWS = [(name, case) for name, case in test_array.ROWS if "softmax" not in name]


@pytest.fixture(autouse=True)
def cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", cupy_stand_in)


def on_gpu(x: torch.Tensor) -> cupy_stand_in.ndarray:
    """In the tensor's memory."""
    return cupy_stand_in.ndarray(x.numpy())


def back(x: cupy_stand_in.ndarray) -> torch.Tensor:
    return torch.from_numpy(cupy_stand_in.own(x))


def by_cupy(function: Any, given: list[torch.Tensor], keywords: dict) -> torch.Tensor:
    return back(function(*map(on_gpu, given), **keywords))


# against the reference


@pytest.mark.in_turns("dtype")
@pytest.mark.parametrize("dtype", test_array.DTYPES, ids=str)
@pytest.mark.parametrize("name, case", ROWS, ids=str)
def test_against_reference(name, case, dtype):
    ours, theirs, exact = test_array.three(name, case, dtype, by_cupy)
    hold(ours, theirs, exact, name)


@pytest.mark.in_turns("dtype")
@pytest.mark.parametrize("dtype", test_array.DTYPES, ids=str)
@pytest.mark.parametrize("case", test_batch_norm.CASES, ids=str)
def test_batch_norm_against_reference(case, dtype):
    ours, theirs, exact = test_array.three_of_batch_norm(case, dtype, on_gpu)
    hold(back(ours), theirs, exact, "batch_norm")


@pytest.mark.parametrize("dtype", test_array.DTYPES, ids=str)
@pytest.mark.parametrize("name, gates, options", test_array.LAYERS)
def test_recurrent_layers_against_reference(name, gates, options, dtype):
    for mine, *others in test_array.three_of_layer(name, gates, options, dtype, on_gpu):
        hold(back(mine), *others, name)


@pytest.mark.parametrize("name", ("max_pool2d", "adaptive_max_pool2d"))
def test_indices_are_pytorchs(name):
    x = (torch.randn(2, 3, 9, 8) * 2).round()
    _, index = getattr(pydl.array, name)(on_gpu(x), 3, return_indices=True)
    theirs = getattr(torch.nn.functional, name)(x, 3, return_indices=True)
    assert torch.equal(back(index), theirs[1])


@pytest.mark.parametrize("lies", ("every second", "backwards", "broadcast", "transposed"))
def test_however_it_lies(lies):
    x = np.random.default_rng(0).standard_normal((4, 4, 8, 8), np.float32)
    view = test_array.LIES[lies](x)
    ours = pydl.array.local_response_norm(cupy_stand_in.ndarray(view), 3)
    np.testing.assert_allclose(ours.get(), pydl.array.local_response_norm(view, 3), rtol=1e-5)


# where they run


class Recording:
    """The emulated kernels' functions, and what each was called with last."""

    def __init__(self) -> None:
        self.functions, self.calls = extension.library("cuda"), []

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> None:
            self.calls.append((name, *arguments))
            getattr(self.functions, name)(*arguments)

        return call


def test_kernels_run_on_cupys_current_stream_and_in_its_memory(monkeypatch):
    recording = Recording()
    monkeypatch.setitem(extension._served, "cuda", recording)
    stream = SimpleNamespace(ptr=0x5EED)
    monkeypatch.setattr(cupy_stand_in.cuda, "get_current_stream", lambda: stream)
    x = on_gpu(torch.randn(2, 3, 8, 8))
    window = x[:, :, 1:7, ::2]  # which is not copied: the kernels take any strides
    y = pydl.array.avg_pool2d(window, 2)
    ((name, read, written, *_, where),) = recording.calls
    assert name == "avg_pool_forward" and where == 0x5EED
    assert read.data_ptr() == window.__cuda_array_interface__["data"][0]
    assert read.stride() == (192, 64, 8, 2)
    assert written.data_ptr() == y.__cuda_array_interface__["data"][0]


def test_on_the_device_of_the_operands(monkeypatch):
    entered = []

    class Device:
        def __enter__(self) -> None:
            entered.append(self)

        def __exit__(self, *_: object) -> None:
            entered.append(None)

    device = Device()
    monkeypatch.setattr(cupy_stand_in.ndarray, "device", device)
    pydl.array.max_pool2d(on_gpu(torch.randn(1, 1, 4, 4)), 2)
    assert entered == [device, None]


def test_arrays_of_other_packages_on_a_gpu_are_taken():
    x = on_gpu(torch.randn(1, 2, 6, 6))
    other = SimpleNamespace(__cuda_array_interface__=x.__cuda_array_interface__)
    taken = pydl.array.max_pool2d(other, 2)
    assert np.array_equal(taken.get(), pydl.array.max_pool2d(x, 2).get())


# what is refused


def test_packages_do_not_mix():
    x, weight = torch.ones(1, 2, 4, 4), torch.ones(2, 2, 3, 3)
    with pytest.raises(RuntimeError, match=r"input is CuPy's on .* 0> and weight is NumPy's"):
        pydl.array.conv2d(on_gpu(x), weight.numpy())
    with pytest.raises(RuntimeError, match=r"input is NumPy's and running_var is CuPy's"):
        pydl.array.batch_norm(x.numpy(), x[0, 0, 0].numpy(), on_gpu(x))


def test_softmax_has_no_kernel():
    with pytest.raises(RuntimeError, match=r"softmax has no kernel in CUDA C\+\+"):
        pydl.array.softmax(on_gpu(torch.ones(3, 4)), 1)


def test_without_cupy(monkeypatch):
    x = on_gpu(torch.ones(1, 1, 4, 4))
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match=r"by CuPy: pip install 'pydl-kernels\[cupy\]'"):
        pydl.array.max_pool2d(x, 2)
