"""Look at thousands of trials: small reads, several at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from harness.results.record import Record

T = TypeVar("T")
R = TypeVar("R")

#: Everything of a record but its outcome, which comes last, usually fits in this.
_HEAD_BYTES = 4096

#: How a record with an outcome ends: its tables, the outcome and the record are closed.
_END = b"}}}"

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
    except FileNotFoundError:
        return set()


def read_head(path: Path) -> Record:
    """The record in ``path`` without its outcome: how the trial ended, not what it measured.

    Reads a few kilobytes from both ends, whatever the size of the file, and recognises a truncated record. Raises
    FileNotFoundError, and ValidationError for anything that is not a record.
    """
    with path.open("rb", buffering=0) as stream:
        start = stream.read(_HEAD_BYTES)
        if len(start) == _HEAD_BYTES:
            stream.seek(-len(_END), os.SEEK_END)
            if stream.read() == _END and (record := _without_outcome(start)) is not None:
                return record
            stream.seek(0)
            start = stream.readall()
    return Record.model_validate_json(start).model_copy(update={"outcome": None})


def _without_outcome(start: bytes) -> Record | None:
    """The record whose first bytes are ``start``; None if its outcome begins later."""
    try:
        fields = from_json(start, allow_partial=True)
        del fields["outcome"]
        return Record.model_validate(fields)
    except (ValidationError, ValueError, KeyError, TypeError):
        return None
