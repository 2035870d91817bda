"""How a notebook's run ended, and the status of that ending."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.ledger.ledger import Ledger
from harness.processes.lifetime import STOP_SIGNALS
from harness.processes.lifetime import ending as how_it_ended
from harness.results.record import Outcome, Record
from harness.results.schema import Status
from harness.runner.environment import environment
from harness.sweeps.plan import Planned

_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|cannot allocate memory", re.IGNORECASE)
_LOSS = re.compile(r"\bloss\b", re.IGNORECASE)
_NOT_A_NUMBER = re.compile(r"\b(nan|inf|infinite)\b", re.IGNORECASE)
_IS_NOT_FINITE = re.compile(r"\b(nan|inf|infinite|not finite)\b", re.IGNORECASE)
#: How a trial's process ends that was stopped, and exit codes of commands: interrupted, or refused for bad input.
_STOPPED = (130, 2, *(-number for number in STOP_SIGNALS))
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Ending:
    """The end of one run of one notebook."""

    status: Status
    reason: str | None = None
    failed_cell: int | None = None
    """Index of the cell in the notebook as committed, from 0."""


OK = Ending("ok")

#: A job that its place took away: no fault of the trial, which runs again as often as that happens.
TAKEN_AWAY = Ending("ok", "its node was lost, or wanted for something else")


def of_exception(name: str, message: str, cell: int | None) -> Ending:
    """The ending when a cell raised the exception class ``name`` with ``message``."""
    text = _ANSI.sub("", message).strip()
    reason = f"{name}: {text.splitlines()[0]}" if text else name
    if name in ("OutOfMemoryError", "MemoryError") or _OUT_OF_MEMORY.search(text):
        return Ending("oom", reason, cell)
    if name == "NotActive":
        return Ending("skipped", text, cell)
    if name == "Diverged" or any(map(_tells_of_divergence, text.split("\n"))):
        return Ending("diverged", reason, cell)
    return Ending("failed", reason, cell)


def _tells_of_divergence(line: str) -> bool:
    # Searches one after the other and no pattern of both words: that would try all pairs of places in a long line.
    return _follows(_IS_NOT_FINITE, _LOSS, line) or _follows(_LOSS, _NOT_A_NUMBER, line)


def _follows(second: re.Pattern[str], first: re.Pattern[str], line: str) -> bool:
    begun = first.search(line)
    return begun is not None and second.search(line, begun.end()) is not None


def of_death(returncode: int | None, cell: int | None, memory_killer_struck: bool) -> Ending:
    """The ending when the kernel died while a cell ran; ``returncode`` is negative for a signal.

    SIGKILL alone proves nothing. The ending is ``oom`` only if the operating system's out-of-memory killer also struck.
    """
    how = "for an unknown reason" if returncode is None else f"with {how_it_ended(returncode)}"
    if returncode == -signal.SIGKILL and memory_killer_struck:
        return Ending("oom", f"the kernel died {how}: the system's out-of-memory killer struck", cell)
    return Ending("failed", f"the kernel died {how}", cell)


def of_process(returncode: int) -> Ending:
    """The ending when a trial's own process ended; ``ok`` means that the ledger already tells the outcome.

    That is so when the trial has a record, when another driver works on it, and when it did not run and may again: it
    was stopped from outside, or it lacks a file or a parent, which the driver gives it. The reason says how it ended.
    """
    if returncode == 0:
        return OK
    how = f"the trial's process ended with {how_it_ended(returncode)}"
    return Ending("ok", how) if returncode in _STOPPED else Ending("failed", f"{how}; see log.txt")


def record_of(
    ledger: Ledger,
    row: Planned,
    ending: Ending,
    attempt: int,
    started_at: datetime | None = None,
    duration_s: float | None = None,
    outcome: Outcome | None = None,
) -> Record:
    """The record of a trial that was started, whatever its ending."""
    return Record(
        trial_id=row.trial_id,
        sweep=ledger.plan.sweep,
        trial=row.trial,
        status=ending.status,
        reason=ending.reason,
        failed_cell=ending.failed_cell,
        attempt=attempt,
        started_at=started_at or datetime.now(UTC),
        duration_s=duration_s,
        task_kind=row.task_kind,
        model_family=row.model_family,
        estimated_bytes=row.estimated_bytes,
        parents=ledger.chosen_parents(row.trial),
        environment=environment(),
        outcome=outcome,
    )


def record_of_loss(ledger: Ledger, row: Planned, ending: Ending) -> Record:
    """The record of a trial whose process wrote none; its last claim says when it started."""
    started_at = ledger.started_at(row.trial_id)
    duration_s = None if started_at is None else (datetime.now(UTC) - started_at).total_seconds()
    return record_of(ledger, row, ending, max(1, ledger.attempts(row.trial_id)), started_at, duration_s)


def memory_kills() -> int | None:
    """How often the system's out-of-memory killer has struck since boot; None where it does not say (not Linux)."""
    try:
        for line in Path("/proc/vmstat").read_text(encoding="utf-8").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except OSError:
        pass
    return None
