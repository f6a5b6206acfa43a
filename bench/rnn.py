"""The recurrent layers against torch.nn's: ``python bench/rnn.py --threads 1 --out FILE``.

Ours and theirs share their weights and are timed in turns in one process, forward alone and with
the backward, after their results have been compared; with one thread by its own time, which other
programs have no part in. What PyTorch has no operator for is compared with the loop over steps that
one would write with it (the backend ``aten``).

The matrix products alone are timed in the same turns, as PyTorch makes them: the inputs' at once,
the states' step by step. Only a faster product can save that part of a layer's time, no fused
kernel. For a packed batch our time of the padded one is measured too, and scaled by the share of it
that is tokens. A cell takes one step from states that are given, as a decoder calls it: ``--cases
'*Cell-*'``.
"""

import argparse
import fnmatch
import math
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence  # noqa: E402

from pydl import measure, nn  # noqa: E402
from pydl.bench import options  # noqa: E402
from pydl.bench.harness import kernels  # noqa: E402
from pydl.bench.results import write_table  # noqa: E402

Sequences = torch.Tensor | PackedSequence
Given = tuple[Any, ...]  # an input and, for a cell, its states


@dataclass(frozen=True)
class Case:
    """T steps, of a cell one, B sequences, H units and inputs."""

    layer: str
    shape: tuple[int, int, int]
    options: dict = field(default_factory=dict)
    dtype: str = "float32"
    own: bool = False  # PyTorch has none: against the loop
    packed: bool = False  # lengths from T down to T / 4

    @property
    def is_cell(self) -> bool:
        return self.layer.endswith("Cell")

    def __str__(self) -> str:
        options = "".join(f",{name}={value}" for name, value in self.options.items())
        packed = ",packed" if self.packed else ""
        return f"{self.layer}-{'x'.join(map(str, self.shape))}{options}{packed},{self.dtype}"


SHAPES = ((64, 32, 256), (256, 1, 128), (32, 64, 512))
BEFORE, PEEPS, NORM = {"reset_after": False}, {"peephole": True}, {"layer_norm": True}
BOTH_WAYS = {"bidirectional": True}
CELLS = tuple(
    Case(layer, (1, sequences, units))
    for layer in ("RNNCell", "LSTMCell", "GRUCell")
    for sequences in (1, 8, 32)
    for units in (64, 256, 512)
)
CPU_CASES = (
    *(Case(layer, shape) for layer in ("LSTM", "GRU", "RNN") for shape in SHAPES),
    *(Case(layer, SHAPES[0], BOTH_WAYS) for layer in ("LSTM", "GRU")),
    *(Case(layer, SHAPES[0], packed=True) for layer in ("LSTM", "GRU")),
    *(
        Case(layer, SHAPES[0], dtype=dtype)
        for layer in ("LSTM", "GRU", "RNN")
        for dtype in ("float64", "bfloat16", "float16")
    ),
    *(
        Case("GRU", shape)
        for shape in ((16, 4, 32), (4, 2, 8), (16, 1, 64), (8, 1, 32), (8, 4, 256))
    ),
    Case("LSTM", SHAPES[0], {"proj_size": 64}),
    *(Case("GRU", shape, BEFORE) for shape in SHAPES),  # against torch's own GRU
    *(Case("GRU", shape, BEFORE, own=True) for shape in SHAPES[:2]),
    *(
        Case("GRU", shape, BEFORE, own=True)
        for shape in ((64, 1, 256), (16, 1, 64), (8, 4, 32), (20, 32, 64))
    ),
    *(Case("LSTM", shape, own, own=True) for own in (PEEPS, NORM) for shape in SHAPES[:2]),
    *CELLS,
)
CUDA_CASES = (
    *(
        Case(layer, (steps, sequences, units), dtype=dtype)
        for dtype in ("bfloat16", "float16", "float32")
        for layer in ("LSTM", "GRU")
        for steps, sequences, units in (
            *((256, 16, units) for units in (128, 256, 512, 768, 1024, 1536)),
            *((256, sequences, 512) for sequences in (1, 128)),
            *((steps, 16, 512) for steps in (32, 1024)),
        )
    ),
    *(Case(layer, (256, 16, 512), BOTH_WAYS, "bfloat16") for layer in ("LSTM", "GRU")),
    *(Case(layer, (256, 16, 512), {}, "bfloat16", packed=True) for layer in ("LSTM", "GRU")),
    Case("GRU", (256, 16, 512), BEFORE, "bfloat16"),
    Case("GRU", (256, 16, 512), BEFORE, "bfloat16", own=True),
    *(Case("LSTM", (256, 16, 512), own, "bfloat16", own=True) for own in (PEEPS, NORM)),
)


