"""The ledger: the folder of a sweep's trials, and the only state there is.

results/<sweep>/
  sweep.yaml  plan.json
  trials/<trial_id>/  trial.json  claim.<n>.json  record.json  notebook.ipynb  log.txt
  artifacts/<trial_id>/

A trial is done if and only if its ``record.json`` exists. ``trial.json`` holds the trial's row of the plan, so that
one of ten thousand trials need not read the plan of all. Several drivers, on several machines, may work on one
ledger over a shared file system at once:

* **Claims.** Attempt *n* on a trial belongs to whoever creates ``claim.<n>.json``; the file system lets only one do
  so. When its owner is gone (:mod:`harness.ledger.claims`) anyone may create ``claim.<n+1>.json``. Nothing is ever
  deleted or renamed, so there is no moment at which two takers can both succeed, and the claims tell the story of the
  attempts.
* **Records.** ``record.json`` appears by a hard link, which fails where there is one: the first to finish wins.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.errors import InputError
from harness.files import (
    ARTIFACTS_DIR,
    PLAN_FILE,
    RECORD_FILE,
    SWEEP_FILE,
    TRIAL_FILE,
    TRIALS_DIR,
    create_atomically,
    write_atomically,
)
from harness.ledger.claims import Claim, OwnerWatch
from harness.ledger.records import read_record, read_records
from harness.ledger.scan import names, side_by_side
from harness.results.parents import preferred
from harness.results.record import Record
from harness.sweeps.plan import Plan, Planned
from harness.trial import Trial


class Ledger:
    """The trials of one sweep on disk."""

    def __init__(self, folder: Path, plan: Plan, environment: Mapping[str, str | bool | None] | None = None) -> None:
        self.folder = folder
        self.plan = plan
        self._environment = dict(environment or {})
        self._watch = OwnerWatch()

    @classmethod
    def create(
        cls, folder: Path, plan: Plan, sweep_yaml: str, environment: Mapping[str, str | bool | None] | None = None
    ) -> Ledger:
        """Write ``plan`` into ``folder``, which may be new or hold an earlier plan of the same sweep.

        Trials are added and never removed: a trial outside the new plan keeps its record. A planned trial with the
        status ``skipped`` runs after all, and an unreadable record is set aside. ``environment`` goes into the records
        of skipped trials. Raises :class:`InputError` if the folder holds another sweep, and OSError if it cannot be
        written.
        """
        ledger = cls(folder, plan, environment)
        earlier = _read_json(folder / PLAN_FILE) if (folder / PLAN_FILE).exists() else {}
        if earlier and (name := earlier.get("sweep")) != plan.sweep:
            raise InputError(f"{folder}: holds the sweep '{name}', not '{plan.sweep}'; choose another folder")
        (folder / TRIALS_DIR).mkdir(parents=True, exist_ok=True)
        document = plan.document()
        ledger._add(document["trials"], _standing(earlier))
        side_by_side(ledger._settle, plan.rows)
        write_atomically(folder / SWEEP_FILE, sweep_yaml)
        if document != earlier:
            write_atomically(folder / PLAN_FILE, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        return ledger

    @classmethod
    def open(cls, folder: Path) -> Ledger:
        """The ledger in ``folder`` with its latest plan. Raises :class:`InputError` if there is none."""
        if not (folder / PLAN_FILE).is_file():
            raise InputError(f"{folder}: no {PLAN_FILE} here; is this the folder of a sweep, such as results/quick?")
        document = _read_json(folder / PLAN_FILE)
        try:
            return cls(folder, Plan(document["sweep"], tuple(map(Planned.from_document, document["trials"]))))
        except (KeyError, TypeError, ValueError) as error:
            mend = "run the sweep again, which writes it anew"
            raise InputError(f"{folder / PLAN_FILE}: not a plan, or that of another version; {mend}") from error

    @classmethod
    def of_trial(cls, trial_dir: Path) -> tuple[Ledger, bool]:
        """The ledger of a single trial, and whether another trial needs its artefact.

        The ledger's plan has that one row. Raises :class:`InputError` if the folder is not that of a planned trial.
        """
        folder = trial_dir.parent.parent
        try:
            document = _read_json(trial_dir / TRIAL_FILE)
            row = Planned.from_document(document["row"])
            return cls(folder, Plan(document["sweep"], (row,))), document["is_parent"]
        except (InputError, KeyError, TypeError, ValueError):  # of an older version, or lost: the plan has it too
            whole = cls.open(folder)
            row = whole.row(trial_dir.name)
            return cls(folder, Plan(whole.plan.sweep, (row,))), row.trial_id in whole.plan.parents

    def trial_dir(self, trial_id: str) -> Path:
        """The folder of one trial."""
        return self.folder / TRIALS_DIR / trial_id

    def artifact_dir(self, trial_id: str) -> Path:
        """The folder of the artefact that a trial saves for later trials or the user. It may not exist."""
        return self.folder / ARTIFACTS_DIR / trial_id

    def row(self, trial_id: str) -> Planned:
        """The row of the plan with this id. Raises :class:`InputError` when it is not planned."""
        if trial_id not in self.plan.by_id:
            raise InputError(f"{self.folder}: trial '{trial_id}' is not in {PLAN_FILE}")
        return self.plan.by_id[trial_id]

    def is_done(self, trial_id: str) -> bool:
        """Whether the trial has a record."""
        return (self.trial_dir(trial_id) / RECORD_FILE).exists()

    def pending(self) -> list[Planned]:
        """The planned trials that can run and have no record, in the order of the plan."""
        rows = self.plan.runnable
        done = side_by_side(lambda row: self.is_done(row.trial_id), rows)
        return [row for row, is_done in zip(rows, done, strict=True) if not is_done]

    def claim(self, trial_id: str) -> Claim | None:
        """Claim one trial; None if it is done, or if a live driver works on it."""
        last = self._last_claim(trial_id)
        if self.is_done(trial_id) or (last is not None and self._watch.alive(last)):
            return None
        attempt = 1 if last is None else _attempt(last) + 1
        path = self.trial_dir(trial_id) / f"claim.{attempt}.json"
        claim = Claim(trial_id, path, attempt, datetime.now(UTC))
        try:
            claim.write()
        except FileExistsError:
            return None
        if self.is_done(trial_id):  # finished between the first look and the claim
            return None
        return claim

    def is_claimed(self, trial_id: str) -> bool:
        """Whether a live driver works on the trial."""
        last = self._last_claim(trial_id)
        return last is not None and self._watch.alive(last)

    def attempts(self, trial_id: str) -> int:
        """How many times the trial was started."""
        last = self._last_claim(trial_id)
        return 0 if last is None else _attempt(last)

    def started_at(self, trial_id: str) -> datetime | None:
        """When the last attempt on the trial began; None if there was none."""
        last = self._last_claim(trial_id)
        try:
            return None if last is None else datetime.fromisoformat(json.loads(last.read_bytes())["started_at"])
        except ValueError:  # its owner died before it wrote that
            return None

    def finish(self, record: Record) -> bool:
        """Write the record of a trial. False if there is one already: the first record stays."""
        path = self.trial_dir(record.trial_id) / RECORD_FILE
        try:
            create_atomically(path, record.model_dump_json())
        except FileExistsError:
            return False
        return True

    def record(self, trial_id: str) -> Record | None:
        """The record of one trial; None if there is none. Raises :class:`InputError` if it cannot be read."""
        return read_record(self.trial_dir(trial_id) / RECORD_FILE)

    def head(self, trial_id: str) -> Record | None:
        """The record of one trial without its outcome, from a small read; otherwise like :meth:`record`."""
        return read_record(self.trial_dir(trial_id) / RECORD_FILE, head=True)

    def chosen_parents(self, trial: Trial) -> dict[str, str]:
        """Role -> id of the trial that fills it (:func:`harness.results.parents.preferred`).

        A role without a candidate that ended well is left out.
        """
        chosen = {}
        for role, candidates in trial.parents.items():
            ended = (self.record(candidate) for candidate in candidates)
            if (best := preferred([record for record in ended if record is not None])) is not None:
                chosen[role] = best.trial_id
        return chosen

    def heads(self) -> list[Record | None]:
        """How each planned trial ended, in the order of the plan; None if it has not ended."""
        return side_by_side(lambda row: self.head(row.trial_id), self.plan.rows)

    def records(self) -> Iterator[Record]:
        """Every record: the planned trials in their order, then all others."""
        return read_records(self.folder)

    def status(self) -> Counter[str]:
        """How many planned trials have each status, with ``running`` and ``pending`` for those without a record.

        It makes small reads only, so it may be called at any moment, from any machine with access to the folder.
        """
        return Counter(side_by_side(self._state, self.plan.rows))

    def set_aside(self, trial_id: str) -> Path | None:
        """Rename a trial's record so that the trial runs again; the new name, or None if there was no record."""
        path = self.trial_dir(trial_id) / RECORD_FILE
        aside = next(
            name for n in range(1, 1_000_000) if not (name := path.with_name(f"record.aside.{n}.json")).exists()
        )
        try:
            path.rename(aside)
        except FileNotFoundError:
            return None
        return aside

    def set_aside_parents(self, trial_ids: Collection[str]) -> set[str]:
        """Let the parents of these trials run again if their checkpoints are needed but were deleted.

        A trial may be added to the plan after its parent ran without children, or after the parent's other children
        ended. The repeated parents give the same numbers. Other records stay as they are. Returns the ids of the trials
        to run again.
        """
        again: set[str] = set()
        waiting = [row for row in self.pending() if row.trial_id in trial_ids]
        while waiting:
            for parent in waiting.pop().trial.parent_ids:
                record = self.head(parent)
                if record is not None and record.status == "ok" and not self.artifact_dir(parent).exists():
                    self.set_aside(parent)
                    again.add(parent)
                    waiting.append(self.row(parent))
        return again

    def skip(self, row: Planned, reason: str) -> bool:
        """Write the record of a trial that cannot run."""
        return self.finish(
            Record(
                trial_id=row.trial_id,
                sweep=self.plan.sweep,
                trial=row.trial,
                status="skipped",
                reason=reason,
                started_at=datetime.now(UTC),
                task_kind=row.task_kind,
                model_family=row.model_family,
                environment=self._environment,
            )
        )

    def _state(self, row: Planned) -> str:
        if (record := self.head(row.trial_id)) is not None:
            return record.status
        return "running" if self.is_claimed(row.trial_id) else "pending"

    def _add(self, rows: Sequence[Mapping[str, Any]], standing: Mapping[str, Mapping[str, Any]]) -> None:
        """Give every trial its folder and ``trial.json``; the trials in ``standing`` have them already."""
        there = names(self.folder / TRIALS_DIR)

        def add(row: Mapping[str, Any]) -> None:
            trial_id = row["trial_id"]
            document = {"sweep": self.plan.sweep, "is_parent": trial_id in self.plan.parents, "row": row}
            if trial_id in there and standing.get(trial_id) == document:
                return
            folder = self.trial_dir(trial_id)
            folder.mkdir(exist_ok=True)
            # The plan is what has to last: a trial.json that is lost with the machine's power is read from there.
            write_atomically(
                folder / TRIAL_FILE, json.dumps(document, indent=1, ensure_ascii=False) + "\n", durable=False
            )

        side_by_side(add, rows)

    def _settle(self, row: Planned) -> None:
        """Fit the record to the plan: remove an unreadable or outdated one, and write that of a row that cannot run."""
        try:
            record = self.head(row.trial_id)
        except InputError:
            self.set_aside(row.trial_id)
            record = None
        if record is not None and record.status == "skipped" and record.reason != row.reason:
            # Nothing was measured: nothing is lost.
            (self.trial_dir(row.trial_id) / RECORD_FILE).unlink(missing_ok=True)
            record = None
        if record is None and row.reason is not None:
            self.skip(row, row.reason)

    def _last_claim(self, trial_id: str) -> Path | None:
        folder = self.trial_dir(trial_id)
        claims = (folder / name for name in names(folder) if name.startswith("claim.") and name.endswith(".json"))
        return max(claims, key=_attempt, default=None)


def _attempt(claim: Path) -> int:
    return int(claim.name.split(".")[1])


def _standing(plan: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The content of ``trial.json`` by trial id, for a written plan; empty if ``plan`` is not a plan."""
    try:
        rows = plan["trials"]
        roles = [ids for row in rows for ids in row["trial"]["parents"].values()]
        parents = {parent for ids in roles for parent in ([ids] if isinstance(ids, str) else ids)}
        return {
            row["trial_id"]: {"sweep": plan["sweep"], "is_parent": row["trial_id"] in parents, "row": row}
            for row in rows
        }
    except (KeyError, TypeError, AttributeError):
        return {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}: not a mapping")
    return document
