"""Queries of SQL: whether two say the same, and what one answers in a database of SQLite.

What a model writes is run as a guest: in a database that it can read and nothing else, for a bounded number of
SQLite's own steps and rows, so that the same query has the same outcome on every machine.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

#: Instructions of SQLite's machine, and rows, after which a query counts as one that does not run.
MOST_INSTRUCTIONS, MOST_ROWS = 50_000_000, 10_000
#: Bytes of a value and of a query.
_MOST_BYTES = 1_000_000
#: A function may take long without an instruction of the machine; then the clock ends it.
_MOST_SECONDS = 20.0
_BETWEEN_CALLS = 10_000

_FILE = re.compile(r"[^\n;]+\.(sqlite3?|db)")
_ALLOWED = frozenset((sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE))

_TOKEN = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*` | \d+(?:\.\d+)? | \w+ | <> | != | == | <= | >= | \|\| | \S""", re.X
)
_SAME = {"<>": "!=", "==": "="}
#: Words that change nothing.
_IDLE = frozenset(("as", "asc", "inner", "outer"))
#: A clause of conditions, and what ends it.
_CONDITIONS = frozenset(("where", "having", "on"))
_CLAUSES = _CONDITIONS | frozenset(
    ("select", "from", "group", "order", "limit", "offset", "union", "intersect", "except", "join", "left", "cross")
)
_DEEPEST = 50


class QueryError(Exception):
    """A query or a database that does not run; the message says why."""


# --- logical form ----------------------------------------------------------------------------------------------------


def logical_form(query: str) -> str:
    """``query`` with all ways to write the same thing made one.

    Equal are: upper and lower case, in values too (Zhong et al. 2017, arXiv:1709.00103); white space; the kinds of
    quotation marks; ``<>`` and ``!=``; ``AS``, ``ASC``, ``INNER`` and ``OUTER`` or their lack; the last semicolon; and
    the order of conditions that ``AND`` or ``OR`` joins. Other names of tables and other plans are other forms.
    """
    tokens = [_token(text) for text in _TOKEN.findall(re.sub(r"[\s;]+$", "", query))]
    tokens = [token for token in tokens if token not in _IDLE]
    tree = _tree(tokens)
    return " ".join(tokens) if tree is None else _ordered(tree)


def _token(text: str) -> str:
    if text[0] in "'\"`" and len(text) > 1:
        mark = text[0]
        inner = " ".join(text[1:-1].replace(mark * 2, mark).casefold().split())
        return inner if mark == "`" else f"'{inner}'"
    return _SAME.get(text, text.casefold())


def _tree(tokens: Sequence[str]) -> list[Any] | None:
    """The tokens with a list for each pair of parentheses; None where these do not pair, or lie too deep."""
    stack: list[list[Any]] = [[]]
    for word in tokens:
        if word == "(":
            stack.append([])
            if len(stack) > _DEEPEST:
                return None
        elif word == ")":
            inner = stack.pop()
            if not stack:
                return None
            stack[-1].append(inner)
        else:
            stack[-1].append(word)
    return stack[0] if len(stack) == 1 else None


def _ordered(tree: Sequence[Any]) -> str:
    """The tree as text, with the conditions of each clause in the order of the alphabet."""
    words = [item if isinstance(item, str) else f"( {_ordered(item)} )" for item in tree]
    text: list[str] = []
    place = 0
    while place < len(words):
        text.append(words[place])
        end = next((i for i in range(place + 1, len(words)) if words[i] in _CLAUSES), len(words))
        body = words[place + 1 : end]
        text += [_conditions(body)] if words[place] in _CONDITIONS and body else body
        place = end
    return " ".join(text)


def _conditions(words: Sequence[str]) -> str:
    either = (" and ".join(sorted(_split(some, "and"))) for some in _split_words(words, "or"))
    return " or ".join(sorted(either))


def _split(words: Sequence[str], by: str) -> Iterator[str]:
    return (" ".join(part) for part in _split_words(words, by))


def _split_words(words: Sequence[str], by: str) -> Iterator[list[str]]:
    """The parts between the words ``by``; the AND of a BETWEEN stays."""
    part: list[str] = []
    between = False
    for word in words:
        if word == by and not (by == "and" and between):
            yield part
            part = []
            continue
        between = word == "between" or (between and word != "and")
        part.append(word)
    yield part


# --- execution -------------------------------------------------------------------------------------------------------


def same_answer(query: str, right: str, database: str) -> bool:
    """Whether both queries give the same rows in ``database``: in the same order where ``right`` asks for one.

    ``database`` is a script of SQL, or the path of a database of SQLite (.sqlite, .sqlite3 or .db). False where a query
    does not run.
    """
    try:
        rows, expected = answer(query, database), answer(right, database)
    except QueryError:
        return False
    if "order by" in logical_form(right):
        return rows == expected
    return Counter(rows) == Counter(expected)


def answer(query: str, database: str) -> list[tuple[Any, ...]]:
    """The rows of one query that only reads. Raises :class:`QueryError` for all others, and beyond the bounds."""
    with closing(_opened(database)) as connection:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_BYTES)
        connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, _MOST_BYTES)
        connection.set_authorizer(_authorized)
        _bound(connection)
        try:
            rows = connection.execute(query).fetchmany(MOST_ROWS + 1)
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, MemoryError) as error:
            raise QueryError(str(error)) from error
    if len(rows) > MOST_ROWS:
        raise QueryError(f"more than {MOST_ROWS} rows")
    return rows


def _authorized(action: int, first: str | None, second: str | None, *_: object) -> int:
    """SQLite's question whether a query may do something: reading and computing, and no code of others."""
    loads = action == sqlite3.SQLITE_FUNCTION and second == "load_extension"
    return sqlite3.SQLITE_OK if action in _ALLOWED and not loads else sqlite3.SQLITE_DENY


def is_file(database: str) -> bool:
    """Whether ``database`` is the path of a file, and no script."""
    return _FILE.fullmatch(database.strip()) is not None


def _opened(database: str) -> sqlite3.Connection:
    try:
        if is_file(database):
            uri = Path(database.strip()).absolute().as_uri()
            connection = sqlite3.connect(f"{uri}?mode=ro", uri=True)
        else:
            connection = sqlite3.connect(":memory:")
            _bound(connection)
            connection.executescript(database)
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
        raise QueryError(f"the database cannot be opened: {error}") from error
    connection.text_factory = lambda content: content.decode("utf-8", "replace")
    return connection


def _bound(connection: sqlite3.Connection) -> None:
    """Let the connection stop after :data:`MOST_INSTRUCTIONS` from here on."""
    left = MOST_INSTRUCTIONS // _BETWEEN_CALLS
    end = time.monotonic() + _MOST_SECONDS

    def is_over() -> bool:
        nonlocal left
        left -= 1
        return left < 0 or time.monotonic() > end

    connection.set_progress_handler(is_over, _BETWEEN_CALLS)
