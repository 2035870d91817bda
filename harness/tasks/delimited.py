"""Comma- and tab-separated text, strictly: a row that lost or gained a value is an error with its line.

Python's ``csv`` alone fills short rows with None, and lets an unbalanced quotation mark take in the rows behind it.
"""

from __future__ import annotations

import contextlib
import csv
import sys
from collections.abc import Mapping, Sequence
from typing import Literal

#: A text of this many lines that each have a row's number of values is taken for rows, whatever stands in them.
_ROWS_BY_FORM = 4
#: A column with at most this many different values is a class or the like: a line that ends in one looks like a row.
_FEW_VALUES = 20

#: Signs that separate values in practice.
_DELIMITERS = (";", "\t", "|", ",")

Cells = Sequence[str]
#: First line, last line and values of a row.
_Parsed = tuple[int, int, Cells]


def rows(
    lines: Sequence[str], columns: Sequence[str], delimiter: str, quotes: bool | None, skipped: int = 0
) -> list[tuple[str, Mapping[str, str]]]:
    """('line 7', column -> value) of each row; ``columns`` are those of a file without a header.

    A last column without a name and values, which trailing delimiters make, is left away.

    ``quotes`` says whether double quotation marks enclose values. None decides by the form of the file, because
    tab-separated corpora hold bare marks. ``skipped`` lines stood before ``lines``.

    Raises ValueError for a row with too few or too many values, for a quotation mark that is never closed or takes in
    other rows, each with its line, and for a column that is named twice.
    """
    if quotes is None:
        quotes = _shows_quotes(lines, columns, delimiter)
    table: Sequence[_Parsed] = _parsed(lines, delimiter, quotes, skipped)
    if quotes and any(
        cell.startswith(" ") and cell.lstrip(" ").startswith('"') for *_, cells in table for cell in cells
    ):
        # 'one, "two"': the marks behind the blank enclose a value, unless that leaves no rows.
        with contextlib.suppress(ValueError):
            table = _parsed(lines, delimiter, quotes, skipped, behind_blanks=True)
    if not columns:
        if not table:
            return []
        (_, _, columns), *table = table
    columns, table = _without_trailing(columns, table)
    if twice := next((name for name in columns if columns.count(name) > 1), None):
        raise ValueError(f"the column '{twice}' is there twice" if twice else "two columns have no name")
    _check_sizes(table, len(columns))
    if quotes:
        _check_swallowed(lines, table, delimiter, skipped)
    return [(f"line {first}", dict(zip(columns, cells, strict=True))) for first, _, cells in table]


def likely(lines: Sequence[str], delimiter: str) -> str | None:
    """Another delimiter that the header holds, if ``delimiter`` finds a single column there; texts may hold any."""
    csv.field_size_limit(sys.maxsize)
    header = next(([line] for line in lines if line.strip()), [""])
    try:
        sizes = {sign: len(next(csv.reader(header, delimiter=sign))) for sign in (*_DELIMITERS, delimiter)}
    except csv.Error:  # whoever reads the rows says what is wrong with them
        return None
    best = max(_DELIMITERS, key=sizes.__getitem__)
    return best if sizes[delimiter] <= 1 < sizes[best] else None


def _without_trailing(columns: Cells, table: Sequence[_Parsed]) -> tuple[Cells, Sequence[_Parsed]]:
    """Both without the empty values behind trailing delimiters, if every row or the header has them."""
    size = len(columns)
    if table and columns and columns[-1] and all(len(cells) == size + 1 and not cells[-1] for *_, cells in table):
        return columns, [(first, last, cells[:-1]) for first, last, cells in table]
    if size > 1 and not columns[-1] and not any("".join(cells[size - 1 :]).strip() for *_, cells in table):
        shorter = [(first, last, cells[: size - 1] if len(cells) == size else cells) for first, last, cells in table]
        return _without_trailing(columns[:-1], shorter)
    return columns, table


def _parsed(
    lines: Sequence[str], delimiter: str, quotes: bool, skipped: int, behind_blanks: bool = False
) -> list[_Parsed]:
    """The rows; blank lines are none. Values begin behind the blanks that follow a delimiter, if so asked."""
    csv.field_size_limit(sys.maxsize)  # texts are longer than the limit that the module comes with
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    ended = (f"{line}\n" for line in lines)
    reader = csv.reader(ended, delimiter=delimiter, quoting=quoting, strict=quotes, skipinitialspace=behind_blanks)
    table: list[_Parsed] = []
    while True:
        first = reader.line_num + 1 + skipped
        try:
            cells = next(reader)
        except StopIteration:
            return table
        except csv.Error as error:
            if "unexpected end" in str(error):
                told = f"line {first}: a quotation mark opens in this row and is never closed ({error})"
            else:
                told = f"line {first}: {error}; inside a quoted value a quotation mark is written twice"
            raise ValueError(told) from error
        if any(cell.strip() for cell in cells) or len(cells) > 1:
            table.append((first, reader.line_num + skipped, cells))


def _check_sizes(table: Sequence[_Parsed], size: int) -> None:
    wrong = [(first, len(cells)) for first, _, cells in table if len(cells) != size]
    if not wrong:
        return
    line, given = wrong[0]
    others = f" (and {len(wrong) - 1} more such rows)" if len(wrong) > 1 else ""
    raise ValueError(
        f"line {line} has {'more' if given > size else 'fewer'} values than columns, {given} for {size}{others}; "
        "a value that holds a separator or a line break stands in double quotes"
    )


def _check_swallowed(lines: Sequence[str], table: Sequence[_Parsed], delimiter: str, skipped: int) -> None:
    """Raise ValueError if one row took in lines that look like rows themselves."""
    single = [cells for first, last, cells in table if first == last]
    values = [set(column) for column in zip(*single, strict=True)]
    few = [place for place, column in enumerate(values) if len(column) <= min(_FEW_VALUES, len(single) // 2)]
    numbers = [place for place, column in enumerate(values) if all(_is_number(value) for value in column)]
    for first, last, cells in table:
        if first == last or len(cells) < 2:
            continue
        inside = [line.split(delimiter) for line in lines[first - skipped - 1 : last - skipped]]
        if any(len(line) != len(cells) for line in inside):
            continue
        alike = any(all(line[place] in values[place] for line in inside) for place in few)
        alike |= any(all(_is_number(line[place]) for line in inside) for place in numbers)
        if alike or len(inside) >= _ROWS_BY_FORM:
            raise ValueError(
                f"line {first}: a quotation mark opens in this row and closes in line {last}; the lines between look "
                "like rows, so one mark is missing or too many (inside a quoted value it is written twice)"
            )


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _shows_quotes(lines: Sequence[str], columns: Sequence[str], delimiter: str) -> bool:
    """Whether quotation marks enclose values: rows come out even only then, or marks are doubled inside."""
    bare = _parsed(lines, delimiter, False, 0)
    size = len(columns) or (len(bare[0][2]) if bare else 0)
    if any(len(cells) != size for _, _, cells in bare):
        try:
            return all(len(cells) == size for _, _, cells in _parsed(lines, delimiter, True, 0))
        except ValueError:
            return False
    opened = [cell for _, _, cells in bare for cell in cells if cell.startswith('"')]
    inner = [cell[1:-1] for cell in opened if len(cell) > 1 and cell.endswith('"')]
    even = all('"' not in text.replace('""', "") for text in inner)
    return len(inner) == len(opened) and even and any('""' in text for text in inner)
