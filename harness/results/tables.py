"""From records to tidy tables: a pure function of a sweep's records, one record in memory at a time.

results/<sweep>/trials/<trial_id>/record.json  ->  results/<sweep>/tables/<table>.parquet, .csv
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from harness.errors import InputError
from harness.results.baseline import fill_base_scores
from harness.results.builder import TableBuilder
from harness.results.files import TABLES_DIR, TableFiles, find, read
from harness.results.parents import fill_parent_settings
from harness.results.record import RECORD_FILE, Record
from harness.results.scan import names
from harness.results.schema import LONG_TABLES, SCHEMA_VERSION, TABLES
from harness.results.validate import validate
from harness.trial import Trial

__all__ = ["build", "check", "find", "read", "validate", "write"]

PLAN_FILE = "plan.json"
TRIALS_DIR = "trials"


def build(sweep_dir: Path) -> dict[str, pa.Table]:
    """The tables of every trial of ``sweep_dir`` that has ended, in the order of the plan.

    Raises :class:`InputError` naming the file of a record that cannot be read; none is left out in silence.
    """
    batches: dict[str, list[pa.RecordBatch]] = {name: [] for name in TABLES}
    for name, batch in _batches(Path(sweep_dir)):
        batches[name].append(batch)
    return {name: pa.Table.from_batches(batches[name], schema=table.arrow) for name, table in TABLES.items()}


def write(sweep_dir: Path) -> dict[str, int]:
    """Write the tables of ``sweep_dir`` under ``tables/``, each as Parquet and CSV; returns how many rows each has.

    What :func:`build` gives goes to disk as it comes, so memory does not grow with the long tables. Every file is
    written to a temporary name, and all are renamed when all are whole.
    """
    sweep_dir = Path(sweep_dir)
    rows = dict.fromkeys(TABLES, 0)
    _check_is_sweep(sweep_dir)
    folder = sweep_dir / TABLES_DIR
    folder.mkdir(exist_ok=True)
    with ExitStack() as stack:
        files = {name: stack.enter_context(TableFiles(folder, table)) for name, table in TABLES.items()}
        for name, batch in _batches(sweep_dir):
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


def _batches(sweep_dir: Path) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Valid rows of the tables, with the name of the table; those of ``trials`` come last.

    A trial's rows lie in one batch, and no other trial has its id: keys that are unique in each batch are unique.
    """
    seen = dict.fromkeys(TABLES, 0)
    for name, batch in _unchecked(sweep_dir):
        validate(TABLES[name], pa.Table.from_batches([batch]), first_row=seen[name])
        seen[name] += batch.num_rows
        yield name, batch


def _unchecked(sweep_dir: Path) -> Iterator[tuple[str, pa.RecordBatch]]:
    trials: list[dict[str, Any]] = []
    specs: list[Trial] = []
    builders = {name: TableBuilder(table) for name, table in TABLES.items()}
    for record in _records(sweep_dir):
        trials.append(_row(record))
        specs.append(record.trial)
        for name, rows in record.outcome.tables.items() if record.outcome is not None else ():
            builders[name].extend(rows, trial_id=record.trial_id)
            for batch in builders[name].ready():
                yield name, batch
    fill_base_scores(trials, specs)
    fill_parent_settings(trials, specs)
    builders["trials"].extend(trials)
    for name in (*LONG_TABLES, "trials"):
        for batch in builders[name].finish().to_batches():
            yield name, batch


def _records(sweep_dir: Path) -> Iterator[Record]:
    """The records of ``sweep_dir``: those of the plan in its order, then any others by id."""
    _check_is_sweep(sweep_dir)
    folder = sweep_dir / TRIALS_DIR
    there = names(folder)
    planned = [trial_id for trial_id in _plan_order(sweep_dir / PLAN_FILE) if trial_id in there]
    for trial_id in dict.fromkeys([*planned, *sorted(there)]):
        if (record := _record(folder / trial_id / RECORD_FILE)) is not None:
            yield record


def _check_is_sweep(sweep_dir: Path) -> None:
    if not (sweep_dir / TRIALS_DIR).is_dir():
        raise InputError(f"{sweep_dir}: no trials here (no {TRIALS_DIR}/); is this the folder of a sweep?")


def _plan_order(plan: Path) -> list[str]:
    if not plan.exists():
        return []
    try:
        content = json.loads(plan.read_bytes())
        cells = content["trials"] if isinstance(content, dict) else content
        return [cell["trial_id"] for cell in cells]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{plan}: not a plan ({type(error).__name__}: {error})") from error


def _record(path: Path) -> Record | None:
    """The record in ``path``, checked; null where the trial has not ended."""
    try:
        record = Record.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValidationError, OSError) as error:
        raise InputError(f"{path}: not a valid record: {_first_line(error)}") from error
    if record.schema_version != SCHEMA_VERSION:
        raise InputError(f"{path}: schema version {record.schema_version}, not {SCHEMA_VERSION}")
    if record.trial_id != path.parent.name:
        raise InputError(f"{path}: is the record of trial '{record.trial_id}', not of '{path.parent.name}'")
    return record


def _first_line(error: ValidationError | OSError) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])


def _row(record: Record) -> dict[str, Any]:
    """One row of ``trials``: the measured wins over the planned; the spec alone gives the identity."""
    trial, budget = record.trial, record.trial.budget
    measured = record.outcome.columns if record.outcome is not None else {}
    return {
        "train_steps": 0 if trial.learning_rate is None else budget.train_steps,
        "device": trial.device,
        "model_family": record.model_family,
        "task_kind": record.task_kind,
        **record.environment,
        **{name: value for name, value in measured.items() if value is not None},
        "trial_id": record.trial_id,
        "sweep": record.sweep,
        "notebook": trial.notebook,
        "method": trial.method,
        "method_args": _json(trial.method_args),
        "objective": trial.objective,
        "objective_args": _json(trial.objective_args),
        "parents": _json(trial.parents),
        "parent_settings": _json(trial.parents),
        "model": trial.model,
        "model_revision": trial.model_revision,
        "task": trial.task,
        "task_version": trial.task_version,
        "seed": trial.seed,
        "learning_rate": trial.learning_rate,
        "batch_size": budget.batch_size,
        "epochs": budget.epochs,
        "max_length": budget.max_length,
        "train_examples": budget.train_examples,
        "eval_examples": budget.eval_examples,
        "max_new_tokens": budget.max_new_tokens,
        "dtype": trial.dtype,
        "requested_device": trial.device,
        "protocol_version": trial.protocol_version,
        "status": record.status,
        "reason": record.reason,
        "failed_cell": record.failed_cell,
        "attempt": record.attempt,
        "started_at": record.started_at,
        "duration_s": record.duration_s,
    }


def _json(arguments: Mapping[str, Any]) -> str:
    return json.dumps(arguments, sort_keys=True, ensure_ascii=False)
