"""Which backend a call asks for: its own ``backend=``, or the ``use_backend`` around it.

The choice of ``use_backend`` lives in a context variable, so that each thread and each asyncio task
has its own. ``torch.compile`` can neither read nor guard one; but it reads attributes of modules,
and a guard looks them up again, so for it the same choice is :data:`current` and :data:`strict`,
which this module's ``__getattr__`` answers.
"""

import os
from contextvars import ContextVar, Token
from types import TracebackType

from torch.compiler import is_compiling

from pydl import plan

NAMES = ("auto", "reference", "aten", "cpu", "triton", "cuda")


def checked(name: str) -> str:
    """``name``, if it is ``auto`` or a backend; ValueError otherwise."""
    if name not in NAMES:
        raise ValueError(f"backend must be one of {', '.join(NAMES)}, got {name!r}")
    return name


PROCESS = checked(os.environ.get("PYDL_BACKEND", "auto"))


class use_backend:
    """Serve every call inside the ``with`` block by this backend.

    It holds for this thread or asyncio task; one that starts inside the block begins as asyncio and
    ``threading`` define it, a task with the block's backend and a thread without. ``"auto"`` gives
    the choice back to the dispatch table. ``with ... as block`` gives the object itself.

    Args:
        name: ``auto``, ``reference``, ``aten``, ``cpu``, ``triton`` or ``cuda``.
        strict: whether a call that the backend cannot serve raises. False leaves such calls to
            ``auto`` and lists them.

    Attributes:
        left: with ``strict=False``, what was left to ``auto``: a dict from the kind of operator to
            the reason, in words. Calls inside a compiled graph do not appear in it.

    Raises:
        ValueError: there is no such backend.
    """

    def __init__(self, name: str, *, strict: bool = True) -> None:
        self.name = checked(name)
        self.strict = strict
        self.left: dict[str, str] = {}
        self._tokens: list[Token] = []
        self._before: tuple[str, bool] | None = None

    def __enter__(self) -> "use_backend":
        global traced
        if is_compiling():
            self._before = traced
            traced = self.name, self.strict
        else:
            plan.awake.update(plan.BLOCKS)
            self._tokens.append(_state.set(self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        global traced
        if is_compiling():
            traced = self._before
        else:
            _state.reset(self._tokens.pop())


_state: ContextVar[use_backend | None] = ContextVar("pydl_backend", default=None)
chosen = _state.get  # the block that a call is in; None: none, so that PROCESS holds
# Of the `with` blocks inside the code that is being compiled, the innermost.
traced: tuple[str, bool] | None = None

current: str
strict: bool


def __getattr__(name: str) -> object:
    state = _state.get()
    if name == "current":
        return PROCESS if state is None else state.name
    if name == "strict":
        return True if state is None else state.strict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def backend(given: str | None) -> str:
    """The backend that a call with ``backend=given`` asks for; ``auto`` where none is."""
    if given is not None:
        return checked(given)
    if is_compiling():
        return _during_compilation()[0]
    state = _state.get()
    return PROCESS if state is None else state.name


def _during_compilation() -> tuple[str, bool]:
    from pydl import asked

    return (asked.current, asked.strict) if traced is None else traced


def around() -> str | None:
    """The backend that a call without ``backend=`` asks for here; None where calls that it cannot
    serve are noted."""
    state = _state.get()
    if state is None:
        return PROCESS
    return state.name if state.strict else None


def leaves_to_auto(given: str | None, kind: str, reason: str) -> bool:
    """Whether a call that its backend refuses goes to ``auto``, which is noted."""
    if given is not None:
        return False
    if is_compiling():
        return not _during_compilation()[1]
    state = _state.get()
    if state is None or state.strict:
        return False
    state.left.setdefault(kind, reason)
    return True
