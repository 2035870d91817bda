"""Trials as processes of this machine, forked from a warm parent where that is safe."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import Popen

from harness.results.ledger import LOG_FILE
from harness.runner.processes import DRIVER_VARIABLE, Forked, ending, kill_group
from harness.runner.warm import Cold, WarmParent

#: Seconds that a trial gets to end in peace.
_PATIENCE_S = 10.0

Process = Popen[bytes] | Forked


class LocalJob:
    """One process, in a session of its own so that Ctrl-C reaches the driver alone."""

    def __init__(self, start: Callable[[], Process]) -> None:
        self._start = start
        self._process = start()

    def ended(self) -> str | None:
        try:
            code = self._process.poll()
        except Cold:  # the warm parent has died and taken the trial along, which is no fault of the trial
            self._process = self._start()
            return None
        return None if code is None else ending(code)

    def stop(self) -> None:
        with suppress(Cold):
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                kill_group(self._process.pid)
                self._process.wait()


class LocalExecutor:
    """Starts each trial at once; how many run together is the driver's choice."""

    def __init__(self, resources: Mapping[str, str | int | float], cold: bool = False) -> None:
        del resources  # this machine gives what it has
        self._parent: WarmParent | None = None
        if not cold:
            try:
                self._parent = WarmParent()
            except Cold as reason:
                self._go_cold(reason)

    def submit(self, trial_dir: Path) -> LocalJob:
        return LocalJob(lambda: self._started(trial_dir))

    def close(self) -> None:
        if self._parent is not None:
            self._parent.close()
            self._parent = None

    def _started(self, trial_dir: Path) -> Process:
        if self._parent is not None:
            try:
                return self._parent.trial(trial_dir)
            except Cold as reason:
                self._go_cold(reason)
        return _cold(trial_dir)

    def _go_cold(self, reason: Cold) -> None:
        """Say why, once: from here on every trial imports for itself."""
        print(f"trials start cold: {reason}", file=sys.stderr, flush=True)
        self.close()


def _cold(trial_dir: Path) -> Popen[bytes]:
    with (trial_dir / LOG_FILE).open("ab") as log:
        return Popen(
            [sys.executable, "-m", "harness.cli", "trial", str(trial_dir)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, DRIVER_VARIABLE: str(os.getpid())},
        )
