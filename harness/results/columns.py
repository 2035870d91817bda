"""What describes a table: its columns, their types and rules, and the version of all descriptions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

#: Raised when a column is added, removed or changes its meaning.
SCHEMA_VERSION = 8

#: Tables of this version and later ones are read: what was added since is what holds of such rows, or null.
OLDEST_READABLE = 6

Kind = Literal["string", "int", "float", "bool", "timestamp"]

_ARROW: dict[Kind, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    kind: Kind
    description: str
    required: bool = False
    """False: null means 'not measured' or 'does not apply'."""
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    group: str = ""
    before: str | int | bool | None = None
    """What holds of the rows of tables that were written before there was this column; None: it is not known."""


@dataclass(frozen=True)
class Table:
    """One tidy table: what a row is, its key and its columns."""

    name: str
    row: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema, with the schema version in its metadata."""
        fields = [
            pa.field(c.name, _ARROW[c.kind], nullable=not c.required, metadata={"description": c.description})
            for c in self.columns
        ]
        return pa.schema(fields, metadata={"table": self.name, "schema_version": str(SCHEMA_VERSION)})

    def column(self, name: str) -> Column:
        """The column called ``name``; KeyError if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)
