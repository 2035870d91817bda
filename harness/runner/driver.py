"""The driver: hands ready trials to an executor until nothing is left, and notices what was lost.

It holds no state that is not in the ledger, so it may be killed at any moment and started again, and several may
work on one ledger: what another one runs, this one waits for, and takes over if the other dies.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.plan import Planned
from harness.results.ledger import PROGRESS_FILE, Ledger
from harness.results.record import Record
from harness.runner.consequences import Consequences
from harness.runner.endings import Ending, record_of_loss
from harness.runner.executors import Executor, Job

_POLL_S = 0.05


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
    ended: Counter[str]
    """Status -> trials."""
    running: dict[str, Running]
    waiting: list[Planned]
    """Without a record: those that run, those in the executor's queue and those not handed out."""


class Watcher(Protocol):
    """Told what happens, in this order: started, ticks, ended."""

    def started(self, row: Planned) -> None: ...
    def ended(self, record: Record) -> None: ...
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
    board = Board(jobs, Counter(), {}, [row for row in ledger.plan.rows if row.trial_id in only])
    queued: dict[str, Running] = {}
    lost: dict[str, tuple[Running, Ending]] = {}
    consequences = Consequences(ledger, keep_artifacts)

    try:
        while True:
            for trial_id, running in list(board.running.items()):
                if (ending := running.job.ended()) is not None:
                    del board.running[trial_id]
                    if ending.status != "ok":
                        lost[trial_id] = running, ending
            for trial_id, (running, ending) in list(lost.items()):
                if _settle(ledger, running, ending):
                    del lost[trial_id]
            room = executor.room()
            ready: list[Planned] = []
            for row in list(board.waiting):
                if any(row.trial_id in elsewhere for elsewhere in (queued, board.running, lost)):
                    continue
                if (reason := consequences.obstacle(row)) is not None:
                    ledger.skip(row, reason)
                if (record := ledger.record(row.trial_id)) is not None:
                    board.waiting.remove(row)
                    board.ended[record.status] += 1
                    consequences.has_ended(row, record)
                    watcher.ended(record)
                elif len(ready) < room and _is_ready(ledger, row):
                    ready.append(row)
            if ready:
                made = executor.submit([ledger.trial_dir(row.trial_id) for row in ready])
                queued |= {row.trial_id: Running(row, job) for row, job in zip(ready, made, strict=False)}
            for trial_id in [trial_id for trial_id, handed in queued.items() if not handed.job.waits()]:
                began = board.running[trial_id] = queued.pop(trial_id)
                began.since = time.monotonic()
                watcher.started(began.row)
            for trial_id, running in board.running.items():
                running.progress = _progress(ledger, trial_id) or running.progress
            watcher.tick(board)
            if not board.waiting:
                return
            time.sleep(_POLL_S)
    finally:
        executor.close()


def _is_ready(ledger: Ledger, row: Planned) -> bool:
    """Whether its parents are done and nobody works on it."""
    return all(ledger.is_done(parent) for parent in row.trial.parents.values()) and not ledger.is_claimed(row.trial_id)


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
