"""How several commands read their arguments."""


def sizes_of(text: str) -> tuple[int, ...]:
    """``1x28x28`` or ``1,28,28`` to positive numbers in PyTorch's range; none where it is
    neither."""
    try:
        sizes = tuple(int(part) for part in text.replace(",", "x").split("x"))
    except ValueError:
        return ()
    return sizes if all(0 < size < 2**63 for size in sizes) else ()


def cuda_missing() -> str | None:
    """Why there is no GPU here, or None where there is one."""
    import torch

    if torch.cuda.is_available():
        return None
    if torch.version.cuda:
        return f"this PyTorch is built for CUDA {torch.version.cuda}"
    return "this PyTorch has no CUDA"


def device_of(backend: str) -> str:
    """The device that a backend serves: ``cuda``, or else ``cpu``.

    Raises:
        RuntimeError: it serves a GPU only, and there is none, or no kernel was built for one.
    """
    from pydl.backends import BACKENDS

    if backend not in BACKENDS or BACKENDS[backend].devices != ("cuda",):
        return "cpu"
    missing = BACKENDS[backend].missing or cuda_missing()
    if missing:
        raise RuntimeError(f"backend {backend!r} is not available: {missing}")
    return "cuda"
