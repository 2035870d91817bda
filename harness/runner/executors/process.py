"""A trial as a process of its own: what every executor starts in the end, here or on another host."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from harness.files import LOG_FILE, open_log
from harness.processes.lifetime import DRIVER_VARIABLE
from harness.processes.tied import tied


def start(trial_dir: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Run ``tunebench trial TRIAL_DIR`` with ``environment`` beside this process's own; it ends with this process.

    It leads a session, so that Ctrl-C reaches the driver alone. What it prints goes to the trial's log.
    """
    with os.fdopen(open_log(trial_dir / LOG_FILE), "ab") as log:
        return subprocess.Popen(
            tied([sys.executable, "-P", "-m", "harness.cli", "trial", str(trial_dir)]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, **(environment or {}), DRIVER_VARIABLE: str(os.getpid())},
        )
