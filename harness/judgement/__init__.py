"""From tables to judgement: which setting, how sure, what is better. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.judgement.intervals import Interval, mean_interval, paired_difference

__all__ = ["Interval", "mean_interval", "paired_difference"]


def __getattr__(name: str) -> Any:
    """What the package offers, imported when it is asked for: scipy takes seconds, and a list of claims needs none."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from harness.judgement import intervals

    return getattr(intervals, name)
