"""The columns that a task needs, and what to say about one that a file does not have."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import InputError, unknown
from harness.tasks import joined, read
from harness.tasks.choices import list_fields
from harness.tasks.spoken import GIVEN
from harness.tasks.values import NOTHING, print_in

if TYPE_CHECKING:
    from harness.tasks.spec import TaskSpec

#: A message lists at most this many columns.
_MOST = 20


def check_columns(spec: TaskSpec, path: Path, table: read.Table) -> None:
    """Raise InputError if no row of the file has a column that the task uses, with the columns that it has."""
    known = list(dict.fromkeys(name for row in table.rows for name in row.values))
    where = f"task '{spec.name}': {path.name}"
    for new, column in spec.fields.items():
        if not _is_there(table.rows, column):
            if new in known:
                raise InputError(
                    f"{where}: fields: there is no column '{column}', and one called '{new}': fields gives new name: "
                    f"column, so write {{{column}: '{new}'}}{_list(known)}"
                )
            raise _unknown(f"{where}: fields: {new}", column, known, table)
    given = {name for expression in spec.extract.values() for name in re.compile(expression).groupindex}
    given |= {*spec.fields, *(GIVEN if spec.dialogue is not None else ())}
    wanted = {
        *spec.used_fields,
        *spec.extract,
        *spec.where,
        *list_fields(spec),
        *([spec.dialogue] if spec.dialogue is not None else []),
    }
    optional = spec.may_be_empty if spec.optional is None else frozenset[str]()
    for name in sorted(wanted - given):
        if not _is_there(table.rows, name) and (name not in optional or _is_misspelt(name, {*known} - wanted)):
            raise _unknown(where, name, known, table)
    for name, join in spec.join.items():
        if join.parts:
            _check_parts(f"{where}: join.{name}.parts", join.parts, spec.fields.get(name, name), table.rows)


def _check_parts(where: str, parts: Sequence[str], column: str, rows: Sequence[read.SourceRow]) -> None:
    """Refuse a part that no object has: what it was to say would be missing from every text."""
    found = [read.lookup(row, column) for row in rows]
    there = set[str]().union(*(joined.names(print_in(one) if isinstance(one, str) else one) for one in found))
    if not there:
        raise InputError(f"{where}: '{column}' holds no objects, so its items have no names; leave 'parts' out")
    for part in parts:
        if part not in there:
            raise unknown(where, part, there)


def _is_misspelt(name: str, columns: Iterable[str]) -> bool:
    """Whether one of the columns, which nothing uses, is surely meant."""
    plain = [column.strip().casefold() for column in columns]
    return bool(difflib.get_close_matches(name.casefold(), plain, n=1, cutoff=0.8))


def _is_there(rows: Sequence[read.SourceRow], column: str) -> bool:
    return any(read.lookup(row, column) is not NOTHING for row in rows)


def _unknown(where: str, name: str, known: Sequence[str], table: read.Table) -> InputError:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    same = [column for column in known if column.strip().casefold() == name.strip().casefold()]
    inside = _inside(name, table)
    if table.likely_fault:
        hint = table.likely_fault
    elif inside:
        hint = f"; '{inside[0]}' has {', '.join(map(repr, inside[1]))}"
    elif near or same:
        hint = f"; did you mean '{(same or near)[0]}'?"
    else:
        hint = table.possible_fault
    return InputError(f"{where}: unknown name '{name}'{hint}{_list(known)}")


def _inside(name: str, table: read.Table) -> tuple[str, list[str]] | None:
    """For a dotted path, the column at its head and the names inside that."""
    head = name.partition(".")[0]
    for row in table.rows:
        value = row.nested.get(head)
        inner = value[0] if isinstance(value, (list, tuple)) and value else value
        if name != head and isinstance(inner, dict):
            return head, [str(key) for key in inner][:_MOST]
    return None


def _list(known: Sequence[str]) -> str:
    if not any(known):
        return "; no row has a column with a name"
    more = f" and {len(known) - _MOST} more" if len(known) > _MOST else ""
    return f"; columns: {', '.join(repr(name) for name in known[:_MOST])}{more}"
