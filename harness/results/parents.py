"""What a trial starts from: which of several candidates, which settings they had, and what the chain has cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness import catalog
from harness.results.record import Record
from harness.results.selection import Ending
from harness.trial import Trial

#: Columns of a row's own cost, and of that of its chain.
CHAIN_COSTS = {"train_s": "chain_train_s", "energy_j": "chain_energy_j"}


def preferred(candidates: Sequence[Record]) -> Record | None:
    """The candidate that validation prefers, of those that ended well (protocol, rule 2); None where none did.

    Of equal ones, and where nothing was scored, the one that stands first.
    """
    return max((record for record in candidates if record.status == "ok"), key=_goodness, default=None)


def _goodness(record: Record) -> float:
    return Ending.of(record.status, record.outcome.columns if record.outcome is not None else {}).goodness


def fill_parent_settings(rows: Sequence[dict[str, Any]], trials: Sequence[Trial]) -> None:
    """Set ``parent_settings`` of each row: per role a digest of each candidate's specification, whatever its seed.

    The ids of parents differ from seed to seed, so that they cannot say which trials are one setting on several
    seeds; neither can the choice among them. A parent that is not among ``trials`` stands for itself, by its id.
    ``rows`` and ``trials`` correspond; rows are changed in place.
    """
    by_id = {trial.trial_id: trial for trial in trials}
    known: dict[str, str] = {}
    for row, trial in zip(rows, trials, strict=True):
        digests = {
            role: [_digest(candidate, by_id, known) for candidate in candidates]
            for role, candidates in trial.parents.items()
        }
        written = {role: several if len(several) > 1 else several[0] for role, several in digests.items()}
        row["parent_settings"] = json.dumps(written, sort_keys=True, ensure_ascii=False)


def _digest(trial_id: str, by_id: Mapping[str, Trial], known: dict[str, str]) -> str:
    """The id that a trial would have on seed 0, with parents that are on seed 0 too."""
    if trial_id not in by_id:
        return trial_id
    if trial_id not in known:
        trial = by_id[trial_id]
        parents = {
            role: tuple(_digest(candidate, by_id, known) for candidate in candidates)
            for role, candidates in trial.parents.items()
        }
        known[trial_id] = trial.model_copy(update={"seed": 0, "parents": parents}).trial_id
    return known[trial_id]


def fill_chain_costs(rows: Sequence[dict[str, Any]]) -> None:
    """Set the columns of :data:`CHAIN_COSTS`: the row's own cost and that of all trials that it was trained from.

    What only judges a trial, or is compared with it, costs it nothing (:attr:`harness.catalog.Parent.costs`). Null
    where the row was not trained, or where a part is not known. Rows are changed in place.
    """
    by_id = {row["trial_id"]: row for row in rows}
    for own, chain in CHAIN_COSTS.items():
        known: dict[str, float | None] = {}
        for row in rows:
            row[chain] = _chain_cost(row["trial_id"], own, by_id, known)


def _chain_cost(
    trial_id: str, own: str, by_id: Mapping[str, Mapping[str, Any]], known: dict[str, float | None]
) -> float | None:
    if trial_id not in known:
        row = by_id.get(trial_id, {})
        costs = [row.get(own), *(_chain_cost(parent, own, by_id, known) for parent in _trained_from(row))]
        known[trial_id] = None if None in costs else sum(cost for cost in costs if cost is not None)
    return known[trial_id]


def _trained_from(row: Mapping[str, Any]) -> list[str]:
    """Ids of the parents without which the row could not have been trained."""
    kinds = (catalog.METHODS.get(row.get("method", "")), catalog.OBJECTIVES.get(row.get("objective", "")))
    free = {parent.role for kind in kinds if kind is not None for parent in kind.parents if not parent.costs}
    return [parent for role, parent in json.loads(row.get("parents", "{}")).items() if role not in free]
