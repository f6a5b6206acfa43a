"""Whole networks against stock PyTorch: ``python bench/networks.py --threads 1``.

Networks of ``pydl.models``, the character model and, where torchvision is installed, some of its
own, all with random weights: inference, and a step of training (forward, loss, the gradients
of all parameters; no optimiser). Ours is the model after ``pydl.accelerate``, with ``--fuse`` its
layers computed together, every layer under ``auto``; stock is the same model made of torch.nn's
layers, with the same parameters. Both are timed in turns in one process, with ``--compile`` stock
PyTorch under ``torch.compile`` too, after what they compute has been compared. What serves each
layer is observed, not assumed. Files are brought up to date after every network, so a run that is
stopped leaves what it has measured.

Exit status: 0 if every network agreed, 1 if one was wrong or broke, 2 for a mistake in the
arguments.
"""

import argparse
import itertools
import sys
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # what is measured is the checkout that this file belongs to

import torch  # noqa: E402
from dense_share import dense_share  # noqa: E402
from folders import RESULTS  # noqa: E402
from network_pairs import MODES, USUAL, Network, Pair, networks  # noqa: E402
from torch import nn  # noqa: E402

import pydl  # noqa: E402
from pydl import backends, measure  # noqa: E402
from pydl.bench import options  # noqa: E402
from pydl.bench.harness import compiled, said, wrong  # noqa: E402
from pydl.bench.results import geometric_mean, head, heading, speedup, write_csv  # noqa: E402
from pydl.models.calls import choosing, served  # noqa: E402
from pydl.models.record import Ran, watch  # noqa: E402
from pydl.nn.layer import Layer  # noqa: E402


def served_by(model: nn.Module, run: measure.Action) -> str:
    """Who serves the layers of this package while ``run`` runs ``model``, as observed, and how many
    of them: ``Conv2d aten 5; MaxPool2d cpu 3``.

    Where the dispatch table decides on a kind of a family's calls apart, that stands in brackets;
    where it decides on each pass apart, all are named that serve one.
    """
    counts: Counter[str] = Counter()
    open_calls: list[tuple[dict[str, None], dict[str, None]]] = []

    def enter(_: Ran) -> None:
        servers.clear()
        open_calls.append(({}, {}))

    def leave(ran: Ran) -> None:
        kinds, answers = open_calls.pop()
        name = type(ran.layer).__name__
        apart = [kind for kind in kinds if kind not in backends.FAMILIES]
        what = f"{name} ({', '.join(apart)})" if apart else name
        # A layer that goes to PyTorch's operator straight away asks nothing. A recurrent one may
        # find, having asked, that this operator would not do.
        who = answers if servers <= set(answers) else sorted(servers)
        counts[f"{what} {', '.join(who) or 'aten'}"] += 1

    def see(answer: str, kind: str, *_: object) -> None:
        if open_calls:
            kinds, answers = open_calls[-1]
            kinds[kind] = answers[answer] = None
        else:  # a function, called by no layer of this package
            counts[f"{kind} {answer}"] += 1

    swapped = {name for name, _, _ in pydl.report(model).swapped}

    def ours(name: str, layer: nn.Module) -> bool:
        return name in swapped or isinstance(layer, Layer)

    with watch(model, ours, before=enter, after=leave), choosing(see), served() as servers:
        run()
    return "; ".join(f"{what} {count}" for what, count in sorted(counts.items()))


def peak_memory(action: measure.Action, device: str = "cpu") -> int:
    """The most bytes that PyTorch's allocator has given out at once during ``action``, beyond those
    that were out before.

    What a kernel takes otherwise, on its stack or by ``new`` (or oneDNN for itself), is not seen.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        action()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        action()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    sizes = itertools.accumulate((event.nbytes() for event in events), initial=0)
    return max(sizes)


@dataclass
class Row:
    """One network, one mode, one layout, one batch. Times in microseconds, ``*_us`` the minimum on
    a CPU and the median on a GPU; a ratio is the other's time over ours."""

    network: str
    source: str
    mode: str
    layout: str
    batch: int
    input: str
    status: str = "ok"  # wrong (ours and theirs differ: not timed), broken (an exception)
    detail: str = ""
    stock_us: float | None = None
    stock_p20: float | None = None
    stock_median: float | None = None
    stock_p80: float | None = None
    compile_us: float | None = None
    ours_us: float | None = None
    ours_p20: float | None = None
    ours_median: float | None = None
    ours_p80: float | None = None
    samples: int | None = None
    images_per_s: float | None = None  # by ours; of text, sequences
    ratio: float | None = None
    ratio_compile: float | None = None
    ratio_itself: float | None = None  # PyTorch's time over its own, both taken in the same turns
    error_ours: float | None = None  # the largest, of output or loss and gradients
    error_stock: float | None = None
    peak_ours: int | None = None  # bytes
    peak_stock: int | None = None
    dense_share: float | None = None  # of stock's time; where that is measured, on a CPU
    served: str = ""

    def take(self, times: Mapping[str, measure.Times], device: str) -> None:
        """Fill in the times of ``ours``, ``stock``, ``itself``, which is stock once more, and
        ``compile``, where it was timed."""
        statistic = "median" if device == "cuda" else "minimum"
        counted = {who: 1e6 * getattr(time, statistic) for who, time in times.items()}
        for who in ("ours", "stock"):
            for name in ("p20", "median", "p80"):
                setattr(self, f"{who}_{name}", 1e6 * getattr(times[who], name))
        self.ours_us, self.stock_us = counted["ours"], counted["stock"]
        self.compile_us = counted.get("compile")
        self.samples = times["ours"].samples
        self.images_per_s = 1e6 * self.batch / self.ours_us
        self.ratio = self.stock_us / self.ours_us
        self.ratio_itself = self.stock_us / counted["itself"]
        if self.compile_us is not None:
            self.ratio_compile = self.compile_us / self.ours_us

    def __str__(self) -> str:
        what = f"{self.network:22}{self.mode:11}{self.layout:14}{self.batch:4} x {self.input:12}"
        if self.ratio is None:
            return f"{what}{self.status}: {self.detail}"
        compiled = ""
        if self.ratio_compile is not None:
            compiled = f"  compiled {self.compile_us:11.1f} us {self.ratio_compile:5.2f}x"
        times = f"{self.ours_us:11.1f} us  PyTorch {self.stock_us:11.1f} us {self.ratio:5.2f}x"
        dense = "" if self.dense_share is None else f"  dense {self.dense_share:4.0%}"
        end = f"{self.served}{f'  {self.detail}' * bool(self.detail)}"
        return f"{what}{times}{compiled}{dense}  {end}"


