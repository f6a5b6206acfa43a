"""The mutants, as text: where they are, what becomes of the line, and one source with all of them,
each behind a switch."""

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mutants_equivalent import EQUIVALENT

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
KERNELS = ROOT / "csrc/cuda"
# Tests of a family's CUDA kernels in files that bear another name; `channel` is no family, but has
# what two share.
ELSEWHERE = {
    "batch_norm": ["test_batch_norm_running"],
    "channel": ["test_batch_norm", "test_conv_cuda"],
    "conv": ["test_conv_bias_act", "test_conv_transpose"],
}


@dataclass(frozen=True)
class Change:
    kind: str
    start: int  # what stands in the file from here
    end: int  # to here
    instead: str  # gives way to this
    # The same at run time: pieces of text and from where to where they go; `{n}` is the mutant's
    # number.
    switch: tuple[tuple[int, int, str], ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Mutant:
    number: int  # from 1, over all files
    path: Path
    line: int
    before: str  # the statement as it stands, on one line
    after: str
    change: Change
    nth: int  # of the mutants of this file that read the same

    @property
    def file(self) -> str:
        return self.path.name

    @property
    def key(self) -> tuple:
        """Names the mutant as long as its statement stands, wherever that moves."""
        return (self.file, self.change.kind, self.before, self.after, self.nth)

    @property
    def family(self) -> str:
        """conv of conv_gemm.cu: the longest beginning of the name that has tests."""
        family = self.path.stem
        while not tests_of(family):
            family = family.rpartition("_")[0]
        return family

    @property
    def source(self) -> str:
        """The whole mutated file."""
        text = self.path.read_text()
        return text[: self.change.start] + self.change.instead + text[self.change.end :]

    @cached_property
    def equivalent(self) -> tuple[str, str, str] | tuple[str, str, str, int] | None:
        """The entry of EQUIVALENT that is this mutant."""
        for entry in EQUIVALENT:
            file, words, became, *nth = entry
            mutated = self.before.replace(words, became, 1)
            if file != self.file or words not in self.before or mutated != self.after:
                continue
            if not nth or (nth == [self.nth] and words == self.before):
                return entry
        return None

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.change.kind}: {self.after}"


def tests_of(family: str) -> list[str]:
    """The tests of the family's CUDA kernels alone and all the family's."""
    names = [f"test_{family}_cuda", f"test_{family}", *ELSEWHERE.get(family, [])]
    found = [path for name in names for path in sorted((ROOT / "tests").rglob(f"{name}.py"))]
    return [str(path.relative_to(ROOT)) for path in found]


def closing(text: str, opening: int) -> int:
    """Where the bracket closes that opens at `opening`."""
    depth = 0
    for position in range(opening, len(text)):
        depth += (text[position] in "([{") - (text[position] in ")]}")
        if depth == 0:
            return position
    raise ValueError(f"unbalanced brackets after {text[opening : opening + 40]!r}")


def first_argument(text: str, opening: int) -> int:
    """Where the first argument ends of the call whose bracket opens at `opening`."""
    depth = 0
    for position in range(opening, len(text)):
        depth += (text[position] in "([{") - (text[position] in ")]}")
        if (depth == 1 and text[position] == ",") or depth == 0:
            return position
    raise ValueError(f"unbalanced brackets after {text[opening : opening + 40]!r}")


def code_only(text: str) -> str:
    """The text with comments, strings, directives, `check(...)` and `static_assert(...)` blanked
    out, every character in its place."""

    def blank(match: re.Match) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    text = re.sub(
        r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|^#[^\n]*',
        blank,
        text,
        flags=re.DOTALL | re.MULTILINE,
    )
    for call in re.finditer(r"\b(?:check|static_assert)(?=\()", text):
        end = closing(text, call.end())
        text = text[: call.start()] + re.sub(r"[^\n]", " ", text[call.start() : end]) + text[end:]
    return text


