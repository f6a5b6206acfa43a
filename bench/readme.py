"""Makes README's tables from what they are about.

``python bench/readme.py`` writes them, ``--check`` fails where README is out of date.
"""

import csv
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from pydl import backends  # noqa: E402

README = ROOT / "README.md"
SPEED = ROOT / "bench" / "results" / "cpu" / "results.csv"

# Which operators the dispatch table decides on together.
OPERATORS = (
    ("conv1d`, `conv2d`, `conv3d`, and `conv_transpose1d`, `2d`, `3d", "conv"),
    ("the same, depthwise", "depthwise"),
    ("conv2d_bias_act", "conv_bias_act"),
    ("locally_connected1d`, `2d", "local"),
    ("max_pool1d`, `2d`, `avg_pool1d`, `2d", "pool"),
    ("max_pool3d`, `avg_pool3d", "pool3d"),
    ("lp_pool1d`, `2d`, `3d", "pool_lp"),
    ("adaptive_avg_pool1d`, `2d`, `3d`, `adaptive_max_pool1d`, `2d`, `3d", "pool_adaptive"),
    ("spatial_pyramid_pool", "pool_pyramid"),
    ("max_unpool1d`, `2d`, `3d", "unpool"),
    ("roi_align`, `roi_pool", "roi"),
    ("nms`, `batched_nms", "nms"),
    ("local_response_norm", "lrn"),
    ("spatial_response_norm", "spatial_norm"),
    ("batch_norm`, `batch_norm_act", "batch_norm"),
    ("softmax`, `log_softmax", "softmax"),
    ("cross_entropy", "cross_entropy"),
    ("dropout`, and `dropout1d`, `2d`, `3d", "dropout"),
    ("relu`, `leaky_relu", "activation"),
    ("rnn`, `lstm`, `gru`, `rnn_cell`, `lstm_cell`, `gru_cell", "rnn"),
)


def support() -> str:
    """Operator x backend: dtypes, which derivatives, torch.compile; and what a backend has run
    on."""
    names = list(backends.BACKENDS)
    lines = [
        f"| operator | dtypes | derivatives | compile | {' | '.join(f'`{n}`' for n in names)} |",
        f"|---|---|---|---|{'---|' * len(names)}",
    ]
    for operators, family in OPERATORS:
        cells = ["yes" if name in backends.serving(family) else "no" for name in names]
        derivatives = "none" if family == "nms" else "forward, backward, double backward"
        compiles = "with captured shapes" if family == "nms" else "yes"
        said = operators if " " in operators and "`" not in operators else f"`{operators}`"
        lines.append(
            f"| {said} | f64 f32 f16 bf16 | {derivatives} | {compiles} | {' | '.join(cells)} |"
        )
    lines += [
        "",
        "`aten` is PyTorch's own operator, with PyTorch's dtypes. Where it has none, `auto` is the "
        "first of `cpu`, `cuda` and `reference` that can serve.",
        "",
        "| backend | device | tested on |",
        "|---|---|---|",
    ]
    lines += [
        f"| `{row.name}` | {', '.join(row.native_devices) or 'any'} | {row.proof} |"
        for row in backends.BACKENDS.values()
    ]
    return "\n".join(lines)


def drop_in() -> str:
    """Feature x kind of layer: what ``tests/test_drop_in.py`` holds to torch.nn, all of it."""
    from drop_in import FEATURES
    from drop_in_layers import KINDS

    lines = [
        f"| the same as `torch.nn`'s in | {' | '.join(KINDS)} |",
        f"|---|{'---|' * len(KINDS)}",
    ]
    lines += [f"| {feature} | {' | '.join(['yes'] * len(KINDS))} |" for feature in FEATURES]
    lines += [f"| layers | {' | '.join(str(len(layers)) for layers in KINDS.values())} |"]
    return "\n".join(lines)


def speed() -> str:
    """The rows measured on a CPU that ours serves, wins and losses alike."""
    with SPEED.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["ratio"]]
    first = rows[0]
    lines = [
        f"One thread of {first['device']}, PyTorch {first['torch']}, float32, contiguous; "
        "forward, and forward + backward. "
        "Ratio: PyTorch's time over ours, both in turns in one process; copies: our time in "
        "units of one copy of the "
        "input. Where PyTorch's own serves, both do the same work and what differs is noise and "
        "two or three microseconds. "
        "Made by `make bench`; every row, channels last too, is in "
        f"[{SPEED.parent.relative_to(ROOT)}]({SPEED.parent.relative_to(ROOT)}/results.md).",
        "",
        "| layer | input | served by | forward | copies | forward + backward | copies |",
        "|---|---|---|--:|--:|--:|--:|",
    ]
    passes: dict[tuple[str, str, str], dict[str, dict]] = {}
    for row in rows:
        if row["layout"] == "nchw" and row["dtype"] == "float32":
            passes.setdefault((row["case"], row["shape"], row["backend"]), {})[row["kind"]] = row
    for (case, shape, backend), kinds in passes.items():
        served = "PyTorch's own" if backend == "aten" else f"`{backend}`"
        cells = [cell for kind in ("forward", "both") for cell in _cells(kinds.get(kind))]
        lines.append(f"| {case} | {shape} | {served} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(row: dict | None) -> tuple[str, str]:
    if row is None:
        return "", ""
    ratio = float(row["ratio"])
    shown = f"{ratio:.2f}x" if ratio < 9.95 else f"{ratio:.0f}x"
    return (f"**{shown}**" if ratio >= 1 else f"{shown} (loss)"), f"{float(row['copies']):.1f}"


def made() -> str:
    """README with its tables made anew."""
    text = README.read_text(encoding="utf-8")
    for name, table in (
        ("support", support),
        ("drop-in", drop_in),
        ("speed", speed),
    ):
        begin, end = (
            text.index(f"<!-- {name} table: "),
            text.index(f"<!-- end of the {name} table -->"),
        )
        begin = text.index("-->", begin) + len("-->\n")
        text = f"{text[:begin]}\n{table()}\n\n{text[end:]}"
    return text


def main() -> int:
    text = made()
    if "--check" in sys.argv[1:]:
        stale = text != README.read_text(encoding="utf-8")
        print("README.md is out of date: run `make readme`" if stale else "README.md is up to date")
        return int(stale)
    README.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