@dataclass(frozen=True)
class Setting:
    """How networks are measured."""

    layout: str = "nchw"
    batch: int | None = None  # None: each network's own
    device: str = "cpu"
    seconds: float = 1.0
    compile: bool = False
    fuse: bool = False


def measure_network(network: Network, mode: str, setting: Setting) -> Row:
    """Checked, then timed; a network that is wrong or breaks gives a row that says so."""
    batch = setting.batch or network.batch
    row = Row(
        network.name,
        network.source,
        mode,
        setting.layout,
        batch,
        "x".join(map(str, network.input)),
    )
    try:
        pair = Pair.of(network, mode, setting.layout, batch, setting.device, setting.fuse)
        checks = pair.check()
        row.error_ours, row.error_stock = (
            max(getattr(one, who) for one in checks) for who in ("ours", "theirs")
        )
        row.detail = wrong(checks)
        if row.detail:
            row.status = "wrong"
            return row
        actions = {"ours": pair.action(pair.ours), "stock": pair.action(pair.theirs)}
        if setting.fuse:
            # Folded weights are copies: each side finds its own in the caches, or neither does.
            actions = {"again": actions["ours"], "ours": actions["ours"]} | {
                "itself": actions["stock"],
                "stock": actions["stock"],
            }
        actions["itself"] = actions["stock"]
        row.served = served_by(pair.ours, actions["ours"])
        if setting.fuse:  # whose layers are computed one by one where they are observed
            row.served = f"{len(pydl.report(pair.ours).fused)} forwards fused"
        row.peak_ours, row.peak_stock = (
            peak_memory(actions[who], setting.device) for who in ("ours", "stock")
        )
        if setting.device == "cpu":
            row.dense_share = dense_share(actions["stock"])
        if setting.compile:
            try:
                actions["compile"] = _compiled(pair)
            except Exception as error:  # theirs, so the row stands without it
                row.detail = f"torch.compile failed: {said(error)}"
        # A step of training may take seconds: five rounds have to do for the slowest.
        row.take(
            measure.interleave(
                actions, device=setting.device, seconds=setting.seconds, rounds=(5, 400)
            ),
            setting.device,
        )
    except Exception as error:
        row.status, row.detail = "broken", said(error)
    return row


def _compiled(pair: Pair) -> measure.Action:
    """Theirs under ``torch.compile``, compiled."""
    action = pair.action(compiled(pair.theirs))
    action()
    return action


def summary(rows: Sequence[Row]) -> list[str]:
    """A line for each mode, the geometric mean over its networks, and one for the worst row."""
    lines = []
    for mode in dict.fromkeys(row.mode for row in rows):
        of_mode = [row for row in rows if row.mode == mode]
        timed = [row.ratio for row in of_mode if row.ratio is not None]
        if not timed:
            continue
        many = f"{len(timed)} row{'s' * (len(timed) > 1)}"
        line = f"{mode}: {geometric_mean(timed):.3f}x, geometric mean of {many}"
        compiled = [row.ratio_compile for row in of_mode if row.ratio_compile is not None]
        if compiled:
            against = f"{geometric_mean(compiled):.3f}x of {len(compiled)}"
            line += f"; against torch.compile {against}"
        lines.append(line)
    itself = [row.ratio_itself for row in rows if row.ratio_itself is not None]
    if itself:
        lines.append(f"PyTorch against itself: {min(itself):.3f}x to {max(itself):.3f}x")
    worst = min(
        (row for row in rows if row.ratio is not None), key=lambda row: row.ratio, default=None
    )
    if worst is not None:
        lines.append(
            f"worst: {worst.ratio:.3f}x, {worst.network}, {worst.mode}, {worst.layout}, "
            f"batch {worst.batch}"
        )
    return lines


