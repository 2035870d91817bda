"""Which rows a claim compares: two selections, wherever both ran under the same conditions."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pandas as pd

from harness.judgement.claims import Check, Side
from harness.judgement.verdicts import is_trained
from harness.results.baseline import SAME_QUESTIONS
from harness.results.selection import CELL

#: What is the same in every pair.
_ALWAYS = (*SAME_QUESTIONS, "primary_metric", "dtype", "requested_device", "device")

#: What is the same in every pair of rows that were trained.
_BUDGET = ("train_examples", "batch_size", "epochs", "max_length")


@dataclass(frozen=True)
class Match:
    """Two rows of ``aggregate`` under the same conditions."""

    left: Any
    right: Any


def matches(check: Check, rows: Sequence[Any]) -> list[Match]:
    """Every pair of rows that the check compares, in the order of ``rows``."""
    lefts, rights = chosen(check.left, check, rows), chosen(check.right, check, rows)
    by_condition = defaultdict(list)
    for row in rights:
        by_condition[_key(row, _ALWAYS)].append(row)
    return [
        Match(left, right)
        for left in lefts
        for right in by_condition[_key(left, _ALWAYS)]
        if (left.Index != right.Index or check.left.variant != check.right.variant) and _alike(left, right, check)
    ]


def chosen(side: Side, check: Check, rows: Sequence[Any]) -> list[Any]:
    """The rows of one side."""
    named = {"method": side.methods, "objective": side.objectives}
    wanted: dict[str, tuple[Any, ...]] = {column: names for column, names in named.items() if names} | check.where
    return [
        row
        for row in rows
        if all(getattr(row, column) in values for column, values in wanted.items()) and _has(row, side)
    ]


def _has(row: Any, side: Side) -> bool:
    args = _arguments(row.method_args) if side.method_args else {}
    return all(
        args.get(name) in (wanted if isinstance(wanted, list) else [wanted])
        for name, wanted in side.method_args.items()
    )


@lru_cache(maxsize=4096)
def _arguments(method_args: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(method_args)
    return parsed


def _alike(left: Any, right: Any, check: Check) -> bool:
    """Whether nothing differs but what the check names, and what follows from it."""
    sides = (check.left, check.right)
    if left.method == right.method:
        named = {name for side in sides for name in side.method_args}
        given = [_arguments(row.method_args) for row in (left, right)]
        first, second = ({k: v for k, v in one.items() if k not in named} for one in given)
        if first != second:
            return False
    elif not any(side.methods for side in sides):
        return False
    if not (is_trained(left) and is_trained(right)):
        return True
    if left.objective == right.objective:
        same_objective = left.objective_args == right.objective_args
    else:
        same_objective = any(side.objectives for side in sides)
    return same_objective and _key(left, _BUDGET) == _key(right, _BUDGET)


def _key(row: Any, columns: Iterable[str]) -> tuple[Any, ...]:
    values = (getattr(row, column) for column in columns)
    return tuple(None if pd.isna(value) else value for value in values)


#: What may differ between the two ends of a series, beside the column that it runs along.
_WITH = {"model_params": {"model", "model_revision"}, "train_examples": set[str]()}


def series(check: Check, found: Sequence[Match], families: dict[str, str | None]) -> Iterator[tuple[Match, Match]]:
    """The two ends of each series of pairs along ``check.along``: (smallest, largest), and nothing else that differs.

    ``families`` has the family of each model: sizes are compared within one.
    """
    along = check.along
    assert along is not None  # noqa: S101  (the check has such a relation)
    free = {along, *_WITH[along]}
    columns = [name for name in CELL if name not in free]
    groups: dict[Any, list[Match]] = defaultdict(list)
    for match in found:
        key = (_key(match.left, columns), _key(match.right, columns), families.get(match.left.model))
        groups[key].append(match)
    for group in groups.values():
        known = [match for match in group if not pd.isna(getattr(match.left, along))]
        ordered = sorted(known, key=lambda match: float(getattr(match.left, along)))
        if ordered and getattr(ordered[0].left, along) < getattr(ordered[-1].left, along):
            yield ordered[0], ordered[-1]
