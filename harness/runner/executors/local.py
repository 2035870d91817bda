"""Trials as processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from harness.results.ledger import LOG_FILE
from harness.runner.processes import DRIVER_VARIABLE, ending, kill_group

#: Seconds that a trial gets to end in peace.
_PATIENCE_S = 10.0


class LocalJob:
    """One process, in a session of its own so that Ctrl-C reaches the driver alone."""

    def __init__(self, trial_dir: Path) -> None:
        with (trial_dir / LOG_FILE).open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harness.cli", "trial", str(trial_dir)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, DRIVER_VARIABLE: str(os.getpid())},
            )

    def ended(self) -> str | None:
        code = self._process.poll()
        return None if code is None else ending(code)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            kill_group(self._process.pid)
            self._process.wait()


class LocalExecutor:
    """Starts each trial at once; how many run together is the driver's choice."""

    def __init__(self, resources: Mapping[str, str | int | float]) -> None:
        del resources  # this machine gives what it has

    def submit(self, trial_dir: Path) -> LocalJob:
        return LocalJob(trial_dir)

    def close(self) -> None:
        return
