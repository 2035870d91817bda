"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

from harness import plain
from harness.errors import InputError
from harness.files import write_atomically

#: Characters of a line: room for any path.
_LINE = 8000


def say(text: str, stream: TextIO | None = None) -> None:
    """Print one line, at once; whoever named what is in it does not steer the terminal."""
    print(plain.line(text, _LINE), file=stream or sys.stdout, flush=True)


def print_table(header: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Print columns that fit the terminal; where the output goes elsewhere, unwrapped ones, quick to write."""
    cells = [["" if cell is None else plain.line(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
        for row in (header, *cells):
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in cells:
        table.add_row(*map(Text, row))  # a string would be read as markup
    Console().print(table)


def print_json(value: object) -> None:
    """Print ``value`` as indented JSON."""
    print(plain.lines(json.dumps(value, indent=1, ensure_ascii=False)))


def write_file(path: Path, text: str) -> None:
    """Write a file that the user named; :class:`InputError` where that cannot be."""
    try:
        write_atomically(path, text)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}; name a file in a folder that exists") from error
