"""How good the estimate of time is: rows of tables on this machine against what would have been planned for them.

    python benchmarks/trial_time.py results/quick/tables/trials.parquet [--peak 3.3e11]

Three ways: without any earlier row, with those of the other methods, and with all other rows. The share within a factor
of 1.5 is what counts. ``--peak`` is the machine's FLOPs per second; without it, it is measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq

from harness.estimate import machine, time
from harness.sweeps.plan import Planned
from harness.trial import Budget, Trial

WITHIN = 1.5
Row = Mapping[str, Any]


def planned(row: Row) -> Planned:
    """The row of a plan that the trial had; its FLOPs are those of a step at full length."""
    names = [name for name in Budget.model_fields if row[name] is not None]
    trial = Trial(
        notebook=row["notebook"],
        method=row["method"],
        objective=row["objective"],
        model=row["model"],
        task=row["task"],
        seed=row["seed"],
        learning_rate=row["learning_rate"],
        budget=Budget(**{name: row[name] for name in names}),
        dtype=row["dtype"],
        device=row["requested_device"],
    )
    return Planned(trial, None)


def compare(rows: Sequence[Row], others: Callable[[Row, Row], bool], peak: time.PeakOf) -> list[float | None]:
    """Estimated over real seconds of each row, from the rows that are ``others`` to it."""
    answers: list[float | None] = []
    for row in rows:
        known = [other for other in rows if others(row, other)]
        with (
            mock.patch("platform.node", lambda row=row: row["hostname"]),
            mock.patch.object(time, "work_of", lambda _planned, row=row: time.work_of_row(row)),
            mock.patch.object(time, "_cell", id),
        ):  # no row may answer for itself
            seconds = time._Earlier(known, peak).seconds(planned(row))
        answers.append(None if seconds is None else seconds / row["duration_s"])
    return answers


def main() -> None:
    """Print a line for each row and the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("tables", nargs="+", type=Path)
    parser.add_argument("--peak", type=float)
    given = parser.parse_args()
    rows = [row for file in given.tables for row in pq.read_table(file).to_pylist() if row["status"] == "ok"]
    peak = (lambda *_: given.peak) if given.peak else machine.flops_per_s
    ways = {
        "no rows": lambda _row, _other: False,
        "other methods": lambda row, other: other["method"] != row["method"],
        "all other rows": lambda row, other: other["trial_id"] != row["trial_id"],
    }
    answers = {name: compare(rows, others, peak) for name, others in ways.items()}
    for number, row in enumerate(rows):
        shown = "  ".join(f"{ratios[number]:.2f}" if ratios[number] else "-" for ratios in answers.values())
        print(f"{row['method']:14} {row['model']:14} {row['task']:16} {row['duration_s']:7.1f} s  {shown}")
    for name, ratios in answers.items():
        known = [ratio for ratio in ratios if ratio is not None]
        hits = sum(1 / WITHIN <= ratio <= WITHIN for ratio in known)
        print(
            f"{name}: {hits} of {len(known)} within a factor of {WITHIN}, {len(ratios) - len(known)} without estimate"
        )


if __name__ == "__main__":
    main()
