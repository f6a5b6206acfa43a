"""Whether an installed wheel works: ``python tests/package/smoke.py``, with PyTorch and without
pytest.

Three families on the backend ``cpu``, forward and backward, on every instruction set of the wheel
that this machine has. Prints which files were imported, the version and the instruction sets, the
one in use first.
"""

from collections.abc import Callable
from pathlib import Path

import torch

import pydl
from pydl import _C, functional, kernels

INSTRUCTION_SETS = ("baseline", "avx2", "avx512")


def same(
    ours: Callable[[torch.Tensor], torch.Tensor],
    theirs: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
) -> None:
    """Raises AssertionError where results or gradients differ."""
    x.requires_grad_()
    pairs = [(y, *torch.autograd.grad(y.sum(), x)) for y in (ours(x), theirs(x))]
    for mine, their in zip(*pairs, strict=True):
        torch.testing.assert_close(mine, their, rtol=1e-4, atol=1e-5)


def compare() -> None:
    """Compares them with torch.nn's operators and, where that is another, the reference."""
    own = torch.nn.functional
    same(
        lambda x: functional.max_pool2d(x, 3, 2, backend="cpu"),
        lambda x: own.max_pool2d(x, 3, 2),
        torch.randn(2, 5, 17, 19),
    )
    for theirs in (
        own.local_response_norm,
        lambda x, size: functional.local_response_norm(x, size, backend="reference"),
    ):
        same(
            lambda x: functional.local_response_norm(x, 5, backend="cpu"),
            lambda x, theirs=theirs: theirs(x, 5),
            torch.randn(2, 16, 7, 9),
        )
    ours, stock = pydl.nn.LSTM(8, 20, backend="cpu"), torch.nn.LSTM(8, 20)
    ours.load_state_dict(stock.state_dict())
    same(lambda x: ours(x)[0], lambda x: stock(x)[0], torch.randn(6, 3, 8))


def openmp() -> list[str]:
    """The OpenMP run times in this process."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    files = {line.split(maxsplit=5)[5] for line in lines if "/" in line}
    names = ("libgomp", "libomp", "libiomp")
    return sorted(file for file in files if Path(file).name.startswith(names))


def main() -> None:
    torch.manual_seed(0)
    cpu = _C.cpu
    in_use = cpu.isa()
    tried = [in_use]
    compare()
    for name in INSTRUCTION_SETS:
        if name == in_use:
            continue
        try:
            cpu.use_isa(name)
        except ValueError:  # not this machine's, or not built
            continue
        compare()
        tried.append(name)
    cpu.use_isa(in_use)
    # With a second one beside PyTorch's each would have threads of its own, and
    # torch.set_num_threads would reach one of them.
    found = openmp()
    assert len(found) == 1, f"expected PyTorch's OpenMP run time alone, found {found}"
    print("package", pydl.__file__)
    print("extension", _C.__file__)
    print("triton", kernels.__file__)
    print("version", pydl.__version__)
    print("isa", *tried)


if __name__ == "__main__":
    main()