NOTHING = "static_cast<void>(0)"
AT = "pydl_mutants::at({n})"
BOUNDS = {"<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal"}


def changes(code: str):
    for match in re.finditer(r"\b(?:__syncthreads|__syncwarp|grid_barrier)(?=\()", code):
        start, end = match.start(), closing(code, match.end()) + 1
        opens = (start, start, f"({AT} ? {NOTHING} : static_cast<void>(")
        yield Change("barrier", start, end, "", (opens, (end, end, "))")))
    for match in re.finditer(r"\bcp_async_wait<([^<>]+)>\(\)", code):
        start, end = match.span()
        opens = (start, start, f"({AT} ? {NOTHING} : ")
        yield Change("wait", start, end, "", (opens, (end, end, ")")))
        short = f"({match[1]} + 1)"
        opens = (start, start, f"({AT} ? cp_async_wait<{short}>() : ")
        yield Change("wait", *match.span(1), short, (opens, (end, end, ")")))
    for match in re.finditer(r"\b__\w+_sync(?=\()", code):
        start, end = match.end() + 1, first_argument(code, match.end())
        opens = (start, start, f"({AT} ? 0x7fffffffu : 0xffffffffu) & (")
        short = f"({code[start:end]}) & 0x7fffffffu"
        yield Change("mask", start, end, short, (opens, (end, end, ")")))
    for match in re.finditer(r"\bif (?=\()", code):
        start, end = match.end(), closing(code, match.end()) + 1
        # What follows either is held back by the condition or, leaving, holds back the rest.
        leaves = re.match(r"\s*(?:return|continue|break)\b", code[end:]) is not None
        opens = (start + 1, start + 1, f"!{AT} && (" if leaves else f"{AT} || (")
        closes = (end - 1, end - 1, ")")
        yield Change("guard", start, end, "(false)" if leaves else "(true)", (opens, closes))
    for match in re.finditer(r"(?<= )(?:<=|>=|<|>)(?= )", code):
        shifted = match[0][0] if len(match[0]) == 2 else match[0] + "="
        # Two operators of the same precedence leave the operands what they were.
        switch = (*match.span(), f"<= pydl_mutants::{BOUNDS[match[0]]}<{{n}}> >=")
        yield Change("bound", *match.span(), shifted, (switch,))
    for match in re.finditer(r"(?<![\w:.])(?:min|max)(?=\()", code):
        end, comma = closing(code, match.end()), first_argument(code, match.end())
        start, first, second = match.start(), code[match.end() + 1 : comma], code[comma + 1 : end]
        # One name for both: the second's number is the next.
        both = (*match.span(), f"pydl_mutants::{match[0]}<{{n}}>")
        yield Change("clip", start, end + 1, f"({first.strip()})", (both,))
        yield Change("clip", start, end + 1, f"({second.strip()})")


def statement(code: str, start: int, end: int) -> tuple[int, int]:
    """Where the whole lines begin and end that hold the statement around code[start:end]."""
    breaks = [match.end() for match in re.finditer(r"(?:[;{}:]|^)[ ]*$\n?", code, re.MULTILINE)]
    first = max((at for at in breaks if at <= start), default=0)
    return first, min(at for at in breaks if at >= end) - 1


def sources() -> list[Path]:
    """What is mutated: every `.cu`, the headers that belong to one family, and `channel_sums.h`."""
    headers = (
        path
        for family in ("batch_norm", "channel", "conv", "pool", "rnn")
        for path in KERNELS.glob(f"{family}_*.h")
    )
    return sorted([*KERNELS.glob("*.cu"), *headers])


def all_mutants() -> list[Mutant]:
    out: list[Mutant] = []
    for path in sources():
        text = path.read_text()
        code = code_only(text)
        seen: Counter[tuple] = Counter()
        for change in sorted(changes(code), key=lambda change: text.count("\n", 0, change.start)):
            first, last = statement(code, change.start, change.end)
            before = " ".join(text[first:last].split())
            after = text[first : change.start] + change.instead + text[change.end : last]
            after = " ".join(after.split())
            nth = seen[change.kind, before, after]
            seen[change.kind, before, after] += 1
            line = text.count("\n", 0, change.start) + 1
            out.append(Mutant(len(out) + 1, path, line, before, after, change, nth))
    return out


