"""Trials as processes of this machine, forked from a warm parent where that is safe."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from subprocess import Popen

from harness.errors import InputError
from harness.processes.lifetime import Forked, kill_group
from harness.processes.threads import thread_share
from harness.runner import gpus
from harness.runner.endings import Ending, of_process
from harness.runner.executors.process import start
from harness.runner.warm import Cold, WarmParent
from harness.sweeps.spec import Resources

#: Seconds that trials get to end in peace.
_PATIENCE_S = 10.0

Process = Popen[bytes] | Forked


class LocalJob:
    """One process, in a session of its own so that Ctrl-C reaches the driver alone."""

    def __init__(self, begin: Callable[[], Process], gpus: Sequence[str]) -> None:
        self.gpus = gpus
        """GPUs that it has for itself."""
        self._begin = begin
        self._process = begin()

    def waits(self) -> bool:
        return False

    def ended(self) -> Ending | None:
        try:
            code = self._process.poll()
        except Cold:  # the warm parent has died and taken the trial along, which is no fault of the trial
            self._process = self._begin()
            return None
        return None if code is None else of_process(code)

    def ask_to_end(self) -> None:
        with suppress(Cold):
            self._process.send_signal(signal.SIGTERM)

    def end(self, seconds: float) -> None:
        """Wait, and after ``seconds`` kill it with all that it started."""
        with suppress(Cold):
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                kill_group(self._process.pid)
                self._process.wait()


class LocalExecutor:
    """``jobs`` processes, which share the processors; of those that ask for GPUs, each has its own."""

    def __init__(self, resources: Resources, jobs: int, cold: bool = False) -> None:
        self._jobs = jobs
        self._gpus_each = resources.gpus
        self.check(resources)
        self._gpus = gpus.visible() if resources.gpus else []
        # Not by how many are left to run: a run that goes on computes as the one before, to the bit.
        at_once = min(jobs, len(self._gpus) // resources.gpus) if resources.gpus else jobs
        self._threads = thread_share(at_once * resources.together) if at_once > 1 else {}
        self._submitted: list[LocalJob] = []
        self._parent: WarmParent | None = None
        if not cold:
            try:
                self._parent = WarmParent(self._threads)
            except Cold as reason:
                self._go_cold(reason)

    @staticmethod
    def check(resources: Resources) -> None:
        """See :class:`harness.runner.executors.Factory`."""
        there = len(gpus.visible()) if resources.gpus else 0
        if there < (resources.gpus or 0):
            raise InputError(f"resources.gpus: {resources.gpus} for each trial, and this machine has {there}")

    def room(self) -> int:
        self._submitted = [job for job in self._submitted if job.ended() is None]
        room = self._jobs - len(self._submitted)
        return min(room, len(self._free()) // self._gpus_each) if self._gpus_each else room

    def submit(self, trial_dirs: Sequence[Path]) -> Sequence[LocalJob]:
        return [self._submit(trial_dir) for trial_dir in trial_dirs]

    def close(self) -> None:
        for job in self._submitted:
            job.ask_to_end()
        limit = time.monotonic() + _PATIENCE_S
        for job in self._submitted:
            job.end(max(0.0, limit - time.monotonic()))
        self._end_parent()

    def _submit(self, trial_dir: Path) -> LocalJob:
        mine = self._free()[: self._gpus_each or 0]
        # Nothing is said of GPUs where the sweep says nothing of them: a trial then sees what the driver sees.
        seen = {} if self._gpus_each is None else {gpus.VARIABLE: ",".join(mine)}
        job = LocalJob(partial(self._begin, trial_dir, {**self._threads, **seen}), mine)
        self._submitted.append(job)
        return job

    def _free(self) -> list[str]:
        taken = {gpu for job in self._submitted for gpu in job.gpus}
        return [gpu for gpu in self._gpus if gpu not in taken]

    def _begin(self, trial_dir: Path, environment: Mapping[str, str]) -> Process:
        if self._parent is not None:
            try:
                return self._parent.trial(trial_dir, environment)
            except Cold as reason:
                self._go_cold(reason)
        return start(trial_dir, environment)

    def _go_cold(self, reason: Cold) -> None:
        """Say why, once: from here on every trial imports for itself."""
        print(f"trials start cold: {reason}", file=sys.stderr, flush=True)
        self._end_parent()

    def _end_parent(self) -> None:
        if self._parent is not None:
            self._parent.close()
            self._parent = None
