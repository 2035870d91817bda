"""Files of rows: CSV, TSV, JSON, JSON lines, Parquet, Arrow streams, XML, lines by an expression, and folders of texts.

Every row knows its place in the file, so a message about it can name the line that the user sees.
"""

from __future__ import annotations

import json
import lzma
import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from harness.errors import InputError
from harness.tasks import arrow, delimited, markup, text_files
from harness.tasks.encodings import check_regular, content_of, decoded, told
from harness.tasks.keys import one_form
from harness.tasks.reader import Reader
from harness.tasks.values import NOTHING, at, lists_inside, print_in

Row = Mapping[str, str]
#: A place in the file and what stands there.
Placed = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class SourceRow:
    """One row of a file."""

    place: str
    """Its first line, 'line 7' in a text file, 'row 7' elsewhere; both count from 1."""
    values: Row
    """Each value as text: empty if it is missing, ``true`` and ``false``, lists and objects as JSON."""
    nested: Mapping[str, Any] = field(default_factory=dict)
    """The values that are lists, objects or bytes of no text, unchanged."""
    printed: frozenset[str] = frozenset()
    """Columns whose list is a text in the file."""
    remarks: tuple[str, ...] = ()
    """What readers of the results should know about the row, each as the end of a sentence about several."""


@dataclass(frozen=True)
class Table:
    """The content of a file."""

    rows: Sequence[SourceRow]
    unread: Sequence[str] = ()
    """Places of what is no row."""
    unread_because: str = ""
    """Why, as the end of a sentence about these places."""
    likely_fault: str = ""
    """What is wrong if a column is missing, as the end of a message."""
    possible_fault: str = ""
    """What may be wrong if the name of a missing column is like no other."""


#: What the readers raise for a file that is not what its name says, or is damaged.
_FAULTS = (
    *(OSError, EOFError, zlib.error, lzma.LZMAError, ValueError, LookupError),
    *(TypeError, AttributeError, NotImplementedError, RecursionError),
)


def table(path: Path, reader: Reader) -> Table:
    """The rows of a file or of a folder of texts. None, NaN and NaT are missing in every format, never the text 'nan'.

    Raises :class:`harness.errors.InputError` with the file, the line, and the fault.
    """
    if path.is_dir() and reader.format == "xml":
        return _xml_files(path, reader)
    if path.is_dir():
        return _texts(path, reader)
    check_regular(path)
    kind = reader.format_of(path)
    try:
        content = content_of(path)
        match kind:
            case "lines":
                return _matched(content, reader)
            case "text":
                return Table([_row(path.name, text_files.row(path, path.parent, decoded(content, reader.encoding)))])
            case "csv" | "tsv":
                return _separated(content, reader, "," if kind == "csv" else "\t")
        return Table([_row(place, values) for place, values in _READERS[kind](content, reader)])
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path}: there is no such file") from error
    except _FAULTS as error:
        raise told(path, kind, error) from error


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
    if isinstance(value, (float, Decimal)) and "e" in str(value).lower():
        return format(Decimal(str(value)), "f")  # people write 0.00001, and programs 1e-05
    return value.decode("utf-8", errors="backslashreplace") if isinstance(value, bytes) else str(value)


def lookup(row: SourceRow, column: str) -> Any:
    """The value of a column, or of a dotted path into one; NOTHING if the row has none.

    A list or an object is given as it is, any other value as text.
    """
    if column in row.values:
        return row.nested.get(column, row.values[column])
    parts = column.split(".")
    for size in range(len(parts) - 1, 0, -1):
        head = ".".join(parts[:size])
        if head in row.nested:
            return at(row.nested[head], parts[size:])
        if row.values.get(head, "").lstrip().startswith(("{", "[")):
            return at(print_in(row.values[head]), parts[size:])
    return NOTHING


def _row(place: str, values: Mapping[str, Any]) -> SourceRow:
    named = {one_form(str(name)): value for name, value in values.items()}
    if len(named) < len(values):
        _check_once([one_form(str(name)) for name in values])
    nested = {name: value for name, value in named.items() if is_no_text(value)}
    return SourceRow(place, {name: as_text(value) for name, value in named.items()}, nested)


def is_no_text(value: Any) -> bool:
    """Whether ``value`` is a list, an object, or bytes such as those of an image."""
    if isinstance(value, bytes):
        try:
            value.decode("utf-8")
        except UnicodeDecodeError:
            return True
    return isinstance(value, (dict, list, tuple))


