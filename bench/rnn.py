"""The recurrent layers against torch.nn's: ``python bench/rnn.py --threads 1 --out FILE``.

Ours and theirs share their weights and are timed in turns in one process, forward alone and with
the backward, after their results have been compared. What PyTorch has no operator for is compared
with the loop over steps that one would write with it (the backend ``aten``).
"""

import argparse
import csv
import fnmatch
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence  # noqa: E402

from pydl import measure, nn  # noqa: E402


@dataclass(frozen=True)
class Case:
    """T steps, B sequences, H units and inputs."""

    layer: str
    shape: tuple[int, int, int]
    options: dict = field(default_factory=dict)
    dtype: str = "float32"
    own: bool = False  # PyTorch has none: against the loop
    packed: bool = False  # lengths from T down to T / 4

    def __str__(self) -> str:
        options = "".join(f",{name}={value}" for name, value in self.options.items())
        packed = ",packed" if self.packed else ""
        return f"{self.layer}-{'x'.join(map(str, self.shape))}{options}{packed},{self.dtype}"


SHAPES = ((64, 32, 256), (256, 1, 128), (32, 64, 512))
WIDE = ("float32", "float64")
BEFORE, PEEPS, NORM = {"reset_after": False}, {"peephole": True}, {"layer_norm": True}
CASES = (
    *(Case(layer, shape) for layer in ("LSTM", "GRU", "RNN") for shape in SHAPES),
    *(Case(layer, SHAPES[0], {"bidirectional": True}) for layer in ("LSTM", "GRU")),
    *(Case(layer, SHAPES[0], packed=True) for layer in ("LSTM", "GRU")),
    *(
        Case(layer, SHAPES[0], dtype=dtype)
        for layer in ("LSTM", "GRU", "RNN")
        for dtype in ("float64", "bfloat16", "float16")
    ),
    *(Case("GRU", shape) for shape in ((16, 4, 32), (4, 2, 8))),
    Case("LSTM", SHAPES[0], {"proj_size": 64}),
    *(Case("GRU", shape, BEFORE) for shape in SHAPES),  # against torch's own GRU
    *(Case("GRU", shape, BEFORE, own=True) for shape in SHAPES[:2]),
    *(Case("LSTM", shape, own, own=True) for own in (PEEPS, NORM) for shape in SHAPES[:2]),
)


def times(case: Case, seconds: float, backend: str) -> list[dict]:
    """A row a pass."""
    steps, sequences, hidden = case.shape
    dtype = getattr(torch, case.dtype)
    torch.manual_seed(0)
    ours = getattr(nn, case.layer)(
        hidden, hidden, **case.options, dtype=dtype, backend=backend
    ).eval()
    if case.own:
        theirs = getattr(nn, case.layer)(
            hidden, hidden, **case.options, dtype=dtype, backend="aten"
        ).eval()
    else:
        known = {k: v for k, v in case.options.items() if k not in BEFORE}
        theirs = getattr(torch.nn, case.layer)(hidden, hidden, **known, dtype=dtype)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(steps, sequences, hidden).to(dtype)
    if case.packed:
        lengths = torch.linspace(steps, steps // 4, sequences).long()
        x = pack_padded_sequence(x, lengths)
    leaf = x.data.requires_grad_() if case.packed else x.requires_grad_()
    out = ours(x)[0]
    grad = torch.randn_like(out.data)

    def forward(module: torch.nn.Module) -> torch.Tensor:
        return module(x)[0].data if case.packed else module(x)[0]

    def both(module: torch.nn.Module) -> None:
        y = forward(module)
        torch.autograd.grad(y, [leaf, *module.parameters()], grad)

    def alone(module: torch.nn.Module) -> torch.Tensor:
        with torch.no_grad():
            return forward(module)

    if case.own or case.options != BEFORE:
        # A layer norm shows what was rounded before it several times larger.
        tolerance = (1e-3 if "layer_norm" in case.options else 1e-4) if case.dtype in WIDE else 0.1
        torch.testing.assert_close(alone(ours), alone(theirs), rtol=tolerance, atol=tolerance)
    rows = []
    for kind, action in (("forward", alone), ("forward+backward", both)):
        actions = {"ours": lambda a=action: a(ours), "theirs": lambda a=action: a(theirs)}
        made = measure.interleave(actions, seconds=seconds, rounds=(5, 400))
        mine, other = made["ours"].median, made["theirs"].median
        rows.append(
            {
                "case": str(case),
                "against": "loop" if case.own else "torch.nn",
                "backend": backend,
                "pass": kind,
                "threads": torch.get_num_threads(),
                "ours_us": f"{mine * 1e6:.1f}",
                "theirs_us": f"{other * 1e6:.1f}",
                "ratio": f"{other / mine:.2f}",
                "device": measure.device_name(),
                "torch": torch.__version__,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default="*", help="patterns, separated by commas")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="for a case and pass")
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message="LSTM with projections")
    torch.set_num_threads(given.threads)
    if given.threads == 1:
        measure.pin_to_one_core()
    rows: list[dict] = []
    for case in CASES:
        if not any(fnmatch.fnmatch(str(case), one) for one in given.cases.split(",")):
            continue
        for row in times(case, given.seconds, given.backend):
            rows.append(row)
            print(
                f"{row['ratio']:>6}x {row['pass']:17}{row['case']} ({row['against']})", flush=True
            )
        if given.out is not None:
            with given.out.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)


if __name__ == "__main__":
    main()
