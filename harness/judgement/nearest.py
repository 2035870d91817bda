"""The comparison that says most about a model and a task: their own rows, else those of the nearest model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import pandas as pd

from harness.judgement.statistics import aggregate
from harness.judgement.verdicts import Comparison, compare
from harness.results.files import Tables


@dataclass(frozen=True)
class Basis:
    """What a recommendation rests on."""

    folder: str
    tables: Tables
    comparison: Comparison
    model: str
    task: str
    same_model: bool
    same_task: bool
    model_params: float | None
    wanted_params: float | None
    seeds: int
    """The fewest seeds behind a trained row."""
    others: int
    """Further comparisons that are as near, of other folders, budgets or protocols."""


def nearest(
    folders: Mapping[str, Tables],
    model: str,
    task: str,
    *,
    task_kind: str,
    params: float | None = None,
    same_kind: Callable[[str], bool] = lambda _: True,
) -> Basis | None:
    """The nearest comparison that has a trained policy; None where no folder has one for that task or its kind.

    Nearest is the model itself on the task itself, then another model on the task (by the logarithm of its size), then
    the model on another task of ``task_kind``, then both others. Of equally near ones, the one with most seeds counts,
    then with most rows. ``same_kind`` says of another model whether it is of the kind of the wanted one.
    """
    best: list[tuple[_Distance, Basis]] = []
    for folder, tables in folders.items():
        rows = aggregate(tables)
        wanted = (rows.task == task) | (rows.task_kind == task_kind)
        of_kind = rows.model.map(lambda name: name == model or same_kind(str(name))).astype(bool)
        rows = rows[wanted & of_kind]
        for comparison in compare(rows, tables):
            basis = _basis(folder, tables, comparison, model, task, params)
            if basis is not None:
                best.append((_distance(basis), basis))
    if not best:
        return None
    best.sort(key=lambda one: one[0])
    order, basis = best[0]
    return replace(basis, others=sum(other[:3] == order[:3] for other, _ in best) - 1)


def _basis(
    folder: str, tables: Tables, comparison: Comparison, model: str, task: str, params: float | None
) -> Basis | None:
    policies = list(comparison.policies.values())
    if not policies:
        return None
    first = policies[0]
    size = None if pd.isna(first.model_params) else float(first.model_params)
    is_same = (bool(first.model == model), bool(first.task == task))
    seeds = int(min(row.seeds for row in policies))
    return Basis(folder, tables, comparison, str(first.model), str(first.task), *is_same, size, params, seeds, 0)


_Distance = tuple[int, float, str, int, int]


def _distance(basis: Basis) -> _Distance:
    rank = {(True, True): 0, (False, True): 1, (True, False): 2, (False, False): 3}[basis.same_model, basis.same_task]
    apart = 0.0 if basis.same_model else _apart(basis.wanted_params, basis.model_params)
    return rank, apart, basis.model, -basis.seeds, -len(basis.comparison.rows)


def _apart(one: float | None, other: float | None) -> float:
    """How far two sizes are apart, in logarithms; infinitely where one is not known."""
    return abs(math.log(one / other)) if one and other else math.inf
