"""What every layer here adds to its counterpart in ``torch.nn``."""

import inspect

import torch

from pydl import backends


class Layer:
    """Takes ``backend=`` in the constructor and keeps it as an attribute; None leaves the choice
    open.

    First in the bases of a layer, before the class of ``torch.nn``.
    """

    _pydl_backend: str | None = None

    @property
    def backend(self) -> str | None:
        return self._pydl_backend

    @backend.setter
    def backend(self, name: str | None) -> None:
        self._pydl_backend = None if name is None else backends.checked(name)

    def __init__(self, *args, backend: str | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if backend is not None:
            self.backend = backend

    def __init_subclass__(cls, **kwargs) -> None:
        """The signature that ``help`` shows: torch.nn's, the layer's own keywords, ``backend``."""
        super().__init_subclass__(**kwargs)
        constructors = [base for base in cls.__mro__ if "__init__" in vars(base)]
        theirs = [base for base in constructors if base.__module__.startswith("torch.nn.modules")]
        if not theirs or theirs[0] is torch.nn.Module:
            return
        parameters = list(inspect.signature(theirs[0].__init__).parameters.values())[1:]
        for base in constructors[: constructors.index(Layer)]:
            own = inspect.signature(base.__init__).parameters.values()
            parameters += [p for p in own if p.kind is inspect.Parameter.KEYWORD_ONLY]
        parameters.append(inspect.signature(Layer.__init__).parameters["backend"])
        cls.__signature__ = inspect.Signature(parameters)

    def extra_repr(self) -> str:
        said = super().extra_repr()
        return said if self.backend is None else f"{said}, backend={self.backend!r}"
