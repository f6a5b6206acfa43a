"""What every layer here adds to its counterpart in ``torch.nn``."""

import inspect

from pydl import backends


class Layer:
    """Takes ``backend=`` in the constructor and keeps it as an attribute; None leaves the choice
    open.

    First in the bases of a layer, before the class of ``torch.nn``. ``backend`` is a class
    attribute too, so that a module of ``torch.nn`` whose class is changed to the layer's is
    complete as it stands.
    """

    backend: str | None = None

    def __init__(self, *args, backend: str | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if backend is not None:
            self.backend = backends.checked(backend)

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        signature = inspect.signature(super().__init__)
        ours = inspect.Parameter(
            "backend", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="str | None"
        )
        cls.__signature__ = signature.replace(
            parameters=[*list(signature.parameters.values())[1:], ours]
        )

    def extra_repr(self) -> str:
        said = super().extra_repr()
        return said if self.backend is None else f"{said}, backend={self.backend!r}"