# --- text ------------------------------------------------------------------------------------------------------------


def _lines(content: bytes, reader: Reader) -> list[tuple[int, str]]:
    """Number and text of each line behind ``skip_lines``."""
    # Not splitlines(), which also breaks at characters such as U+2028 that JSON allows inside strings.
    return list(enumerate(decoded(content, reader.encoding).split("\n"), 1))[reader.skip_lines :]


def _matched(content: bytes, reader: Reader) -> Table:
    assert reader.pattern is not None  # noqa: S101  (the specification saw to it)
    pattern = re.compile(reader.pattern)
    rows, unread = [], []
    for number, line in _lines(content, reader):
        if match := pattern.search(line):
            rows.append(_row(f"line {number}", match.groupdict()))
        elif line.strip():
            unread.append(f"line {number}")
    return Table(rows, unread, "are left out: reader.pattern does not match")


def _jsonl(content: bytes, reader: Reader) -> Sequence[Placed]:
    rows: list[Placed] = []
    for number, line in _lines(content, reader):
        if not line.strip():
            continue
        try:
            value = _json_value(line)
        except ValueError as error:
            hint = "; is it one list in JSON? then set reader.format: json" if line.strip() in ("[", "{") else ""
            raise ValueError(f"line {number}: {error}{hint}") from error
        if isinstance(value, list) and not rows and value and all(isinstance(one, dict) for one in value):
            raise ValueError(f"line {number}: a list of {len(value)} objects stands there; set reader.format: json")
        rows.append((f"line {number}", _object(value, f"line {number}")))
    return _whole_numbers(rows)


