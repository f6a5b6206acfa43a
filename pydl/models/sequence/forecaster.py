"""A recurrent network that goes on with a series, as in the lectures: from many values to the next
ones."""

import torch

from pydl import nn
from pydl.models.model import Model


class Forecaster(nn.Module):
    """The next values from the last ones.

    Args:
        horizon: how many come next.
        hidden: size of the state.
        dropout: of the last state.
    """

    def __init__(self, horizon: int = 12, *, hidden: int = 32, dropout: float = 0.2) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(1, hidden)
        self.dropout = nn.Dropout(dropout)
        self.next = nn.Linear(hidden, horizon)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(B, horizon) from (B, T) values."""
        states, _ = self.recurrent(values.T[..., None].contiguous())  # [T, B, hidden]
        return self.next(self.dropout(states[-1]))


def forecaster() -> Forecaster:
    """For months of three years, and the year to come."""
    return Forecaster()


MODELS = (
    Model(
        "forecaster",
        forecaster,
        (36,),
        "the months of a year from those of three, by an LSTM",
        "the lectures' examples of time series",
        task="forecasting",
        parameters=4_876,
    ),
)
