"""A recurrent network that goes on with a series, as in the lectures: from many values to the next
ones."""

import torch

from pydl import nn
from pydl.models.model import Model


class Forecaster(nn.Module):
    """The next values from the last ones.

    What it learns is by how much they will differ from those a period earlier: with nothing learned
    it says that everything comes again.

    Args:
        period: after so many values a series begins again.
        horizon: how many come next, at most a period.
        hidden: size of the state.
        dropout: of the last state.

    Raises:
        ValueError: the horizon is not between 1 and the period.
    """

    def __init__(
        self, period: int = 12, horizon: int = 12, *, hidden: int = 32, dropout: float = 0.2
    ) -> None:
        super().__init__()
        if not 1 <= horizon <= period:
            raise ValueError(f"horizon must be between 1 and {period}, got {horizon}")
        self.period, self.horizon = period, horizon
        self.recurrent = nn.LSTM(1, hidden)
        self.dropout = nn.Dropout(dropout)
        self.change = nn.Linear(hidden, horizon)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(B, horizon) from (B, T) values, T at least a period."""
        before = values[:, values.shape[1] - self.period :][:, : self.horizon]
        states, _ = self.recurrent(values.T[..., None].contiguous())  # [T, B, hidden]
        return before + self.change(self.dropout(states[-1]))


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
