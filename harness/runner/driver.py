"""The driver: hands ready trials to an executor until nothing is left, and notices what was lost.

It holds no state that is not in the ledger, so it may be killed at any moment and started again, and several may
work on one ledger: what another one runs, this one waits for, and takes over if the other dies.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

from harness.files import PROGRESS_FILE
from harness.ledger.ledger import Ledger
from harness.results.record import Record
from harness.runner.consequences import Consequences
from harness.runner.endings import Ending, record_of_loss
from harness.runner.executors import Executor, Job
from harness.runner.schedule import Schedule
from harness.sweeps.plan import Planned

_POLL_S = 0.05
#: In polls: how often what is shown is read, and how often it is looked at trials that others have.
_OFTEN, _SELDOM = 5, 20


@dataclass
class Running:
    """A trial that an executor has."""

    row: Planned
    job: Job
    since: float = field(default_factory=time.monotonic)
    """Monotonic seconds."""
    progress: Mapping[str, Any] = field(default_factory=dict)
    """What the notebook said last: step, steps, loss, phase; empty until it says something."""


@dataclass
class Board:
    """What a watcher can show."""

    jobs: int
    ended: Counter[str] = field(default_factory=Counter)
    """Status -> trials."""
    running: dict[str, Running] = field(default_factory=dict)
    waiting: Collection[Planned] = ()
    """Without a record: those that run, those in the executor's queue and those not handed out."""


class Watcher(Protocol):
    """Told what happens, in this order: started, ticks, ended."""

    def started(self, row: Planned) -> None: ...
    def ended(self, record: Record) -> None:
        """``record`` is without its outcome."""

    def tick(self, board: Board) -> None: ...


def drive(
    ledger: Ledger,
    only: Collection[str],
    executor: Executor,
    jobs: int,
    watcher: Watcher,
    keep_artifacts: bool = True,
) -> None:
    """Run every trial of ``only`` that has no record; ``jobs`` at a time is what the executor was made for.

    Unless ``keep_artifacts``, what a parent left goes when no trial will start from it any more.

    Returns when all of them have one. On an interrupt the running trials are stopped, without a record, and
    KeyboardInterrupt goes on to the caller.
    """
    rows = [row for row in ledger.plan.rows if row.trial_id in only]
    driver = _Driver(ledger, rows, executor, Board(jobs), watcher, Consequences(ledger, keep_artifacts))
    try:
        for tick in count():
            driver.step(tick)
            watcher.tick(driver.board)
            if not driver.board.waiting:
                return
            time.sleep(_POLL_S)
    finally:
        executor.close()


class _Driver:
    """One run. A step looks at the trials that its own jobs have, and at no more than it can start.

    With ten thousand trials waiting, and a folder on a server, anything else would keep the slots idle.
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
        self._lost: dict[str, tuple[Running, Ending]] = {}
        self._elsewhere: dict[str, Planned] = {}
        """Somebody else's, as far as one knows: their claim lives, or a parent is theirs."""
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
                if ending.status == "ok" or _settle(self._ledger, running, ending):
                    self._place(running.row)
                else:
                    self._lost[trial_id] = running, ending

    def _look_elsewhere(self) -> None:
        for trial_id, (running, ending) in list(self._lost.items()):
            if _settle(self._ledger, running, ending):
                del self._lost[trial_id]
                self._place(running.row)
        for row in list(self._elsewhere.values()):
            self._place(row)

    def _hand_out(self) -> None:
        room = self._executor.room()
        ready: list[Planned] = []
        while len(ready) < room and (row := self._schedule.take()) is not None:
            if self._may_start(row):
                ready.append(row)
        if ready:
            made = self._executor.submit([self._ledger.trial_dir(row.trial_id) for row in ready])
            self._queued |= {row.trial_id: Running(row, job) for row, job in zip(ready, made, strict=False)}
            for row in ready[len(made) :]:
                self._schedule.give_back(row)

    def _begin(self) -> None:
        for trial_id in [trial_id for trial_id, handed in self._queued.items() if not handed.job.waits()]:
            began = self.board.running[trial_id] = self._queued.pop(trial_id)
            began.since = time.monotonic()
            self._watcher.started(began.row)

    def _place(self, row: Planned) -> None:
        """Have a row that is nobody's here run in its turn, if it is to run at all."""
        if self._may_start(row):
            self._schedule.give_back(row)

    def _may_start(self, row: Planned) -> bool:
        """Whether the ledger lets the row start now; if not, it has ended, or is kept to be looked at again."""
        trial_id = row.trial_id
        self._elsewhere.pop(trial_id, None)
        if trial_id not in self._waiting:
            return False
        if (reason := self._consequences.obstacle(row)) is not None:
            self._ledger.skip(row, reason)
        if (record := self._ledger.head(trial_id)) is not None:
            self._end(row, record)
            return False
        if not _is_ready(self._ledger, row):
            self._elsewhere[trial_id] = row
            return False
        return True

    def _end(self, row: Planned, record: Record) -> None:
        del self._waiting[record.trial_id]
        self.board.ended[record.status] += 1
        self._consequences.has_ended(row, record)
        self._watcher.ended(record)
        for child in self._schedule.ended(record.trial_id):
            if record.status != "ok" and self._consequences.obstacle(child) is not None:
                self._may_start(child)  # told at once, room or not


def _is_ready(ledger: Ledger, row: Planned) -> bool:
    """Whether its parents are done and nobody works on it."""
    return all(ledger.is_done(parent) for parent in row.trial.parent_ids) and not ledger.is_claimed(row.trial_id)


def _settle(ledger: Ledger, running: Running, ending: Ending) -> bool:
    """A process has died on the way: say so in a record. False while its claim looks alive from here.

    On another host its death shows only in a heartbeat that stays away.
    """
    trial_id = running.row.trial_id
    if not ledger.is_done(trial_id):
        if ledger.is_claimed(trial_id):
            return False
        ledger.finish(record_of_loss(ledger, running.row, ending))
    return True


def _progress(ledger: Ledger, trial_id: str) -> dict[str, Any] | None:
    try:
        found = json.loads((ledger.trial_dir(trial_id) / PROGRESS_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
