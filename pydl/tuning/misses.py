"""What happens at a call that ``auto`` does not know, in each thread apart."""

import contextlib
import threading
from collections.abc import Callable, Iterator

import torch

from pydl import backends, dispatch

# PyTorch's own first: what wins must win against it.
CANDIDATES = ("aten", "cpu", "triton", "cuda")
Note = Callable[[str, torch.Tensor, dispatch.Key], None]


def servers(family: str, tensor: torch.Tensor) -> list[str]:
    """Who can serve such a call."""
    return [one for one in CANDIDATES if backends.refusal(one, family, tensor) is None]


class Unmeasured(Exception):
    """The call is to be measured before it is served."""


class _Thread(threading.local):
    note: Note | None = None  # is told of such calls, which then go on
    may_stop = False  # whether they may raise Unmeasured instead


here = _Thread()


def _missed(family: str, tensor: torch.Tensor, key: dispatch.Key) -> None:
    if len(servers(family, tensor)) < 2:
        return
    if here.note is not None:
        here.note(family, tensor, key)
    elif here.may_stop and not (tensor.is_cuda and torch.cuda.is_current_stream_capturing()):
        raise Unmeasured


_lock = threading.Lock()
_watchers = 0


def watch(more: int) -> None:
    """Counts who wants to hear of such calls: one more (1) or one less (-1)."""
    global _watchers
    with _lock:
        _watchers += more
        dispatch.watch(_missed if _watchers else None)


@contextlib.contextmanager
def noting(note: Note) -> Iterator[None]:
    """Tells ``note`` of this thread's calls."""
    before, here.note = here.note, note
    watch(1)
    try:
        yield
    finally:
        watch(-1)
        here.note = before
