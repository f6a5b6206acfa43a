"""Shapes as they are written on the command line."""


def sizes_of(text: str) -> tuple[int, ...]:
    """``1x28x28`` or ``1,28,28`` to numbers; none where it is neither."""
    try:
        return tuple(int(part) for part in text.replace(",", "x").split("x"))
    except ValueError:
        return ()
