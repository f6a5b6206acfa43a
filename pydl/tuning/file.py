"""The files that remember what was measured, one for each device and its versions."""

import hashlib
import importlib.util
import json
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from pydl import backends, dispatch, measure
from pydl.tuning.misses import CANDIDATES
from pydl.tuning.tuner import Choice

FORMAT = 2


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

    device = choices[0].key.device
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
    ignored, with one warning; without platformdirs there is none."""
    if importlib.util.find_spec("platformdirs") is None:
        return 0
    path = file(device)
    count = 0
    for row in _calls(path, device):
        dispatch.remember(row["family"], _key(row["key"]), row["backend"])
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
            hash(_key(row["key"]).shape)
            if (
                row["backend"] not in CANDIDATES
                or row["family"] not in backends.BACKENDS["reference"].families
            ):
                raise ValueError(f"it names {row['backend']!r} and {row['family']!r}")
        return read["calls"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        warnings.warn(
            f"what pydl was tuned to is not used: {path}: {error}; `pydl tune --clear` removes it",
            stacklevel=2,
        )
        return []


dispatch.on_gpu = load  # the first call on a GPU asks for what was found there


def clear() -> list[Path]:
    """Removes the files of all devices and forgets what was measured; returns what was removed."""
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


def _key(plain: list) -> dispatch.Key:
    return dispatch.Key(*map(_parsed, plain))


def _parsed(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_parsed, value))
    if isinstance(value, dict):
        ((kind, text),) = value.items()
        return getattr(torch, text) if kind == "dtype" else torch.device(text)
    return value
