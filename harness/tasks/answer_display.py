"""How texts are shown to a person: bounded, and escaped where they stand in HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

#: Characters of an answer that are shown.
SHOWN_CHARS = 300
#: Examples whose answers are shown.
SHOWN_ANSWERS = 3


def shortened(text: str, limit: int = SHOWN_CHARS) -> str:
    """``text`` on one line, and cut after ``limit`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[:limit] + "…"


def first_reference(references: Sequence[str]) -> str:
    """What an answer is read against; empty where the task has no reference."""
    return references[0] if references else ""


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of :func:`shortened`, escaped texts: what a model answered is never markup."""
    head = "".join(f"<th style='text-align: left'>{escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align: left'>{escape(shortened(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def html_lines(lines: Iterable[object]) -> str:
    """Lines of text, escaped."""
    return "<br>".join(escape(str(line)) for line in lines)
