"""What the end of one trial means for others: those that cannot run any more, and what nobody needs any more."""

from __future__ import annotations

import shutil
from collections import defaultdict

from harness.plan import Planned
from harness.results.ledger import Ledger
from harness.results.record import Record

_GB = 10**9

#: Endings after which a trial will not start from its parents' artefacts again, unless it is planned anew.
_AT_REST = ("ok", "skipped")


class Consequences:
    """Of the endings of one ledger; ``keep`` has the artefacts stay that later trials started from."""

    def __init__(self, ledger: Ledger, keep: bool) -> None:
        self._ledger = ledger
        self._keep = keep
        self._children: dict[str, list[str]] = defaultdict(list)
        for row in ledger.plan.rows:
            for parent in row.trial.parents.values():
                self._children[parent].append(row.trial_id)
        heads = zip(ledger.plan.rows, ledger.heads(), strict=True)
        self._exhausted = [row for row, head in heads if head is not None and head.status == "oom"]

    def has_ended(self, row: Planned, record: Record) -> None:
        """Take note of one ending; the artefacts of parents go with the last child that needed them."""
        if record.status == "oom":
            self._exhausted.append(row)
        if not self._keep:
            for parent in row.trial.parents.values():
                if all(map(self._is_at_rest, self._children[parent])):
                    shutil.rmtree(self._ledger.artifact_dir(parent), ignore_errors=True)

    def obstacle(self, row: Planned) -> str | None:
        """Why the row cannot run any more; null: it can."""
        for role, parent in row.trial.parents.items():
            if (record := self._ledger.head(parent)) is not None and record.status != "ok":
                return f"its parent ({role}, trial {parent}) ended as {record.status}"
        for smaller in self._exhausted:
            if _is_larger(row, smaller):
                return (
                    f"trial {smaller.trial_id} of the same method and model ran out of memory, and was estimated to "
                    f"need less ({(smaller.estimated_bytes or 0) / _GB:.3g} of "
                    f"{(row.estimated_bytes or 0) / _GB:.3g} GB)"
                )
        return None

    def _is_at_rest(self, trial_id: str) -> bool:
        record = self._ledger.head(trial_id)
        return record is not None and record.status in _AT_REST


def _is_larger(row: Planned, than: Planned) -> bool:
    """Whether a row needs strictly more memory than another of the same method, objective, model and number format."""
    if row.estimated_bytes is None or than.estimated_bytes is None:
        return False
    kinds = [(r.trial.method, r.trial.objective, r.trial.model, r.trial.dtype, r.trial.device) for r in (row, than)]
    return kinds[0] == kinds[1] and row.estimated_bytes > than.estimated_bytes
