"""The comparison that says most about a model and a task: their own rows, else those of the nearest model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from harness.judgement.statistics import aggregate
from harness.judgement.verdicts import Comparison, compare, is_reward_model, is_trained
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
    seeds: int
    """The fewest seeds behind a trained row."""
    others: int
    """Further comparisons that are as near, of other folders, budgets or protocols."""


def nearest(
    folders: Mapping[str, Tables],
    model: str,
    task: str,
    *,
    task_kind: str | None = None,
    params: float | None = None,
    same_kind: Callable[[str], bool] = lambda _: True,
) -> Basis | None:
    """The nearest comparison that has a trained policy; None where no folder has one for that task or its kind.

    Nearest is the model itself on the task itself, then another model on the task (by the logarithm of its size), then
    the model on another task of ``task_kind``, then both others. Of equally near ones, the one with most seeds counts,
    then with most rows. ``same_kind`` says of another model whether it is of the kind of the wanted one.
    """
    best: list[tuple[tuple[float, ...], Basis]] = []
    for folder, tables in folders.items():
        rows = aggregate(tables)
        rows = rows[(rows.task == task) | ((rows.task_kind == task_kind) if task_kind is not None else False)]
        rows = rows[[name == model or same_kind(str(name)) for name in rows.model]]
        for comparison in compare(rows, tables):
            basis = _basis(folder, tables, comparison, model, task)
            if basis is not None:
                best.append((_distance(basis, params), basis))
    if not best:
        return None
    best.sort(key=lambda one: one[0])
    order, basis = best[0]
    alike = sum(other[:3] == order[:3] for other, _ in best) - 1
    return Basis(**{**vars(basis), "others": alike})


def _basis(folder: str, tables: Tables, comparison: Comparison, model: str, task: str) -> Basis | None:
    rows = list(comparison.rows.itertuples())
    policies = [row for row in rows if is_trained(row) and not is_reward_model(row)]
    if not policies:
        return None
    first = policies[0]
    size = None if pd.isna(first.model_params) else float(first.model_params)
    same = (first.model == model, first.task == task)
    seeds = int(min(row.seeds for row in policies))
    return Basis(folder, tables, comparison, str(first.model), str(first.task), *same, size, seeds, 0)


def _distance(basis: Basis, params: float | None) -> tuple[float, ...]:
    rank = {(True, True): 0, (False, True): 1, (True, False): 2, (False, False): 3}[basis.same_model, basis.same_task]
    apart = 0.0
    if not basis.same_model:
        apart = abs(math.log(params / basis.model_params)) if params and basis.model_params else math.inf
    return rank, apart, 0.0 if basis.same_model else _name_order(basis.model), -basis.seeds, -len(basis.comparison.rows)


def _name_order(name: str) -> float:
    """A number that is the same for the same model, so that one of two equally large ones is taken as a whole."""
    return float(sum(ord(letter) * 256.0**-place for place, letter in enumerate(name[:6])))
