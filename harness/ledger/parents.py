"""What a trial starts from is looked at before it starts: records of parents, and every byte of their artefacts."""

from __future__ import annotations

from harness.errors import InputError
from harness.files import damaged_file
from harness.ledger.ledger import Ledger, say
from harness.trial import Trial


def require(ledger: Ledger, trial: Trial) -> None:
    """Raise :class:`InputError` if a parent has to run first: its record is gone, or its artefact is damaged or gone.

    The record of the parent with that artefact is set aside.
    """
    chosen = ledger.chosen_parents(trial)
    lost = [parent for parent in trial.parent_ids if ledger.ended(parent) is None]
    for parent in dict.fromkeys(chosen.values()):
        if (fault := _fault(ledger, parent)) is not None and ledger.set_aside(parent) is not None:
            say(f"{fault}; trial {parent} runs again")
            lost.append(parent)
    if lost:
        raise InputError(f"trial {trial.trial_id}: its parent {lost[0]} has to run first; run the sweep again")


def _fault(ledger: Ledger, trial_id: str) -> str | None:
    """What is wrong with the artefact of a trial that ended well; None if nothing is, or if it never saved one."""
    folder = ledger.artifact_dir(trial_id)
    if not folder.exists():
        record = ledger.ended(trial_id, head=False)
        columns = record.outcome.columns if record is not None and record.outcome is not None else {}
        return None if columns.get("checkpoint_bytes") is None else f"{folder}: gone"
    name = damaged_file(folder)
    return None if name is None else f"{folder / name}: not what its checksum says"
