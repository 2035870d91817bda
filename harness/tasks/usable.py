"""From a file to its usable rows; every reason to leave rows out is counted, with its first line."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import InputError, unknown
from harness.tasks import choices, keys, read, sql, values
from harness.tasks.columns import check_columns
from harness.tasks.read import Row, SourceRow
from harness.tasks.spec import TaskSpec
from harness.tasks.spoken import spoken

#: The squares of larger numbers, summed, are more than a float holds.
_MOST_NUMBER = 1e100


@dataclass(frozen=True)
class Notice:
    """A fact about a task's data that readers of its results should know."""

    file: str
    rows: int
    """Number of rows that it concerns."""
    of_rows: int
    """Number of rows of the file."""
    reason: str
    first: str
    """Place of the first of these rows, such as 'line 7'."""
    lost: bool
    """Whether the rows are missing from the examples, although nobody asked for that."""

    def __str__(self) -> str:
        return f"{self.file}: {self.rows} of {self.of_rows} rows {self.reason} (first: {self.first})"


@dataclass(frozen=True)
class UsableRow:
    """A row with every field that an example needs."""

    place: str
    fields: Row


@dataclass(frozen=True)
class Usable:
    """The usable rows of one file, and what was left out."""

    rows: Sequence[UsableRow]
    of_rows: int
    """Rows of the file, usable or not."""
    notices: tuple[Notice, ...]


def usable_rows(spec: TaskSpec, path: Path) -> Usable:
    """Rows with renamed, extracted and filled-in fields; one for each answer of a list of references.

    A row without a required field is left out. Raises :class:`harness.errors.InputError`, with file and line, for a
    column that no row has, for a label unknown to the task, for a list or an object in place of a text, and for a
    reference without a match for ``answer_pattern``.
    """
    table = read.table(path, spec.reader)
    if table.rows:
        check_columns(spec, path, table)
    rows = []
    lost: dict[str, list[str]] = {}
    told: dict[str, list[str]] = {}
    for source in table.rows:
        if (column := _foreign(spec, source)) is not None:
            told.setdefault(f"do not belong to the task by '{column}'", []).append(source.place)
            continue
        where = f"task '{spec.name}': {path.name}: {source.place}"
        row = spoken(spec, _opened(spec, _renamed(spec, source, where), where), where)
        whole = _extracted(spec, row)
        if (reason := _lacks(spec, row, whole)) is not None:
            lost.setdefault(reason, []).append(row.place)
            continue
        answers = [UsableRow(one.place, _checked(spec, one, where)) for one in _each_reference(spec, whole, where)]
        if not answers:
            lost.setdefault(f"are left out: '{spec.references}' is empty or missing", []).append(row.place)
        several = whole.nested.get(spec.references or "")
        if answers and isinstance(several, (list, tuple)) and len(answers) < len(several):
            told.setdefault(f"have an empty answer in '{spec.references}', which counts as none", []).append(row.place)
        for remark in row.remarks:
            told.setdefault(remark, []).append(row.place)
        rows += answers
    told |= _doubtful(spec, rows)
    if table.unread:
        lost[table.unread_because] = list(table.unread)
    total = len(table.rows) + len(table.unread)
    about = (*notices(path.name, total, lost, lost=True), *notices(path.name, total, told, lost=False))
    return Usable(rows, total, about)


def notices(file: str, of_rows: int, places: Mapping[str, Sequence[str]], *, lost: bool) -> tuple[Notice, ...]:
    """One notice for each reason, about the rows at its places."""
    return tuple(Notice(file, len(at), of_rows, reason, at[0], lost) for reason, at in places.items() if at)


# --- fields ----------------------------------------------------------------------------------------------------------


def _foreign(spec: TaskSpec, row: SourceRow) -> str | None:
    """The first column of ``where`` that has another value in this row."""
    has = row.values
    return next((c for c, valid in spec.where.items() if c not in has or keys.named(has[c], valid) is None), None)


def _renamed(spec: TaskSpec, row: SourceRow, where: str) -> SourceRow:
    """``row`` with its new names, also those of dotted paths, and with lists joined to texts where the task says so.

    A text that stands for a missing value becomes empty.
    """
    paths = {**spec.fields, **{name: name for name in _paths(spec) - row.values.keys() - spec.fields.keys()}}
    new = {name: read.lookup(row, column) for name, column in paths.items()}
    new = {name: value for name, value in new.items() if value is not values.NOTHING}
    if isinstance(spec.choices, str) and (column := paths.get(spec.choices, "")).endswith(".*"):
        named = choices.in_order(spec, read.lookup(row, column.removesuffix(".*")))
        new |= {} if named is None else {spec.choices: named}
    # Where a row lacks the column that a field is to have, another column of the field's name is not it.
    lacking = spec.fields.keys() - new.keys()
    texts = {**row.values, **{name: read.as_text(value) for name, value in new.items()}, **dict.fromkeys(lacking, "")}
    nested = {
        **{name: value for name, value in row.nested.items() if name not in new and name not in lacking},
        **{name: value for name, value in new.items() if read.is_no_text(value)},
    }
    for name in spec.join.keys() & texts.keys():
        texts[name] = spec.join[name].text(nested.pop(name) if name in nested else _printed(texts[name], name, where))
    missing = [name for name, text in texts.items() if _is_missing(spec, text) and not _is_label(spec, name, text)]
    return replace(row, values={**texts, **dict.fromkeys(missing, "")}, nested=nested)


