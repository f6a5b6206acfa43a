"""Tests the tests: takes each barrier, wait, mask, guard, bound and clip out of each CUDA kernel in
turn and expects the suite to fail.

    python tests/tools/mutants.py                 every kernel (`make mutants`)
    python tests/tools/mutants.py conv nms        two families, or files (`make mutants FAMILY=...`)
    python tests/tools/mutants.py --resume        only what mutants.csv does not say was noticed
    python tests/tools/mutants.py --resume --sanitizers --seconds 20
                                            these under the sanitizers only, 20 s of tests for each
    python tests/tools/mutants.py --check         whether mutants.csv says of each that it was
    python tests/tools/mutants.py conv_direct --only 109 --kind bound,clip --list
                                            what would be tried

A mutant is one small change to one `.cu`, or to a header that belongs to one family
(`batch_norm_*.h`, `conv_*.h`, `pool_*.h`, `rnn_*.h`) or to two (`channel_*.h`):

    barrier      __syncthreads(), __syncwarp(), grid_barrier() taken out
    wait         cp_async_wait<n>() taken out, or one group short
    mask         a *_sync call's mask without its highest lane
    guard        the condition of an `if` taken out: what it held back always happens
    bound        < becomes <=, <= becomes <, > becomes >=, >= becomes >
    clip         min(a, b) or max(a, b) becomes a, and b

Arguments of `check(...)`, which refuse calls on the host, are left alone (the tests of bad input
answer for them), and so are those of `static_assert(...)`.

All mutants are compiled at once, into one emulated module in which a number chooses the one that
takes effect (mutants_source.py, mutants_build.py); only what stands in a `constexpr` is compiled by
itself. For each family a process of pytest collects its tests and runs them with none chosen, which
must pass and shows which test reaches which mutant. Then it forks a child for each mutant, which
runs the tests that reach it, first the quick ones and those that noticed others, until something
fails (mutants_judge.py): in the greedy order of threads, then in a random one (where the mutant
synchronises nothing, only the quickest tests). What survives both is asked again under
AddressSanitizer and UBSan. A test that hangs is killed when its processor time is spent and counts
as having noticed. What is in EQUIVALENT is asked about with --equivalent only.

Every verdict goes into mutants.csv. Exits with 1 if a mutant survives that is not in EQUIVALENT
(mutants_equivalent.py), or if that names what is no mutant or what is noticed.
"""

import argparse
import csv
import fcntl
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mutants_build import BUILD, Build
from mutants_equivalent import EQUIVALENT
from mutants_source import KERNELS, ROOT, Mutant, all_mutants, alone, tests_of

# What may run a CUDA kernel; what turns out not to is asked nothing.
SELECTED = "cuda-cpu or _cuda or not (cpu or triton or aten or reference or instruction_set)"
RESULTS = Path(__file__).with_name("mutants.csv")
KEY = ["file", "kind", "before", "after", "nth"]
COLUMNS = ["file", "line", *KEY[1:], "verdict", "judge", "how", "test", "seconds"]

# Who is asked, in this order: a build by its sanitizers, and the orders of threads, 0 being the
# greedy one.
JUDGES = {"": {0: "greedy order", 1: "random order"}, "address,undefined": {0: "sanitizers"}}


