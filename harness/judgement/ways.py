"""How much faster or slower a way to train is than the usual one, from the table ``ways`` of the execution study."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import sem

from harness.judgement.intervals import CONFIDENCE, students_t
from harness.results.ways_table import BASELINE


@dataclass(frozen=True)
class Factor:
    """A speed over that of the baseline, with its 95 % interval over repeats; both ends are NaN with a single one."""

    label: str
    value: float
    low: float
    high: float


def added(rows: pd.DataFrame) -> list[Factor]:
    """Of the ways that add one field after the other, the baseline first; ``rows`` are of one model and method."""
    ladder = rows[rows.added.notna()].sort_values("added", kind="stable")
    return list(_factors(rows, {way: way for way in ladder.way}))


def left_out(rows: pd.DataFrame) -> list[Factor]:
    """Of the ways with all fields but one."""
    ways = rows[rows.without.notna()].drop_duplicates("way")
    named = {f"all without {field}": way for field, way in zip(ways.without, ways.way, strict=True)}
    return list(_factors(rows, named))


def _factors(rows: pd.DataFrame, ways: Mapping[str, str]) -> Iterator[Factor]:
    """The ``tokens_per_s`` of each labelled way over that of the baseline in the same repeat of the same trial.

    The geometric mean of the repeats, with Student's t on the logarithms. A way that was not active is left out.
    """
    speeds = rows.pivot_table(index=["trial_id", "repeat"], columns="way", values="tokens_per_s")
    for label, way in ways.items():
        if way not in speeds or BASELINE not in speeds:
            continue
        logs = np.log((speeds[way] / speeds[BASELINE]).dropna().to_numpy(float))
        if not len(logs):
            continue
        half = math.nan if len(logs) < 2 else students_t(1 - CONFIDENCE, len(logs) - 1) * float(sem(logs))
        mean = float(logs.mean())
        yield Factor(label, math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def sentence(ladder: Sequence[Factor]) -> str:
    """What the intervals say of the last way against the first: faster, slower, or that it cannot be told."""
    if len(ladder) < 2:
        return "Nothing beside the baseline was active"
    last = ladder[-1]
    if math.isnan(last.low):
        return f"All together train {last.value:.2f} times as many tokens a second; one repeat tells no interval"
    told = f"{last.value:.2f} times as many tokens a second ({last.low:.2f} to {last.high:.2f})"
    if last.low > 1:
        return f"All together are faster: {told}"
    return (
        f"All together are slower: {told}"
        if last.high < 1
        else f"Whether all together are faster cannot be told: {told}"
    )
