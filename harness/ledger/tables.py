"""The tables of a ledger follow its records: they are made again when they were made from others.

``tables.json`` says which records the tables were made from and which files came of it, each by its stamp (size and
time of the last change). So thousands of records need no reading to see that nothing has changed. A record with the
stamp that is noted there was read then, and was whole.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import InputError
from harness.files import RECORD_FILE, SOURCES_FILE, TABLES_DIR, TRIALS_DIR, write_atomically
from harness.ledger.records import Damaged, read_records, trial_ids
from harness.ledger.scan import Stamp, side_by_side, stamp
from harness.results.record import Record
from harness.results.schema import SCHEMA_VERSION, TABLES


@dataclass(frozen=True)
class Sources:
    """What the tables were made from, and what came of it."""

    records: Mapping[str, Stamp]
    """Trial -> the stamp of its record, in the order of the rows."""
    left_out: Mapping[str, str]
    """Trial -> why its record is not in the tables."""
    files: Mapping[str, Stamp]
    """Name in ``tables/`` -> the stamp."""

    def whole(self) -> dict[str, Stamp]:
        """The records that were read and found whole."""
        return {trial_id: seen for trial_id, seen in self.records.items() if trial_id not in self.left_out}


@dataclass(frozen=True)
class Following:
    """Tables that follow the records."""

    whole: frozenset[str]
    """Trials whose records are in them."""
    left_out: Mapping[str, str]
    """Trial -> why its record is not."""
    rows: Mapping[str, int] | None
    """Rows of each table, if they were made again now; None if they followed already, or if no record can be used."""


def refresh(folder: Path, anew: bool = False) -> Following:
    """Make the tables of the sweep in ``folder`` if they are missing, damaged or made from other records.

    ``anew`` makes them in any case. A record that cannot be used is left out, and said on the standard error stream;
    if there are no others, the tables stay as they are. Raises :class:`InputError` if this is not the folder of a
    sweep, and if a newer TuneBench wrote a record; OSError if the tables cannot be written.
    """
    records = _stamps(folder)
    before = last = read_sources(folder)
    rows = None
    if anew or last is None or list(last.records.items()) != list(records.items()) or last.files != _files(folder):
        rows, left_out = _make(folder, len(records))
        last = Sources(records, left_out, _files(folder))
        if rows is not None:
            _write_sources(folder, last)
    if before is not None and (gone := sorted(before.records.keys() - records.keys())):
        print(f"no longer in the tables, as their records are gone: {', '.join(gone)}", file=sys.stderr, flush=True)
    for fault in last.left_out.values():
        print(f"left out of the tables: {fault}", file=sys.stderr, flush=True)
    return Following(frozenset(last.whole()), last.left_out, rows)


def read_sources(folder: Path) -> Sources | None:
    """What the tables in ``folder`` were made from; None if nothing that can be read says so."""
    try:
        document = json.loads((folder / SOURCES_FILE).read_bytes())
        if document["schema_version"] != SCHEMA_VERSION:
            return None
        left_out = {str(trial_id): str(fault) for trial_id, fault in document["left_out"].items()}
        return Sources(_stamped(document["records"]), left_out, _stamped(document["files"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _write_sources(folder: Path, sources: Sources) -> None:
    document = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(sources)}
    write_atomically(folder / SOURCES_FILE, json.dumps(document, ensure_ascii=False) + "\n")


class _NoneUsable(Exception):
    """All records were left out."""


def _make(folder: Path, count: int) -> tuple[dict[str, int] | None, dict[str, str]]:
    """Write the tables of ``count`` records; rows by table, and the faults of the records that are left out.

    Without a record that can be used it writes nothing, and the rows are None.
    """
    # Imported here, because planning and the start of a run need neither Arrow nor pandas.
    from harness.results import tables

    left_out: dict[str, str] = {}

    def leave_out(trial_id: str, damage: Damaged) -> None:
        left_out[trial_id] = damage.fault

    def usable() -> Iterator[Record]:
        yield from (record for record in read_records(folder, leave_out) if record.trial_id not in left_out)
        if len(left_out) == count and (count or _files(folder)):
            raise _NoneUsable

    try:
        try:
            return tables.write(usable(), folder), left_out
        except InputError:
            if not (misfits := _misfits(folder)):  # which record it is, only a look at each can say
                raise
            left_out |= misfits
            return tables.write(usable(), folder), left_out
    except _NoneUsable:
        return None, left_out


def _misfits(folder: Path) -> dict[str, str]:
    """The records that are whole but do not fit into the tables, with their faults."""
    from harness.results import tables

    misfits = {}
    for record in read_records(folder, lambda _id, _damage: None):
        try:
            tables.check(record)
        except InputError as error:
            path = folder / TRIALS_DIR / record.trial_id / RECORD_FILE
            misfits[record.trial_id] = f"{path}: does not fit into the tables: {error}"
    return misfits


def _stamps(folder: Path) -> dict[str, Stamp]:
    """Trial -> the stamp of its record, if it has one."""
    ids = trial_ids(folder)
    found = side_by_side(lambda trial_id: stamp(folder / TRIALS_DIR / trial_id / RECORD_FILE), ids)
    return {trial_id: seen for trial_id, seen in zip(ids, found, strict=True) if seen is not None}


def _files(folder: Path) -> dict[str, Stamp]:
    """Name -> the stamp of each file of the tables that is there."""
    paths = [folder / TABLES_DIR / f"{name}.{ending}" for name in TABLES for ending in ("parquet", "csv")]
    return {path.name: seen for path in paths if (seen := stamp(path)) is not None}


def _stamped(document: Mapping[str, Any]) -> dict[str, Stamp]:
    return {str(name): (int(size), int(time)) for name, (size, time) in document.items()}
