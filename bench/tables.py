"""The tables that ``auto`` goes by, from what was measured: ``python bench/tables.py``.

For each kind of machine with a folder of figures (``bench/results/cpu-avx512``, ``cpu-avx2``,
``sm_90``) ``pydl/tables/<kind>.json`` is written, one row for each class of calls that this
package's kernel wins. ``--check`` writes nothing, and fails where a file is not what the figures
say.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from figures import Figure, every, setting, shown  # noqa: E402
from folders import devices  # noqa: E402

from pydl import backends, dispatch, layout  # noqa: E402
from pydl.measure import Times  # noqa: E402
from pydl.tuning.tuner import noise  # noqa: E402

# Of figures that come without percentiles.
_NOISE = 0.05


@dataclass(frozen=True)
class Measurement:
    """One figure, as the answer to one question of ``backends.choose``."""

    group: tuple  # family, function, dtype, channels_last, unit_stride, training: decided apart
    elements: int  # of the input
    plane: int  # of one channel of one image
    ratio: float  # PyTorch's time over ours
    noise: float
    backend: str
    source: str

    @property
    def won(self) -> bool:
        return self.ratio > 1 + max(0.02, self.noise)

    @property
    def lost(self) -> bool:
        return self.ratio < 1


def rows_of(measurements: Iterable[Measurement]) -> list[dispatch.Row]:
    """The rule. Of each group, ours serves the inputs of at least so many elements, with planes of
    at least so many, among which it lost no measurement and won two at least, the bounds being
    those of measurements that it won; of all such bounds, those above which it won the most."""
    groups: dict[tuple, list[Measurement]] = {}
    for one in measurements:
        groups.setdefault((*one.group, one.backend), []).append(one)
    rows = []
    for key, group in sorted(groups.items(), key=lambda item: str(item[0])):
        won = _largest_class(group)
        if len(won) > 1:
            *group_key, backend = key
            family, function, dtype, channels_last, unit_stride, training = group_key
            ratios = sorted(one.ratio for one in won)
            sources = sorted({one.source for one in won})
            rows.append(
                dispatch.Row(
                    family,
                    dtype,
                    backend,
                    f"{' and '.join(sources)}: {len(won)} won, {shown(ratios[0])} to "
                    f"{shown(ratios[-1])}x",
                    channels_last=channels_last,
                    training=training,
                    function=function,
                    unit_stride=unit_stride,
                    least=min(one.elements for one in won),
                    least_plane=min(one.plane for one in won),
                )
            )
    return rows


def _largest_class(group: Sequence[Measurement]) -> list[Measurement]:
    """The measurements that were won, of the best class."""
    best: list[Measurement] = []
    for least in {one.elements for one in group if one.won}:
        for plane in {one.plane for one in group if one.won}:
            inside = [one for one in group if one.elements >= least and one.plane >= plane]
            won = [one for one in inside if one.won]
            if len(won) > len(best) and not any(one.lost for one in inside):
                best = won
    return best


# Functions of which each pass is chosen apart, with or without gradients.
_BY_FUNCTION = ("depthwise",)


def measured(figure: Figure) -> Iterable[Measurement]:
    """What a figure says, for each question that it answers; nothing where PyTorch's own ran."""
    row = figure.row
    backend = row["backend"]
    if backend == "aten" or not figure.questions:
        return
    if figure.kind not in backends.BACKENDS["aten"].families:
        return  # nobody to choose between
    if figure.kind in _BY_FUNCTION and figure.step == "both":
        return
    for question in figure.questions[: 1 if figure.kind not in _BY_FUNCTION else None]:
        x = question.input
        last = layout.memory_format(x) is not torch.contiguous_format
        training = None if figure.kind in _BY_FUNCTION else figure.step != "forward"
        group = question.kind, question.function, x.dtype, last, question.unit_stride, training
        yield Measurement(
            group,
            x.numel(),
            math.prod(x.shape[2:]),
            figure.ratio,
            _noise(row),
            backend,
            figure.path,
        )


def _noise(row: dict[str, str]) -> float:
    if "ours_p20" not in row:
        return _NOISE
    both = (
        [float(row[f"{who}_{name}"]) for name in ("minimum", "p20", "median", "p80")]
        for who in ("ours", "theirs")
    )
    return max(noise(Times(*times, samples=0, calls=0)) for times in both)


def table(folder: Path) -> tuple[str, str]:
    """The kind of machine that a folder of figures is of, and its table as the file has it."""
    figures = [one for one in every(folder) if one.threads == 1 or one.row.get("capability")]
    rows = rows_of(one for figure in figures for one in measured(figure))
    text = {
        "made by": "bench/tables.py",
        "measured on": setting([figure.row for figure in figures]),
        "figures": f"bench/results/{folder.name}",
        "rows": [_plain(row) for row in rows],
    }
    capability = next((c for one in figures if (c := one.row.get("capability"))), None)
    kind = f"sm_{capability.replace('.', '')}" if capability else folder.name
    return kind, json.dumps(text, indent=1) + "\n"


def _plain(row: dispatch.Row) -> dict[str, object]:
    """Without what the row leaves open."""
    found = asdict(row) | {"dtype": str(row.dtype).removeprefix("torch.")}
    return {
        name: value for name, value in found.items() if value not in (None, 0) or value is False
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where it would")
    check = parser.parse_args().check
    stale = []
    for folder in devices():
        kind, text = table(folder)
        path = dispatch.TABLES / f"{kind}.json"
        if check and (not path.is_file() or path.read_text(encoding="utf-8") != text):
            stale.append(str(path.relative_to(ROOT)))
        elif not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: {len(json.loads(text)['rows'])} rows")
    if stale:
        print(f"not what bench/results says: {', '.join(stale)}; run `python bench/tables.py`")
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
