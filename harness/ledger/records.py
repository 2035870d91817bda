"""Read records, and check that each is whole, of this schema, and in the folder of its trial."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import ValidationError

from harness.errors import InputError, in_words
from harness.files import PLAN_FILE, RECORD_FILE, TRIALS_DIR
from harness.ledger.scan import names, read_head, read_version, read_whole
from harness.results.record import Record
from harness.results.schema import SCHEMA_VERSION
from harness.results.selection import Ending


class Damaged(InputError):
    """A record that cannot be used. The next run sets it aside and repeats the trial."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path}: {what}; run the sweep again to set it aside and repeat the trial")
        self.fault = f"{path}: {what}"


def read_record(path: Path, head: bool = False) -> Record | None:
    """The record in ``path``; None if the trial has not ended. ``head``: without its outcome, from a small read.

    Raises :class:`Damaged` with the file and the fault; a small read cannot see all faults. Raises
    :class:`InputError` for the record of a newer TuneBench, which nobody may set aside.
    """
    try:
        record = read_head(path) if head else read_whole(path)
    except NotADirectoryError:
        return None
    except (ValueError, OSError) as error:
        if isinstance(error, FileNotFoundError) and not path.is_symlink():
            return None
        _refuse_newer(path, read_version(path))
        raise Damaged(path, f"not a valid record: {_first_line(error)}") from error
    _refuse_newer(path, record.schema_version)
    if record.schema_version != SCHEMA_VERSION:
        raise Damaged(path, f"schema version {record.schema_version}, not {SCHEMA_VERSION}")
    if record.trial_id != path.parent.name:
        raise Damaged(path, f"is the record of trial '{record.trial_id}', not of '{path.parent.name}'")
    return record


def read_records(sweep_dir: Path, leave_out: Callable[[str, Damaged], None] | None = None) -> Iterator[Record]:
    """The records of ``sweep_dir``: planned trials in their order, then any others by id.

    ``leave_out`` hears the trial and the fault of each record that cannot be used; without it, they are raised. Raises
    :class:`InputError` if this is not the folder of a sweep, and for the records of a newer TuneBench.
    """
    for trial_id in trial_ids(sweep_dir):
        try:
            record = read_record(sweep_dir / TRIALS_DIR / trial_id / RECORD_FILE)
        except Damaged as damage:
            if leave_out is None:
                raise
            leave_out(trial_id, damage)
            continue
        if record is not None:
            yield record


def endings(sweep_dir: Path) -> Callable[[str], Ending | None]:
    """How the trials of ``sweep_dir`` ended, by their ids; None where there is no record that can be used.

    Raises :class:`InputError` for the record of a newer TuneBench.
    """

    def ending(trial_id: str) -> Ending | None:
        try:
            record = read_record(sweep_dir / TRIALS_DIR / trial_id / RECORD_FILE)
        except Damaged:  # it is set aside when the plan is written, and the trial runs again
            return None
        if record is None:
            return None
        return Ending.of(record.status, {} if record.outcome is None else record.outcome.columns)

    return ending


def trial_ids(sweep_dir: Path) -> list[str]:
    """The names of the folders of trials: those of the plan in its order, then any others by name.

    Without a plan that can be read, all are others. Raises :class:`InputError` if this is not the folder of a sweep.
    """
    if not (sweep_dir / TRIALS_DIR).is_dir():
        raise InputError(f"{sweep_dir}: no trials here (no {TRIALS_DIR}/); is this the folder of a sweep?")
    there = names(sweep_dir / TRIALS_DIR)
    planned = [trial_id for trial_id in _plan_order(sweep_dir / PLAN_FILE) if trial_id in there]
    return list(dict.fromkeys([*planned, *sorted(there)]))


def _plan_order(plan: Path) -> list[str]:
    try:
        return [str(cell["trial_id"]) for cell in json.loads(plan.read_bytes())["trials"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _refuse_newer(path: Path, version: int | None) -> None:
    if version is not None and version > SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema version {version} is that of a newer TuneBench, this one writes {SCHEMA_VERSION}; "
            f"use the newer one, or another folder"
        )


def _first_line(error: ValueError | OSError) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {in_words(first)}" if place else in_words(first)
