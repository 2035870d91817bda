"""Files of rows: CSV, TSV, JSON, JSON lines, Parquet, Arrow streams, and plain lines by a regular expression.

Every row knows its place in the file, so a message about it can name the line that the user sees.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import InputError
from harness.sources.archive import gunzip
from harness.tasks import delimited
from harness.tasks.spec import FORMATS, Reader

Row = Mapping[str, str]
#: A place in the file and what stands there.
Placed = tuple[str, Mapping[str, Any]]

#: Byte order marks that say how a text is encoded; the longer ones first, because one begins with another.
_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


@dataclass(frozen=True)
class SourceRow:
    """One row of a file."""

    place: str
    """Its first line, 'line 7' in a text file, 'row 7' elsewhere; both count from 1."""
    values: Row
    """Each value as text: empty if it is missing, ``true`` and ``false``, lists and objects as JSON."""
    nested: Mapping[str, Any] = field(default_factory=dict)
    """The list and object values, unchanged."""


@dataclass(frozen=True)
class Table:
    """The content of a file."""

    rows: Sequence[SourceRow]
    unread: Sequence[str] = ()
    """Places of the lines without a match for ``reader.pattern``."""


def table(path: Path, reader: Reader) -> Table:
    """The rows of a file. None, NaN and NaT are missing in every format, never the text 'nan'.

    Raises :class:`harness.errors.InputError` with the file, the line, and the fault.
    """
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    kind = reader.format or FORMATS.get(plain.suffix.lower())
    if kind is None:
        raise InputError(
            f"{path}: the file's ending names no format; set reader.format or use one of {', '.join(FORMATS)}"
        )
    try:
        content = gunzip(path) if path.suffix == ".gz" else path.read_bytes()
        if kind == "lines":
            return _matched(content, reader)
        return Table([_row(place, values) for place, values in _READERS[kind](content, reader)])
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path}: there is no such file") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: byte {error.start} is not {reader.encoding}; set reader.encoding (often cp1252 or latin-1)"
        ) from error
    except (
        OSError,
        EOFError,
        zlib.error,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        NotImplementedError,
    ) as e:
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise InputError(f"{path}: cannot be read as {kind}: {reason}") from e


def is_missing(value: Any) -> bool:
    """Whether a value is None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def as_text(value: Any) -> str:
    """A value as an example shows it in text; empty if it is missing."""
    if is_missing(value):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _row(place: str, values: Mapping[str, Any]) -> SourceRow:
    nested = {str(name): value for name, value in values.items() if isinstance(value, (dict, list, tuple))}
    return SourceRow(place, {str(name): as_text(value) for name, value in values.items()}, nested)


# --- text ------------------------------------------------------------------------------------------------------------


def _decoded(content: bytes, reader: Reader) -> str:
    is_default = reader.encoding.lower().replace("_", "-") in ("utf-8", "utf8")
    marked = next((encoding for mark, encoding in _MARKS if is_default and content.startswith(mark)), reader.encoding)
    text = content.decode(marked).removeprefix("\ufeff")
    if "\0" in text[:4096]:
        raise ValueError(f"it holds zero bytes, so it is not {marked}; set reader.encoding (utf-16-le or utf-16-be?)")
    text = text.replace("\r\n", "\n")
    return text if "\n" in text else text.replace("\r", "\n")


def _lines(content: bytes, reader: Reader) -> list[tuple[int, str]]:
    """Number and text of each line behind ``skip_lines``."""
    # Not splitlines(), which also breaks at characters such as U+2028 that JSON allows inside strings.
    return list(enumerate(_decoded(content, reader).split("\n"), 1))[reader.skip_lines :]


def _matched(content: bytes, reader: Reader) -> Table:
    assert reader.pattern is not None  # noqa: S101  (the specification saw to it)
    pattern = re.compile(reader.pattern)
    rows, unread = [], []
    for number, line in _lines(content, reader):
        if match := pattern.search(line):
            rows.append(_row(f"line {number}", match.groupdict()))
        elif line.strip():
            unread.append(f"line {number}")
    return Table(rows, unread)


def _jsonl(content: bytes, reader: Reader) -> Sequence[Placed]:
    rows = []
    for number, line in _lines(content, reader):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number}: {error}") from error
        rows.append((f"line {number}", _object(value, f"line {number}")))
    return _whole_numbers(rows)


def _json(content: bytes, reader: Reader) -> Sequence[Placed]:
    try:
        value = json.loads(_decoded(content, reader))
    except RecursionError as error:
        raise ValueError("lists or objects are nested too deeply") from error
    if not isinstance(value, list):
        raise ValueError("a list of objects is expected")
    return _whole_numbers([(f"row {n}", _object(one, f"row {n}")) for n, one in enumerate(value, 1)])


def _object(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{place}: an object with the columns' names is expected, not {json.dumps(value)[:40]}")
    return value


def _separated(delimiter: str, quotes: bool | None) -> Callable[[bytes, Reader], Sequence[Placed]]:
    def rows(content: bytes, reader: Reader) -> Sequence[Placed]:
        lines = _lines(content, reader)
        quoted = quotes if reader.quotes is None else reader.quotes
        return delimited.rows([line for _, line in lines], reader.columns, delimiter, quoted, reader.skip_lines)

    return rows


# --- typed tables ----------------------------------------------------------------------------------------------------


def _numbered(rows: Sequence[Mapping[str, Any]]) -> Sequence[Placed]:
    return _whole_numbers([(f"row {number}", row) for number, row in enumerate(rows, 1)])


def _parquet(content: bytes, reader: Reader) -> Sequence[Placed]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    return _numbered(pq.read_table(pa.BufferReader(content)).to_pylist())


def _arrow(content: bytes, reader: Reader) -> Sequence[Placed]:
    import pyarrow as pa

    return _numbered(pa.ipc.open_stream(content).read_all().to_pylist())


def _whole_numbers(rows: Sequence[Placed]) -> Sequence[Placed]:
    """``rows`` with integers restored where a missing value had turned a column into floats (1 into 1.0)."""
    names = {name for _, row in rows for name in row}
    columns = {name: [row.get(name) for _, row in rows] for name in names}
    turned = {
        name
        for name, column in columns.items()
        if any(isinstance(value, float) for value in column)
        and any(map(is_missing, column))
        and all(is_missing(value) or (isinstance(value, float) and value.is_integer()) for value in column)
    }
    if not turned:
        return rows
    return [
        (place, {n: int(v) if n in turned and not is_missing(v) else v for n, v in row.items()}) for place, row in rows
    ]


_READERS: dict[str, Callable[[bytes, Reader], Sequence[Placed]]] = {
    "csv": _separated(",", quotes=True),
    # Tab-separated corpora hold bare quotation marks.
    "tsv": _separated("\t", quotes=None),
    "json": _json,
    "jsonl": _jsonl,
    "parquet": _parquet,
    "arrow": _arrow,
}
