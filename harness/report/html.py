"""Pieces of the page as HTML. Every text from a table is escaped, because models may answer with markup."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from harness import plain

Cells = Mapping[str, str]
"""Head of a column -> a finished, escaped cell (``<td>…</td>``)."""


@dataclass(frozen=True)
class Html:
    """HTML that a notebook renders."""

    text: str

    def _repr_html_(self) -> str:
        return self.text


def escape(text: str) -> str:
    """``text`` as a page shows it: no markup, and nothing that turns the reading order round."""
    return html.escape(plain.lines(text))


def text_cell(value: str) -> str:
    """A cell of text of any length."""
    return f'<td class="text">{escape(value)}</td>'


def number(value: float, say: Callable[[float], str], more: str = "") -> str:
    """A cell of a number and, after it, finished HTML; empty where it is null."""
    return cell(value, "" if pd.isna(value) else say(value) + more)


def cell(value: float, shown: str) -> str:
    """A cell that shows finished HTML and is sorted by ``value``; null stands last."""
    key = "" if pd.isna(value) else repr(float(value))
    return f'<td class="number" data-value="{key}">{shown}</td>'


def plain_table(frame: pd.DataFrame) -> str:
    """A table of a frame's values as text."""
    heads = [str(name) for name in frame.columns]
    values = frame.itertuples(index=False, name=None)
    return table([{h: f"<td>{escape(str(v))}</td>" for h, v in zip(heads, row, strict=True)} for row in values])


def table(lines: Iterable[Cells], name: str = "Table") -> str:
    """A table, without the columns that are empty in every row; keys scroll it where it is wider than the page."""
    lines = list(lines)
    used = used_heads(lines)
    heads = "".join(f'<th scope="col"{kind_of(lines[0][head])}>{escape(head)}</th>' for head in used)
    body = "".join("<tr>" + "".join(line[head] for head in used) + "</tr>" for line in lines)
    return scroll(f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>", name)


def used_heads(lines: list[Cells]) -> list[str]:
    """The heads of the columns that hold something."""
    return [head for head in lines[0] if not all(_EMPTY.fullmatch(line[head]) for line in lines)]


def scroll(wide: str, name: str) -> str:
    """What may be wider than the page, as a region that the keyboard can reach and scroll."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(name)}">{wide}</div>'


def kind_of(first_cell: str) -> str:
    """The class of a column's head."""
    return ' class="number"' if first_cell.startswith('<td class="number"') else ""


def data(value: object) -> str:
    """A block of data for the page's script, which no browser runs; nothing in it ends it early.

    Its texts are shown as they are: whoever hands them over has escaped what steers the reading order.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f'<script type="application/json">{text.replace("<", chr(92) + "u003c")}</script>'


_EMPTY = re.compile(r"<td[^>]*>(<small></small>)?</td>")
