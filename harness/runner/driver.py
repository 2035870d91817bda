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
from harness.runner.endings import Ending, record_of
from harness.runner.executors import Executor, Job

_POLL_S = 0.05


@dataclass
class Running:
    """A trial that an executor works on."""

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
    """Neither ended nor running here."""


class Watcher(Protocol):
    """Told what happens, in this order: started, ticks, ended."""

    def started(self, row: Planned) -> None: ...
    def ended(self, record: Record) -> None: ...
    def tick(self, board: Board) -> None: ...


def drive(ledger: Ledger, only: Collection[str], executor: Executor, jobs: int, watcher: Watcher) -> None:
    """Run every trial of ``only`` that has no record, ``jobs`` at a time.

    Returns when all of them have one. On an interrupt the running trials are stopped, without a record, and
    KeyboardInterrupt goes on to the caller.
    """
    waiting = [row for row in ledger.plan.rows if row.trial_id in only]
    board = Board(jobs, Counter(), {}, waiting)
    try:
        while True:
            for trial_id in [trial_id for trial_id, running in board.running.items() if running.job.ended()]:
                _reap(ledger, board.running.pop(trial_id))
            for row in list(board.waiting):
                if row.trial_id in board.running:
                    continue
                if (reason := _lost_parent(ledger, row)) is not None:
                    ledger.skip(row, reason)
                if (record := ledger.record(row.trial_id)) is not None:
                    board.waiting.remove(row)
                    board.ended[record.status] += 1
                    watcher.ended(record)
                elif len(board.running) < jobs and _is_ready(ledger, row):
                    board.running[row.trial_id] = Running(row, executor.submit(ledger.trial_dir(row.trial_id)))
                    watcher.started(row)
            for trial_id, running in board.running.items():
                running.progress = _progress(ledger, trial_id) or running.progress
            watcher.tick(board)
            if not board.waiting:
                return
            time.sleep(_POLL_S)
    finally:
        for running in board.running.values():
            running.job.stop()
        executor.close()


def _is_ready(ledger: Ledger, row: Planned) -> bool:
    """Whether its parents are done and nobody works on it."""
    return all(ledger.is_done(parent) for parent in row.trial.parents.values()) and not ledger.is_claimed(row.trial_id)


def _lost_parent(ledger: Ledger, row: Planned) -> str | None:
    """Why the row cannot run any more: a parent that did not end well."""
    for role, parent in row.trial.parents.items():
        if (record := ledger.record(parent)) is not None and record.status != "ok":
            return f"its parent ({role}, trial {parent}) ended as {record.status}"
    return None


def _reap(ledger: Ledger, running: Running) -> None:
    """A job has ended: if it was lost on the way, say so in a record.

    A job that ends in peace without a record found the trial done or taken.
    """
    trial_id, how = running.row.trial_id, running.job.ended()
    if how == "exit code 0" or ledger.is_done(trial_id) or ledger.is_claimed(trial_id):
        return
    ending = Ending("failed", f"the trial's process ended with {how}; see log.txt")
    attempt = max(1, ledger.attempts(trial_id))
    ledger.finish(record_of(ledger, running.row, ending, attempt, duration_s=time.monotonic() - running.since))


def _progress(ledger: Ledger, trial_id: str) -> dict[str, Any] | None:
    try:
        found = json.loads((ledger.trial_dir(trial_id) / PROGRESS_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
