"""The control of a sweep's timings: networks that must answer equally fast (protocol, rule 6).

A full fine-tune is the network of its base with other numbers, and so is what LoRA learnt once it is merged into the
weights. Where their times differ, the machine or the measurement differed, and no other time of that run shows a
method's cost either.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from harness.results.baseline import BASELINE, FULL

#: Columns in which rows agree whose times one control is about: the same base on the same machine.
PLACE = (
    "sweep",
    "model",
    "model_revision",
    "task",
    "dtype",
    "device",
    "hostname",
    "processor_threads",
    "accelerator",
    "execution_attention",
)
#: Columns of the latency table in which times agree that are held against each other.
_MEASURED_AT = ("phase", "batch_size", "prompt_tokens", "new_tokens")
#: A merged method lies in weights as large as the base's own; quantised ones are smaller.
_LEAST_SHARE = 0.99

Row = Mapping[Any, Any]


@dataclass(frozen=True)
class Control:
    """The two of the networks at one place whose times differ most, by medians over their trials."""

    slow: str
    """'the untrained model', 'full fine-tuning' or, merged, 'lora merged'."""
    fast: str
    phase: str
    batch_size: int
    ratio: float
    """Time of the slow one over that of the fast one, at least 1."""
    low: float
    """The ratio by the trials that lie closest to each other; below 1 where they overlap."""
    high: float
    """The same by those that lie farthest apart; both are :attr:`ratio` with one trial each."""
    trials: int
    """Trials behind the two medians."""


def controls(trials: Iterable[Row], latency: Iterable[Row]) -> dict[tuple[Any, ...], Control]:
    """The control of each place (the values of :data:`PLACE`); a place without two such networks has none.

    ``trials`` and ``latency`` are rows of these tables, missing values None or NaN. Trials that did not end well, or
    whose times other work had a part in, are left out, and so are times that are missing or 0.
    """
    rows = {row["trial_id"]: row for row in trials if row["status"] == "ok" and not _is_shared(row)}
    bare = _bare_bytes(rows.values())
    times: dict[tuple[Any, ...], dict[tuple[Any, ...], dict[str, list[float]]]] = defaultdict(dict)
    for measured in latency:
        row, seconds = rows.get(measured["trial_id"]), _number(measured["p50_s"])
        name = None if row is None else _network(row, measured["variant"], bare.get(_place(row)))
        if row is None or name is None or not seconds:
            continue
        at = tuple(measured[column] for column in _MEASURED_AT)
        times[_place(row)].setdefault(at, {}).setdefault(name, []).append(seconds)
    found = {place: [_control(at, some) for at, some in of_place.items() if len(some) > 1]
             for place, of_place in times.items()}  # fmt: skip
    return {place: max(several, key=lambda one: one.ratio) for place, several in found.items() if several}


def fill_control(rows: Sequence[dict[Any, Any]], latency: Iterable[Row]) -> None:
    """Set ``control_ratio`` of each row to the ratio of its place's control; null where it has none."""
    ratios = controls(rows, latency)
    for row in rows:
        control = ratios.get(_place(row))
        row["control_ratio"] = None if control is None else control.ratio


def _control(at: tuple[Any, ...], times: Mapping[str, Sequence[float]]) -> Control:
    """Of the networks that were measured at one setting; ``times`` has the seconds of each trial by network."""
    fast, *_, slow = sorted(times, key=lambda name: median(times[name]))
    of_slow, of_fast = times[slow], times[fast]
    return Control(
        slow=slow,
        fast=fast,
        phase=at[0],
        batch_size=int(at[1]),
        ratio=median(of_slow) / median(of_fast),
        low=min(of_slow) / max(of_fast),
        high=max(of_slow) / min(of_fast),
        trials=len(of_slow) + len(of_fast),
    )


def _network(row: Row, variant: str, bare_bytes: float | None) -> str | None:
    """Which of the equal networks a time belongs to; None for one of another shape or format.

    ``bare_bytes`` are those of the base's own weights: NaN where nobody measured them, None without such a network.
    """
    if variant == "merged":
        size = _number(row.get("weights_bytes"))
        is_equal = bare_bytes is not None and not (size is not None and size < _LEAST_SHARE * bare_bytes)
        return f"{row['method']} merged" if is_equal else None
    if row["method"] == FULL:
        return "full fine-tuning"
    is_bare = row["method"] == BASELINE and not any(json.loads(row["method_args"]).values())
    return "the untrained model" if is_bare else None


def _bare_bytes(rows: Iterable[Row]) -> dict[tuple[Any, ...], float]:
    """Bytes of the base's own weights, for each place where it runs; NaN where nobody measured them."""
    sizes: dict[tuple[Any, ...], float] = {}
    for row in rows:
        if _network(row, "plain", None) is not None:
            size = _number(row.get("weights_bytes"))
            sizes[_place(row)] = sizes.get(_place(row), math.nan) if size is None else size
    return sizes


def _is_shared(row: Row) -> bool:
    """Whether other work had a part in the row's times."""
    return _number(row.get("disturbed")) == 1 or (_number(row.get("concurrent_trials")) or 0) > 0


def _place(row: Row) -> tuple[Any, ...]:
    values = (row.get(name) for name in PLACE)
    return tuple(None if value is None or value != value else value for value in values)


def _number(value: Any) -> float | None:
    """A finite number as float; None for whatever is missing."""
    try:
        number = math.nan if value is None else float(value)
    except TypeError:  # pandas' own missing value
        number = math.nan
    return number if math.isfinite(number) else None
