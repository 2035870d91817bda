"""The driver: hands ready trials to an executor until none is left, and notices lost ones.

The ledger holds all of its state, so it may be killed at any moment and started again. Several drivers may work on one
ledger. Each waits for the trials of the others, and takes them over if their driver dies.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

from harness.errors import InputError
from harness.files import PROGRESS_FILE
from harness.ledger.ledger import Ledger
from harness.results.record import Record
from harness.runner.consequences import Consequences
from harness.runner.endings import TAKEN_AWAY, Ending, record_of_loss
from harness.runner.executors import Executor, Job
from harness.runner.schedule import Schedule
from harness.sweeps.plan import Planned

_POLL_S = 0.05
#: In polls: how often the driver reads the progress of its trials, and how often it checks the trials of others.
_OFTEN, _SELDOM = 5, 20
#: How many times one run starts a trial that ends without a record. What its user interrupts ends the run itself.
_ATTEMPTS = 3


@dataclass
class Running:
    """A trial in the hands of an executor."""

    row: Planned
    job: Job
    since: float = field(default_factory=time.monotonic)
    """Monotonic seconds."""
    progress: Mapping[str, Any] = field(default_factory=dict)
    """The last progress that the notebook wrote: step, steps, loss, phase; empty at first."""


@dataclass
class Board:
    """The state of a run, as a watcher shows it."""

    jobs: int
    ended: Counter[str] = field(default_factory=Counter)
    """Status -> trials."""
    running: dict[str, Running] = field(default_factory=dict)
    waiting: Collection[Planned] = ()
    """The trials without a record: running, queued, or not yet handed out."""


class Watcher(Protocol):
    """Hears what happens, in this order: started, ticks, ended."""

    def started(self, row: Planned) -> None: ...
    def ended(self, record: Record) -> None:
        """``record`` comes with its outcome where it can be read."""

    def tick(self, board: Board) -> None: ...


def drive(
    ledger: Ledger,
    only: Collection[str],
    executor: Executor,
    jobs: int,
    watcher: Watcher,
    keep_artifacts: bool = True,
) -> None:
    """Run every trial of ``only`` that has no record; ``jobs`` is how many the executor runs at a time.

    Without ``keep_artifacts``, a parent's artefacts are deleted when no trial needs them any more.

    Returns when every trial has a record, and leaves the executor open. After an interrupt, which raises
    KeyboardInterrupt here, closing it stops the running trials without a record.
    """
    rows = [row for row in ledger.plan.rows if row.trial_id in only]
    driver = _Driver(ledger, rows, executor, Board(jobs), watcher, Consequences(ledger, keep_artifacts))
    for tick in count():
        driver.step(tick)
        watcher.tick(driver.board)
        if not driver.board.waiting:
            return
        time.sleep(_POLL_S)


class _Driver:
    """One run. A step looks only at its own jobs, and at no more trials than it can start.

    Anything else would leave slots idle when ten thousand trials wait in a folder on a server.
    """

    def __init__(
        self,
        ledger: Ledger,
        rows: Sequence[Planned],
        executor: Executor,
        board: Board,
        watcher: Watcher,
        consequences: Consequences,
    ) -> None:
        self.board = board
        self._ledger = ledger
        self._executor = executor
        self._watcher = watcher
        self._consequences = consequences
        self._schedule = Schedule(rows)
        self._waiting = {row.trial_id: row for row in rows}
        self._queued: dict[str, Running] = {}
        self._over: dict[str, tuple[Running, Ending]] = {}
        """Jobs that have ended, and whose trials have no record yet."""
        self._fruitless: Counter[str] = Counter()
        """Trial -> jobs of this run that ended without a record."""
        self._elsewhere: dict[str, Planned] = {}
        """Trials of other drivers, as far as this one can tell: their claim lives, or a parent has one."""
        board.waiting = self._waiting.values()

    def step(self, tick: int) -> None:
        self._reap()
        if tick % _SELDOM == 0:
            self._look_elsewhere()
        self._hand_out()
        self._begin()
        if tick % _OFTEN == 0:
            for trial_id, running in self.board.running.items():
                running.progress = _progress(self._ledger, trial_id) or running.progress

    def _reap(self) -> None:
        for trial_id, running in list(self.board.running.items()):
            if (ending := running.job.ended()) is not None:
                del self.board.running[trial_id]
                self._over[trial_id] = running, ending
                self._conclude(trial_id)

    def _conclude(self, trial_id: str) -> None:
        """Record a trial whose job has ended, or let it run again; nothing while its claim looks alive.

        On another host, only a missing heartbeat shows that the process is gone.
        """
        running, ending = self._over[trial_id]
        if not self._ledger.is_done(trial_id):
            if self._ledger.is_claimed(trial_id):
                return
            if ending.status == "ok" and ending != TAKEN_AWAY:
                self._fruitless[trial_id] += 1
                ending = _of_attempts(self._fruitless[trial_id], ending)
            if ending.status != "ok":
                self._ledger.finish(record_of_loss(self._ledger, running.row, ending))
        del self._over[trial_id]
        self._place(running.row)

    def _look_elsewhere(self) -> None:
        for trial_id in list(self._over):
            self._conclude(trial_id)
        for row in list(self._elsewhere.values()):
            self._place(row)

    def _hand_out(self) -> None:
        room = self._executor.room()
        ready: list[Planned] = []
        while len(ready) < room and (row := self._schedule.take()) is not None:
            if self._may_start(row):
                ready.append(row)
        if ready:
            for row in ready:
                self._ledger.prepare(row)
            jobs = self._executor.submit([self._ledger.trial_dir(row.trial_id) for row in ready])
            self._queued |= {row.trial_id: Running(row, job) for row, job in zip(ready, jobs, strict=False)}
            for row in ready[len(jobs) :]:
                self._schedule.give_back(row)

    def _begin(self) -> None:
        for trial_id in [trial_id for trial_id, handed in self._queued.items() if not handed.job.waits()]:
            began = self.board.running[trial_id] = self._queued.pop(trial_id)
            began.since = time.monotonic()
            self._watcher.started(began.row)

    def _place(self, row: Planned) -> None:
        """Let a row run in its turn if it should run at all and no other driver has it."""
        if self._may_start(row):
            self._schedule.give_back(row)

    def _may_start(self, row: Planned) -> bool:
        """Whether the ledger lets the row start now; otherwise it has ended, or the driver looks at it again later."""
        trial_id = row.trial_id
        self._elsewhere.pop(trial_id, None)
        if trial_id not in self._waiting:
            return False
        reason = row.reason or self._consequences.obstacle(row)
        if reason is not None:
            self._ledger.skip(row, reason)
        if (record := self._ledger.ended(trial_id)) is not None:
            self._end(row, record)
            return False
        lost = [parent for parent in row.trial.parent_ids if not self._ledger.is_done(parent)]
        for parent in lost:
            self._repeat(parent, row)
        if lost or self._ledger.is_claimed(trial_id):
            self._elsewhere[trial_id] = row
            return False
        return True

    def _repeat(self, trial_id: str, child: Planned) -> None:
        """Let a parent run again that had ended, and whose record is gone."""
        if trial_id not in self._waiting:
            line = f"trial {trial_id} runs again: its record is gone, and trial {child.trial_id} starts from it"
            print(line, file=sys.stderr, flush=True)
            row = self._waiting[trial_id] = self._ledger.row(trial_id)
            self._place(row)

    def _end(self, row: Planned, record: Record) -> None:
        del self._waiting[record.trial_id]
        self.board.ended[record.status] += 1
        self._consequences.has_ended(row, record)
        self._watcher.ended(_whole(self._ledger, record))
        for child in self._schedule.ended(record.trial_id):
            if record.status != "ok" and self._consequences.obstacle(child) is not None:
                self._may_start(child)  # told at once, room or not


def _of_attempts(attempts: int, last: Ending) -> Ending:
    """The ending of a trial that was started so many times without a record; ``ok`` if it may start again."""
    if attempts < _ATTEMPTS:
        return last
    how = "" if last.reason is None else f" (at last, {last.reason})"
    return Ending("failed", f"the trial ended {attempts} times without a record{how}; see log.txt")


def _whole(ledger: Ledger, record: Record) -> Record:
    """``record`` with what was measured, if it ended well and can be read: what is wrong with it, the tables tell."""
    if record.status != "ok":
        return record
    with suppress(InputError):
        return ledger.record(record.trial_id) or record
    return record


def _progress(ledger: Ledger, trial_id: str) -> dict[str, Any] | None:
    try:
        progress = json.loads((ledger.trial_dir(trial_id) / PROGRESS_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return progress if isinstance(progress, dict) else None
