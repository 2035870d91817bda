"""A whole run: from a sweep to a ledger in which every trial has ended."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import JsonValue

from harness.errors import InputError
from harness.ledger import documents, outdated
from harness.ledger.ledger import Ledger, say
from harness.ledger.records import endings
from harness.ledger.tables import Following, refresh
from harness.processes.lifetime import interruptible
from harness.results.record import Record
from harness.runner import display, executors
from harness.runner.driver import drive
from harness.runner.environment import environment
from harness.runner.executors import Executor
from harness.sweeps import expand as matrix
from harness.sweeps.plan import Plan
from harness.sweeps.spec import Sweep

#: A run does not begin with less space than this on the disk of its folder.
_LEAST_FREE_BYTES = 100 * 1024**2
#: How often a run drives what has no record: a disk that damages every record must not keep it busy for ever.
_ROUNDS = 3


@dataclass(frozen=True)
class Finished:
    """What a run leaves."""

    ledger: Ledger
    records: Sequence[Record]
    """Records of the trials that were asked for, in the order of the plan; without their outcomes."""
    ran: int
    """How many of them ran now; the others had ended before."""
    tables: Following
    """The tables of all records."""
    lost: int = 0
    """How many of them have no record that can be used, although they ran."""

    @property
    def all_well(self) -> bool:
        return not self.lost and all(record.status in ("ok", "skipped") for record in self.records)


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
    """Run what has no record yet, ``jobs`` trials at a time, and have the tables follow the records.

    What loses its record while others run, or is found damaged at the end, runs again.

    ``cold`` has every trial import its libraries instead of forking it from a process that has.
    ``only`` chooses trials by their facts; ``retry`` sets the records of trials that did not end well aside, so that
    they run again; ``judge`` may skip rows of the plan, such as those that do not fit in memory. Raises
    :class:`InputError` for bad input, and KeyboardInterrupt after an orderly stop.
    """
    make_executor = executors.factory(executor)
    stages = _Stages(
        sweep, folder, lambda: make_executor(sweep.resources, jobs, cold), jobs, only, log_json, judge or (lambda p: p)
    )
    with closing(stages):
        plan = stages.plan()
        make_executor.check(sweep.resources)
        finished = stages.run(plan, retry)
        # What is planned when settings have been tried, until nothing follows any more.
        while sweep.search is not None and stages.is_new(plan := stages.plan()):
            before, finished = finished, stages.run(plan)
            finished = replace(finished, ran=before.ran + finished.ran)
    return finished


class _Stages:
    """Runs one plan of a sweep after the other, each of which holds what follows from the records of those before."""

    def __init__(
        self,
        sweep: Sweep,
        folder: Path,
        make_executor: Callable[[], Executor],
        jobs: int,
        only: Mapping[str, Sequence[JsonValue]] | None,
        log_json: bool,
        judge: Callable[[Plan], Plan],
    ) -> None:
        self._sweep = sweep
        self._folder = folder
        self._make_executor = make_executor
        self._executor: Executor | None = None
        """One for all stages: what it holds, such as libraries that are imported, takes seconds to make."""
        self._jobs = jobs
        self._only = only
        self._log_json = log_json
        self._judge = judge
        self._wanted: frozenset[str] = frozenset()
        """Ids of the trials that were asked for, of all plans so far."""

    def plan(self) -> Plan:
        """What the sweep and its records so far make the plan."""
        return matrix.plan(self._sweep, endings(self._folder))

    def is_new(self, plan: Plan) -> bool:
        """Whether ``plan`` has trials that were asked for and were in none before."""
        return not self._of(plan) <= self._wanted

    def run(self, plan: Plan, retry: bool = False) -> Finished:
        """Run what was asked for in ``plan`` and has no record."""
        wanted = self._wanted = self._wanted | self._of(plan)
        with _writable(self._folder):
            plan = self._judge(plan)
            earlier = documents.earlier_plan(self._folder)
            ledger = Ledger.create(self._folder, plan, self._sweep.to_yaml(), environment())
        if self._sweep.search is not None:
            outdated.remove(ledger, earlier, self._sweep.keep_artifacts)
        runnable = {row.trial_id for row in plan.runnable if row.trial_id in wanted}
        heads = dict(zip((row.trial_id for row in plan.rows), ledger.heads(), strict=True))
        if retry:
            for trial_id in runnable:
                if (head := heads[trial_id]) is not None and head.status != "ok":
                    ledger.set_aside(trial_id)
                    heads[trial_id] = None
        ran: set[str] = set()
        for _ in range(_ROUNDS):
            heads |= dict.fromkeys(ledger.set_aside_parents(wanted))
            pending = {trial_id for trial_id in runnable if heads[trial_id] is None}
            self._drive(ledger, pending, heads)
            ran |= pending
            heads |= {trial_id: ledger.ended(trial_id) for trial_id in pending}
            tables = refresh(self._folder)
            if not (damaged := {trial_id for trial_id in runnable if trial_id not in tables.whole}):
                break
            for trial_id in damaged:
                # What is damaged is set aside by being read; what is whole may still not fit into the tables.
                if ledger.ended(trial_id, head=False) is not None and trial_id in tables.left_out:
                    ledger.set_aside(trial_id)
                heads[trial_id] = None
        records = [head for name, head in heads.items() if name in wanted and head is not None]
        return Finished(ledger, records, len(ran), tables, lost=len(damaged))

    def _drive(self, ledger: Ledger, pending: Collection[str], heads: Mapping[str, Record | None]) -> None:
        if not pending:
            return
        later = ledger.plan.only(self._only).later if self._only else ledger.plan.later
        if more := sum(one.trials for one in later):
            say(f"{more} more trials follow when their settings have been chosen")
        done = [head for name, head in heads.items() if name in self._wanted and head is not None]
        durations = [head.duration_s for head in heads.values() if head is not None and head.duration_s is not None]
        with display.make(self._log_json, durations) as watcher, interruptible():
            watcher.begins(Counter(head.status for head in done), len(pending))
            if self._executor is None:
                self._executor = self._make_executor()
            drive(ledger, pending, self._executor, self._jobs, watcher, self._sweep.keep_artifacts)

    def close(self) -> None:
        """Give back the executor, which ends the trials that an interrupt left running."""
        if self._executor is not None:
            self._executor.close()

    def _of(self, plan: Plan) -> frozenset[str]:
        return plan.matching(self._only) if self._only else frozenset(plan.by_id)


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
