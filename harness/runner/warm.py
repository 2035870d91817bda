"""The driver's side of warm starts: trials that are forked from a process which has imported what takes long."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from harness.files import LOG_FILE
from harness.processes.lifetime import Forked, ending
from harness.processes.tied import tied


class Cold(Exception):
    """Why trials cannot be forked, or not any more."""


class WarmParent:
    """One warm parent process (:mod:`harness.runner.forkserver`); the imports begin at once."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """``environment`` beside this process's own is that of the imports, and of every trial."""
        if sys.platform != "linux":
            raise Cold("warm starts need Linux")
        self._wire, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                tied([sys.executable, "-P", "-m", "harness.runner.forkserver"]),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, **environment},
            )
        self._ready = False
        self._codes: dict[int, int] = {}

    def trial(self, trial_dir: Path, environment: Mapping[str, str]) -> Forked:
        """Start the trial in ``trial_dir`` with ``environment`` beside this process's own; waits for the imports.

        Raises :class:`Cold` when that cannot be.
        """
        if not self._ready:
            if (reason := self._hear()["cold"]) is not None:
                raise Cold(reason)
            self._ready = True
        self._say({"trial": str(trial_dir), "log": str(trial_dir / LOG_FILE), "environment": {**environment}})
        while "started" not in (heard := self._hear()):
            self._note(heard)
        pid = heard["started"]
        return Forked(pid, partial(self._code, pid))

    def close(self) -> None:
        """End it; what is left of its trials ends too."""
        self._process.kill()
        self._process.wait()
        self._wire.close()

    def _code(self, pid: int) -> int | None:
        """Exit code of a trial. Raises :class:`Cold` when it ended because the warm parent did."""
        while pid not in self._codes:
            try:
                self._note(self._hear(socket.MSG_DONTWAIT))
            except BlockingIOError:
                return None
        return self._codes.pop(pid)

    def _note(self, heard: dict[str, Any]) -> None:
        self._codes[heard["ended"]] = heard["code"]

    def _say(self, order: dict[str, Any]) -> None:
        try:
            self._wire.send(json.dumps(order).encode())
        except OSError as error:
            raise self._lost() from error

    def _hear(self, flags: int = 0) -> dict[str, Any]:
        try:
            message = self._wire.recv(65536, flags)
        except BlockingIOError:
            raise
        except OSError as error:
            raise self._lost() from error
        if not message:
            raise self._lost()
        heard: dict[str, Any] = json.loads(message)
        return heard

    def _lost(self) -> Cold:
        return Cold(f"the process with the imported libraries ended with {ending(self._process.wait())}")