def layers(case: Case, backend: str, device: str, dtype: torch.dtype) -> list[torch.nn.Module]:
    """Ours and theirs, of the same weights."""
    units = case.shape[2]
    made = {"dtype": dtype, "device": device}
    torch.manual_seed(0)
    ours = getattr(nn, case.layer)(units, units, **case.options, **made, backend=backend)
    if case.own:
        theirs = getattr(nn, case.layer)(units, units, **case.options, **made, backend="aten")
    else:
        known = {k: v for k, v in case.options.items() if k not in BEFORE}
        theirs = getattr(torch.nn, case.layer)(units, units, **known, **made)
    theirs.load_state_dict(ours.state_dict())
    return [ours.eval(), theirs.eval()]


def inputs_of(case: Case, device: str, dtype: torch.dtype) -> Given:
    """What a layer is called with, all of it wanting gradients."""
    steps, sequences, units = case.shape
    lengths = torch.linspace(steps, steps // 4, sequences).long()

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape).to(device, dtype).requires_grad_()

    if not case.is_cell:
        x = random(steps, sequences, units)
        if not case.packed:
            return (x,)
        packed = pack_padded_sequence(x.detach(), lengths)
        packed.data.requires_grad_()
        return (packed,)
    x, h, c = (random(sequences, units) for _ in range(3))
    return x, (h, c) if case.layer == "LSTMCell" else h


def leaves(given: Given) -> list[torch.Tensor]:
    """The tensors in it."""
    x, *states = given
    x = x.data if isinstance(x, PackedSequence) else x
    return [x, *(one for hx in states for one in (hx if isinstance(hx, tuple) else (hx,)))]


def converted(given: Given, dtype: torch.dtype) -> Given:
    return tuple(
        tuple(one.to(dtype) for one in each) if type(each) is tuple else each.to(dtype)
        for each in given
    )


def run(module: torch.nn.Module, given: Given) -> tuple[torch.Tensor, ...]:
    """The outputs of a layer, or the states after a cell's step."""
    made = module(*given)
    if isinstance(module, torch.nn.RNNCellBase):
        return made if isinstance(made, tuple) else (made,)
    return (made[0].data if isinstance(made[0], PackedSequence) else made[0],)


def alone(module: torch.nn.Module, given: Given) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        return run(module, given)


def both(module: torch.nn.Module, given: Given, grads: tuple[torch.Tensor, ...]) -> None:
    wanted = [*leaves(given), *module.parameters()]
    torch.autograd.grad(run(module, given), wanted, grads)


def check(case: Case, backend: str, device: str, given: Given) -> None:
    """Raises AssertionError where ours and theirs differ."""
    if case.options == BEFORE and not case.own:
        return  # another definition than torch's
    compare = torch.testing.assert_close
    if device == "cpu":
        pair = layers(case, backend, device, torch.float64)
        exact = converted(given, torch.float64)
        compare(*(alone(module, exact) for module in pair), rtol=1e-7, atol=1e-7)
    ours, theirs = (
        alone(module, given) for module in layers(case, backend, device, getattr(torch, case.dtype))
    )
    if "layer_norm" in case.options:
        # Random weights and a layer norm make chaos: a change of 6e-8 in the input is 1e-2 in the
        # output 256 steps later, in float64 too. So only the first steps are compared.
        ours, theirs = (tuple(y[:64] for y in each) for each in (ours, theirs))
    tolerance = 1e-3 if case.dtype in ("float32", "float64") else 0.1
    compare(ours, theirs, rtol=tolerance, atol=tolerance)