def _json_value(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("lists or objects are nested too deeply") from error
    except ValueError as error:
        if "digits" not in str(error):
            raise
        raise ValueError("a number has too many digits; write it as a text") from error


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object; of two values under one key, ``json`` alone would keep the last."""
    whole = dict(pairs)
    if len(whole) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key '{next(name for name in names if names.count(name) > 1)}' is given twice")
    return whole


def _json(content: bytes, reader: Reader) -> Sequence[Placed]:
    try:
        value = _json_value(decoded(content, reader.encoding))
    except json.JSONDecodeError as error:
        is_lines = error.msg == "Extra data" and error.lineno > 1
        hint = "; each line is a value of its own: set reader.format: jsonl" if is_lines else ""
        raise ValueError(f"{error}{hint}") from error
    if reader.records is not None:
        value = _records(value, reader.records)
    if not isinstance(value, list):
        raise ValueError(_not_a_list(value))
    return _whole_numbers([(f"row {n}", _object(one, f"row {n}")) for n, one in enumerate(value, 1)])


def _records(value: Any, path: str) -> Any:
    """The list at ``path``, of several lists all their rows. Raises ValueError if the path leads elsewhere."""
    there = at(value, path.split("."))
    several = [one for one in there if one is not None] if isinstance(there, list) else []
    if several and all(isinstance(one, list) for one in several):
        there = [row for rows in several for row in rows]
    if not isinstance(there, list):
        lists = ", ".join(lists_inside(value)) or "none"
        raise ValueError(f"reader.records: there is no list at '{path}'; lists of objects in the file: {lists}")
    return there


def _not_a_list(value: Any) -> str:
    if lists := lists_inside(value):
        path, size = next(iter(lists.items()))
        return f"a list of objects is expected; {size} of them stand at '{path}': set reader.records: {path}"
    if isinstance(value, dict) and value and all(isinstance(column, (dict, list)) for column in value.values()):
        return (
            "a list of objects is expected, and this looks like columns, or like rows by their names; write a list of "
            "rows, as pandas' orient='records' does"
        )
    return "a list of objects is expected"


def _object(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{place}: an object with the columns' names is expected, not {json.dumps(value)[:40]}")
    return value


def _separated(content: bytes, reader: Reader, delimiter: str) -> Table:
    numbered = _lines(content, reader)
    skipped, lines = reader.skip_lines, [line for _, line in numbered]
    # As Excel writes it: a first line that names the delimiter.
    if lines and (named := re.fullmatch(r"sep=(.)", lines[0].strip('"\ufeff'))):
        delimiter, lines, skipped = named[1], lines[1:], skipped + 1
    if lines and lines[0].lstrip("\ufeff ").startswith(('{"', '[{"')):
        raise ValueError("it looks like JSON; set reader.format: json, or jsonl where each line is an object")
    delimiter = reader.delimiter or delimiter
    # Tab-separated corpora hold bare quotation marks.
    quotes = reader.quotes if reader.quotes is not None or delimiter == "\t" else True
    other = delimited.likely(lines, delimiter) if reader.delimiter is None else None
    hint = (
        "" if other is None else f"; the values look separated by {other!r}: set reader.delimiter: {json.dumps(other)}"
    )
    try:
        rows = delimited.rows(lines, reader.columns, delimiter, quotes, skipped)
    except ValueError as error:
        raise ValueError(f"{error}{hint}") from error
    headless = "" if reader.columns else "; if the file has no header, name its columns in reader.columns"
    headers = {place for place, values in rows if _is_header(values)}
    return Table(
        [_row(place, values) for place, values in rows if place not in headers],
        [place for place, _ in rows if place in headers],
        "are left out: the names of the columns stand there again",
        likely_fault=hint,
        possible_fault=headless,
    )


def _is_header(values: Mapping[str, str]) -> bool:
    """Whether a row holds the names of its columns, as where files were put together."""
    return len(values) > 1 and all(name.strip().casefold() == text.strip().casefold() for name, text in values.items())


def _texts(folder: Path, reader: Reader) -> Table:
    """A row for each text below a folder. Raises InputError if there is none, or if the reader does not ask for it."""
    files = text_files.below(folder)
    texts = [path for path in files if text_files.is_text(path)]
    if reader.format != "text":
        way = "set reader.format: text to take each text file as a row" if texts else "is there a file in it?"
        raise InputError(f"{folder} is a folder; name the file in 'reader.file' or in 'splits', or {way}")
    reader.format_of(folder)
    if not texts:
        raise InputError(f"{folder}: there is no text file (.txt, .text, .md) in this folder")
    rows = []
    for path in texts:
        try:
            text = decoded(content_of(path), reader.encoding).strip()
        except _FAULTS as error:
            raise told(path, "text", error) from error
        values = text_files.row(path, folder, text)
        rows.append(_row(values["file"], values))
    others = [path.relative_to(folder).as_posix() for path in files if not text_files.is_text(path)]
    return Table(rows, others, "are left out: no text file")


def _xml_files(folder: Path, reader: Reader) -> Table:
    """The rows of every XML file below a folder; a row's place begins with its file."""
    files = text_files.below(folder)
    tables = {path: table(path, reader) for path in files if text_files.ends_in(path, (".xml",))}
    if not tables:
        raise InputError(f"{folder}: there is no XML file in this folder")
    others = [path.relative_to(folder).as_posix() for path in files if path not in tables]
    return Table(
        [
            replace(row, place=f"{path.relative_to(folder).as_posix()}, {row.place}")
            for path, of_file in tables.items()
            for row in of_file.rows
        ],
        others,
        "are left out: no XML file",
    )


# --- typed tables ----------------------------------------------------------------------------------------------------


def _numbered(rows: Sequence[Mapping[str, Any]]) -> Sequence[Placed]:
    return _whole_numbers([(f"row {number}", row) for number, row in enumerate(rows, 1)])


def _parquet(content: bytes, reader: Reader) -> Sequence[Placed]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = pq.ParquetFile(pa.BufferReader(content))
    _check_once(source.schema_arrow.names)
    return _numbered(arrow.rows(source.read()))


def _arrow(content: bytes, reader: Reader) -> Sequence[Placed]:
    import pyarrow as pa

    opener = pa.ipc.open_file if content.startswith(b"ARROW1") else pa.ipc.open_stream
    table = opener(content).read_all()
    _check_once(table.column_names)
    return _numbered(arrow.rows(table))


def _check_once(columns: Sequence[str]) -> None:
    if twice := next((name for name in columns if columns.count(name) > 1), None):
        raise ValueError(f"the column '{twice}' is there twice")


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


def _xml(content: bytes, reader: Reader) -> Sequence[Placed]:
    assert reader.records is not None  # noqa: S101  (Reader.format_of saw to it)
    return _numbered(markup.rows(content, reader.records))


_READERS: dict[str, Callable[[bytes, Reader], Sequence[Placed]]] = {
    "json": _json,
    "jsonl": _jsonl,
    "parquet": _parquet,
    "arrow": _arrow,
    "xml": _xml,
}
