"""Rows to Arrow batches of the schema's types, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """Collects the rows of one table by column; every ``batch_rows`` rows become a compact Arrow batch.

    A key that a row lacks becomes null, so every column of the schema is always there.
    """

    def __init__(self, table: Table, batch_rows: int = 50_000) -> None:
        self._table = table
        self._schema = table.arrow
        self._names = frozenset(column.name for column in table.columns)
        self._batch_rows = batch_rows
        self._columns: dict[str, list[Any]] = {column.name: [] for column in table.columns}
        self._rows = 0
        self._batches: list[pa.RecordBatch] = []

    def extend(self, rows: Sequence[Mapping[str, Any]], **same: Any) -> None:
        """Append ``rows``; ``same`` are values that all of them have. They come to lie in one batch.

        Raises :class:`InputError` for a column that the schema lacks.
        """
        if stray := sorted(set().union(*rows) - self._names):
            row = next(row for row in rows if stray[0] in row)
            raise unknown(f"table '{self._table.name}', {self._place({**row, **same})}", stray[0], self._names)
        for name, values in self._columns.items():
            values.extend([same[name]] * len(rows) if name in same else [row.get(name) for row in rows])
        self._rows += len(rows)
        if self._rows >= self._batch_rows:
            self._flush()

    def ready(self) -> list[pa.RecordBatch]:
        """Take the batches that are complete, and forget them."""
        taken, self._batches = self._batches, []
        return taken

    def finish(self) -> pa.Table:
        """All rows that were not taken as one table.

        Raises :class:`InputError` for a value of another type than its column's.
        """
        if self._rows:
            self._flush()
        return pa.Table.from_batches(self._batches, schema=self._schema)

    def _flush(self) -> None:
        arrays = [self._array(column, self._schema.field(column.name).type) for column in self._table.columns]
        self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._columns = {name: [] for name in self._columns}
        self._rows = 0

    def _array(self, column: Column, arrow_type: pa.DataType) -> pa.Array:
        # Arrow would take true for 1.0 and cut 3.5 to 3, so the types are checked here.
        values = self._columns[column.name]
        types = set(map(type, values)) - {type(None)}
        plain = {t.__name__ for t in types} <= _PYTHON[column.kind]
        if not plain or (column.kind == "int" and float in types):
            for place, value in enumerate(values):
                if not _fits(column.kind, value):
                    row = {name: some[place] for name, some in self._columns.items()}
                    raise InputError(
                        f"table '{self._table.name}', column '{column.name}', {self._place(row)}: "
                        f"{value!r} is {type(value).__name__}, must be {column.kind}"
                    )
        try:
            return pa.array(values, type=arrow_type)
        except (pa.ArrowException, OverflowError, UnicodeError) as error:
            raise InputError(f"table '{self._table.name}', column '{column.name}': {error}") from error

    def _place(self, row: Mapping[str, Any]) -> str:
        """Which row, by its key."""
        return "row " + ", ".join(f"{name}={row.get(name)}" for name in self._table.key)


def _fits(kind: Kind, value: Any) -> bool:
    if kind == "int" and isinstance(value, float):
        return value.is_integer()
    return value is None or type(value).__name__ in _PYTHON[kind]
