"""A whole run: from a sweep to a ledger in which every trial has ended."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from harness.errors import InputError
from harness.ledger.ledger import Ledger
from harness.processes.lifetime import interruptible
from harness.results.record import Record
from harness.runner import display, executors
from harness.runner.driver import drive
from harness.runner.environment import environment
from harness.sweeps import expand as matrix
from harness.sweeps.plan import Plan
from harness.sweeps.spec import Sweep

#: A run does not begin with less space than this on the disk of its folder.
_LEAST_FREE_BYTES = 100 * 1024**2


@dataclass(frozen=True)
class Finished:
    """What a run leaves."""

    ledger: Ledger
    records: Sequence[Record]
    """Records of the trials that were asked for, in the order of the plan; without their outcomes."""
    ran: int
    """How many of them ran now; the others had ended before."""

    @property
    def all_well(self) -> bool:
        return all(record.status in ("ok", "skipped") for record in self.records)


def run(
    sweep: Sweep,
    folder: Path,
    *,
    executor: str = "local",
    jobs: int = 1,
    only: Mapping[str, Sequence[JsonValue]] | None = None,
    retry: bool = False,
    log_json: bool = False,
    cold: bool = False,
    judge: Callable[[Plan], Plan] | None = None,
) -> Finished:
    """Run what has no record yet, ``jobs`` trials at a time.

    ``cold`` has every trial import its libraries instead of forking it from a process that has.
    ``only`` chooses trials by their facts; ``retry`` sets the records of trials that did not end well aside, so that
    they run again; ``judge`` may skip rows of the plan, such as those that do not fit in memory. Raises
    :class:`InputError` for bad input, and KeyboardInterrupt after an orderly stop.
    """
    make_executor = executors.factory(executor)
    plan = matrix.plan(sweep)
    wanted = plan.matching(only) if only else frozenset(row.trial_id for row in plan.rows)
    with _writable(folder):
        if judge is not None:
            plan = judge(plan)
        ledger = Ledger.create(folder, plan, sweep.to_yaml(), environment())
    heads = dict(zip((row.trial_id for row in plan.rows), ledger.heads(), strict=True))
    if retry:
        for trial_id in wanted.intersection(row.trial_id for row in plan.runnable):
            if (head := heads[trial_id]) is not None and head.status != "ok":
                ledger.set_aside(trial_id)
                heads[trial_id] = None
    heads |= dict.fromkeys(ledger.set_aside_parents(wanted))
    pending = {row.trial_id for row in plan.runnable if row.trial_id in wanted and heads[row.trial_id] is None}
    if pending:
        durations = [head.duration_s for head in heads.values() if head is not None and head.duration_s is not None]
        with display.make(log_json, durations) as watcher, interruptible():
            drive(ledger, pending, make_executor(sweep.resources, jobs, cold), jobs, watcher, sweep.keep_artifacts)
    heads |= {trial_id: ledger.head(trial_id) for trial_id in pending}
    return Finished(ledger, [head for name, head in heads.items() if name in wanted and head is not None], len(pending))


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Turn what is wrong with the folder into one line, before anything runs; bad input leaves no new folder."""
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < _LEAST_FREE_BYTES:
            raise InputError(f"{folder}: only {free // 1024**2} MB are free on this disk; make room or choose --out")
        yield
    except InputError:
        for place in new:
            with suppress(OSError):  # it holds something by now
                place.rmdir()
        raise
    except OSError as error:
        raise InputError(f"{error.filename or folder}: cannot be written: {error.strerror}") from error
