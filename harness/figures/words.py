"""Words of findings that stay true of ties, of one row, and of many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from harness.figures.findings import joined
from harness.figures.style import score_text

_NAMED = 3
"""More leaders than this are counted and not named."""


@dataclass(frozen=True)
class Leading:
    """The rows with the largest or the smallest value, all of them where several have it."""

    names: tuple[str, ...]
    value: float
    text: str
    """The value in words."""

    @property
    def who(self) -> str:
        """'lora is', or 'full and lora are'."""
        many = len(self.names) > 1
        names = f"{len(self.names)} rows" if len(self.names) > _NAMED else joined(self.names)
        return f"{names} {'are' if many else 'is'}"


def leading(frame: pd.DataFrame, column: str, largest: bool, text: Callable[[float], str] = score_text) -> Leading:
    """The rows of ``frame``, which have a ``label``, with the extreme value of ``column``; no row lacks a value.

    Values that ``text`` writes alike are equal: a finding may not tell apart what a reader sees as the same.
    """
    values = frame[column]
    value = float(values.max() if largest else values.min())
    same = values.map(text) == text(value)
    return Leading(tuple(dict.fromkeys(frame.label[same])), value, text(value))
