"""Check a table against its schema: the one gate that every table passes before it is written."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from harness.errors import InputError
from harness.results.schema import Column, Table


def validate(table: Table, data: pa.Table, first_row: int = 0) -> None:
    """Raise :class:`InputError` at the first cell of ``data`` that breaks a rule of ``table``.

    ``data`` may be a part of the table: then ``first_row`` is the number of its first row, for the message.

    The rules: columns and types are the schema's, required columns have no null, numbers are finite and within
    their bounds, text is among the choices, the key is unique. The message has table, column, row and rule.
    """
    _check_columns(table, data)
    for column in table.columns:
        values = data.column(column.name)
        for broken, rule in _rules(column, values):
            row = pc.index(broken, True).as_py()
            if row >= 0:
                raise _error(table, data, column.name, row, f"{values[row].as_py()!r} {rule}", first_row)
    _check_key(table, data, first_row)


def _check_columns(table: Table, data: pa.Table) -> None:
    wanted = table.arrow
    if missing := sorted(set(wanted.names) - set(data.column_names)):
        raise InputError(f"table '{table.name}': missing column {', '.join(missing)}")
    if stray := sorted(set(data.column_names) - set(wanted.names)):
        raise InputError(f"table '{table.name}': unknown column {', '.join(stray)}")
    for field in wanted:
        stored_type = data.schema.field(field.name).type
        if stored_type != field.type:
            raise InputError(
                f"table '{table.name}', column '{field.name}': type is {stored_type}, must be {field.type}"
            )


def _rules(column: Column, values: pa.ChunkedArray) -> list[tuple[Any, str]]:
    """Per rule of ``column``: a mask that is true where a value breaks it, and what the value fails to be."""
    rules: list[tuple[Any, str]] = []
    if column.required:
        rules.append((pc.is_null(values), "must not be null"))
    if column.choices:
        known = pc.is_in(values, value_set=pa.array(column.choices))
        rules.append((pc.and_(pc.is_valid(values), pc.invert(known)), f"must be one of {', '.join(column.choices)}"))
    if column.kind == "float":
        rules.append((pc.invert(pc.is_finite(values)), "is not finite; write null for 'not measured'"))
    if column.minimum is not None:
        rules.append((pc.less(values, column.minimum), f"must be at least {column.minimum:g}"))
    if column.maximum is not None:
        rules.append((pc.greater(values, column.maximum), f"must be at most {column.maximum:g}"))
    return rules


def _check_key(table: Table, data: pa.Table, first_row: int) -> None:
    order = np.argsort(codes := _key_codes(table, data), kind="stable")
    repeats = order[1:][codes[order[1:]] == codes[order[:-1]]]
    if repeats.size:
        rule = "repeats the key of an earlier row"
        raise _error(table, data, ", ".join(table.key), int(repeats.min()), rule, first_row)


def _key_codes(table: Table, data: pa.Table) -> npt.NDArray[np.int64]:
    """One whole number per row, equal where the keys are equal: a compact stand-in for tuples of millions of rows."""
    codes = np.zeros(data.num_rows, dtype=np.int64)
    distinct = 1
    for name in table.key:
        column = data.column(name).combine_chunks().dictionary_encode()
        if distinct * len(column.dictionary) > np.iinfo(np.int64).max:
            values, codes = np.unique(codes, return_inverse=True)
            distinct = len(values)
        codes = codes * len(column.dictionary) + column.indices.to_numpy()
        distinct *= len(column.dictionary)
    return codes


def _error(table: Table, data: pa.Table, column: str, row: int, rule: str, first_row: int) -> InputError:
    key = ", ".join(f"{name}={data.column(name)[row].as_py()}" for name in table.key)
    return InputError(f"table '{table.name}', column '{column}', row {first_row + row} ({key}): {rule}")
