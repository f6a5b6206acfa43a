"""Networks beside each other: the accuracy that was published of each, and what it costs."""

from collections.abc import Iterable
from dataclasses import dataclass

from pydl.models.meta import hollow
from pydl.models.model import Model
from pydl.models.summary import summarize


@dataclass(frozen=True)
class Compared:
    """A network beside others."""

    name: str
    score: float  # percent, published
    multiply_adds: int  # on one image
    parameters: int  # that take part in a prediction


def compared(models: Iterable[Model], figure: str) -> list[Compared]:
    """Those of the models of which that figure was published; the rest is counted.

    Args:
        models: rows of the table of networks.
        figure: an attribute of theirs, such as ``top1``.
    """
    found = []
    for model in models:
        score = getattr(model, figure)
        if score is None:
            continue
        rows = summarize(hollow(model.build), (1, *model.input))
        multiply_adds = sum(row.multiply_adds for row in rows)
        parameters = sum(row.parameters for row in rows)
        found.append(Compared(model.name, score, multiply_adds, parameters))
    return found
