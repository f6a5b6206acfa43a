"""A pytest plugin that judges mutants: collects a family's tests and runs them once, then forks a
child for each mutant, which chooses it and runs the tests that reach it until one fails.

The job is a file of JSON that PYDL_MUTANTS_JOB names:

    orders      the orders of threads to ask, one after another
    mutants     [{"number": 17, "synchronises": whether it is of a barrier, a wait or a mask,
                "module": null or the path of a module that has only this one}]
    tests       ask no others, unless none are named
    seconds     of tests to ask about each mutant in each order, or null
    jobs        children at a time
    answers     where to write a line of JSON for each mutant
"""

import ctypes
import gc
import importlib.util
import json
import math
import os
import re
import resource
import selectors
import signal
import struct
import time
from pathlib import Path

import pytest

from pydl.emulation import emulate_cuda

PATIENCE = 10  # times as long as a test takes with no mutant
MOST = 10  # seconds of tests in a further order of threads, for what synchronises none
LEAST = 5  # seconds of processor time that any test gets
ITSELF = 99  # a child's status if not a test failed in it but this file
BEGUN = struct.Struct("ii")  # what a child says of each test: the order's place, the item's


class Switch:
    """The emulated module's mutants."""

    def __init__(self, path: str, size: int) -> None:
        self.library = ctypes.CDLL(path)
        self.library.pydl_reached.restype = ctypes.POINTER(ctypes.c_ubyte * size)
        self.reached = self.library.pydl_reached().contents
        self.choose = self.library.pydl_choose

    def take_reached(self) -> bytes:
        out = bytes(self.reached)
        ctypes.memset(self.reached, 0, len(out))
        return out


