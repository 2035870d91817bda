"""From records to tidy tables, and back from disk: ``build`` is a pure function of a sweep's records.

results/<sweep>/trials/<trial_id>/record.json  ->  results/<sweep>/tables/<table>.parquet, .csv
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from pydantic import ValidationError

from harness.errors import InputError
from harness.results.baseline import fill_base_scores
from harness.results.builder import TableBuilder
from harness.results.record import RECORD_FILE, Record
from harness.results.schema import LONG_TABLES, SCHEMA_VERSION, TABLES, Table
from harness.results.validate import validate
from harness.trial import Trial

__all__ = ["build", "read", "validate", "write"]

PLAN_FILE = "plan.json"
TABLES_DIR = "tables"
TRIALS_DIR = "trials"


def build(sweep_dir: Path) -> dict[str, pa.Table]:
    """The tables of every trial of ``sweep_dir`` that has ended, in the order of the plan.

    Records are read one at a time, so memory grows with the tables and not with the JSON. Raises
    :class:`InputError` naming the file of a record that cannot be read; none is left out in silence.
    """
    trials: list[dict[str, Any]] = []
    specs: list[Trial] = []
    long = {name: TableBuilder(table) for name, table in LONG_TABLES.items()}
    for record in _records(Path(sweep_dir)):
        trials.append(_row(record))
        if record.outcome is not None:
            for name, rows in record.outcome.tables.items():
                long[name].extend({**row, "trial_id": record.trial_id} for row in rows)
        specs.append(record.trial)
    fill_base_scores(trials, specs)
    builder = TableBuilder(TABLES["trials"])
    builder.extend(trials)
    built = {"trials": builder.finish(), **{name: rows.finish() for name, rows in long.items()}}
    for name, data in built.items():
        validate(TABLES[name], data)
    return built


def write(sweep_dir: Path) -> dict[str, pa.Table]:
    """Build the tables of ``sweep_dir``, write each as Parquet and CSV under ``tables/``, and return them.

    Every file is written to a temporary name and renamed: a reader sees the old file or the new one.
    """
    built = build(sweep_dir)
    folder = Path(sweep_dir) / TABLES_DIR
    folder.mkdir(exist_ok=True)
    for name, data in built.items():
        _replace(folder / f"{name}.parquet", partial(pq.write_table, data, compression="zstd"))
        _replace(folder / f"{name}.csv", partial(pyarrow.csv.write_csv, data))
    return built


def read(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables of a folder that holds ``tables/``, or is it, by name.

    Nullable integers come as float64 with NaN and nullable booleans as pandas' ``boolean``. A long table
    without a file is empty. Raises :class:`InputError` when there is no trials table, or a table has another
    schema version.
    """
    found = find(folder)
    return {name: _read(table, found / f"{name}.parquet") for name, table in TABLES.items()}


def find(folder: Path) -> Path:
    """``folder/tables`` or ``folder``, whichever holds the trials table; else :class:`InputError`."""
    for candidate in (Path(folder) / TABLES_DIR, Path(folder)):
        if (candidate / "trials.parquet").is_file():
            return candidate
    raise InputError(f"{folder}: no tables here; make them with 'tunebench tables {folder}'")


def _records(sweep_dir: Path) -> Iterator[Record]:
    """The records of ``sweep_dir``: those of the plan in its order, then any others by id."""
    if not (sweep_dir / TRIALS_DIR).is_dir():
        raise InputError(f"{sweep_dir}: no trials here (no {TRIALS_DIR}/); is this the folder of a sweep?")
    there = {path.parent.name: path for path in (sweep_dir / TRIALS_DIR).glob(f"*/{RECORD_FILE}")}
    planned = [trial_id for trial_id in _plan_order(sweep_dir / PLAN_FILE) if trial_id in there]
    for trial_id in dict.fromkeys([*planned, *sorted(there)]):
        yield _record(there[trial_id])


def _plan_order(plan: Path) -> list[str]:
    if not plan.exists():
        return []
    try:
        content = json.loads(plan.read_bytes())
        cells = content["trials"] if isinstance(content, dict) else content
        return [cell["trial_id"] for cell in cells]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{plan}: not a plan ({type(error).__name__}: {error})") from error


def _record(path: Path) -> Record:
    try:
        record = Record.model_validate_json(path.read_bytes())
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
        "method_args": json.dumps(trial.method_args, sort_keys=True, ensure_ascii=False),
        "objective": trial.objective,
        "model": trial.model,
        "task": trial.task,
        "seed": trial.seed,
        "learning_rate": trial.learning_rate,
        "batch_size": budget.batch_size,
        "max_length": budget.max_length,
        "train_examples": budget.train_examples,
        "dtype": trial.dtype,
        "protocol_version": trial.protocol_version,
        "status": record.status,
        "reason": record.reason,
        "failed_cell": record.failed_cell,
        "attempt": record.attempt,
        "started_at": record.started_at,
        "duration_s": record.duration_s,
    }


def _replace(path: Path, write_to: Callable[[Path], object]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write_to(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _read(table: Table, path: Path) -> pd.DataFrame:
    if not path.exists():
        return _frame(table.arrow.empty_table())
    try:
        data = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from error
    version = (data.schema.metadata or {}).get(b"schema_version", b"none").decode()
    if version != str(SCHEMA_VERSION):
        raise InputError(f"{path}: schema version {version}, not {SCHEMA_VERSION}; make the tables again")
    return _frame(data)


def _frame(data: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = data.to_pandas()
    for field in data.schema:
        if pa.types.is_boolean(field.type):
            frame[field.name] = frame[field.name].astype("boolean")
        elif pa.types.is_integer(field.type) and field.nullable:
            frame[field.name] = frame[field.name].astype("float64")
    return frame