_COLUMNS = (
    *("network", "source", "mode", "layout", "served"),
    *("batch", "input", "ours, us", "PyTorch, us", "ratio", "to itself"),
    *("compiled, us", "ratio to compiled", "dense, %", "images/s", "peak, MB"),
)
_LEGEND = textwrap.dedent("""\
    Times are {which} of several samples, ours, PyTorch's and, where it was measured, those of
    PyTorch under torch.compile in turns in one process. Ours is the model after `pydl.accelerate`,
    with `fuse=True` where it says so above.

    - Training: forward, loss and the gradients of all parameters, without an optimiser.
    - Ratio: PyTorch's time over ours.
    - To itself: PyTorch's time over its own, both in the same turns, which is 1 but for noise.
    - Dense: the share of PyTorch's time, in a profile of its own, that goes into convolutions,
      depthwise ones aside, and matrix products. On a CPU both sides leave these to oneDNN, so the
      ratio has a limit: 1 over this share, but for what a fused layer's oneDNN convolution saves.
    - Served: by whom the layers of this package were served, and how many.
    - Peak: the most that PyTorch's allocator has given out at once, ours and PyTorch's, without
      parameters and input.

    Every row was checked before it was timed: output, or loss and gradients, against stock PyTorch
    in float64.""")


def markdown(rows: Sequence[Row], facts: Mapping[str, str], where: str, device: str) -> str:
    """The rows as one table, what they come to above it."""
    which = "the median" if device == "cuda" else "the minimum"
    lines = [*heading(where, facts), _LEGEND.format(which=which), ""]
    lines += [f"- {line}" for line in summary(rows)]
    lines += ["", *head(_COLUMNS, 5)]
    for row in rows:
        cells = [row.network, row.source, row.mode, row.layout]
        if row.ratio is None:
            cells.append(f"{row.status}: {row.detail}".replace("|", "/"))
            cells += [str(row.batch), row.input, *[""] * 9]
        else:
            compiled = [row.detail.replace("|", "/"), ""]
            if row.ratio_compile is not None:
                compiled = [f"{row.compile_us:.0f}", speedup(row.ratio_compile)]
            cells += [
                row.served,
                str(row.batch),
                row.input,
                f"{row.ours_us:.0f}",
                f"{row.stock_us:.0f}",
                speedup(row.ratio),
                speedup(row.ratio_itself),
                *compiled,
                "" if row.dense_share is None else f"{100 * row.dense_share:.0f}",
                f"{row.images_per_s:.1f}",
                f"{row.peak_ours / 1e6:.1f} / {row.peak_stock / 1e6:.1f}",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    about = __doc__.partition("\n")[0]
    parser = argparse.ArgumentParser(description=about, prog="bench/networks.py")
    parser.add_argument(
        "--networks",
        default=",".join(USUAL),
        metavar="GLOB",
        help="names, with * and ?, separated by commas (default: some of each kind)",
    )
    options.add_to(parser, "network", RESULTS)
    parser.add_argument(
        "--modes",
        type=options.choices(MODES),
        default=list(MODES),
        metavar="MODE,...",
        help=", ".join(MODES),
    )
    parser.add_argument(
        "--name", default="networks", help="of the files in DIR, without threads and endings"
    )
    parser.add_argument(
        "--fuse", action="store_true", help="ours is accelerate(model, fuse=True), layers together"
    )
    parser.add_argument("--list", action="store_true", help="list the networks and stop")
    chosen = parser.parse_args(argv)
    options.check(parser, chosen)
    try:
        chosen.networks = options.matching(networks(), chosen.networks, "network")
    except ValueError as error:
        parser.error(str(error))
    return chosen


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    chosen = arguments(argv)
    if chosen.list:
        for network in chosen.networks:
            size = "x".join(map(str, network.input))
            print(f"{network.name:24}{network.source:14}{network.batch:4} x {size}")
        return 0
    where, facts, out = options.set_up(chosen)
    facts |= {"fuse": "yes"} if chosen.fuse else {}
    name = f"{chosen.name}-{chosen.threads}"

    rows: list[Row] = []
    for network in chosen.networks:
        for batch, layout, mode in itertools.product(chosen.batch, chosen.layout, chosen.modes):
            if layout != "nchw" and network.classes is not None:
                continue  # text has one layout
            how = chosen.device, chosen.seconds, chosen.compile, chosen.fuse
            setting = Setting(layout, batch, *how)
            rows.append(measure_network(network, mode, setting))
            print(rows[-1], flush=True)
        write_csv(Row, rows, facts, out / f"{name}.csv")
        text = markdown(rows, facts, where, chosen.device)
        (out / f"{name}.md").write_text(text, encoding="utf-8")
    bad = [row for row in rows if row.status != "ok"]
    print(f"{len(rows)} rows, {len(bad)} wrong or broken; {out / name}.csv, .md")
    print("\n".join(summary(rows)))
    return 1 if bad or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
