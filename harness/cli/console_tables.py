"""The tables that commands print about plans and runs: a line per trial, or a line per cell for many trials."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.results.record import Record
from harness.runner.display import clock
from harness.sweeps.plan import Plan, Planned
from harness.trial import Trial

#: Above this number, trials are counted by method, objective, model and task.
MANY = 200

#: At most this many reasons are printed; the tables have all.
_REASONS = 20

_CELL = ("method", "objective", "model", "task")


@dataclass(frozen=True)
class Lines:
    """A table for people."""

    header: Sequence[str]
    rows: Iterable[Sequence[object]]


def plan(sweep_plan: Plan) -> Lines:
    """The trials that would run, and the skipped ones with their reasons."""
    if len(sweep_plan.rows) > MANY:
        return _plan_by_cell(sweep_plan.rows)
    rows = [
        (
            row.trial_id,
            *_cell(row.trial),
            row.trial.seed,
            number(row.trial.learning_rate),
            _steps(row),
            _gigabytes([row]),
            _duration([row]),
            _why(row),
        )
        for row in sweep_plan.rows
    ]
    return Lines(("trial", *_CELL, "seed", "lr", "steps", "GB", "time", ""), rows)


def _plan_by_cell(rows: Sequence[Planned]) -> Lines:
    groups: defaultdict[tuple[object, ...], list[Planned]] = defaultdict(list)
    for row in rows:
        groups[(*_cell(row.trial), _steps(row), _why(row))].append(row)
    lines = [
        (
            *cell,
            len(rows_of_cell),
            len({row.trial.seed for row in rows_of_cell}),
            steps,
            _gigabytes(rows_of_cell),
            _duration(rows_of_cell),
            why,
        )
        for (*cell, steps, why), rows_of_cell in groups.items()
    ]
    return Lines((*_CELL, "trials", "seeds", "steps", "GB", "time", ""), lines)


def time_of(seconds: float, unknown: int) -> Iterator[str]:
    """How long the trials take one after the other, and how many are left out of that."""
    if seconds:
        but = f", without {unknown} whose time is not known" if unknown else ""
        yield f"estimated to take {clock(seconds)} one after the other{but}"


def outcome(sweep_dir: Path, records: Sequence[Record]) -> Lines:
    """How trials ended and what they scored, read from the tables of the sweep."""
    if len(records) > MANY:
        return _outcome_by_cell(records)
    columns = ("seed", "learning_rate", "status", "primary_metric", "valid_score", "test_score", "train_s")
    header = ("trial", *_CELL, "seed", "lr", "status", "metric", "valid", "test", "train s")
    return Lines(header, _measured(sweep_dir, [record.trial_id for record in records], ("trial_id", *_CELL, *columns)))


def _outcome_by_cell(records: Sequence[Record]) -> Lines:
    statuses = list(dict.fromkeys(record.status for record in records))
    groups: defaultdict[tuple[object, ...], Counter[str]] = defaultdict(Counter)
    for record in records:
        groups[_cell(record.trial)][record.status] += 1
    lines = [(*cell, ended.total(), *(ended[status] or "" for status in statuses)) for cell, ended in groups.items()]
    return Lines((*_CELL, "trials", *statuses), lines)


def _measured(sweep_dir: Path, trial_ids: Sequence[str], columns: Sequence[str]) -> list[list[object]]:
    import pyarrow.parquet as pq

    from harness.results.files import find

    table = pq.read_table(find(sweep_dir) / "trials.parquet", columns=list(columns))
    rows: dict[str, dict[str, Any]] = {row["trial_id"]: row for row in table.to_pylist()}
    return [
        [_shown(name, value) for name, value in zip(columns, map(rows[trial_id].get, columns), strict=True)]
        for trial_id in trial_ids
        if trial_id in rows
    ]


def reasons(records: Sequence[Record]) -> Iterator[str]:
    """A line for each trial that ran and did not end well, up to :data:`_REASONS` of them."""
    bad = [record for record in records if record.reason and record.status != "skipped"]
    for record in bad[:_REASONS]:
        yield f"{record.trial_id} {record.status}: {record.reason}"
    if len(bad) > _REASONS:
        yield f"and {len(bad) - _REASONS} more; tables/trials.csv has every reason"


def _shown(column: str, value: object) -> object:
    if not isinstance(value, float):
        return value
    return f"{value:,.1f}" if column.endswith("_s") else number(value)


def number(value: object) -> str:
    """``value`` with four digits; empty where it is not a number."""
    return f"{value:.4g}" if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _cell(trial: Trial) -> tuple[str, str, str, str]:
    return trial.method, trial.objective, trial.model, trial.task


def _steps(row: Planned) -> int:
    return row.trial.budget.train_steps if row.trial.learning_rate is not None else 0


def _gigabytes(rows: Iterable[Planned]) -> str:
    """The largest estimated memory of ``rows``, in GB; empty where none is known."""
    known = [row.estimated_bytes for row in rows if row.estimated_bytes is not None]
    return f"{max(known) / 1e9:,.2f}" if known else ""


def _duration(rows: Iterable[Planned]) -> str:
    """The longest estimated time of ``rows``; empty where none is known."""
    known = [row.estimated_s for row in rows if row.estimated_s is not None]
    return clock(max(known)) if known else ""


def _why(row: Planned) -> str:
    return "" if row.reason is None else f"skipped: {row.reason}"
