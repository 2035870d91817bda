"""A guarded process, as the process that starts it sees it (:mod:`harness.processes.guard` is the guard)."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO

from harness.processes import guard
from harness.processes.guard import Order
from harness.processes.lifetime import Forked, fork, light, reap


class Guarded:
    """One process with its guard and a folder for temporary files, with the part of Popen that kernels need.

    The guard ends as the process ends, after all that the process started. Any signal, :meth:`end`, or the death of
    this process ends them all at once, and removes the folder.
    """

    stdin = stdout = stderr = None

    def __init__(self, begin: Callable[[Path, int, int], subprocess.Popen[bytes] | Forked]) -> None:
        self.folder = Path(tempfile.gettempdir(), f"tunebench-{secrets.token_hex(4)}")
        """Private; the process finds it as ``TMPDIR``."""
        read, write = os.pipe()
        self._lifeline = os.fdopen(write, "wb", buffering=0)
        try:
            self._guard = begin(self.folder, read, write)
        finally:
            os.close(read)
        self.folder.mkdir(mode=0o700)  # only now, when the guard is there to remove it
        self.pid = self._guard.pid

    @classmethod
    def waiting(cls, output: IO[str]) -> Guarded:
        """A guard that waits for a program to start, whose raw output goes to ``output``."""

        def begin(folder: Path, lifeline: int, _end: int) -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                light("harness.processes.guard", str(folder)),
                stdin=lifeline,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

        return cls(begin)

    @classmethod
    def forked(cls, become: Callable[[Order], None]) -> Guarded:
        """A guard that waits to fork a process that runs ``become``, from what this process has in memory now."""

        def begin(folder: Path, lifeline: int, end: int) -> Forked:
            def serve() -> None:
                os.close(end)
                os.setsid()
                guard.watch(lifeline, str(folder), become)

            pid = fork(serve)
            return Forked(pid, partial(reap, pid))

        return cls(begin)

    def start(self, command: Sequence[str], environment: Mapping[str, str], folder: str) -> None:
        """Start the process, once. Raises RuntimeError when its guard is dead."""
        order: Order = {
            "command": [*command],
            "environment": {**environment, "TMPDIR": str(self.folder)},
            "folder": folder,
        }
        unsent = memoryview(json.dumps(order).encode() + b"\n")
        try:
            while unsent:
                unsent = unsent[self._lifeline.write(unsent) :]
        except (BrokenPipeError, ValueError) as error:
            raise RuntimeError("the guard of the process is dead") from error

    def end(self) -> None:
        """Kill the process and every process that it started, at once; safe in any thread."""
        with suppress(OSError):
            self._lifeline.close()

    def poll(self) -> int | None:
        """Exit code of the process (negative: a signal), None while anybody of its family lives."""
        return self._guard.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Raises :class:`subprocess.TimeoutExpired` after ``timeout`` seconds."""
        return self._guard.wait(timeout)

    def send_signal(self, number: int) -> None:
        """Whatever the signal, it ends the process."""
        del number
        self.end()

    def terminate(self) -> None:
        self.end()

    def kill(self) -> None:
        self.end()
