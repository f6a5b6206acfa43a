"""docs/performance.md: what was measured, file by file. Every number in it is from a file under
bench/results; the words around them are here."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import dedent

import predicted
from figures import (
    CPU,
    ISAS,
    Figure,
    by_kind,
    plain,
    read,
    setting,
    shown,
    span,
)

from pydl.bench.results import geometric_mean

# Of each file: its title, and what is in it. No number stands here.
_SECTIONS: dict[str, tuple[str, str]] = {
    "results.csv": (
        "The layers of LeNet-5 and AlexNet",
        """\
        Under `auto` as it was, so that dense convolutions and small pools are PyTorch's own: there
        both sides do the same work, and what differs is noise and the way to the call.""",
    ),
    "pool.csv": (
        "Other pooling",
        """\
        Lp, adaptive, pyramid and three-dimensional pooling, the kernel asked for by name. Global
        averages, and adaptive maxima and averages channels last, `auto` leaves to PyTorch.""",
    ),
    "small.csv": (
        "Small pools",
        """\
        Where a kernel begins to pay: LeNet-5's pools for batches of several sizes, the kernel asked
        for by name.""",
    ),
    "depthwise.csv": (
        "Depthwise convolution",
        """\
        MobileNetV2's layers, each pass apart, the kernel asked for by name. Channels last it loses
        with stride 2, on the smallest planes and for most weight gradients, so `auto` takes each
        pass apart: there, the forward and the input's gradient at stride 1.""",
    ),
    "epilogue.csv": (
        "Convolution with an epilogue",
        """\
        Bias and activation in the pass that writes the map.""",
    ),
    "local.csv": (
        "Locally connected layers",
        """\
        Against unfolding and a product.""",
    ),
    "batch_norm.csv": (
        "Batch normalisation in training",
        """\
        With the activation where the name says so, the kernel asked for by name. Contiguous, a
        channel's statistics and its result are one visit. Channels last pays only together with the
        activation and on large maps; the rest, and inference by running statistics, is PyTorch's
        own under `auto`.""",
    ),
    "softmax.csv": (
        "Softmax, cross entropy, dropout, ReLU",
        """\
        The kernel asked for by name. Long rows are bound by the exponential in PyTorch's kernel as
        well, and ReLU by memory: `auto` leaves both to PyTorch.""",
    ),
    "roi.csv": (
        "Regions of interest",
        """\
        Against what can be written with PyTorch's operators, which has none of its own; torchvision
        has not been measured.""",
    ),
}
_STEPS = {
    "forward": "forward",
    "both": "forward + backward",
    "grad_input": "input's gradient",
    "grad_weight": "weight's gradient",
}

# How to measure, read and compare.
_YOURS = dedent("""\
    ## On your machine

    ```
    pydl bench --list                                  # the cases, real layers' calls
    pydl bench --cases 'alexnet*' --html page.html     # measure these, and show them
    pydl bench --from bench/results/cpu-avx2 --html page.html   # show what was measured before
    ```

    The first two work wherever the package is installed. Files go to `pydl-bench/<kind of machine>`
    in the current directory, or to the folder that `--out` names (`python bench/run.py`, the same
    command in a checkout: to `bench/results`): a CSV with all that is known of each row, the same
    as a table in Markdown, and with matplotlib a plot. `--help` lists dtypes, layouts, batches,
    passes, threads, backends, `--isa` and `--compile`. A row is checked against the float64
    reference before it is timed, and one that is wrong makes the exit status 1.

    The page is one HTML file that loads nothing. To read it:

    - A bar is PyTorch's time over ours on a logarithmic axis around 1; to the right the kernel is
      faster, to the left slower. Lists are sorted, and of a long one both ends are open. Within
      five per cent of 1 nothing is claimed, nor where PyTorch's own operator served.
    - *by* says who served. `auto: cpu` is what you get without asking; `cpu` alone was asked for by
      name, and where it loses, `auto` leaves the call to PyTorch.
    - The last column is PyTorch under `torch.compile`, where `--compile` measured it.
    - The roofline sets the bytes that a forward must move, each operand read once and the result
      written once, against a copy of its input timed in the same turns. Near 100 % nothing is left
      to gain; far below, a small input is bound by the way to the call, and a large one by
      arithmetic or by reading more than once.
    - Networks say how far PyTorch is from itself, timed twice in the same turns: their noise.

    A ratio holds for its machine, threads and dtype, which the page names file by file. To compare
    two versions or machines, measure each into a folder of its own and show both:
    `pydl bench --from before after --html page.html`; each folder is a part of the page. Compare
    ratios, not times: both sides of a ratio met the same disturbances.""")


