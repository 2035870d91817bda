"""Rows to an Arrow table of the schema's types, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from harness.errors import InputError, unknown
from harness.results.schema import Column, Kind, Table

_PYTHON: dict[Kind, frozenset[str]] = {
    "string": frozenset({"str"}),
    "int": frozenset({"int", "float"}),
    "float": frozenset({"float", "int"}),
    "bool": frozenset({"bool"}),
    "timestamp": frozenset({"datetime"}),
}


class TableBuilder:
    """Collects the rows of one table; every ``batch_rows`` rows become a compact Arrow batch.

    A key that a row lacks becomes null, so every column of the schema is always there.
    """

    def __init__(self, table: Table, batch_rows: int = 50_000) -> None:
        self._table = table
        self._names = frozenset(column.name for column in table.columns)
        self._batch_rows = batch_rows
        self._rows: list[Mapping[str, Any]] = []
        self._batches: list[pa.RecordBatch] = []

    def extend(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append ``rows``. Raises :class:`InputError` for a column that the schema lacks."""
        for row in rows:
            if not row.keys() <= self._names:
                stray = sorted(row.keys() - self._names)
                raise unknown(f"table '{self._table.name}', {_place(self._table, row)}", stray[0], self._names)
            self._rows.append(row)
        if len(self._rows) >= self._batch_rows:
            self._flush()

    def finish(self) -> pa.Table:
        """All rows as one table. Raises :class:`InputError` for a value of another type than its column's."""
        self._flush()
        return pa.Table.from_batches(self._batches, schema=self._table.arrow)

    def _flush(self) -> None:
        schema = self._table.arrow
        arrays = [self._array(column, schema.field(column.name).type) for column in self._table.columns]
        self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
        self._rows = []

    def _array(self, column: Column, arrow_type: pa.DataType) -> pa.Array:
        # Arrow would take true for 1.0 and cut 3.5 to 3, so the types are checked here.
        values = [row.get(column.name) for row in self._rows]
        found = set(map(type, values)) - {type(None)}
        plain = {t.__name__ for t in found} <= _PYTHON[column.kind]
        if not plain or (column.kind == "int" and float in found):
            for row, value in zip(self._rows, values, strict=True):
                if not _fits(column.kind, value):
                    raise InputError(
                        f"table '{self._table.name}', column '{column.name}', {_place(self._table, row)}: "
                        f"{value!r} is {type(value).__name__}, must be {column.kind}"
                    )
        try:
            return pa.array(values, type=arrow_type)
        except (pa.ArrowException, OverflowError, UnicodeError) as error:
            raise InputError(f"table '{self._table.name}', column '{column.name}': {error}") from error


def _fits(kind: Kind, value: Any) -> bool:
    if kind == "int" and isinstance(value, float):
        return value.is_integer()
    return value is None or type(value).__name__ in _PYTHON[kind]


def _place(table: Table, row: Mapping[str, Any]) -> str:
    """Which row, by its key."""
    return "row " + ", ".join(f"{name}={row.get(name)}" for name in table.key)
