"""Makes what README and docs/ tell about the code and its speed, from the code and its results.

``python bench/readme.py`` writes it, ``--check`` fails where something is out of date.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "cmake")]

import chart  # noqa: E402
import compile_seconds  # noqa: E402
import figures  # noqa: E402
import performance  # noqa: E402
import predicted  # noqa: E402
import systems  # noqa: E402
from figures import Figure, by_kind, span  # noqa: E402
from folders import RESULTS, SHOWN, devices  # noqa: E402

from pydl import backends, functional, models  # noqa: E402
from pydl.bench.results import speedup  # noqa: E402
from pydl.recipes.classifiers_file import BASELINE, File, Row  # noqa: E402

# Operators that some backends serve and others not, unlike the rest of their family.
APART = {"conv2d_bias_act": "conv_bias_act", "nll_loss": "nll_loss"}


def operators() -> str:
    """Operators by family, and the backends that serve each; what each backend is tested on."""
    names = list(backends.BACKENDS)
    lines = [
        f"| family | operators | {' | '.join(f'`{name}`' for name in names)} |",
        f"|---|---|{'---|' * len(names)}",
    ]
    for family in backends.FAMILIES:
        public = [name for name in functional.__all__ if _room(name) == family]
        public = [name for name in public if not name.endswith("_with_indices")]
        lines.append(_line(family, _short([n for n in public if n not in APART]), family))
        if family == "conv":
            lines.append(_line(family, "the same, depthwise", "depthwise"))
        lines += [_line(family, f"`{n}`", APART[n]) for n in public if n in APART]
    lines += ["", "| backend | what it is | device | tested on |", "|---|---|---|---|"]
    lines += [
        f"| `{row.name}` | {row.about.partition(', in its')[0]} "
        f"| {', '.join(row.native_devices) or 'any'} | {row.proof} |"
        for row in backends.BACKENDS.values()
    ]
    return "\n".join(lines)


def _line(family: str, said: str, kind: str) -> str:
    serving = backends.serving(kind)
    cells = ["yes" if name in serving else "" for name in backends.BACKENDS]
    return f"| `{family}` | {said} | {' | '.join(cells)} |"


def _room(name: str) -> str:
    """The family of a public function: the module that it is in."""
    return getattr(functional, name).__module__.rpartition(".")[2]


def _short(names: Sequence[str]) -> str:
    """``conv1d``, ``conv2d``, ``conv3d`` as ``conv1d``, ``2d``, ``3d``."""
    said, before = [], ""
    for name in names:
        stem, axes = re.fullmatch(r"(.*?)(\dd)?", name).groups()
        said.append(f"`{axes}`" if axes and stem == before else f"`{name}`")
        before = stem if axes else ""
    return ", ".join(said)


def drop_in() -> str:
    """Feature x kind of layer: what tests/dropin/test_drop_in.py holds to torch.nn, all of it."""
    from drop_in import FEATURES
    from drop_in_layers import KINDS

    lines = [
        f"| the same as `torch.nn`'s in | {' | '.join(KINDS)} |",
        f"|---|{'---|' * len(KINDS)}",
    ]
    lines += [f"| {feature} | {' | '.join(['yes'] * len(KINDS))} |" for feature in FEATURES]
    lines += [f"| layers | {' | '.join(str(len(layers)) for layers in KINDS.values())} |"]
    return "\n".join(lines)


def networks() -> str:
    """Every network of the table, with what was published of it and the evidence that it is that
    network."""
    from network_evidence import TRAINED, WITH_HEADS

    learned = File(SHOWN).rows
    head = [
        "| name | what it is | input | parameters | multiply-adds | evidence | source |",
        "|---|---|---|--:|--:|---|---|",
    ]
    lines: list[str] = []
    for task in dict.fromkeys(model.task for model in models.MODELS.values()):
        lines += [f"### {task.capitalize()}", "", *head]
        for model in models.MODELS.values():
            if model.task != task:
                continue
            giga = f"{model.giga_multiply_adds} G" if model.giga_multiply_adds else ""
            evidence = ["A"]
            if model.golden:
                evidence.append(f"B ({model.golden})")
            if model.name in (*TRAINED, *WITH_HEADS):
                evidence.append("C")
            if model.name in learned and learned[model.name].shown:
                evidence.append("D")
            lines.append(
                f"| `{model.name}` | {model.about} | {'x'.join(map(str, model.input))} "
                f"| {model.parameters:,} | {giga} | {', '.join(evidence)} | {model.source} |"
            )
        lines.append("")
    return "\n".join(lines[:-1])


def shown() -> str:
    """What networks of the table learned from real input, and how fast, beside their twins."""
    learned = File(SHOWN).rows
    rows = [learned[name] for name in models.MODELS if name in learned]
    columns = (
        "network",
        "images",
        "epochs",
        "held out",
        "its twin",
        "error",
        "its twin's",
        "times",
    )
    columns += ("step", "its twin's", "ratio", "ours", "of that")
    lines = [f"| {' | '.join(columns)} |", f"|---|---|{'--:|' * 10}---|"]
    for row in rows:
        cells = (
            f"`{row.network}`",
            f"{row.pixels}x{row.pixels}",
            str(row.epochs),
            *(f"{100 * part:.1f} %" for part in (row.accuracy, row.accuracy_twin)),
            *(f"{value:.0e}" for value in (row.error, row.error_twin)),
            f"{row.times:.1f}",
            *(f"{value:.0f} ms" for value in (row.step_ms, row.step_ms_twin)),
            speedup(row.ratio),
            f"{100 * row.share:.1f} %",
            row.served or "none",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", _shown_where(rows)])


def _shown_where(rows: Sequence[Row]) -> str:
    def values(name: str) -> str:
        return " and ".join(sorted({row.facts[name] for row in rows}))

    dates = sorted(row.facts["date"] for row in rows)
    days = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    loads = [row.load for row in rows]
    missed = [f"`{row.network}`" for row in rows if not row.shown]
    return (
        f"{days}, one thread of {values('device')} ({values('pydl_isa')}), PyTorch "
        f"{values('torch')}, float32, by `make shown`; other programs ran meanwhile: the load was "
        f"{min(loads):.1f} to {max(loads):.1f} on {values('cores')} cores. "
        f"{BASELINE.capitalize()} reads {100 * rows[0].accuracy_baseline:.1f} % of the held-out "
        f"digits. Not shown, by these rules: {', '.join(missed) or 'none'}."
    )


def speed(found: Mapping[str, Sequence[Figure]]) -> str:
    """By kind of operator and instruction set: how fast what ``auto`` takes is, and what it
    leaves."""
    columns = ("forward", "forward + backward", "left to PyTorch")
    head = [f"{isa}: {columns[0]}" for isa in found]
    head = [cell for first in head for cell in (first, *columns[1:])]
    kinds = {isa: by_kind(one) for isa, one in found.items()}
    order = by_kind([figure for one in found.values() for figure in one])
    lines = [f"| | {' | '.join(head)} | from |", f"|---|{'---|' * (len(head) + 1)}"]
    for kind, all_of_them in order.items():
        cells = []
        for of_isa in kinds.values():
            group = of_isa.get(kind, [])
            taken = [one for one in group if one.taken]
            left = [one for one in group if not one.taken]
            cells += [
                span(one for one in taken if one.step == "forward"),
                span(one for one in taken if one.step != "forward"),
                f"{len(left)} ({span(left)})" if left else "",
            ]
        cells.append(", ".join(sorted({one.file.removesuffix(".csv") for one in all_of_them})))
        lines.append(f"| `{kind}` | {' | '.join(cells)} |")
    return "\n".join([*lines, "", _caption(found)])


def _caption(found: Mapping[str, Sequence[Figure]]) -> str:
    every = [figure for one in found.values() for figure in one]
    measured = {one.family for one in every}
    missing = [f"`{family}`" for family in backends.FAMILIES if family not in measured]
    taken = [one for one in every if one.taken]
    slower = [one for one in taken if one.ratio < 1]
    folders = " and ".join(
        f"[{folder.name}]({folder.relative_to(ROOT)})" for folder in figures.ISAS.values()
    )
    gpus = set(devices()) - set(figures.ISAS.values())
    said = [
        f"PyTorch's time over ours: one thread of {figures.setting([one.row for one in every])}, "
        "float32, contiguous; for AVX2 both are held to it. From the CSV files of these names in "
        f"{folders}; for `depthwise` the gradients alone. Of {len(taken)} rows that `auto` gives "
        f"to a kernel here, {len(slower) or 'none'} {'are' if len(slower) > 1 else 'is'} slower "
        f"than PyTorch's{f' ({span(slower)})' if slower else ''}. *Left*: rows that it gives to "
        "PyTorch's own operator; the ratio is our kernel's, asked for by name, or that of the way "
        "there.",
    ]
    timed = [one for one in taken if one.ratio_compiled is not None]
    if timed:
        beaten = [one for one in timed if one.ratio_compiled < 1]
        said.append(
            f"Against the same layer under `torch.compile` ({len(timed)} of these rows): "
            f"{span(timed, compiled=True)}, {len(beaten) or 'none'} below 1."
        )
    said += [
        f"Whole networks after `accelerate`, {isa}, geometric means: "
        f"{performance.network_means(rows)} ({_networks_of(isa)})."
        for isa, rows in performance.network_rows().items()
    ]
    if missing:
        said.append(f"Not measured: {', '.join(missing)}.")
    if not gpus:
        said.append(
            "**On a GPU nothing is measured: nothing here has ever run on one.** "
            f"{predicted.sentence()}"
        )
    return " ".join(said)


def _networks_of(isa: str) -> str:
    files = (file.with_suffix(".md") for file in performance.network_files(isa))
    return ", ".join(f"[{file.name}]({file.relative_to(ROOT)})" for file in files)


def _filled(text: str, name: str, made: str) -> str:
    """``text`` with what is between two comments made anew."""
    begin, end = text.index(f"<!-- {name}: "), text.index(f"<!-- end of {name} -->")
    begin = text.index("-->", begin) + len("-->\n")
    return f"{text[:begin]}\n{made}\n\n{text[end:]}"


def made() -> dict[Path, str]:
    """Every generated file with its text."""
    every = {isa: figures.every(folder) for isa, folder in figures.ISAS.items()}
    plain = {isa: figures.plain(found) for isa, found in every.items()}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    readme = _filled(readme, "operators", operators())
    readme = _filled(readme, "speed", speed(plain))
    drop = (ROOT / "docs" / "drop-in.md").read_text(encoding="utf-8")
    wing = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")
    wing = _filled(_filled(wing, "networks", networks()), "shown", shown())
    fusing = (ROOT / "docs" / "fusing.md").read_text(encoding="utf-8")
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    log = RESULTS / "compile_seconds.csv"
    compiling = compile_seconds.markdown(compile_seconds.read(log), most=10)
    of_chart = plain["AVX-512"]
    where = f"One thread of {figures.setting([one.row for one in of_chart])}, float32, contiguous"
    return {
        ROOT / "README.md": readme,
        ROOT / "CONTRIBUTING.md": _filled(contributing, "compiling", compiling),
        ROOT / "docs" / "drop-in.md": _filled(drop, "drop-in", drop_in()),
        ROOT / "docs" / "networks.md": _filled(wing, "sequences", systems.sequences(ROOT)),
        ROOT / "docs" / "fusing.md": _filled(fusing, "fused", systems.fused(ROOT)),
        ROOT / "docs" / "performance.md": performance.document(every),
        ROOT / "docs" / "speed.svg": chart.svg(by_kind(of_chart), where),
    }


def main() -> int:
    texts = made()
    stale = [
        path
        for path, text in texts.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
    if "--check" in sys.argv[1:]:
        print(f"out of date: {names}; run `make readme`" if stale else "README and docs are fresh")
        return int(bool(stale))
    for path in stale:
        path.write_text(texts[path], encoding="utf-8")
    print(f"written: {names}" if stale else "nothing to write")
    return 0


if __name__ == "__main__":
    sys.exit(main())
