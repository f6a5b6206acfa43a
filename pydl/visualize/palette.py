"""The colours of plots and pages: one set for a light page, one for a dark one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Theme:
    """Colours of one appearance."""

    page: str  # around the cards
    paper: str
    ink: str
    faint: str
    line: str
    ours: str
    loss: str
    good: str


LIGHT = Theme(
    page="#f3f5f8",
    paper="#ffffff",
    ink="#1c2430",
    faint="#667085",
    line="#d8dde6",
    ours="#2563c9",
    loss="#c2541b",
    good="#23855b",
)
DARK = Theme(
    page="#12161c",
    paper="#1a1f27",
    ink="#e7ebf1",
    faint="#98a2b3",
    line="#363e4b",
    ours="#6ea8ff",
    loss="#ff9d5c",
    good="#5cc493",
)
