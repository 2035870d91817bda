"""Files of rows: CSV, TSV, JSON, JSON lines, Parquet, Arrow streams, and plain lines by a regular expression."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from harness.errors import InputError
from harness.tasks.spec import FORMATS, Reader

Row = Mapping[str, str]


def rows(path: Path, reader: Reader) -> list[Row]:
    """The rows of a file, each value as text (None as empty text, booleans as ``true`` and ``false``).

    Raises :class:`harness.errors.InputError` with the file and what is wrong with it.
    """
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    kind = reader.format or FORMATS.get(plain.suffix.lower())
    if kind is None:
        raise InputError(f"{path}: the ending tells no format; set reader.format or use one of {', '.join(FORMATS)}")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return [{str(k): _text(v) for k, v in row.items()} for row in _READERS[kind](content, reader)]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path}: there is no such file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not {reader.encoding}; set reader.encoding") from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as {kind}: {str(error).splitlines()[0]}") from error


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _lines(content: bytes, reader: Reader) -> list[str]:
    # Not splitlines(), which also breaks at characters such as U+2028 that JSON allows inside strings.
    text = content.decode(reader.encoding).removeprefix("\ufeff").replace("\r\n", "\n")
    return text.split("\n")[reader.skip_lines :]


def _regex(content: bytes, reader: Reader) -> Iterable[dict[str, Any]]:
    assert reader.pattern is not None  # noqa: S101  (the specification saw to it)
    pattern = re.compile(reader.pattern)
    return [match.groupdict() for line in _lines(content, reader) if (match := pattern.search(line))]


def _jsonl(content: bytes, reader: Reader) -> Iterable[dict[str, Any]]:
    return [json.loads(line) for line in _lines(content, reader) if line.strip()]


def _json(content: bytes, reader: Reader) -> Iterable[dict[str, Any]]:
    value = json.loads(content.decode(reader.encoding))
    if not isinstance(value, list):
        raise ValueError("a list of objects is expected")
    return value


def _delimited(delimiter: str, quoting: Literal[0, 3]) -> Callable[[bytes, Reader], Iterable[dict[str, Any]]]:
    def read(content: bytes, reader: Reader) -> Iterable[dict[str, Any]]:
        text = io.StringIO("\n".join(_lines(content, reader)), newline="")
        table = csv.DictReader(
            text, fieldnames=reader.columns or None, delimiter=delimiter, quoting=quoting, strict=True
        )
        found = []
        for row in table:
            if None in row:
                raise ValueError(f"line {reader.skip_lines + table.line_num} has more values than columns")
            found.append(row)
        return found

    return read


def _parquet(content: bytes, reader: Reader) -> Iterable[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    return list(pq.read_table(pa.BufferReader(content)).to_pylist())


def _arrow(content: bytes, reader: Reader) -> Iterable[dict[str, Any]]:
    import pyarrow as pa

    return list(pa.ipc.open_stream(content).read_all().to_pylist())


_READERS: dict[str, Callable[[bytes, Reader], Iterable[dict[str, Any]]]] = {
    "csv": _delimited(",", csv.QUOTE_MINIMAL),
    # Tab-separated corpora hold bare quotation marks.
    "tsv": _delimited("\t", csv.QUOTE_NONE),
    "json": _json,
    "jsonl": _jsonl,
    "lines": _regex,
    "parquet": _parquet,
    "arrow": _arrow,
}
