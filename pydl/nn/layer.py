"""What every layer here adds to its counterpart in ``torch.nn``."""

import inspect
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from pydl import backends
from pydl.nn import at_once, binding

# A layer is a module by the base that comes after this one.
if TYPE_CHECKING:
    _Module = torch.nn.Module
else:
    _Module = object


class Layer(_Module):
    """Takes ``backend=`` in the constructor and keeps it as an attribute; None leaves the choice
    open.

    It comes first among the bases of a layer, before the class of ``torch.nn``. ``forward`` may
    serve an instance of ``torch.nn``'s class as well (``pydl.accelerate`` binds it to one): it
    reads that class's attributes and ``_pydl_backend`` and calls no method that only a layer here
    has.
    """

    __signature__: ClassVar[inspect.Signature]
    _pydl_backend: str | None = None

    def __init__(self, *args: Any, backend: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if type(self).__module__.startswith("pydl.nn."):
            # torch.fx and torch.compile ask the instance for this to recognise a layer of
            # torch.nn, which the one keeps as a leaf and the other need not treat as user code.
            self.__dict__["__module__"] = "torch.nn.modules"
        if backend is not None:
            self.backend = backend

    def __init_subclass__(cls, **kwargs) -> None:
        """The methods that leave small calls to torch.nn's at once, and the signature that ``help``
        shows: torch.nn's, the layer's own keywords, ``backend``."""
        super().__init_subclass__(**kwargs)
        twin = getattr(torch.nn, cls.__name__, None)
        if cls.__module__.startswith("pydl.nn.") and twin in cls.__mro__:
            at_once.leave(cls, twin)
        constructors = [base for base in cls.__mro__ if "__init__" in vars(base)]
        theirs = [base for base in constructors if base.__module__.startswith("torch.nn.modules")]
        if not theirs or theirs[0] is torch.nn.Module:
            return
        parameters = list(inspect.signature(vars(theirs[0])["__init__"]).parameters.values())[1:]
        for base in constructors[: constructors.index(Layer)]:
            own = inspect.signature(vars(base)["__init__"]).parameters.values()
            parameters += [p for p in own if p.kind is inspect.Parameter.KEYWORD_ONLY]
        parameters.append(inspect.signature(Layer.__init__).parameters["backend"])
        cls.__signature__ = inspect.Signature(parameters)

    @property
    def backend(self) -> str | None:
        """The backend that must serve the layer; None leaves the choice open."""
        return self._pydl_backend

    @backend.setter
    def backend(self, name: str | None) -> None:
        self._pydl_backend = None if name is None else backends.checked(name)

    def extra_repr(self) -> str:
        return with_backend(self, super().extra_repr())

    def __prepare_scriptable__(self) -> torch.nn.Module:
        """What ``torch.jit.script`` compiles in this layer's place: torch.nn's layer, with the same
        parameters, buffers and hooks.

        Scripting also puts it into the model that it is given, where these kernels go on serving
        it.
        """
        cls = type(self)
        twin = getattr(torch.nn, cls.__name__, None)
        if twin is None or cls.__module__.partition(".nn.")[0] != "pydl":
            raise RuntimeError(
                f"torch.jit.script compiles a layer of torch.nn in the place of pydl's, and there "
                f"is none for {cls.__qualname__}; use torch.jit.trace, torch.export or "
                "torch.compile"
            )
        if "_pydl_options" in self.__dict__:
            raise RuntimeError(
                f"torch.jit.script compiles torch.nn.{cls.__name__} in the place of pydl's, and "
                f"that has none of the options of {self!r}; use torch.export or torch.compile"
            )
        made = twin.__new__(twin)
        made.__dict__.update(self.__dict__)
        del made.__dict__["__module__"]
        binding.bind(made, twin, cls, self._pydl_backend)
        return made.__prepare_scriptable__()


def with_backend(layer: Layer, said: str) -> str:
    """``said`` of the layer's arguments, followed by its backend if it has one."""
    name = layer._pydl_backend
    return said if name is None else f"{said}{', ' * bool(said)}backend={name!r}"
