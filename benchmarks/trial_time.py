"""How good the estimate of time is: what a plan says of a sweep's trials against what they took on this machine.

    python benchmarks/trial_time.py results/quick [--peak 3.3e11]

The folder is that of a sweep with its tables. Three ways: without any earlier row, as a plan on a new machine; with the
rows of the other methods; and with all other rows. The share within a factor of 1.5 is what counts. Rows marked with *
shared the machine with other work for a while, and are counted apart, too. ``--peak`` is the machine's FLOPs per
second; without it, it is measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq

from harness.errors import InputError
from harness.estimate import machine, planned, time
from harness.ledger.documents import read_plan
from harness.sweeps.plan import Planned

WITHIN = 1.5
Row = Mapping[str, Any]
#: What rows of a sweep may answer for another row, by the name of the way.
WAYS: Mapping[str, Callable[[Row, Row], bool]] = {
    "no rows": lambda _row, _other: False,
    "other methods": lambda row, other: other["method"] != row["method"],
    "all other rows": lambda row, other: other["trial_id"] != row["trial_id"],
}


def ended(folder: Path) -> list[tuple[Planned, Row]]:
    """Each trial of the sweep in ``folder`` that ended well, as a plan knows it, and its row."""
    table = folder / "tables" / "trials.parquet"
    if not table.is_file():
        raise InputError(f"{folder}: has no tables/trials.parquet; tunebench tables {folder} makes it")
    plan = planned.judge(read_plan(folder), lambda _device: None).by_id
    rows = [row for row in pq.read_table(table).to_pylist() if row["status"] == "ok"]
    return [(plan[row["trial_id"]], row) for row in rows if row["trial_id"] in plan]


def compare(
    trials: Sequence[tuple[Planned, Row]], others: Callable[[Row, Row], bool], peak: time.PeakOf
) -> list[float | None]:
    """Estimated over real seconds of each trial, from the rows that are ``others`` to its own."""
    answers: list[float | None] = []
    for trial, row in trials:
        known = [other for _, other in trials if others(row, other)]
        with (
            mock.patch("platform.node", lambda row=row: row["hostname"]),
            mock.patch.object(time, "_cell", id),  # no row may answer for one of its own cell
        ):
            seconds = time.estimated(trial, known, peak)
        answers.append(None if seconds is None else seconds / row["duration_s"])
    return answers


def is_disturbed(row: Row) -> bool:
    """Whether the trial shared the machine."""
    return bool(row["disturbed"] or row["concurrent_trials"])


def share(ratios: Sequence[float | None]) -> str:
    """How many of ``ratios`` are within the factor."""
    known = [ratio for ratio in ratios if ratio is not None]
    hits = sum(1 / WITHIN <= ratio <= WITHIN for ratio in known)
    return f"{hits} of {len(known)} within a factor of {WITHIN}, {len(ratios) - len(known)} without estimate"


def main() -> None:
    """Print a line for each row and the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--peak", type=float)
    given = parser.parse_args()
    try:
        trials = ended(given.folder)
    except InputError as error:
        parser.error(str(error))
    peak = (lambda *_: given.peak) if given.peak else machine.flops_per_s
    answers = {name: compare(trials, others, peak) for name, others in WAYS.items()}
    print(f"{'method':14} {'model':14} {'task':16} {'took':>8}   estimated over real: {', '.join(WAYS)}")
    for (_, row), *ratios in zip(trials, *answers.values(), strict=True):
        shown = "  ".join("   -" if ratio is None else f"{ratio:.2f}" for ratio in ratios)
        mark = "*" if is_disturbed(row) else " "
        print(f"{row['method']:14} {row['model']:14} {row['task']:16} {row['duration_s']:6.1f} s {mark} {shown}")
    for name, ratios in answers.items():
        quiet = [ratio for (_, row), ratio in zip(trials, ratios, strict=True) if not is_disturbed(row)]
        print(f"{name}: {share(ratios)}; undisturbed: {share(quiet)}")


if __name__ == "__main__":
    main()