def emulate(path: str):
    # A name of its own: pybind11 hands out by its name a module that it has made before.
    folder = re.sub(r"\W", "_", str(Path(path).parent))
    spec = importlib.util.spec_from_file_location(f"pydl.{folder}._emulated", Path(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    emulate_cuda(module)
    return module


class Judge:
    def __init__(self, session: pytest.Session) -> None:
        self.job = json.loads(Path(os.environ["PYDL_MUTANTS_JOB"]).read_text())
        self.session, asked = session, set(self.job["tests"])
        self.items = [item for item in session.items if not asked or item.nodeid in asked]
        path = session.config.getoption("--emulated")
        self.module, self.switch = emulate(path), Switch(path, self.job["size"])
        self.kills: list[int] = []  # by item
        self.seconds: list[list[float]] = []  # by order and item
        self.reached: list[list[bytes]] = []  # by order and item, and in these by mutant

    def run(self, i: int, following: int | None) -> bool:
        """Whether the item fails."""
        item, before = self.items[i], self.session.testsfailed
        nextitem = None if following is None else self.items[following]
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=nextitem)
        return self.session.testsfailed > before

    def without_mutants(self) -> str | None:
        """Runs everything, and returns a test that fails."""
        for order in self.job["orders"]:
            count = len(self.items)
            self.module.emulator.set_order(order)
            self.seconds.append([])
            self.reached.append([])
            for i in range(count):
                start = time.process_time()
                self.switch.take_reached()
                if self.run(i, i + 1 if i + 1 < count else None):
                    return self.items[i].nodeid
                self.seconds[-1].append(time.process_time() - start)
                self.reached[-1].append(self.switch.take_reached())
            if len(self.reached) == 1 and not any(m["module"] for m in self.job["mutants"]):
                useful = [i for i, hit in enumerate(self.reached[0]) if any(hit)]
                self.items, self.seconds[0], self.reached[0] = (
                    [each[i] for i in useful]
                    for each in (self.items, self.seconds[0], self.reached[0])
                )
        self.kills = [0] * len(self.items)
        return None

    def reaching(self, place: int, mutant: dict) -> list[int]:
        """What reaches the mutant in this order of threads, the likeliest to notice soon first."""
        alone, number = mutant["module"] is not None, mutant["number"]
        out = [i for i, hit in enumerate(self.reached[place]) if alone or hit[number]]
        return sorted(out, key=lambda i: (self.seconds[place][i] + 0.02) / (1 + self.kills[i]))

    def tests(self, place: int, mutant: dict) -> list[int]:
        """Of these, what there is time for."""
        most = self.job["seconds"] or math.inf
        if place > 0 and not mutant["synchronises"]:
            most = min(most, MOST)
        reaching, spent = self.reaching(place, mutant), 0.0
        for count, i in enumerate(reaching):
            if spent > most:
                return reaching[:count]
            spent += self.seconds[place][i]
        return reaching

    def child(self, mutant: dict, pipe: int) -> bool:
        """Whether a test fails with this mutant."""
        module = emulate(mutant["module"]) if mutant["module"] else self.module
        if not mutant["module"]:
            self.switch.choose(mutant["number"])
        for place, order in enumerate(self.job["orders"]):
            module.emulator.set_order(order)
            tests = self.tests(place, mutant)
            for i, following in zip(tests, [*tests[1:], None], strict=True):
                os.write(pipe, BEGUN.pack(place, i))
                patience = LEAST + PATIENCE * self.seconds[place][i]
                _, hard = resource.getrlimit(resource.RLIMIT_CPU)
                limit = int(time.process_time() + patience + 1)
                resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))
                # One that sleeps uses no processor time.
                signal.alarm(int(60 + 10 * patience))
                if self.run(i, following):
                    return True
        return False

    def fork(self, mutant: dict) -> tuple[int, int]:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = ITSELF
            try:
                null = os.open(os.devnull, os.O_RDWR)
                for stream in (0, 1, 2):
                    os.dup2(null, stream)
                code = int(self.child(mutant, writer))
            finally:
                os._exit(code)
        os.close(writer)
        return pid, reader

    def survives(self, mutant: dict) -> dict:
        places = range(len(self.reached))
        reached = {i for place in places for i in self.reaching(place, mutant)}
        names = [self.items[i].nodeid for i in sorted(reached)]
        return {"number": mutant["number"], "reached": names}

    def verdict(self, mutant: dict, status: int, begun: bytes, start: float) -> dict:
        if status == 0:
            return self.survives(mutant)
        if status == ITSELF << 8 or not begun:
            raise RuntimeError(f"a child that was to judge {mutant} failed itself")
        place, i = BEGUN.unpack(begun[-BEGUN.size :])
        self.kills[i] += 1
        killed = os.WIFSIGNALED(status)
        how = signal.Signals(os.WTERMSIG(status)).name if killed else "fails"
        return {
            "number": mutant["number"],
            "test": self.items[i].nodeid,
            "order": self.job["orders"][place],
            "how": {"SIGXCPU": "hangs", "SIGALRM": "hangs"}.get(how, how),
            "seconds": round(time.monotonic() - start, 1),
        }

    def judge(self, answers) -> None:
        waiting, running = list(reversed(self.job["mutants"])), selectors.DefaultSelector()
        while waiting or running.get_map():
            while waiting and len(running.get_map()) < self.job["jobs"]:
                mutant = waiting.pop()
                if not self.survives(mutant)["reached"]:
                    answers(self.survives(mutant))
                    continue
                pid, reader = self.fork(mutant)
                state = (mutant, pid, time.monotonic(), bytearray())
                running.register(reader, selectors.EVENT_READ, state)
            for ready, _ in running.select():
                mutant, pid, start, begun = ready.data
                said = os.read(ready.fd, 1 << 16)
                begun += said
                if not said:
                    running.unregister(ready.fd)
                    os.close(ready.fd)
                    status = os.waitpid(pid, 0)[1]
                    answers(self.verdict(mutant, status, bytes(begun), start))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    judge = Judge(session)
    with open(judge.job["answers"], "w") as file:

        def answers(answer: dict) -> None:
            file.write(json.dumps(answer) + "\n")
            file.flush()

        failing = judge.without_mutants()
        answers({"unmutated": failing, "tests": len(judge.items), "seconds": judge.seconds})
        if failing is None:
            gc.freeze()  # or each child would copy most of memory to look at it
            judge.judge(answers)
    return True
