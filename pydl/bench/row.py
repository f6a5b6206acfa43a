"""A row of the benchmark's results."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydl.measure import Times

PASS_NAMES = {"both": "forward + backward"}
_STATISTICS = ("minimum", "p20", "median", "p80")


@dataclass
class Row:
    """One case, one pass, one setting. Times in microseconds; ratio and copies by ``ratio_of``."""

    case: str
    kind: str
    operator: str
    shape: str
    weight: str
    arguments: str
    layout: str
    dtype: str
    asked: str
    ratio_of: str  # minimum on a CPU, median on a GPU
    status: str  # ok, wrong (a check failed: not timed), broken (an exception), not served
    detail: str = ""
    backend: str = ""
    error_ours: float | None = None
    error_theirs: float | None = None
    ours_minimum: float | None = None
    ours_p20: float | None = None
    ours_median: float | None = None
    ours_p80: float | None = None
    theirs_minimum: float | None = None
    theirs_p20: float | None = None
    theirs_median: float | None = None
    theirs_p80: float | None = None
    copy_minimum: float | None = None
    copy_median: float | None = None
    compiled_minimum: float | None = None  # PyTorch under torch.compile
    compiled_median: float | None = None
    samples: int | None = None
    ratio: float | None = None  # PyTorch's time over ours: above 1 ours is faster
    ratio_compiled: float | None = None  # the same of PyTorch under torch.compile
    copies: float | None = None  # our time over the time of one copy of the input
    copies_theirs: float | None = None
    kept_ours: int | None = None  # bytes that autograd keeps for backward, the input's own aside
    kept_theirs: int | None = None
    goal: float | None = None
    kernels_ours: str = ""
    kernels_theirs: str = ""

    def take(self, times: Mapping[str, Times]) -> None:
        """Fill in the times of ``ours``, ``theirs``, ``copy`` and, where it was timed,
        ``compiled``."""
        for who in ("ours", "theirs"):
            for statistic in _STATISTICS:
                setattr(self, f"{who}_{statistic}", 1e6 * getattr(times[who], statistic))
        for who in {"copy", "compiled"} & times.keys():
            for statistic in ("minimum", "median"):
                setattr(self, f"{who}_{statistic}", 1e6 * getattr(times[who], statistic))
        self.samples = times["ours"].samples
        ours, theirs, copy = (
            getattr(times[who], self.ratio_of) for who in ("ours", "theirs", "copy")
        )
        self.ratio, self.copies, self.copies_theirs = theirs / ours, ours / copy, theirs / copy
        if "compiled" in times:
            self.ratio_compiled = getattr(times["compiled"], self.ratio_of) / ours

    def of(self, who: str) -> float | None:
        """The time that counts of ``ours``, ``theirs`` or ``compiled``, in microseconds."""
        return getattr(self, f"{who}_{self.ratio_of}")

    def __str__(self) -> str:
        what = (
            f"{self.case:40} {PASS_NAMES.get(self.kind, self.kind):20}{self.shape:16}"
            f"{self.layout:14}{self.dtype:10}"
        )
        if self.ratio is None:
            return f"{what}{self.backend or self.asked:10}{self.status}: {self.detail}"
        goal = (
            ""
            if self.goal is None
            else f"  goal {self.goal:g}: {'met' if self.ratio >= self.goal else 'missed'}"
        )
        times = f"{self.of('ours'):11.1f} us  PyTorch {self.of('theirs'):11.1f} us"
        compiled = ""
        if self.ratio_compiled is not None:
            compiled = f"  compiled {self.of('compiled'):9.1f} us  {self.ratio_compiled:7.2f}x"
        return (
            f"{what}{self.backend:10}{times}  {self.ratio:7.2f}x{compiled}  {self.copies:7.1f} "
            f"copies{goal}"
        )