def _is_missing(spec: TaskSpec, text: str) -> bool:
    """Whether ``text`` stands for a missing value."""
    return text.strip() in spec.reader.missing


def _paths(spec: TaskSpec) -> Collection[str]:
    """The dotted names that a task uses without a new name for them."""
    return {name for name in (*spec.used_fields, *choices.list_fields(spec), spec.dialogue or "") if "." in name}


def _opened(spec: TaskSpec, row: SourceRow, where: str) -> SourceRow:
    """``row`` with lists in place of the texts that are prints of lists, as programs write them into CSV files.

    A label stays text where the task names it so.
    """
    lists = {}
    lists_of_task = {*choices.list_fields(spec), spec.references or "", spec.dialogue or ""}
    wanted = {*spec.used_fields, *lists_of_task} & row.values.keys() - row.nested.keys()
    for name in sorted(wanted):
        text = row.values[name]
        if spec.reader.lists_as_text and name not in lists_of_task:
            continue
        if not _is_label(spec, name, text) and (value := _list_in(text, name, where)) is not None:
            lists[name] = value
    return replace(row, nested={**row.nested, **lists}, printed=frozenset(lists)) if lists else row


def _list_in(text: str, name: str, where: str) -> Any:
    try:
        return values.list_in(text)
    except ValueError as error:
        raise InputError(f"{where}: column '{name}': {text[:60]!r}: {error}") from error


def _printed(text: str, name: str, where: str) -> Any:
    """The list or object that ``text`` is the print of, also one that might be a text elsewhere; or ``text``."""
    _list_in(text, name, where)  # refuses the print of an array
    value = values.print_in(text)
    return text if value is None else value


def _is_label(spec: TaskSpec, name: str, value: str) -> bool:
    return name == spec.label and value in spec.labels


def _extracted(spec: TaskSpec, row: SourceRow) -> SourceRow:
    """``row`` with the parts that the ``extract`` expressions find in its fields; empty where they find nothing."""
    found: dict[str, str] = {}
    for field, expression in spec.extract.items():
        match = re.search(expression, found.get(field, row.values.get(field, "")))
        # A column that is called like a part is not the part.
        found = {**dict.fromkeys(re.compile(expression).groupindex, ""), **found}
        found |= {name: value or "" for name, value in match.groupdict().items()} if match else {}
    return replace(row, values={**row.values, **found})


def _lacks(spec: TaskSpec, row: SourceRow, whole: SourceRow) -> str | None:
    """Why a row is no example, as the end of a sentence about it; None if it is one."""
    lacking = sorted(
        name
        for name in spec.used_fields - spec.may_be_empty
        if keys.is_blank(whole.values.get(name, "")) or row.nested.get(name, whole) in ([], {})
    )
    for name in lacking:
        source = next((field for field, expression in spec.extract.items() if f"(?P<{name}>" in expression), None)
        if source is not None and row.values.get(source, "").strip():
            return f"are left out: the expression of extract.{source} finds no '{name}'"
        return f"are left out: '{name}' is empty or missing"
    for name in choices.list_fields(spec):
        several = row.nested.get(name)
        texts = list(map(read.as_text, several)) if isinstance(several, (list, tuple)) else []
        if len(texts) < 2 or any(map(keys.is_blank, texts)):
            return f"are left out: '{name}' is no list of at least two texts"
    inputs = spec.input_fields
    if inputs and all(keys.is_blank(whole.values.get(name, "")) for name in inputs):
        return f"are left out: {' and '.join(inputs)} are empty or missing"
    return None


def _doubtful(spec: TaskSpec, rows: Sequence[UsableRow]) -> dict[str, list[str]]:
    """Remarks on answers that may not be meant so, with the places of their rows.

    No model can rate one of two equal answers higher. And if ``answer_pattern`` takes the same from all answers, it may
    hold the mark before the answer in its first parentheses: then whatever has the mark is right.
    """
    if spec.rejected is None and spec.answer_pattern is None:
        return {}
    answers = [spec.completion.format_map(row.fields).strip() for row in rows]
    told = {}
    if spec.rejected is not None:
        pairs = zip(answers, rows, strict=True)
        equal = [row.place for answer, row in pairs if spec.rejected.format_map(row.fields).strip() == answer]
        told["have the same better and worse answer, so none of the two can be rated higher"] = equal
    parts = set(map(spec.scored_part, answers))
    if spec.answer_pattern is not None and len(parts) == 1 < len(set(answers)):
        part = next(iter(parts))[:60]
        reason = f"have the same scored part, {part!r}: do the first parentheses of answer_pattern hold the answer?"
        told[reason] = [row.place for row in rows]
    return told


