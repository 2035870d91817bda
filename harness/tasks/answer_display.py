"""Texts for people to read: cut to a length, and escaped in HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

#: Maximum number of characters shown of an answer.
SHOWN_CHARS = 300
#: Number of examples whose answers are shown.
SHOWN_ANSWERS = 3


def shortened(text: str, limit: int = SHOWN_CHARS) -> str:
    """``text`` on one line, cut after ``limit`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[:limit] + "…"


def first_reference(references: Sequence[str]) -> str:
    """The reference to show beside an answer; empty if the task has none."""
    return references[0] if references else ""


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table of :func:`shortened`, escaped texts, because a model may answer with markup."""
    head = "".join(f"<th style='text-align: left'>{escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align: left'>{escape(shortened(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def html_lines(lines: Iterable[object]) -> str:
    """``lines`` as escaped text, one below the other, in HTML."""
    return "<br>".join(escape(str(line)) for line in lines)
