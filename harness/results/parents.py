"""Which settings a trial's parents had: what tells two trials apart that start from different trials."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness.trial import Trial


def fill_parent_settings(rows: Sequence[dict[str, Any]], trials: Sequence[Trial]) -> None:
    """Set ``parent_settings`` of each row: per role a digest of the parent's specification, whatever its seed.

    The ids of parents differ from seed to seed, so that they cannot say which trials are one setting on several
    seeds. A parent that is not among ``trials`` stands for itself, by its id. ``rows`` and ``trials`` correspond;
    rows are changed in place.
    """
    by_id = {trial.trial_id: trial for trial in trials}
    known: dict[str, str] = {}
    for row, trial in zip(rows, trials, strict=True):
        digests = {role: _digest(parent, by_id, known) for role, parent in trial.parents.items()}
        row["parent_settings"] = json.dumps(digests, sort_keys=True, ensure_ascii=False)


def _digest(trial_id: str, by_id: Mapping[str, Trial], known: dict[str, str]) -> str:
    """The id that a trial would have on seed 0, with parents that are on seed 0 too."""
    if trial_id not in by_id:
        return trial_id
    if trial_id not in known:
        trial = by_id[trial_id]
        parents = {role: _digest(parent, by_id, known) for role, parent in trial.parents.items()}
        known[trial_id] = trial.model_copy(update={"seed": 0, "parents": parents}).trial_id
    return known[trial_id]