def document(every: Mapping[str, Sequence[Figure]]) -> str:
    """The whole file, of the figures of each instruction set."""
    said = read(CPU / "results.csv")
    figures = every["AVX-512"]
    parts = [
        "# Performance",
        "<!-- made by `make readme` from bench/results; change bench/performance.py instead -->",
        dedent(f"""\
            A ratio is PyTorch's time over ours, both timed in turns in one process (`make bench`).
            Above 1 the kernel here is faster. Unless a section says otherwise: one thread of
            {setting(said)}, and the same held to AVX2 (`ATEN_CPU_CAPABILITY=avx2`,
            `ONEDNN_MAX_CPU_ISA=AVX2`, the AVX2 build of the kernels; MKL's products, by
            `MKL_ENABLE_INSTRUCTIONS=AVX2`, since the end of November 2026), in its own process.
            Every row of a CSV has a line in the `.md` beside it, with times, spread and the error
            of both sides. Where there are two ratios, the second is to the same layer of PyTorch
            under `torch.compile`.

            `auto` goes by tables made of these figures (`python bench/tables.py`), one for each
            instruction set. The same pools and normalisations in four dtypes and smaller batches,
            which decide where its classes begin, are in {_link("sizes.csv", ".md")} and, for AVX2,
            {_link("sizes.csv", ".md", ISAS["AVX2"].name)}.

            Nothing here has run on a GPU. The kernels in Triton and CUDA C++ are tested in Triton's
            interpreter and in an emulator, and no speed of theirs is measured. What their machine
            code permits an H100 is predicted for the kernels in CUDA C++ (`python bench/model.py`;
            the last section); `make gpu` measures them where there is one."""),
        _YOURS,
        *(
            _section(
                file, {isa: [f for f in found if f.file == file] for isa, found in every.items()}
            )
            for file in _SECTIONS
        ),
        _recurrent(figures),
        *([_networks(measured)] if (measured := network_rows()) else []),
        _compiled(every),
        _kept(figures),
        _overhead(),
        "\n\n".join([predicted.about(), _table(*predicted.lines(), 4), predicted.not_fused()]),
    ]
    return "\n\n".join(parts) + "\n"


