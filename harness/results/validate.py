"""Check a table against its schema: the one gate that every table passes before it is written."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from harness.errors import InputError
from harness.results.schema import Column, Table


def validate(table: Table, data: pa.Table) -> None:
    """Raise :class:`InputError` at the first cell of ``data`` that breaks a rule of ``table``.

    The rules: columns and types are the schema's, required columns have no null, numbers are finite and within
    their bounds, text is among the choices, the key is unique. The message names table, column, row, rule.
    """
    _check_columns(table, data)
    for column in table.columns:
        values = data.column(column.name)
        for broken, rule in _rules(column, values):
            row = pc.index(broken, True).as_py()
            if row >= 0:
                raise _error(table, data, column.name, row, f"{values[row].as_py()!r} {rule}")
    _check_key(table, data)


def _check_columns(table: Table, data: pa.Table) -> None:
    wanted = table.arrow
    if missing := sorted(set(wanted.names) - set(data.column_names)):
        raise InputError(f"table '{table.name}': missing column {', '.join(missing)}")
    if stray := sorted(set(data.column_names) - set(wanted.names)):
        raise InputError(f"table '{table.name}': unknown column {', '.join(stray)}")
    for field in wanted:
        found = data.schema.field(field.name).type
        if found != field.type:
            raise InputError(
                f"table '{table.name}', column '{field.name}': type is {found}, must be {field.type}"
            )


def _rules(column: Column, values: pa.ChunkedArray) -> list[tuple[Any, str]]:
    """Per rule of ``column``: a mask that is true where a value breaks it, and what the value fails to be."""
    rules: list[tuple[Any, str]] = []
    if column.required:
        rules.append((pc.is_null(values), "must not be null"))
    if column.choices:
        known = pc.is_in(values, value_set=pa.array(column.choices))
        rules.append(
            (pc.and_(pc.is_valid(values), pc.invert(known)), f"must be one of {', '.join(column.choices)}")
        )
    if column.kind == "float":
        rules.append((pc.invert(pc.is_finite(values)), "is not finite; write null for 'not measured'"))
    if column.minimum is not None:
        rules.append((pc.less(values, column.minimum), f"must be at least {column.minimum:g}"))
    if column.maximum is not None:
        rules.append((pc.greater(values, column.maximum), f"must be at most {column.maximum:g}"))
    return rules


def _check_key(table: Table, data: pa.Table) -> None:
    keys = data.select(list(table.key))
    if keys.num_rows == keys.group_by(list(table.key), use_threads=False).aggregate([]).num_rows:
        return
    seen: set[tuple[Any, ...]] = set()
    for row, key in enumerate(zip(*(keys.column(name).to_pylist() for name in table.key), strict=True)):
        if key in seen:
            raise _error(table, data, ", ".join(table.key), row, "repeats the key of an earlier row")
        seen.add(key)


def _error(table: Table, data: pa.Table, column: str, row: int, rule: str) -> InputError:
    key = ", ".join(f"{name}={data.column(name)[row].as_py()}" for name in table.key)
    return InputError(f"table '{table.name}', column '{column}', row {row} ({key}): {rule}")
