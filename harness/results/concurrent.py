"""How many trials shared a machine: their speeds say nothing of a trial that has the machine to itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np


def fill_concurrent_trials(rows: Sequence[dict[str, Any]]) -> None:
    """Set ``concurrent_trials`` of each row that ran: how many others ran beside it at once, at most.

    From the start and duration of the last attempts; rows are changed in place. Earlier attempts, other sweeps and
    other programs are not known here; ``disturbed`` tells of those.
    """
    by_machine: dict[str, list[tuple[float, float, dict[str, Any]]]] = defaultdict(list)
    for row in rows:
        row["concurrent_trials"] = None
        started, duration_s, machine = row.get("started_at"), row.get("duration_s"), row.get("hostname")
        if row["attempt"] and started is not None and duration_s is not None and machine is not None:
            start = started.timestamp()
            by_machine[machine].append((start, start + duration_s, row))
    for ran in by_machine.values():
        starts, ends = (np.sort([interval[side] for interval in ran]) for side in (0, 1))
        moments = np.unique([*starts, *ends])
        # A trial that starts when another ends is not beside it.
        running = np.searchsorted(starts, moments, "right") - np.searchsorted(ends, moments, "right")
        for start, end, row in ran:
            first, last = np.searchsorted(moments, (start, end))
            row["concurrent_trials"] = int(running[first : max(last, first + 1)].max(initial=1)) - 1