def _each_reference(spec: TaskSpec, row: SourceRow, where: str) -> Sequence[SourceRow]:
    """``row`` once for each right answer that is not missing, if the task names a field with a list of them."""
    name = spec.references
    if name is None:
        return [row]
    answers = row.nested.get(name, row.values[name])
    if isinstance(answers, str) and answers.lstrip().startswith("["):
        answers = _list_of_no_texts(answers, name, where)
    if isinstance(answers, str):
        return [row]
    if isinstance(answers, Mapping):
        raise InputError(f"{where}: '{name}' must be a list, not {values.shown(answers)}{values.hint(name, answers)}")
    texts = [text for answer in answers if not _is_missing(spec, text := _answer(name, answer, where))]
    rest = {other: value for other, value in row.nested.items() if other != name}
    return [replace(row, values={**row.values, name: text}, nested=rest) for text in texts if not keys.is_blank(text)]


def _list_of_no_texts(text: str, name: str, where: str) -> Any:
    """The list of numbers, or the empty one, that ``text`` is."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: '{name}' is not a list in JSON: {text[:60]!r}") from error


def _answer(name: str, answer: Any, where: str) -> str:
    if isinstance(answer, (dict, list, tuple)):
        raise InputError(f"{where}: '{name}' must hold texts, not {values.shown(answer)}{values.hint(name, [answer])}")
    return read.as_text(answer)


# --- checks ----------------------------------------------------------------------------------------------------------


def _checked(spec: TaskSpec, row: SourceRow, where: str) -> Row:
    """The fields of a usable row, with the label as the task names it."""
    fields = {**dict.fromkeys(spec.may_be_empty, ""), **row.values}
    for name in sorted(spec.used_fields & row.nested.keys()):
        kind = values.kind(row.nested[name])
        shown, hint = values.shown(row.nested[name]), values.hint(spec.fields.get(name, name), row.nested[name])
        if name in row.printed:
            hint += "; reader.lists_as_text: true takes it for a text"
        raise InputError(f"{where}: column '{name}' is {kind}, not a text: {shown}{hint}")
    for name in choices.list_fields(spec):
        fields[name] = json.dumps([_answer(name, one, where) for one in row.nested[name]], ensure_ascii=False)
    for name in sorted({*spec.used_fields, *choices.list_fields(spec)} & fields.keys()):
        if not fields[name].isprintable() and any("\ud800" <= sign <= "\udfff" for sign in fields[name]):
            raise InputError(f"{where}: column '{name}' holds half of a surrogate pair, which is no character")
    if spec.choices:
        choices.right(spec, fields, where)
    elif spec.kind == "regression":
        fields[spec.label or ""] = _number(fields[spec.label or ""], f"{where}: field '{spec.label}'")
    elif spec.label is not None:
        fields[spec.label] = _label(spec, fields[spec.label], f"{where}: field '{spec.label}'")
    elif spec.database is not None:
        _check_query(spec, fields, where)
    elif spec.answer_pattern is not None:
        answer = spec.completion.format_map(fields)
        if not spec.scored_part(answer):
            raise InputError(
                f"{where}: answer_pattern finds nothing in the right answer {answer.strip()[:80]!r}; "
                "widen the expression, or mend the row"
            )
    return fields


def _number(value: str, where: str) -> str:
    """``value`` if it is a number of which a mean of squares can be taken."""
    plain = value.strip().replace("\u2212", "-")  # typography's minus
    try:
        if abs(float(plain)) < _MOST_NUMBER and "_" not in plain:
            return plain
    except ValueError:
        pass
    raise InputError(
        f"{where}: {value[:60]!r} is no number; valid: digits with a point, such as 3.5, below {_MOST_NUMBER:g}"
    )


def _check_query(spec: TaskSpec, row: Row, where: str) -> None:
    """Raise InputError if the right query of a row does not run."""
    try:
        sql.answer(spec.scored_part(spec.completion.format_map(row)), spec.database_of(row))
    except sql.QueryError as error:
        raise InputError(f"{where}: the right query does not run: {error}") from error


def _label(spec: TaskSpec, value: str, where: str) -> str:
    """The key of ``spec.labels`` that ``value`` is (:mod:`harness.tasks.keys`)."""
    if (key := keys.named(value, spec.labels)) is not None:
        return key
    error = unknown(where, value, spec.labels)
    valid = ", ".join(f"'{key}'" for key in spec.labels)
    near = [key for key in spec.labels if key.strip().casefold() == value.strip().casefold()]
    if near:
        raise InputError(f"{where}: unknown name '{value}'; did you mean '{near[0]}'? valid: {valid}") from error
    raise InputError(str(error) if "valid: " in str(error) else f"{error} valid: {valid}") from error
