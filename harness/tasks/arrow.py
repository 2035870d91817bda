"""Rows of Arrow tables, as Parquet and Feather files hold them."""

from __future__ import annotations

import re
from typing import Any


def rows(table: Any) -> list[dict[str, Any]]:
    """The rows of an Arrow table. A number of 32 or 16 bits is the shortest that gives it: 3.8, not 3.7999999523."""
    short = {field.name: field.type for field in table.schema if re.search(r"\b(float|halffloat)\b", str(field.type))}
    values: list[dict[str, Any]] = table.to_pylist()
    for row in values if short else ():
        row |= {name: _shortest(row[name], kind) for name, kind in short.items()}
    return values


def _shortest(value: Any, kind: Any) -> Any:
    """``value`` of an Arrow type with the shortest numbers that give those in it, also inside lists and objects."""
    import numpy as np
    import pyarrow as pa

    if value is None:
        return None
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        return float(str(np.float32(value) if pa.types.is_float32(kind) else np.float16(value)))
    if pa.types.is_struct(kind):
        return {field.name: _shortest(value[field.name], field.type) for field in kind}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [_shortest(one, kind.value_type) for one in value]
    return value
