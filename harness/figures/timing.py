"""Times that may be compared: not those of a row that was disturbed while it was measured."""

from __future__ import annotations

import pandas as pd

UNSTEADY = 2.0
"""Where a 95th percentile exceeds the median by this factor, or equal networks differ by it, times are not compared."""


def undisturbed(trials: pd.DataFrame) -> pd.DataFrame:
    """``trials`` without the rows whose times do not count, where the table says which they are.

    Those are rows with ``disturbed``, and rows with ``concurrent_trials`` beside them (protocol, rule 6).
    """
    counts = pd.Series(True, index=trials.index)
    if "disturbed" in trials:
        counts &= ~trials.disturbed.fillna(False).astype(bool)
    if "concurrent_trials" in trials:
        counts &= ~(trials.concurrent_trials > 0)
    return trials[counts]