def alone(mutant: Mutant) -> bool:
    """Whether the compiler decides what the mutant changes, so that no switch can: a constant, or
    what stands in a function that makes one."""
    if "constexpr" in mutant.before:
        return True
    before = mutant.path.read_text()[: mutant.change.start]
    return re.search(r"constexpr [\w:<> ]+\([^()]*\) \{[^{}]*$", before) is not None


def switched(path: Path, mutants: list[Mutant]) -> str:
    """The file with all its mutants, none of them chosen. Lines keep their numbers."""
    pieces = [
        (start, end, text.replace("{n}", str(mutant.number)))
        for mutant in mutants
        for start, end, text in mutant.change.switch
    ]
    source, out, done = path.read_text(), [f'#include "mutants.h"\n#line 1 "{path}"\n'], 0
    for start, end, text in sorted(pieces):
        out += [source[done:start], text]
        done = end
    return "".join([*out, source[done:]])


HEADER = """\
// Every mutant of the kernels is compiled in; `chosen` says which one takes effect, 0 none.
#pragma once

#include <type_traits>

#include "device.h"

namespace pydl_mutants {

// Constant while a kernel runs, so that the compiler need not look again and again.
extern const int chosen __attribute__((visibility("hidden")));
extern unsigned char reached[] __attribute__((visibility("hidden")));

[[gnu::always_inline]] inline bool at(int number) {
  reached[number] = 1;
  return chosen == number;
}

// a <= less<7> >= b: a < b, and where 7 is chosen a <= b.
enum class Is { less, less_equal, greater, greater_equal };
template <int number, Is is>
struct Bound {};
template <int number, Is is, class T>
struct Left {
  const T& value;
};
template <int number>
inline constexpr Bound<number, Is::less> less;
template <int number>
inline constexpr Bound<number, Is::less_equal> less_equal;
template <int number>
inline constexpr Bound<number, Is::greater> greater;
template <int number>
inline constexpr Bound<number, Is::greater_equal> greater_equal;

template <int number, Is is, class T>
[[gnu::always_inline]] inline Left<number, is, T> operator<=(const T& a, Bound<number, is>) {
  return {a};
}
template <int number, Is is, class T, class U>
[[gnu::always_inline]] inline bool operator>=(Left<number, is, T> left, const U& b) {
  const bool mutated = at(number);
  if constexpr (is == Is::less) return mutated ? left.value <= b : left.value < b;
  if constexpr (is == Is::less_equal) return mutated ? left.value < b : left.value <= b;
  if constexpr (is == Is::greater) return mutated ? left.value >= b : left.value > b;
  if constexpr (is == Is::greater_equal) return mutated ? left.value > b : left.value >= b;
}

// min<7>(a, b): a where 7 is chosen, b where 8 is.
template <int number, class T>
[[gnu::always_inline]] inline T min(T a, std::type_identity_t<T> b) {
  const bool first = at(number), second = at(number + 1);
  return first ? a : second ? b : ::min(a, b);
}
template <int number, class T>
[[gnu::always_inline]] inline T max(T a, std::type_identity_t<T> b) {
  const bool first = at(number), second = at(number + 1);
  return first ? a : second ? b : ::max(a, b);
}

}  // namespace pydl_mutants
"""

SWITCH = """\
namespace pydl_mutants {{

int chosen = 0;
unsigned char reached[{size}];

}}  // namespace pydl_mutants

extern "C" __attribute__((visibility("default"))) void pydl_choose(int number) {{
  pydl_mutants::chosen = number;
}}
extern "C" __attribute__((visibility("default"))) unsigned char* pydl_reached() {{
  return pydl_mutants::reached;
}}
"""
