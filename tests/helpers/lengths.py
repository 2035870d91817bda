"""Which values of a test every run takes, and which only the longest one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def long_after(count: int, values: Iterable[Any]) -> list[Any]:
    """The first ``count`` values as they are; the others, of a kind that these stand for, are marked ``long``."""
    every = list(values)
    return [*every[:count], *(pytest.param(*_row(value), marks=pytest.mark.long) for value in every[count:])]


def _row(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
