"""Which cells of two folders of tables are the same: rows are joined by everything that a specification holds."""

from __future__ import annotations

import json
from collections import namedtuple
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness import notebooks
from harness.errors import InputError
from harness.judgement.timings import fails_control, is_disturbed
from harness.judgement.tolerances import COSTS, MACHINE
from harness.results.selection import CELL, SETTING

VERSIONS = ("model_revision", "task_version", "protocol_version")
"""Versions of what a cell measures: cells that differ in one are the same question, and no longer comparable."""

SPEC = [*(name for name in CELL if name not in ("sweep", "device")), *SETTING]
"""What identifies a cell here: a specification without its seed. Each setting stands for itself: nothing is selected.

The name of the sweep is no part of it, nor is the device that was found."""

_QUESTION = [name for name in SPEC if name not in (*VERSIONS, "parent_settings")]


_READ = {
    *SPEC,
    *("trial_id", "seed", "status", "reason", "primary_metric", "higher_is_better", "test_score"),
    *MACHINE,
    *("disturbed", "is_disturbed", "fails_control"),
    *(column for cost in COSTS for column in cost.columns),
}

Key = tuple[Hashable, ...]
"""The values of :data:`SPEC`; None where one is null."""

BySeed = Mapping[int, Any]
"""Seed -> the row of its trial, whose attributes are the columns of ``trials``; None where one is null."""


@dataclass(frozen=True)
class Cell:
    """One specification without its seed, with its trials in both folders."""

    key: Key
    baseline: BySeed
    candidate: BySeed
    versions: str | None = None
    """Which versions differ, in words; None where none does."""


def join(baseline: pd.DataFrame, candidate: pd.DataFrame) -> list[Cell]:
    """The cells of two ``trials`` tables: those of the baseline in its order, then those that are new.

    Cells that differ in their versions alone are joined too, and say so. A row from before there was an argument counts
    as one with the argument's usual value.
    """
    before, after = map(_cells, _with_later_arguments(baseline, candidate))
    renamed = _other_versions((key for key in before if key not in after), (key for key in after if key not in before))
    cells = []
    for key, rows in before.items():
        if key in renamed:
            cells.append(Cell(key, rows, after[renamed[key]], _versions(key, renamed[key])))
        else:
            cells.append(Cell(key, rows, after.get(key, {})))
    taken = {*before, *renamed.values()}
    return [*cells, *(Cell(key, {}, rows) for key, rows in after.items() if key not in taken)]


def _with_later_arguments(*tables: pd.DataFrame) -> list[pd.DataFrame]:
    """The tables, in which every row has the arguments that rows of its notebook have in any of them.

    What is filled in is what the notebook says is usual; an argument that it does not know stays away.
    """
    filled = [table.copy() for table in tables]
    for column in ("method_args", "objective_args"):
        named: dict[str, set[str]] = {}
        for table in tables:
            for notebook, arguments in zip(table.notebook, table[column], strict=True):
                named.setdefault(notebook, set()).update(_parsed(arguments))
        usual = {notebook: _usual(notebook, names) for notebook, names in named.items()}
        for table in filled:
            pairs = zip(table.notebook, table[column], strict=True)
            table[column] = [_filled(arguments, usual[notebook]) for notebook, arguments in pairs]
    return filled


def _filled(arguments: Any, usual: Mapping[str, Any]) -> Any:
    """Arguments as JSON, with the ``usual`` values of those that they lack; as they are where they lack none."""
    given = _parsed(arguments)
    if usual.keys() <= given.keys():
        return arguments
    return json.dumps({**usual, **given}, sort_keys=True, ensure_ascii=False)


def _parsed(arguments: object) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(arguments) if isinstance(arguments, str) else {}
    return parsed


def _usual(notebook: str, names: Collection[str]) -> dict[str, Any]:
    """The usual values of these arguments, of those that the notebook has."""
    try:
        return {name: value for name, value in notebooks.parameters(notebook).items() if name in names}
    except InputError:  # a notebook of another folder
        return {}


def _cells(trials: pd.DataFrame) -> dict[Key, dict[int, Any]]:
    """The rows by specification and seed; of several that differ in nothing else, the first that ended well."""
    cells: dict[Key, dict[int, Any]] = {}
    for row in _rows(trials):
        of_cell = cells.setdefault(tuple(getattr(row, name) for name in SPEC), {})
        first = of_cell.get(row.seed)
        if first is None or (first.status != "ok" and row.status == "ok"):
            of_cell[row.seed] = row
    return cells


def _rows(trials: pd.DataFrame) -> Iterator[Any]:
    """The rows as named tuples, every null None, with whether their times may be compared."""
    trials = trials.assign(is_disturbed=is_disturbed(trials), fails_control=fails_control(trials))
    names = [name for name in trials.columns if name in _READ]
    row = namedtuple("row", names)  # type: ignore[misc]
    columns = [
        [None if null else value for value, null in zip(column.tolist(), column.isna().tolist(), strict=True)]
        for column in (trials[name] for name in names)
    ]
    return map(row._make, zip(*columns, strict=True))


def _other_versions(before: Iterable[Key], after: Iterable[Key]) -> dict[Key, Key]:
    """Old key -> new key, where one of each asks the same question."""
    questions: dict[Key, tuple[list[Key], list[Key]]] = {}
    for side, keys in enumerate((before, after)):
        for key in keys:
            questions.setdefault(_question(key), ([], []))[side].append(key)
    return {olds[0]: news[0] for olds, news in questions.values() if len(olds) == len(news) == 1}


def _question(key: Key) -> Key:
    return tuple(value for name, value in zip(SPEC, key, strict=True) if name in _QUESTION)


def _versions(old: Key, new: Key) -> str:
    """'task_version 1, now 2'."""
    pairs = [
        f"{name} {'none' if a is None else a}, now {'none' if b is None else b}"
        for name, a, b in zip(SPEC, old, new, strict=True)
        if name in VERSIONS and a != b
    ]
    return "; ".join(pairs) or "what it starts from has other settings"
