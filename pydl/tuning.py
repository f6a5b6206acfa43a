"""Who is fastest at a call on this machine: measured, remembered in the process, kept in a file.

``auto`` asks what was measured before it asks its table (dispatch.py). A call is measured where it
is made: ``choose`` finds that it does not know the call and raises, the function that was called
catches that (:func:`measured_when_new`), lets every backend that can serve the call do so, compares
the results with the reference, times them in turns, remembers the fastest, and goes on.

A graph that ``torch.compile`` makes uses what is known when it is traced. Nothing is measured while
a graph is made or a CUDA graph is captured, under torch.func, or in forward mode.
"""

import contextlib
import copy
import dataclasses
import functools
import hashlib
import json
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch.utils._pytree import tree_flatten, tree_map

from pydl import backends, dispatch, measure
from pydl.asked import use_backend

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

# PyTorch's own first: what wins must win against it.
CANDIDATES = ("aten", "cpu", "triton", "cuda")
# Its results are random and, by PyTorch's operator, others than by the reference.
_RANDOM = ("dropout",)
# A result may be this many times as far from the reference as PyTorch's, and this many units in
# the last place of the largest value further.
_TIMES, _UNITS = 2, 16


@dataclasses.dataclass(frozen=True)
class Choice:
    """What was found out about one call."""

    family: str
    key: dispatch.Key
    backend: str  # the fastest
    microseconds: Mapping[str, float]  # of every backend that was measured
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)  # and why

    @property
    def ratio(self) -> float | None:
        """PyTorch's time over that of the fastest; None where PyTorch has no such operator."""
        theirs = self.microseconds.get("aten")
        return None if theirs is None else theirs / self.microseconds[self.backend]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.key[dispatch.SHAPE])


# Whether this thread is inside a call that :func:`first_measured` can make again.
_here = threading.local()


class _Unmeasured(Exception):
    """The call is to be measured before it is served."""