class Results:
    """mutants.csv, which always holds all verdicts so far on mutants that still exist. Two runs, of
    different families, may write to it at the same time."""

    def __init__(self, mutants: list[Mutant]) -> None:
        self.mutants = mutants
        self.rows: dict[tuple, dict] = {}
        self.read()

    def read(self) -> None:
        if RESULTS.exists():
            with RESULTS.open(newline="") as file:
                for row in csv.DictReader(file):
                    words = (row["file"], row["kind"], row["before"], row["after"])
                    self.rows[(*words, int(row["nth"]))] = row

    def of(self, mutant: Mutant) -> dict | None:
        return self.rows.get(mutant.key)

    def add(self, mutant: Mutant, **verdict: object) -> None:
        BUILD.mkdir(parents=True, exist_ok=True)
        with (BUILD / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.read()
            self.rows[mutant.key] = verdict
            new = RESULTS.with_suffix(".new")
            with new.open("w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
                writer.writeheader()
                for each in filter(self.of, self.mutants):
                    which = dict(zip(KEY, each.key, strict=True))
                    writer.writerow({**self.of(each), **which, "line": each.line})
            new.replace(RESULTS)


def answers(build: Build, family: str, job: dict) -> Iterator[dict]:
    """What the judge says of each mutant of the job, when it says so."""
    reader, writer = os.pipe()
    path = BUILD / f"{build.folder.name}-{family}.json"
    path.write_text(json.dumps({**job, "answers": f"/dev/fd/{writer}"}))
    command = [sys.executable, "-m", "pytest", "-q", "-s", "--tb=short", "-p", "no:cacheprovider"]
    command += ["-p", "mutants_judge", *tests_of(family), "-k", SELECTED]
    log = path.with_suffix(".log")
    with log.open("w") as output:
        judge = subprocess.Popen(
            [*command, f"--emulated={build.module}"],
            cwd=ROOT,
            env={
                **build.environment,
                "PYDL_MUTANTS_JOB": str(path),
                "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(ROOT)]),
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(writer,),
        )
        os.close(writer)
        with os.fdopen(reader) as lines:
            yield from map(json.loads, lines)
        if judge.wait():
            raise RuntimeError(f"the tests of {family} ended in {judge.returncode}: see {log}")


def modules_of(mutants: list[Mutant], build: Build) -> dict[int, str | None]:
    """A module for each mutant that no switch can choose, None for what does not compile."""
    out = {}
    for mutant in filter(alone, mutants):
        module = build.mutated(mutant, build.folder / f"alone/{mutant.number}")
        out[mutant.number] = module and str(module)
    return out


def judge(
    mutants: dict[Mutant, list[str]],
    sanitize: str,
    build: Build,
    arguments: argparse.Namespace,
    results: Results,
) -> dict[Mutant, list[str]]:
    """Asks one build about mutants of one family, each with the tests to ask (all, if none are
    named). Returns those that survive, with the tests that reach them."""
    family = next(iter(mutants)).family
    print(f"\n{family}: {len(mutants)} mutants, {sanitize or 'no sanitizer'}", flush=True)
    modules = modules_of(list(mutants), build)
    by_number = {mutant.number: mutant for mutant in mutants}
    job = {
        "orders": list(JUDGES[sanitize]),
        "jobs": arguments.jobs,
        "seconds": arguments.seconds,
        "size": len(results.mutants) + 1,
        "tests": sorted({test for tests in mutants.values() for test in tests}),
        "mutants": [
            {
                "number": number,
                "module": modules.get(number),
                "synchronises": mutant.change.kind in ("barrier", "wait", "mask"),
            }
            for number, mutant in by_number.items()
            if modules.get(number, "") is not None
        ],
    }
    left: dict[Mutant, list[str]] = {}

    def record(mutant: Mutant, **verdict: object) -> None:
        results.add(mutant, **verdict)
        said = f"{verdict['verdict']} {verdict.get('judge', '')} {verdict.get('how', '')}"
        print(f"{said:32} {mutant}", flush=True)

    for number in [number for number, module in modules.items() if module is None]:
        record(by_number.pop(number), verdict="does not compile")
    for answer in answers(build, family, job):
        if "unmutated" in answer:
            if answer["unmutated"]:
                raise RuntimeError(f"{answer['unmutated']} fails without any mutant")
            for name, seconds in zip(JUDGES[sanitize].values(), answer["seconds"], strict=True):
                print(f"{len(seconds)} tests in {name} take {sum(seconds):.0f} s", flush=True)
            continue
        mutant = by_number.pop(answer["number"])
        if "test" in answer:
            name, test = JUDGES[sanitize][answer["order"]], answer["test"].rpartition("/")[2]
            noticed = {"judge": name, "how": answer["how"], "test": test}
            record(mutant, verdict="noticed", **noticed, seconds=answer["seconds"])
        elif mutant.equivalent:
            record(mutant, verdict="equivalent")
        elif answer["reached"] and (arguments.seconds or sanitize != list(JUDGES)[-1]):
            left[mutant] = answer["reached"]
            record(mutant, verdict="survives so far")
        else:
            record(mutant, verdict="SURVIVES", how="" if answer["reached"] else "not reached")
    if by_number:
        raise RuntimeError("the judge said nothing of " + ", ".join(map(str, by_number.values())))
    return left


class Builds(dict):
    """The builds with all mutants, each made when it is first asked for."""

    def __init__(self, mutants: list[Mutant]) -> None:
        self.mutants = mutants

    def __missing__(self, sanitize: str) -> Build:
        print(f"building with {sanitize or 'no sanitizer'}", flush=True)
        self[sanitize] = Build(sanitize, self.mutants)
        return self[sanitize]


def table(mutants: list[Mutant], results: Results) -> None:
    columns = [*(name for orders in JUDGES.values() for name in orders.values())]
    columns += ["does not compile", "equivalent", "SURVIVES", "not asked"]
    counts: dict[str, Counter[str]] = {}
    for mutant in mutants:
        row = results.of(mutant) or {"verdict": "not asked"}
        verdict = row["judge"] if row["verdict"] == "noticed" else row["verdict"]
        if verdict in ("SURVIVES", "survives so far"):
            verdict = "equivalent" if mutant.equivalent else "SURVIVES"
        for name in (f"{mutant.family} {mutant.change.kind}", "~"):
            counts.setdefault(name, Counter())[verdict] += 1
    print("\n" + f"{'':24}{'all':>6}" + "".join(f"{column:>18}" for column in columns))
    for name, row in sorted(counts.items()):
        total = f"{name.replace('~', 'all'):24}{row.total():>6}"
        print(total + "".join(f"{row[column] or '':>18}" for column in columns))


def verdict_on_tests(mutants: list[Mutant], all_of_them: list[Mutant], results: Results) -> int:
    """Prints what is not as it should be, and returns 1 if something is not."""
    wrong = [
        f"EQUIVALENT names what {file} does not say, or not so: {words}"
        for file, words, *_ in sorted(
            set(EQUIVALENT) - {mutant.equivalent for mutant in all_of_them}
        )
    ]
    for mutant in mutants:
        row = results.of(mutant) or {"verdict": "is not asked"}
        if row["verdict"] == "noticed" and mutant.equivalent:
            wrong.append(f"EQUIVALENT names what {row['test']} notices: {mutant}")
        elif row["verdict"] not in ("noticed", "does not compile") and not mutant.equivalent:
            wrong.append(f"{row['verdict']} {row.get('how', '')}: {mutant}")
    print(*wrong, sep="\n")
    return bool(wrong)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="only these families, or files without .cu")
    parser.add_argument("--kind", type=lambda given: given.split(","), help="only these")
    parser.add_argument("--every", type=int, default=1, help="try one mutant in N")
    parser.add_argument("--only", type=int, action="append", help="only mutants of this line")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--seconds", type=float, help="of tests for each; survivors stay open")
    parser.add_argument("--sanitizers", action="store_true", help="ask no build without them")
    parser.add_argument("--resume", action="store_true", help="only those not yet noticed")
    parser.add_argument("--equivalent", action="store_true", help="ask about these too")
    parser.add_argument("--check", action="store_true", help="ask nothing, judge by mutants.csv")
    parser.add_argument("--list", action="store_true", help="print the mutants and stop")
    arguments = parser.parse_args()

    all_of_them = all_mutants()
    results = Results(all_of_them)
    names = {name for mutant in all_of_them for name in (mutant.family, mutant.path.stem)}
    if unknown := set(arguments.names) - names:
        parser.error(f"no such family or file in {KERNELS}: {', '.join(sorted(unknown))}")
    mutants = [
        mutant
        for mutant in all_of_them
        if (not arguments.names or {mutant.family, mutant.path.stem} & set(arguments.names))
        and (not arguments.only or mutant.line in arguments.only)
        and (not arguments.kind or mutant.change.kind in arguments.kind)
    ][:: arguments.every]
    if arguments.list:
        print(*mutants, sep="\n")
        return 0
    if not arguments.check:
        # CMake and Ninja come with the environment that runs this.
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        start, builds = time.monotonic(), Builds(all_of_them)
        families: dict[str, dict[Mutant, list[str]]] = {}
        for mutant in mutants:
            verdict = (results.of(mutant) or {}).get("verdict")
            if mutant.equivalent and not arguments.equivalent:
                if verdict != "equivalent":
                    results.add(mutant, verdict="equivalent")
            elif not arguments.resume or verdict not in ("noticed", "equivalent"):
                families.setdefault(mutant.family, {})[mutant] = []
        for sanitize in list(JUDGES)[arguments.sanitizers :]:
            for name, family in sorted(families.items(), key=lambda item: len(item[1])):
                if family:
                    build = builds[sanitize]
                    families[name] = judge(family, sanitize, build, arguments, results)
        print(f"\n{(time.monotonic() - start) / 60:.0f} minutes")
    table(mutants, results)
    return verdict_on_tests(mutants, all_of_them, results)


if __name__ == "__main__":
    sys.exit(main())
