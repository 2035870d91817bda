"""The ledger: the folder of a sweep's trials, and the only state there is.

results/<sweep>/
  sweep.yaml  plan.json  tables.json
  trials/<trial_id>/  trial.json  claim.<n>.json  record.json  notebook.ipynb  log.txt
  artifacts/<trial_id>/

A trial is done if and only if its ``record.json`` exists. A record that is damaged, of another trial or of an older
schema is set aside, so that its trial runs again. ``trial.json`` holds the trial's row of the plan, so that one of ten
thousand trials need not read the plan of all. Several drivers, on several machines, may work on one ledger over a
shared file system at once:

* **Claims.** Attempt *n* on a trial belongs to whoever creates ``claim.<n>.json``; the file system lets only one do
  so. When its owner is gone (:mod:`harness.ledger.claims`) anyone may create ``claim.<n+1>.json``. Nothing is ever
  deleted or renamed, so there is no moment at which two takers can both succeed, and the claims tell the story of the
  attempts.
* **Records.** ``record.json`` appears by a hard link, which fails where there is one: the first to finish wins.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.errors import InputError
from harness.files import (
    ARTIFACTS_DIR,
    PLAN_FILE,
    RECORD_FILE,
    SWEEP_FILE,
    TRIALS_DIR,
    create_atomically,
    missing_file,
    remove_dead_parts,
    write_atomically,
)
from harness.ledger import documents
from harness.ledger.claims import Claim, OwnerWatch
from harness.ledger.records import Damaged, read_record, read_records
from harness.ledger.scan import Stamp, names, side_by_side, stamp, text_of
from harness.ledger.tables import read_sources
from harness.results.parents import preferred
from harness.results.record import Record
from harness.sweeps.plan import Plan, Planned
from harness.trial import Trial

_CLAIM = re.compile(r"claim\.([1-9][0-9]{0,8})\.json")


class Ledger:
    """The trials of one sweep on disk."""

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        environment: Mapping[str, str | bool | None] | None = None,
        sweep_yaml: str | None = None,
    ) -> None:
        self.folder = folder
        self.plan = plan
        self._environment = dict(environment or {})
        self._watch = OwnerWatch()
        self._sweep_yaml = sweep_yaml
        self._sweep_stamp: Stamp | None = None
        """That of ``sweep.yaml`` when it was last written or found to be one."""

    @classmethod
    def create(
        cls, folder: Path, plan: Plan, sweep_yaml: str, environment: Mapping[str, str | bool | None] | None = None
    ) -> Ledger:
        """Write ``plan`` into ``folder``, which may be new or hold an earlier plan of the same sweep.

        Trials are added and never removed: a trial outside the new plan keeps its record. A planned trial with the
        status ``skipped`` runs after all, and a record that cannot be used is set aside. ``environment`` goes into the
        records of skipped trials. Raises :class:`InputError` if the folder holds another sweep or what a newer
        TuneBench wrote; nothing is changed then. Raises OSError if the folder cannot be written.
        """
        ledger = cls(folder, plan, environment, sweep_yaml)
        earlier = documents.earlier_plan(folder)
        if (name := documents.sweep_name(folder, earlier)) not in (None, plan.sweep):
            raise InputError(f"{folder}: holds the sweep '{name}', not '{plan.sweep}'; choose another folder")
        sources = read_sources(folder)
        whole = {} if sources is None else sources.whole()
        heads = side_by_side(lambda row: ledger._inspected(row.trial_id, whole), plan.rows)
        (folder / TRIALS_DIR).mkdir(parents=True, exist_ok=True)
        document = documents.plan_document(plan)
        if not earlier and (folder / PLAN_FILE).exists():
            say(f"{folder / PLAN_FILE}: cannot be read; written anew")
        ledger._add(document["trials"], documents.trial_documents(earlier))
        side_by_side(lambda planned: ledger._settle(*planned), list(zip(plan.rows, heads, strict=True)))
        remove_dead_parts(folder)
        ledger._write_sweep()
        if document != earlier:
            write_atomically(folder / PLAN_FILE, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        return ledger

    @classmethod
    def open(cls, folder: Path) -> Ledger:
        """The ledger in ``folder`` with its latest plan. Raises :class:`InputError` if none can be read."""
        return cls(folder, documents.read_plan(folder))

    @classmethod
    def of_trial(cls, trial_dir: Path) -> tuple[Ledger, bool]:
        """The ledger of a single trial, and whether another trial needs its artefact.

        The ledger's plan has that one row. Raises :class:`InputError` if the folder is not that of a planned trial.
        """
        folder = trial_dir.parent.parent
        try:
            own = documents.read_trial(trial_dir)
            return cls(folder, Plan(own.sweep, (own.row,))), own.is_parent
        except InputError:  # of an older version, or lost: the plan has it too
            whole = cls.open(folder)
            row = whole.row(trial_dir.name)
            return cls(folder, Plan(whole.plan.sweep, (row,))), row.trial_id in whole.plan.parents

    def prepare(self, row: Planned) -> None:
        """Write anew what the process of the trial reads, if it was lost or damaged since the trial was planned."""
        try:
            documents.read_trial(self.trial_dir(row.trial_id))
        except InputError:
            is_parent = row.trial_id in self.plan.parents
            document = documents.trial_document(self.plan.sweep, is_parent, row.document())
            documents.write_trial(self.trial_dir(row.trial_id), document)
        path = self.folder / SWEEP_FILE
        if (now := stamp(path)) is None or now != self._sweep_stamp:
            if documents.is_sweep(path):  # another driver's
                self._sweep_stamp = now
            else:
                self._write_sweep()

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
        path.parent.mkdir(parents=True, exist_ok=True)
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
        except (OSError, ValueError, KeyError, TypeError):  # its owner died before it wrote that
            return None

    def finish(self, record: Record) -> bool:
        """Write the record of a trial. False if there is one already: the first record stays, unless it is damaged."""
        path = self.trial_dir(record.trial_id) / RECORD_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_dead_parts(path.parent)
        for _ in range(2):
            try:
                create_atomically(path, text_of(record))
            except FileExistsError:
                if self.ended(record.trial_id) is not None:
                    return False
            else:
                return True
        return False

    def record(self, trial_id: str) -> Record | None:
        """The record of one trial; None if there is none. Raises :class:`InputError` if it cannot be used."""
        return read_record(self.trial_dir(trial_id) / RECORD_FILE)

    def head(self, trial_id: str) -> Record | None:
        """The record of one trial without its outcome, from a small read; otherwise like :meth:`record`."""
        return read_record(self.trial_dir(trial_id) / RECORD_FILE, head=True)

    def ended(self, trial_id: str, head: bool = True) -> Record | None:
        """The record of one trial, or its ``head``; None if the trial has to run.

        A record that cannot be used is set aside, and said.
        """
        try:
            return self.head(trial_id) if head else self.record(trial_id)
        except Damaged as damage:
            self._set_aside_damaged(trial_id, damage)
            return None

    def chosen_parents(self, trial: Trial) -> dict[str, str]:
        """Role -> id of the trial that fills it (:func:`harness.results.parents.preferred`).

        A role without a candidate that ended well is left out.
        """
        chosen = {}
        for role, candidates in trial.parents.items():
            ended = (self.ended(candidate, head=False) for candidate in candidates)
            if (best := preferred([record for record in ended if record is not None])) is not None:
                chosen[role] = best.trial_id
        return chosen

    def heads(self) -> list[Record | None]:
        """How each planned trial ended, in the order of the plan; None if it has not ended. See :meth:`ended`."""
        return side_by_side(lambda row: self.ended(row.trial_id), self.plan.rows)

    def records(self) -> Iterator[Record]:
        """Every record: the planned trials in their order, then all others."""
        return read_records(self.folder)

    def status(self) -> Counter[str]:
        """How many planned trials have each status, with ``running`` and ``pending`` for those without a record.

        It makes small reads only, so it may be called at any moment, from any machine with access to the folder. A
        record that cannot be used counts as none, and is said.
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
        """Let the parents of these trials run again if files of their artefacts are needed but were deleted.

        A trial may be added to the plan after its parent ran without children, or after the parent's other children
        ended. The repeated parents give the same numbers. Other records stay as they are. Returns the ids of the trials
        to run again.
        """
        again: set[str] = set()
        waiting = [row for row in self.pending() if row.trial_id in trial_ids]
        while waiting:
            for parent in waiting.pop().trial.parent_ids:
                record = self.ended(parent)
                if record is not None and record.status == "ok" and self._lacks_artifact(parent):
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
                estimated_bytes=row.estimated_bytes,
                environment=self._environment,
            )
        )

    def _state(self, row: Planned) -> str:
        try:
            if (record := self.head(row.trial_id)) is not None:
                return record.status
        except Damaged as damage:
            say(str(damage))
        return "running" if self.is_claimed(row.trial_id) else "pending"

    def _lacks_artifact(self, trial_id: str) -> bool:
        folder = self.artifact_dir(trial_id)
        return not folder.exists() or missing_file(folder) is not None

    def _write_sweep(self) -> None:
        if self._sweep_yaml is not None:
            write_atomically(self.folder / SWEEP_FILE, self._sweep_yaml)
            self._sweep_stamp = stamp(self.folder / SWEEP_FILE)

    def _add(self, rows: Sequence[Mapping[str, Any]], standing: Mapping[str, Mapping[str, Any]]) -> None:
        """Give every trial its folder and ``trial.json``; the trials in ``standing`` have them already."""
        there = names(self.folder / TRIALS_DIR)

        def add(row: Mapping[str, Any]) -> None:
            trial_id = row["trial_id"]
            document = documents.trial_document(self.plan.sweep, trial_id in self.plan.parents, row)
            if trial_id not in there or standing.get(trial_id) != document:
                documents.write_trial(self.trial_dir(trial_id), document)

        side_by_side(add, rows)

    def _inspected(self, trial_id: str, whole: Mapping[str, Stamp]) -> Record | Damaged | None:
        """The head of a record, or its fault; all of a record is read, but for those with a stamp in ``whole``."""
        path = self.trial_dir(trial_id) / RECORD_FILE
        seen = whole.get(trial_id)
        try:
            record = read_record(path, head=seen is not None and seen == stamp(path))
        except Damaged as damage:
            return damage
        return None if record is None else record.model_copy(update={"outcome": None})

    def _settle(self, row: Planned, record: Record | Damaged | None) -> None:
        """Fit the record to the plan: remove an unusable or outdated one, and write that of a row that cannot run."""
        if isinstance(record, Damaged):
            self._set_aside_damaged(row.trial_id, record)
            record = None
        if record is not None and record.status == "skipped" and not record.attempt and record.reason != row.reason:
            # Nothing was measured: nothing is lost. A trial that was started and could not run as asked has run.
            (self.trial_dir(row.trial_id) / RECORD_FILE).unlink(missing_ok=True)
            record = None
        if record is None and row.reason is not None:
            self.skip(row, row.reason)

    def _set_aside_damaged(self, trial_id: str, damage: Damaged) -> None:
        """Set a record aside that cannot be used, unless another driver has put a new one in its place by now."""
        if (aside := self.set_aside(trial_id)) is None:
            return
        with suppress(Damaged):
            if read_record(aside) is not None:
                with suppress(FileExistsError):
                    create_atomically(self.trial_dir(trial_id) / RECORD_FILE, aside.read_text(encoding="utf-8"))
                return
        say(f"{damage.fault}; set aside as {aside.name}, and the trial runs again")

    def _last_claim(self, trial_id: str) -> Path | None:
        folder = self.trial_dir(trial_id)
        claims = (folder / name for name in names(folder) if _CLAIM.fullmatch(name))
        return max(claims, key=_attempt, default=None)


def _attempt(claim: Path) -> int:
    return int(claim.name.split(".")[1])


def say(line: str) -> None:
    """Tell the user, without mixing with what a command prints; in the process of a trial, its log."""
    print(line, file=sys.stderr, flush=True)
