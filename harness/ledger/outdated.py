"""What a plan leaves behind when settings have been chosen: artefacts of those that lost, and rows that say 'none'."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from harness.errors import InputError
from harness.files import RECORD_FILE
from harness.ledger import documents
from harness.ledger.ledger import Ledger


def remove(ledger: Ledger, earlier: Mapping[str, Any], keep_artifacts: bool) -> None:
    """Remove what the ``earlier`` plan of a sweep with a search needed, and that of ``ledger`` does not.

    The artefacts of trials that another one might have started from, and none does; they stay with ``keep_artifacts``.
    The records of trials that were skipped, so that nothing was measured, and are not planned any more: such as those
    for want of a setting that ended well, where one has by now. Whatever was measured stays.
    """
    before, plan = documents.trial_documents(earlier), ledger.plan
    for trial_id, document in before.items():
        if trial_id not in plan.by_id:
            _withdraw(ledger, trial_id)
        elif document["is_parent"] and trial_id not in plan.parents and not keep_artifacts:
            shutil.rmtree(ledger.artifact_dir(trial_id), ignore_errors=True)


def _withdraw(ledger: Ledger, trial_id: str) -> None:
    with suppress(InputError):
        if (head := ledger.head(trial_id)) is not None and head.status == "skipped":
            (ledger.trial_dir(trial_id) / RECORD_FILE).unlink(missing_ok=True)