def _link(file: str, end: str = ".csv", folder: str = CPU.name) -> str:
    name = file.removesuffix(".csv") + end
    return f"[{name}](../bench/results/{folder}/{name})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], words: int) -> str:
    """The first ``words`` columns are flush left."""
    lines = [head, ["---"] * words + ["--:"] * (len(head) - words), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _section(file: str, figures: Mapping[str, Sequence[Figure]]) -> str:
    title, about = _SECTIONS[file]
    every = [figure for found in figures.values() for figure in found]
    steps = [step for step in _STEPS if any(f.step == step for f in every)]
    lines: dict[tuple[str, ...], dict[tuple[str, str], Figure]] = {}
    for isa, found in figures.items():
        for figure in found:
            key = figure.case, figure.shape, figure.layout.replace("_", " "), figure.dtype
            lines.setdefault(key, {})[isa, figure.step] = figure
    columns = [(isa, step) for isa in figures for step in steps]
    rows = [[*key, *(_cell(row.get(column)) for column in columns)] for key, row in lines.items()]
    links = [f"{_link(file, folder=folder.name)} ({isa})" for isa, folder in ISAS.items()]
    tables = [f"{_link(file, '.md', folder.name)} ({isa})" for isa, folder in ISAS.items()]
    about = f"{dedent(about)} From {' and '.join(links)}; every row: {' and '.join(tables)}."
    said = []
    for isa, found in figures.items():
        left = [f for f in found if not f.taken]
        left = f" What it leaves to PyTorch, in brackets: {span(left)}." if left else ""
        said.append(f"What `auto` takes with {isa}: {_taken(found, steps)}.{left}")
    head = ["case", "input", "layout", "dtype", *(f"{isa}, {_STEPS[s]}" for isa, s in columns)]
    return "\n\n".join([f"## {title}", about, *said, _table(head, rows, 4)])


def _taken(figures: Sequence[Figure], steps: Sequence[str]) -> str:
    """By layout, the range of each pass that ``auto`` gives to a kernel here."""
    said = []
    for layout, name in (("nchw", "contiguous"), ("channels_last", "channels last")):
        spans = {
            step: span(f for f in figures if f.taken and (f.layout, f.step) == (layout, step))
            for step in steps
        }
        parts = [f"{_STEPS[step]} {ratios}" for step, ratios in spans.items() if ratios]
        said.append(f"{name}, {', '.join(parts)}" if parts else f"{name}, nothing")
    return "; ".join(said)


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    ratios = [one for one in (figure.ratio, figure.ratio_compiled) if one is not None]
    if not figure.taken:
        return f"({', '.join(map(shown, ratios))})"
    return ", ".join(map(_bold, ratios))


def _bold(ratio: float) -> str:
    """Bold where nothing is lost."""
    return f"**{shown(ratio)}**" if ratio >= 1 else shown(ratio)


def _recurrent(figures: Sequence[Figure]) -> str:
    figures = [f for f in figures if f.family == "rnn"]
    columns = [(threads, step) for threads in (1, 2) for step in ("forward", "both")]
    lines: dict[tuple[str, ...], dict[tuple[int, str], Figure]] = {}
    for figure in figures:
        if figure.file in ("rnn-1.csv", "rnn-2.csv", "rnn-cells.csv"):
            against = "a loop" if figure.kind == "rnn_own" else "`torch.nn`"
            line = lines.setdefault((figure.case, against), {})
            line[figure.threads, figure.step] = figure
    rows = [
        [*key, *(_cell(found.get(column)) for column in columns)]
        for key, found in lines.items()
        if any(column in found for column in columns)
    ]
    head = ["layer, T x B x H", "against", "one thread, forward", "forward + backward"]
    head += ["two threads, forward", "forward + backward"]
    one = [f for f in figures if f.file == "rnn-1.csv"]
    padded = [
        float(f.row["ours_us"]) / float(f.row["padded_by_tokens_us"])
        for f in one
        if f.row["padded_by_tokens_us"]
    ]
    share = [
        float(f.row["products_us"]) / float(f.row["theirs_us"])
        for f in one
        if f.kind == "rnn_own" and int(f.shape.split("x")[1]) > 1
    ]
    about = dedent(f"""\
        The kernel asked for by name, against `torch.nn`'s layer or, where PyTorch has none, against
        a loop over steps of PyTorch's operators. From {_link("rnn-1.csv")} and
        {_link("rnn-2.csv")}; in brackets, what `auto` leaves to PyTorch: padded LSTMs where oneDNN
        has one, and sequences of a few steps ({_link("rnn-short.csv")}, on
        {_devices("rnn-short.csv")}).{_cells(figures)}

        With one thread, a packed batch takes {_between(padded)} of the padded one's time, by its
        tokens. Of the loop's time with many sequences,
        {_between([100 * one for one in share], "%")} are matrix products, which both make.""")
    return "\n\n".join(["## Recurrent layers", about, _table(head, rows, 2)])


def _cells(figures: Sequence[Figure]) -> str:
    """What is said of cells, where some were measured."""
    if not any(figure.kind == "rnn_cell" for figure in figures):
        return ""
    return f" A cell's one step, from states that are given, is in {_link('rnn-cells.csv')}."


# The least that a whole network is to reach under ``auto``.
_NETWORKS_LEAST = 0.98


def network_files(isa: str) -> list[Path]:
    """What bench/networks.py wrote with one thread: classifiers and text, then networks for pixels
    and clips."""
    names = ("networks", "dense", "dense-channels_last")
    paths = (ISAS[isa] / f"{name}-1.csv" for name in names)
    return [path for path in paths if path.is_file()]


def network_rows() -> dict[str, list[dict[str, str]]]:
    """The rows of these files, by instruction set."""
    rows = {isa: [row for file in network_files(isa) for row in read(file)] for isa in ISAS}
    return {isa: [row for row in found if row["ratio"]] for isa, found in rows.items() if found}


def network_means(rows: Iterable[Mapping[str, str]]) -> str:
    """The geometric mean of each mode and layout, in words."""
    ratios: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        layout = "contiguous" if row["layout"] == "nchw" else "channels last"
        ratios.setdefault((row["mode"], layout), []).append(float(row["ratio"]))
    return ", ".join(
        f"{mode} {layout} {geometric_mean(found):.2f}x"
        for (mode, layout), found in sorted(ratios.items(), key=lambda one: one[0], reverse=True)
    )


def _networks(measured: Mapping[str, Sequence[Mapping[str, str]]]) -> str:
    modes = ("inference", "training")
    lines: dict[tuple[str, ...], dict[tuple[str, str], str]] = {}
    said = []
    for isa, rows in measured.items():
        for row in rows:
            shape = f"{row['batch']}x{row['input']}"
            key = row["network"], row["source"], shape, row["layout"].replace("_", " ")
            lines.setdefault(key, {})[isa, row["mode"]] = _bold(float(row["ratio"]))
        slow = [row for row in rows if float(row["ratio"]) < _NETWORKS_LEAST]
        below = "; ".join(
            f"{row['network']} {row['mode']} {row['layout'].replace('_', ' ')} {row['ratio']}"
            for row in sorted(slow, key=lambda row: float(row["ratio"]))
        )
        itself = [float(row["ratio_itself"]) for row in rows]
        compiled = [float(row["ratio_compile"]) for row in rows if row["ratio_compile"]]
        against = ""
        if compiled:
            against = (
                f" Against PyTorch under `torch.compile` ({len(compiled)} rows): "
                f"{geometric_mean(compiled):.2f}x, from {min(compiled):.2f} to "
                f"{max(compiled):.2f}x."
            )
        said.append(
            f"Geometric means with {isa}: {network_means(rows)}. Below {_NETWORKS_LEAST}: "
            f"{below or 'none'}. PyTorch timed once more in the same turns is {min(itself):.2f} to "
            f"{max(itself):.2f} of itself.{against}"
        )
    columns = [(isa, mode) for isa in measured for mode in modes]
    links = [
        f"{_link(file.name, '.md', file.parent.name)} ({isa})"
        for isa in measured
        for file in network_files(isa)
    ]
    about = dedent(f"""\
        Models after `pydl.accelerate`, every layer under `auto`, against the same model of PyTorch:
        inference, and a step of training (forward, loss and all gradients). One thread, float32,
        random weights. Most of their time is dense convolution and matrix products, which are
        PyTorch's own on both sides. Who served which layers, images per second and peak memory:
        {", ".join(links)}.""")
    head = ["network", "from", "input", "layout", *(f"{isa}, {mode}" for isa, mode in columns)]
    rows_ = [[*key, *(row.get(column, "") for column in columns)] for key, row in lines.items()]
    return "\n\n".join(["## Whole networks", about, *said, _table(head, rows_, 4)])


def _compiled(every: Mapping[str, Sequence[Figure]]) -> str:
    """Against PyTorch's compiler: by kind, and every row of what ``auto`` takes that it wins."""
    timed = {
        isa: [f for f in plain(found) if f.taken and f.ratio_compiled is not None]
        for isa, found in every.items()
    }
    columns = [(isa, step) for isa in timed for step in ("forward", "both")]
    kinds = by_kind([figure for found in timed.values() for figure in found])
    rows = []
    for kind in kinds:
        cells = [
            span((f for f in timed[isa] if (f.kind, f.step) == (kind, step)), compiled=True)
            for isa, step in columns
        ]
        rows.append([f"`{kind}`", *cells])
    about = dedent("""\
        Time of PyTorch's layer under `torch.compile` over ours, of what `auto` takes: float32,
        contiguous, one thread, compiled for the very shape. It compiles an average pool, a
        normalisation or an activation into one loop over the map, and fuses what surrounds them,
        which a layer alone does not show; convolutions, and recurrent layers, which it does not
        compile, it calls as they are.""")
    said = []
    for isa, found in timed.items():
        slower = sorted((f for f in found if f.ratio_compiled < 1), key=lambda f: f.ratio_compiled)
        rows_ = "; ".join(
            f"{f.case} {f.shape}, {_STEPS[f.step]}: {shown(f.ratio_compiled)}x" for f in slower
        )
        said.append(
            f"With {isa} it is faster in {len(slower) or 'none'} of {len(found)} rows"
            f"{': ' if slower else ''}{rows_}."
        )
    head = ["", *(f"{isa}, {_STEPS[step]}" for isa, step in columns)]
    return "\n\n".join(["## Against the compiler", about, *said, _table(head, rows, 1)])


def _devices(file: str) -> str:
    return " and ".join(sorted({row["device"] for row in read(CPU / file)}))


def _between(values: Sequence[float], unit: str = "") -> str:
    low, high = min(values), max(values)
    digits = 0 if unit else 2
    return f"{low:.{digits}f} to {high:.{digits}f}{' ' * bool(unit)}{unit}"


def _kept(figures: Sequence[Figure]) -> str:
    """What stays in memory between forward and backward: the largest of each operator's rows."""
    found: dict[str, tuple[float, float]] = {}
    for figure in figures:
        if figure.dtype != "float32" or not figure.row.get("kept_ours") or not figure.taken:
            continue
        elements = math.prod(map(int, figure.shape.split("x")))
        ours, theirs = (int(figure.row[f"kept_{who}"]) / elements for who in ("ours", "theirs"))
        found[figure.operator] = max(found.get(figure.operator, (0.0, 0.0)), (ours, theirs))
    rows = [[f"`{name}`", f"{a:.2f}", f"{b:.2f}"] for name, (a, b) in sorted(found.items())]
    about = dedent("""\
        Bytes per element of a float32 input that autograd keeps from forward to backward, without
        the operands themselves; the row that keeps most, of the files above. Max pooling keeps one
        byte per output, adaptive and pyramid maxima too while their bins have at most 256 elements,
        where PyTorch keeps eight.""")
    head = ["operator", "here", "PyTorch"]
    return "\n\n".join(["## Memory kept for the backward", about, _table(head, rows, 1)])


# What a column of overhead.csv is.
_WAYS = {
    "torch_us": "PyTorch",
    "auto_us": "`auto`",
    "cpu_us": "`cpu`",
    "triton_us": "`triton`",
    "cuda_us": "`cuda`",
}


def _overhead() -> str:
    about = dedent("""\
        What a call of a few hundred bytes takes, in microseconds: by PyTorch's layer; under `auto`,
        which leaves it to PyTorch where that has an operator; by the native kernel; and by Triton's
        and CUDA's up to the launch, which is replaced by nothing. Empty: that backend has none. Max
        unpooling by `cuda` and `nms` look at what a tensor holds before they are through.""")
    parts = ["## The way to a call", about]
    for isa, folder in ISAS.items():
        if not (folder / "overhead.csv").is_file():
            continue
        rows = read(folder / "overhead.csv")
        ways = {column: name for column, name in _WAYS.items() if any(r.get(column) for r in rows)}
        lines = [
            [f"`{row['layer']}`", row["passes"], *(row[column] for column in ways)] for row in rows
        ]
        parts.append(f"With {isa}, from {_link('overhead.csv', folder=folder.name)}:")
        parts.append(_table(["layer", "passes", *ways.values()], lines, 2))
    return "\n\n".join(parts)
