"""From records to tidy tables: a pure function of a sweep's records, one record in memory at a time.

records  ->  results/<sweep>/tables/<table>.parquet, .csv
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa

from harness.files import TABLES_DIR, remove_dead_parts
from harness.results.baseline import fill_base_scores
from harness.results.builder import TableBuilder
from harness.results.concurrent import fill_concurrent_trials
from harness.results.control import fill_control
from harness.results.execution_columns import asked
from harness.results.files import TableFiles, find, read
from harness.results.parents import fill_chain_costs, fill_parent_settings
from harness.results.record import Record
from harness.results.schema import LONG_TABLES, TABLES
from harness.results.selection import fill_selection
from harness.results.validate import validate
from harness.trial import Trial

__all__ = ["build", "check", "find", "read", "validate", "write"]


def build(records: Iterable[Record]) -> dict[str, pa.Table]:
    """The tables of ``records``, in their order (:func:`harness.ledger.records.read_records`).

    Raises :class:`InputError` for what breaks a rule of the schema; no record is left out in silence.
    """
    batches: dict[str, list[pa.RecordBatch]] = {name: [] for name in TABLES}
    for name, batch in _batches(records):
        batches[name].append(batch)
    return {name: pa.Table.from_batches(batches[name], schema=table.arrow) for name, table in TABLES.items()}


def write(records: Iterable[Record], sweep_dir: Path) -> dict[str, int]:
    """Write the tables of ``records`` to ``sweep_dir/tables``, as Parquet and CSV; returns how many rows each has.

    What :func:`build` gives goes to disk as it comes, so memory does not grow with the long tables. Every file is
    written to a temporary name, and all are renamed when all are whole.
    """
    rows = dict.fromkeys(TABLES, 0)
    folder = sweep_dir / TABLES_DIR
    folder.mkdir(exist_ok=True)
    remove_dead_parts(folder)
    with ExitStack() as stack:
        files = {name: stack.enter_context(TableFiles(folder, table)) for name, table in TABLES.items()}
        for name, batch in _batches(records):
            files[name].add(batch)
            rows[name] += batch.num_rows
        for file in files.values():
            file.close()
        for file in files.values():
            file.keep()
    return rows


def check(record: Record) -> None:
    """Raise :class:`InputError`, with table, column and rule, when a record would not fit into the tables."""
    for name, rows in {"trials": [_row(record)], **(record.outcome.tables if record.outcome else {})}.items():
        builder = TableBuilder(TABLES[name])
        builder.extend(rows, trial_id=record.trial_id)
        validate(TABLES[name], builder.finish())


def _batches(records: Iterable[Record]) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Valid rows of the tables, with the name of the table; those of ``trials`` come last.

    A trial's rows lie in one batch, and no other trial has its id: keys that are unique in each batch are unique.
    """
    seen = dict.fromkeys(TABLES, 0)
    for name, batch in _unchecked(records):
        validate(TABLES[name], pa.Table.from_batches([batch]), first_row=seen[name])
        seen[name] += batch.num_rows
        yield name, batch


def _unchecked(records: Iterable[Record]) -> Iterator[tuple[str, pa.RecordBatch]]:
    trials: list[dict[str, Any]] = []
    specs: list[Trial] = []
    latency: list[dict[str, Any]] = []
    builders = {name: TableBuilder(table) for name, table in TABLES.items()}
    for record in records:
        trials.append(_row(record))
        specs.append(record.trial)
        for name, rows in record.outcome.tables.items() if record.outcome is not None else ():
            builders[name].extend(rows, trial_id=record.trial_id)
            latency += [{**row, "trial_id": record.trial_id} for row in rows if name == "latency"]
            for batch in builders[name].ready():
                yield name, batch
    fill_base_scores(trials, specs)
    fill_parent_settings(trials, specs)
    fill_chain_costs(trials)
    fill_concurrent_trials(trials)
    fill_control(trials, latency)
    fill_selection(trials)
    builders["trials"].extend(trials)
    for name in (*LONG_TABLES, "trials"):
        for batch in builders[name].finish().to_batches():
            yield name, batch


def _row(record: Record) -> dict[str, Any]:
    """One row of ``trials``: the measured wins over the planned; the spec alone gives the identity."""
    trial, budget = record.trial, record.trial.budget
    measured = record.outcome.columns if record.outcome is not None else {}
    return {
        "train_steps": 0 if trial.learning_rate is None else budget.train_steps,
        "device": trial.device,
        "model_family": record.model_family,
        "task_kind": record.task_kind,
        "estimated_bytes": record.estimated_bytes,
        **record.environment,
        **{name: value for name, value in measured.items() if value is not None},
        "trial_id": record.trial_id,
        "sweep": record.sweep,
        "notebook": trial.notebook,
        "method": trial.method,
        "method_version": trial.method_version,
        "method_args": _json(trial.method_args),
        "objective": trial.objective,
        "objective_args": _json(trial.objective_args),
        "parents": _json(_parents(record)),
        "parent_candidates": _json(trial.parents),
        "parent_settings": _json(trial.parents),
        "model": trial.model,
        "model_revision": trial.model_revision,
        "task": trial.task,
        "task_version": trial.task_version,
        "seed": trial.seed,
        "learning_rate": trial.learning_rate,
        **budget.columns(),
        "dtype": trial.dtype,
        "requested_device": trial.device,
        **{asked(name): value for name, value in trial.execution},
        "protocol_version": trial.protocol_version,
        "status": record.status,
        "reason": record.reason,
        "failed_cell": record.failed_cell,
        "attempt": record.attempt,
        "started_at": record.started_at,
        "duration_s": record.duration_s,
        "selected": False,
        "settings_tried": 0,
    }


def _parents(record: Record) -> dict[str, str]:
    """Role -> the parent; records of earlier versions leave out what was the only candidate."""
    single = {role: candidates[0] for role, candidates in record.trial.parents.items() if len(candidates) == 1}
    return {**single, **record.parents}


def _json(arguments: Mapping[str, Any]) -> str:
    return json.dumps(arguments, sort_keys=True, ensure_ascii=False)
