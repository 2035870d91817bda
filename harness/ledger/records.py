"""Read records, and check that each is whole, of this schema, and in the folder of its trial."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from harness.errors import InputError, in_words
from harness.files import PLAN_FILE, RECORD_FILE, TRIALS_DIR
from harness.ledger.scan import names, read_head
from harness.results.record import Record
from harness.results.schema import SCHEMA_VERSION


def read_record(path: Path, head: bool = False) -> Record | None:
    """The record in ``path``; None if the trial has not ended. ``head``: without its outcome, from a small read.

    Raises :class:`InputError` with the file and the fault. No crash of TuneBench leaves such a file. The next
    ``tunebench run`` sets it aside and repeats the trial.
    """
    try:
        record = read_head(path) if head else Record.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValidationError, OSError) as error:
        what = _first_line(error)
        mend = "run the sweep again to set it aside and repeat the trial"
        raise InputError(f"{path}: not a valid record: {what}; {mend}") from error
    if record.schema_version != SCHEMA_VERSION:
        raise InputError(f"{path}: schema version {record.schema_version}, not {SCHEMA_VERSION}")
    if record.trial_id != path.parent.name:
        raise InputError(f"{path}: is the record of trial '{record.trial_id}', not of '{path.parent.name}'")
    return record


def read_records(sweep_dir: Path) -> Iterator[Record]:
    """The records of ``sweep_dir``: planned trials in their order, then any others by id.

    Raises :class:`InputError` if this is not the folder of a sweep, and for a record that cannot be read.
    """
    if not (sweep_dir / TRIALS_DIR).is_dir():
        raise InputError(f"{sweep_dir}: no trials here (no {TRIALS_DIR}/); is this the folder of a sweep?")
    return _read_all(sweep_dir)


def _read_all(sweep_dir: Path) -> Iterator[Record]:
    folder = sweep_dir / TRIALS_DIR
    there = names(folder)
    planned = [trial_id for trial_id in _plan_order(sweep_dir / PLAN_FILE) if trial_id in there]
    for trial_id in dict.fromkeys([*planned, *sorted(there)]):
        if (record := read_record(folder / trial_id / RECORD_FILE)) is not None:
            yield record


def _plan_order(plan: Path) -> list[str]:
    if not plan.exists():
        return []
    try:
        content = json.loads(plan.read_bytes())
        cells = content["trials"] if isinstance(content, dict) else content
        return [cell["trial_id"] for cell in cells]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{plan}: not a plan; run the sweep again, which writes it anew") from error


def _first_line(error: ValidationError | OSError) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {in_words(first)}" if place else in_words(first)