def products(case: Case, module: torch.nn.Module, x: Sequences, kind: str) -> Callable[[], None]:
    """The matrix products that a layer of these weights consists of."""
    sizes = x.batch_sizes.tolist() if case.packed else [case.shape[1]] * case.shape[0]
    rows = (x.data if case.packed else x.flatten(0, -2)).detach()
    pairs = [
        (weight.detach(), getattr(module, name.replace("_ih", "_hh")).detach())
        for name, weight in module.named_parameters()
        if name.startswith("weight_ih")
    ]

    def forward(to: torch.Tensor, weight_ih: torch.Tensor, weight_hh: torch.Tensor) -> torch.Tensor:
        states = rows[:, : weight_hh.shape[1]]
        torch.mm(rows, weight_ih.t(), out=to)
        for part in sizes:
            torch.mm(states[:part], weight_hh.t(), out=to[:part])
        return states

    def backward(
        to: torch.Tensor, states: torch.Tensor, weight_ih: torch.Tensor, weight_hh: torch.Tensor
    ) -> None:
        for part in sizes:
            torch.mm(to[:part], weight_hh)
        torch.mm(to, weight_ih)
        torch.mm(to.t(), rows)
        torch.mm(to.t(), states)

    made = rows.new_empty(len(rows), pairs[0][0].shape[0])

    @torch.no_grad()
    def action() -> None:
        for weight_ih, weight_hh in pairs:
            states = forward(made, weight_ih, weight_hh)
            if kind != "forward":
                backward(made, states, weight_ih, weight_hh)

    return action


def times(case: Case, seconds: float, backend: str, device: str) -> list[dict]:
    """One row per pass."""
    dtype = getattr(torch, case.dtype)
    called = inputs_of(case, device, dtype)
    check(case, backend, device, called)
    ours, theirs = layers(case, backend, device, dtype)
    rows = []
    for kind in ("forward", "forward+backward"):

        def timed(module, called, kind=kind):
            if kind == "forward":
                return lambda: alone(module, called)
            grads = tuple(torch.randn_like(one) for one in alone(module, called))
            return lambda: both(module, called, grads)

        actions = {"ours": timed(ours, called), "theirs": timed(theirs, called)}
        actions["products"] = products(case, ours, called[0], kind)
        if case.packed:
            padded = inputs_of(replace(case, packed=False), device, dtype)
            actions["padded"] = timed(ours, padded)
        own_time = device == "cpu" and torch.get_num_threads() == 1
        made = measure.interleave(
            actions,
            device=device,
            seconds=seconds,
            rounds=(5, 400),
            clock=time.thread_time if own_time else time.perf_counter,
        )
        taken = {name: time.median * 1e6 for name, time in made.items()}
        if case.packed:
            taken["padded"] *= len(called[0].data) / math.prod(case.shape[:2])
        rows.append(
            {
                "case": str(case),
                "against": "loop" if case.own else "torch.nn",
                "backend": backend,
                "pass": kind,
                "threads": torch.get_num_threads(),
                "ours_us": f"{taken['ours']:.1f}",
                "theirs_us": f"{taken['theirs']:.1f}",
                "ratio": f"{taken['theirs'] / taken['ours']:.2f}",
                "ours_us_a_step": f"{taken['ours'] / case.shape[0]:.2f}",
                "products_us": f"{taken['products']:.1f}",
                "padded_by_tokens_us": f"{taken['padded']:.1f}" if case.packed else "",
                "kernels_theirs": kernels(actions["theirs"]) if device == "cuda" else "",
                "device": measure.device_name(device),
                "torch": torch.__version__,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default="*", help="patterns, separated by commas")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options.add_isa_to(parser)
    parser.add_argument("--threads", type=int, default=1, help="of a CPU")
    parser.add_argument("--seconds", type=float, default=1.0, help="for a case and pass")
    parser.add_argument("--backend", help="the device's own by default")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message="LSTM with projections")
    options.hold_to(given.isa)
    torch.set_num_threads(given.threads)
    if given.device == "cpu" and given.threads == 1:
        measure.pin_to_one_core()
    rows: list[dict] = []
    for case in CUDA_CASES if given.device == "cuda" else CPU_CASES:
        # Commas separate patterns, so those of a case's name are slashes here.
        name = str(case).replace(",", "/")
        if not any(fnmatch.fnmatch(name, one) for one in given.cases.split(",")):
            continue
        for row in times(case, given.seconds, given.backend or given.device, given.device):
            rows.append(row)
            print(
                f"{row['ratio']:>6}x {row['ours_us']:>10} us of {row['products_us']:>10} "
                f"{row['pass']:17}{row['case']} ({row['against']})",
                flush=True,
            )
        if given.out is not None:
            write_table(rows[0], rows, given.out)


if __name__ == "__main__":
    main()