def measured_when_new(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """For whatever users call that asks ``backends.choose``: measures a call that ``auto`` does not
    know, while it is to be so."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if dispatch.on_miss is None or torch.compiler.is_compiling():
            return function(*args, **kwargs)
        return first_measured(function, args, kwargs)

    return call


def first_measured(function: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
    """The call, measured first if ``auto`` does not know it."""
    before, _here.may_stop = getattr(_here, "may_stop", False), True
    try:
        return function(*args, **kwargs)
    except _Unmeasured:
        pass
    finally:
        _here.may_stop = before
    assert _tuner is not None
    with _missing(None):
        _tuner.measure(function, args, kwargs)
        return function(*args, **kwargs)


@contextlib.contextmanager
def _missing(on_miss: Callable[..., str | None] | None) -> Iterator[None]:
    """Lets calls that are not known do this."""
    before = dispatch.on_miss
    dispatch.watch(on_miss)
    try:
        yield
    finally:
        dispatch.watch(before)


def _unknown(family: str, tensor: torch.Tensor, key: dispatch.Key) -> None:
    captured = tensor.is_cuda and torch.cuda.is_current_stream_capturing()
    may_stop = getattr(_here, "may_stop", False) and not captured
    if may_stop and len(_servers(family, tensor)) > 1:
        raise _Unmeasured


def _servers(family: str, tensor: torch.Tensor) -> list[str]:
    return [one for one in CANDIDATES if backends.refusal(one, family, tensor) is None]


class Tuner:
    """Measures calls and remembers what it found.

    Args:
        seconds: how long to measure all backends of a call together, roughly.
        keep: what to do with each :class:`Choice`.
        clock: times callables in turns, as :func:`pydl.measure.interleave` does.
    """

    def __init__(
        self,
        seconds: float = 0.05,
        keep: Callable[[Choice], None] | None = None,
        clock: Callable[..., Mapping[str, measure.Times]] = measure.interleave,
    ) -> None:
        self.seconds, self.keep, self.clock = seconds, keep, clock

    def measure(self, function: Callable[..., object], args: tuple, kwargs: dict) -> list[Choice]:
        """Measures one call, and remembers who is to serve the questions that it asks."""
        leaves = tree_flatten((args, kwargs))[0]
        devices = {one.device for one in leaves if isinstance(one, torch.Tensor) and one.is_cuda}
        with torch.random.fork_rng(devices=list(devices)):
            return self._measure(_Call(function, args, kwargs))

    def _measure(self, call: "_Call") -> list[Choice]:
        questions = call.questions()
        if not questions:
            return []
        device = questions[0][1].device
        servers = [
            one
            for one in CANDIDATES
            if all(one in _servers(family, tensor) for family, tensor, _ in questions)
        ]
        left_out: dict[str, str] = {}
        actions = call.actions(servers, left_out, any(f in _RANDOM for f, *_ in questions))
        times: Mapping[str, measure.Times] = {}
        if len(actions) > 1:
            times = self.clock(actions, device=device, seconds=self.seconds, rounds=(5, 100))
        best = _best(times) if times else next(iter(actions), "aten")
        statistic = "median" if device.type == "cuda" else "minimum"
        took = {name: 1e6 * getattr(one, statistic) for name, one in times.items()}
        choices: list[Choice] = []
        # By another backend the call may ask more: who serves its backward.
        while questions and len(choices) < 8:
            for family, _, key in questions:
                if (family, key) not in [(one.family, one.key) for one in choices]:
                    choices.append(Choice(family, key, best, took, left_out))
                    dispatch.remember(family, key, best)
            questions = call.questions()
        if self.keep is not None and took:
            for choice in choices:
                self.keep(choice)
        return choices


def _best(times: Mapping[str, measure.Times]) -> str:
    """The fastest, but PyTorch's own unless that loses by more than the noise."""
    fastest = min(times, key=lambda name: times[name].minimum)
    if "aten" in times and not wins(times[fastest], times["aten"]):
        return "aten"
    return fastest


def noise(times: measure.Times) -> float:
    """How far the minimum of these samples may be from that of others: what a fifth of the samples
    stay within."""
    return times.p20 / times.minimum - 1


def wins(ours: measure.Times, theirs: measure.Times) -> bool:
    """Whether ours is faster by more than the noise in either."""
    return theirs.minimum / ours.minimum > 1 + max(0.02, noise(ours), noise(theirs))


class _Call:
    """A call with operands of its own, so that it can be made again and again."""

    def __init__(self, function: Callable[..., object], args: tuple, kwargs: dict) -> None:
        self.function = function
        self.args, self.kwargs = tree_map(_copied, (args, kwargs))
        leaves = tree_flatten((self.args, self.kwargs))[0]
        self.wanted = [one for one in leaves if isinstance(one, torch.Tensor) and one.requires_grad]
        for module in (one for one in leaves if isinstance(one, torch.nn.Module)):
            self.wanted += [one for one in module.parameters() if one.requires_grad]
        if not torch.is_grad_enabled():
            self.wanted = []

    def run(self, backend: str) -> list[torch.Tensor]:
        """Results and gradients by this backend."""
        named = "backend" in self.kwargs
        kwargs = {**self.kwargs, "backend": backend} if named else self.kwargs
        with use_backend(backend):
            results = tree_flatten(self.function(*self.args, **kwargs))[0]
        results = [one for one in results if isinstance(one, torch.Tensor)]
        ends = [one for one in results if one.requires_grad]
        results = [one.detach() for one in results]
        if not self.wanted or not ends:
            return results
        # Ones are an expanded tensor, which a gradient seldom is.
        grads = [torch.ones_like(one) for one in ends]
        return [
            *results,
            *torch.autograd.grad(ends, self.wanted, grads, allow_unused=True),
        ]

    def seeded(self, backend: str) -> list[torch.Tensor]:
        """The same, with the random numbers that every backend is to draw."""
        torch.manual_seed(0)
        return self.run(backend)

    def questions(self) -> list[tuple[str, torch.Tensor, dispatch.Key]]:
        """What the call asks ``backends.choose``, under ``auto``."""
        seen: list[tuple[str, torch.Tensor, dispatch.Key]] = []

        def note(family: str, tensor: torch.Tensor, key: dispatch.Key) -> None:
            if len(_servers(family, tensor)) > 1:
                seen.append((family, tensor, key))

        with _missing(note):
            self.run("auto")
        return seen

    def actions(
        self, servers: list[str], left_out: dict[str, str], random: bool
    ) -> dict[str, measure.Action]:
        """A callable for each server that gives correct results. Fills in why others do not."""
        found: dict[str, list[torch.Tensor]] = {}
        for server in servers:
            try:
                found[server] = self.seeded(server)
            except torch.OutOfMemoryError:
                left_out[server] = "ran out of memory"
            except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
                left_out[server] = str(error).partition("\n")[0]
        ours = [one for one in found if one != "aten"]
        if ours:
            try:
                doubled = tree_map(_doubled, (self.args, self.kwargs))
                truth = _Call(self.function, *doubled).seeded("reference")
            except (RuntimeError, ValueError, TypeError, MemoryError) as error:
                for server in ours:
                    said = str(error).partition("\n")[0]
                    left_out[server] = f"the reference cannot check it: {said}"
                    del found[server]
            else:
                theirs = None if random else found.get("aten")
                for server in ours:
                    if not _correct(found[server], truth, theirs):
                        left_out[server] = "its results are not those of the reference"
                        del found[server]
        return {server: functools.partial(self.run, server) for server in found}


def _correct(
    ours: list[torch.Tensor], truth: list[torch.Tensor], theirs: list[torch.Tensor] | None
) -> bool:
    """Whether results are as close to the reference as PyTorch's, within limits."""
    if len(ours) != len(truth):
        return False
    for i, (one, true) in enumerate(zip(ours, truth, strict=True)):
        if one is None or true is None:
            if one is not true:
                return False
            continue
        if not one.is_floating_point():
            continue  # indices: of ties, any
        size = max(float(true.abs().max()), 1.0) if true.numel() else 0.0
        bound = _UNITS * torch.finfo(one.dtype).eps * size
        if theirs is not None and len(theirs) == len(truth) and theirs[i] is not None:
            bound += _TIMES * _distance(theirs[i], true)
        if not _distance(one, true) <= bound:
            return False
    return True


def _distance(values: torch.Tensor, truth: torch.Tensor) -> float:
    return float((values.double() - truth).abs().max()) if truth.numel() else 0.0


def _copied(value: object) -> object:
    if not isinstance(value, torch.Tensor):
        return value
    # Memory of its own, laid out alike: an expanded tensor stays one.
    alike = value.detach()
    if value.numel() and 0 not in value.stride():
        alike = torch.empty_strided(
            value.shape, value.stride(), dtype=value.dtype, device=value.device
        ).copy_(alike)
    return alike.requires_grad_(value.requires_grad)


def _doubled(value: object) -> object:
    if isinstance(value, torch.nn.Module):
        return copy.deepcopy(value).double()
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return value
    return value.detach().double().requires_grad_(value.requires_grad)


# The process

_tuner: Tuner | None = None


def benchmark(on: bool) -> None:
    """Whether each call that ``auto`` does not know is measured first (``pydl.benchmark``)."""
    global _tuner
    _tuner = Tuner() if on else None
    dispatch.watch(_unknown if on else None)


def benchmarking() -> bool:
    return _tuner is not None


@contextlib.contextmanager
def measuring(tuner: Tuner) -> Iterator[None]:
    """Measures calls that are not known, by this tuner."""
    global _tuner
    before, _tuner = _tuner, tuner
    try:
        with _missing(_unknown):
            yield
    finally:
        _tuner = before


# A model


def tune(
    model: Callable[..., object],
    *inputs: Any,
    passes: tuple[str, ...] = ("inference", "training"),
    seconds: float = 0.1,
    save: bool = True,
    progress: Callable[[Choice], None] | None = None,
) -> list[Choice]:
    """Find out who serves each call of a model fastest on this machine, and remember it.

    The model is run once for each pass. Wherever it calls an operator or a layer of this package
    (``pydl.accelerate`` puts them into a model of ``torch.nn``) under ``auto``, each backend that
    can serve that very call (shape, layout, dtype, arguments, pass, threads) is compared with the
    reference and timed in turns. From then on ``auto`` gives the call to the fastest, in this
    process and, if it is saved, in later ones on the same device, with the same versions of PyTorch
    and pydl. Buffers, gradients and the random state are as before afterwards.

    Args:
        model: a module or another callable.
        inputs: what it is called with.
        passes: of ``inference`` (no gradients, ``eval()``) and ``training`` (``train()``).
        seconds: how long to measure each call, roughly.
        save: whether later processes are to know.
        progress: called with each :class:`Choice`.

    Returns:
        What was found, in the order of the calls; none for calls that were known before.

    Raises:
        ValueError: a pass is neither ``inference`` nor ``training``.
        Exception: whatever the model raises. What was found before that is kept.
    """
    for one in passes:
        if one not in ("inference", "training"):
            raise ValueError(f"passes must be of inference and training, got {one!r}")
    found: list[Choice] = []

    def keep(choice: Choice) -> None:
        found.append(choice)
        if progress is not None:
            progress(choice)

    try:
        with measuring(Tuner(seconds, keep)):
            for one in passes:
                _run(model, inputs, training=one == "training")
    finally:
        if save and found:
            write(found)
    return found


def calls_of(
    model: Callable[..., object], *inputs: Any, passes: tuple[str, ...] = ("inference", "training")
) -> list[tuple[str, dispatch.Key]]:
    """What :func:`tune` would measure: family and key of each call that is not known."""
    seen: dict[tuple[str, dispatch.Key], None] = {}

    def note(family: str, tensor: torch.Tensor, key: dispatch.Key) -> None:
        if len(_servers(family, tensor)) > 1:
            seen[family, key] = None

    with _missing(note):
        for one in passes:
            _run(model, inputs, training=one == "training")
    return list(seen)


def _run(model: Callable[..., object], inputs: tuple, training: bool) -> None:
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    modes = [module.training for module in modules]
    buffers = [
        (buffer, buffer.clone()) for module in modules for buffer in module.buffers(recurse=False)
    ]
    devices = {one.device for one in inputs if isinstance(one, torch.Tensor) and one.is_cuda}
    try:
        for module in modules:
            module.training = training
        with torch.random.fork_rng(devices=list(devices)), torch.set_grad_enabled(training):
            model(*inputs)
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


# The file

FORMAT = 1


def facts(device: torch.device | str = "cpu") -> dict[str, str]:
    """What a measurement depends on besides the call: the device, the kernels, the versions."""
    found = measure.versions(device)
    names = ("torch", "pydl", "triton", "pydl_isa", "torch_isa", "cuda", "cudnn", "capability")
    return {
        "machine": dispatch.machine(device),
        "device": measure.device_name(device),
        **{name: found[name] for name in names if found.get(name)},
    }


def folder() -> Path:
    """Where the files are: ``tuned`` in the user's cache directory of pydl."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("pydl", appauthor=False)) / "tuned"


def file(device: torch.device | str = "cpu") -> Path:
    """The file of this device and these versions."""
    digest = hashlib.sha256(json.dumps(facts(device), sort_keys=True).encode()).hexdigest()
    return folder() / f"{dispatch.machine(device)}-{digest[:16]}.json"


def write(choices: list[Choice]) -> Path:
    """Adds to the file of the device that they were measured on. Others may do so at once."""
    import filelock

    device = choices[0].key[5]
    path = file(device)
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{path}.lock"):
        calls = {json.dumps([row["family"], row["key"]]): row for row in _calls(path, device)}
        for choice in choices:
            try:
                key = _plain(choice.key)
            except TypeError:
                continue  # an argument that no file can hold
            calls[json.dumps([choice.family, key])] = {
                "family": choice.family,
                "key": key,
                "backend": choice.backend,
                "microseconds": {
                    name: round(took, 3) for name, took in choice.microseconds.items()
                },
                "date": time.strftime("%Y-%m-%d"),
            }
        new = path.with_suffix(".new")
        text = {"format": FORMAT, "facts": facts(device), "calls": list(calls.values())}
        new.write_text(json.dumps(text, indent=0), encoding="utf-8")
        new.replace(path)
    return path


def load(device: torch.device | str = "cpu") -> int:
    """Remembers what earlier processes found; returns how many calls. A file that cannot be used is
    ignored, with one warning."""
    path = file(device)
    count = 0
    for row in _calls(path, device):
        dispatch.remember(row["family"], _parsed(row["key"]), row["backend"])
        count += 1
    return count


def _calls(path: Path, device: torch.device | str) -> list[dict]:
    """The calls of a file that fits this device; none, with a warning, where it cannot be used."""
    if not path.exists():
        return []
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        if read["format"] != FORMAT or read["facts"] != facts(device):
            raise ValueError("it is of another device or version")
        for row in read["calls"]:
            hash(_parsed(row["key"])[dispatch.SHAPE])
            if row["backend"] not in CANDIDATES or row["family"] not in _FAMILIES:
                raise ValueError(f"it names {row['backend']!r} and {row['family']!r}")
        return read["calls"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        warnings.warn(
            f"what pydl was tuned to is not used: {path}: {error}; `pydl tune --clear` removes it",
            stacklevel=2,
        )
        return []


dispatch.on_gpu = load
_FAMILIES = frozenset(backends.BACKENDS["reference"].families)


def clear() -> list[Path]:
    """Removes the files of all devices and forgets what was measured; returns what was removed."""
    import shutil

    dispatch.forget()
    removed = sorted(folder().glob("*.json")) if folder().is_dir() else []
    shutil.rmtree(folder(), ignore_errors=True)
    return removed


def _plain(value: object) -> object:
    """For JSON, which has no tuples, dtypes or devices."""
    if isinstance(value, (torch.Size, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"no plain form of {value!r}")


def _parsed(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_parsed, value))
    if isinstance(value, dict):
        ((kind, text),) = value.items()
        return getattr(torch, text) if kind == "dtype" else torch.device(text)
    return value
