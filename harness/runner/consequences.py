"""What the end of one trial means for others: which ones can no longer run, and which artefacts nobody needs."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Sequence

from harness.ledger.ledger import Ledger
from harness.results.record import Record
from harness.sweeps.plan import Planned

_GB = 10**9

#: A trial with one of these statuses starts from its parents' artefacts again only if it is planned anew.
_AT_REST = ("ok", "skipped")


class Consequences:
    """Tracks what the endings of one ledger entail; ``keep`` preserves the artefacts of parents."""

    def __init__(self, ledger: Ledger, keep: bool) -> None:
        self._ledger = ledger
        self._keep = keep
        self._children: dict[str, list[str]] = defaultdict(list)
        """Parent -> the children that may still need its artefacts."""
        self._exhausted: dict[tuple[str, ...], Planned] = {}
        """Kind of trial -> its smallest trial that ran out of memory."""
        for row, head in zip(ledger.plan.rows, ledger.heads(), strict=True):
            for parent in row.trial.parent_ids:
                self._children[parent].append(row.trial_id)
            if head is not None and head.status == "oom":
                self._has_exhausted(row)

    def has_ended(self, row: Planned, record: Record) -> None:
        """Record one ending; delete the artefacts of parents without waiting children."""
        if record.status == "oom":
            self._has_exhausted(row)
        if not self._keep:
            for parent in row.trial.parent_ids:
                children = self._children[parent]
                while children and self._is_at_rest(children[-1]):  # each is seen at rest once, however many there are
                    children.pop()
                if not children:
                    shutil.rmtree(self._ledger.artifact_dir(parent), ignore_errors=True)

    def obstacle(self, row: Planned) -> str | None:
        """Why the row can no longer run; None if it can."""
        for role, candidates in row.trial.parents.items():
            endings = [self._ledger.ended(parent) for parent in candidates]
            statuses = [record.status for record in endings if record is not None]
            if len(statuses) == len(candidates) and "ok" not in statuses:
                return _lost(role, candidates, statuses)
        needed, smaller = row.estimated_bytes, self._exhausted.get(_kind(row))
        if needed is not None and smaller is not None and needed > (too_much := smaller.estimated_bytes or 0):
            return (
                f"trial {smaller.trial_id} of the same method and model ran out of memory, and was estimated to "
                f"need less ({too_much / _GB:.3g} of {needed / _GB:.3g} GB)"
            )
        return None

    def _has_exhausted(self, row: Planned) -> None:
        before = self._exhausted.get(_kind(row))
        if row.estimated_bytes is not None and (before is None or row.estimated_bytes < (before.estimated_bytes or 0)):
            self._exhausted[_kind(row)] = row

    def _is_at_rest(self, trial_id: str) -> bool:
        record = self._ledger.ended(trial_id)
        return record is not None and record.status in _AT_REST


def _lost(role: str, candidates: Sequence[str], statuses: Sequence[str]) -> str:
    if len(candidates) == 1:
        return f"its parent ({role}, trial {candidates[0]}) ended as {statuses[0]}"
    endings = ", ".join(f"{parent} as {status}" for parent, status in zip(candidates, statuses, strict=True))
    return f"none of the trials that could be its parent ({role}) ended well: {endings}"


def _kind(row: Planned) -> tuple[str, ...]:
    """What two trials must share before their estimated memory can be compared."""
    trial = row.trial
    return trial.method, trial.objective, trial.model, trial.dtype, trial.device
