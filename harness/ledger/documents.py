"""The files of a ledger that say what is planned: ``plan.json``, ``sweep.yaml``, and each trial's ``trial.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import InputError
from harness.files import PLAN_FILE, SWEEP_FILE, TRIAL_FILE, TRIALS_DIR, write_atomically
from harness.ledger.scan import names
from harness.results.schema import SCHEMA_VERSION
from harness.sweeps import spec
from harness.sweeps.plan import Later, Plan, Planned
from harness.trial import PROTOCOL_VERSION

#: What reading a document that is not one may raise.
_NOT_ONE = (InputError, KeyError, TypeError, ValueError, AttributeError, RecursionError)

_ANEW = "run the sweep again to write it anew"


@dataclass(frozen=True)
class TrialDocument:
    """What ``trial.json`` holds, so that one of ten thousand trials need not read the plan of all."""

    sweep: str
    is_parent: bool
    """Whether another trial needs its artefact."""
    row: Planned


def plan_document(plan: Plan) -> dict[str, Any]:
    """What ``plan.json`` holds."""
    return {"schema_version": SCHEMA_VERSION, **plan.document()}


def read_plan(folder: Path) -> Plan:
    """The plan in ``folder``. Raises :class:`InputError` if there is none, or none that can be read."""
    path = folder / PLAN_FILE
    if not path.is_file():
        raise InputError(f"{folder}: no {PLAN_FILE} here; is this the folder of a sweep, such as results/quick?")
    document = read_json(path)
    try:
        later = tuple(map(Later.from_document, document.get("later", ())))
        plan = Plan(document["sweep"], tuple(map(Planned.from_document, document["trials"])), later=later)
        damaged = [row["trial_id"] for row in document["trials"] if row["trial_id"] not in plan.by_id]
    except _NOT_ONE as error:
        raise InputError(f"{path}: not a plan: {type(error).__name__}; {_ANEW}") from error
    if damaged:
        raise InputError(f"{path}: not a plan: trial '{damaged[0]}' has the specification of another one; {_ANEW}")
    return plan


def earlier_plan(folder: Path) -> dict[str, Any]:
    """The document of the plan that ``folder`` holds; empty if there is none that can be read.

    Raises :class:`InputError` if a newer TuneBench wrote it.
    """
    path = folder / PLAN_FILE
    try:
        document = read_json(path)
        newest = max((row["trial"]["protocol_version"] for row in document["trials"]), default=0)
        versions = {
            "schema": (document.get("schema_version", 0), SCHEMA_VERSION),
            "protocol": (newest, PROTOCOL_VERSION),
        }
        newer = [(name, theirs, ours) for name, (theirs, ours) in versions.items() if theirs > ours]
    except _NOT_ONE:
        return {}
    for name, theirs, ours in newer:
        raise InputError(
            f"{path}: {name} version {theirs} is that of a newer TuneBench, this one writes {ours}; "
            f"use the newer one, or another folder"
        )
    return document


def sweep_name(folder: Path, plan: Mapping[str, Any]) -> str | None:
    """The name of the sweep that ``folder`` holds, from its earlier ``plan`` or what else is there; None if unknown."""
    if isinstance(name := plan.get("sweep"), str):
        return name
    try:
        return spec.load(folder / SWEEP_FILE).name
    except (ValueError, OSError, RecursionError):
        pass
    for trial_id in sorted(names(folder / TRIALS_DIR)):
        try:
            return read_trial(folder / TRIALS_DIR / trial_id).sweep
        except _NOT_ONE:
            continue
    return None


def read_trial(trial_dir: Path) -> TrialDocument:
    """What ``trial.json`` says. Raises :class:`InputError` if it is lost, damaged, or that of another trial."""
    path = trial_dir / TRIAL_FILE
    document = read_json(path)
    try:
        row = Planned.from_document(document["row"])
        found = TrialDocument(document["sweep"], document["is_parent"], row)
    except _NOT_ONE as error:
        raise InputError(f"{path}: not that of a trial: {type(error).__name__}; {_ANEW}") from error
    if row.trial_id != trial_dir.name:
        raise InputError(f"{path}: is that of trial '{row.trial_id}', not of '{trial_dir.name}'; {_ANEW}")
    return found


def write_trial(trial_dir: Path, document: Mapping[str, Any]) -> None:
    """Write ``trial.json``. The plan is what has to last: what is lost with the machine's power is read from there."""
    trial_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(trial_dir / TRIAL_FILE, json.dumps(document, indent=1, ensure_ascii=False) + "\n", durable=False)


def trial_document(sweep: str, is_parent: bool, row: Mapping[str, Any]) -> dict[str, Any]:
    """What ``trial.json`` holds; ``row`` is the document of a row of the plan."""
    return {"sweep": sweep, "is_parent": is_parent, "row": row}


def trial_documents(plan: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The content of each ``trial.json`` by trial id, for the document of a plan; empty if ``plan`` is not one."""
    try:
        rows = plan["trials"]
        roles = [ids for row in rows for ids in row["trial"]["parents"].values()]
        roles += [later["starts_from"] for later in plan.get("later", ())]
        parents = {parent for ids in roles for parent in ([ids] if isinstance(ids, str) else ids)}
        return {row["trial_id"]: trial_document(plan["sweep"], row["trial_id"] in parents, row) for row in rows}
    except (KeyError, TypeError, AttributeError):
        return {}


def is_sweep(path: Path) -> bool:
    """Whether a file is a sweep that can be read."""
    try:
        spec.load(path)
    except (ValueError, OSError, RecursionError):
        return False
    return True


def read_json(path: Path) -> dict[str, Any]:
    """A mapping in a JSON file. Raises :class:`InputError` for anything else."""
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON; {_ANEW}") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}: not a mapping; {_ANEW}")
    return document
