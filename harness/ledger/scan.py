"""Look at thousands of trials: small reads, several at a time."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from harness.results.record import Record

T = TypeVar("T")
R = TypeVar("R")

#: Size in bytes and time of the last change in nanoseconds: what tells of a change without a read.
Stamp = tuple[int, int]

#: Everything of a record but its outcome, which comes last, usually fits in this.
_HEAD_BYTES = 4096

#: How a record with an outcome ends if it has no checksum: its tables, the outcome and the record are closed.
_END = b"}}}"

#: How a record with a checksum ends.
_SEAL = re.compile(rb',"sha256":"([0-9a-f]{64})"\}\Z')
_SEAL_BYTES = len(b',"sha256":""}') + 64

_THREADS = 16
_CHUNK = 64


def side_by_side(look: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """``look`` at every item, in order, several at a time: on a shared file system each look waits for a server."""
    if len(items) <= _CHUNK:
        return list(map(look, items))
    chunks = [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
    with ThreadPoolExecutor(_THREADS, "scan") as pool:
        return [entry for some in pool.map(lambda chunk: list(map(look, chunk)), chunks) for entry in some]


def names(folder: Path) -> set[str]:
    """The names in ``folder``, from one listing; empty if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def stamp(path: Path) -> Stamp | None:
    """The stamp of a file, or of the link in its place; None if nothing is there."""
    try:
        found = path.stat()
    except OSError:
        try:
            found = path.lstat()  # a link to nothing
        except OSError:
            return None
    return found.st_size, found.st_mtime_ns


def text_of(record: Record) -> str:
    """The file of a record: JSON, with the checksum of everything else as its last field."""
    body = record.model_dump_json().removesuffix("}")
    return f'{body},"sha256":"{sha256(body.encode()).hexdigest()}"}}'


def read_whole(path: Path) -> Record:
    """The record in ``path``. Raises OSError, and ValueError for anything that is not a record, or is not whole."""
    return _checked(path.read_bytes())


def read_head(path: Path) -> Record:
    """The record in ``path`` without its outcome: how the trial ended, not what it measured.

    Reads a few kilobytes from both ends, whatever the size of the file, and recognises a truncated record. Raises
    FileNotFoundError, and ValueError for anything that is not a record.
    """
    with path.open("rb", buffering=0) as stream:
        start = stream.read(_HEAD_BYTES)
        if len(start) == _HEAD_BYTES:
            stream.seek(-_SEAL_BYTES, os.SEEK_END)
            end = stream.read()
            if (_SEAL.search(end) or end.endswith(_END)) and (record := _without_outcome(start)) is not None:
                return record
            stream.seek(0)
            start = stream.readall()
    return _checked(start).model_copy(update={"outcome": None})


def read_version(path: Path) -> int | None:
    """The schema version that a file gives, whatever else is wrong with it; None if it gives none."""
    try:
        with path.open("rb") as stream:
            fields = from_json(stream.read(_HEAD_BYTES), allow_partial=True)
    except (OSError, ValueError):
        return None
    version = fields.get("schema_version") if isinstance(fields, dict) else None
    return version if isinstance(version, int) else None


def _checked(content: bytes) -> Record:
    if (seal := _SEAL.search(content, max(0, len(content) - _SEAL_BYTES))) is not None:
        content = content[: seal.start()]
        if sha256(content).hexdigest().encode() != seal[1]:
            raise ValueError("its content is not what its checksum says")
        content += b"}"
    record = Record.model_validate_json(content)
    if record.sha256 is not None:
        raise ValueError("its content is not what its checksum says")
    return record


def _without_outcome(start: bytes) -> Record | None:
    """The record whose first bytes are ``start``; None if its outcome begins later."""
    try:
        fields = from_json(start, allow_partial=True)
        del fields["outcome"]
        return Record.model_validate(fields)
    except (ValidationError, ValueError, KeyError, TypeError):
        return None
