"""The processes that train together: start them, watch them, and end them together.

They meet through a file in a private folder, and talk over the loopback interface. ``torch.distributed.run`` would open
two ports on every interface of the machine and unpickle what arrives there.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from harness.processes.lifetime import ending
from harness.processes.threads import thread_share
from harness.processes.tied import tied
from harness.processes.together import VARIABLE

_LOOK_S = 0.02


class WorkerFailure(RuntimeError):
    """A worker process failed; ``code`` is its exit code, negative for a signal."""

    def __init__(self, rank: int, processes: int, code: int) -> None:
        super().__init__(f"training process {rank} of 0 to {processes - 1} ended with {ending(code)}")
        self.code = code


def run(folder: Path, processes: int, hear: Callable[[str], None]) -> None:
    """Run ``processes`` workers on the orders in ``folder``; ``hear`` gets each line that the first one prints.

    When one fails, the others are killed at once; none outlives this call. Raises :class:`WorkerFailure` for the first
    failure.
    """
    started: list[subprocess.Popen[str]] = []
    try:
        for rank in range(processes):
            started.append(_start(folder, rank, processes))
        watch = _Supervisor(started)
        watch.start()
        for line in started[0].stdout or ():
            hear(line)
        watch.join()
    finally:
        _kill(started)
    if watch.failed is not None:
        rank, code = watch.failed
        raise WorkerFailure(rank, processes, code)


class _Supervisor(threading.Thread):
    """Waits until all processes have ended; ``failed`` is the rank and exit code of the first failure."""

    def __init__(self, processes: Sequence[subprocess.Popen[str]]) -> None:
        super().__init__(name="workers", daemon=True)
        self._processes = processes
        self.failed: tuple[int, int] | None = None

    def run(self) -> None:
        while True:
            codes = [process.poll() for process in self._processes]
            if self._note(codes):
                _kill(self._processes)
            if None not in codes:
                return
            time.sleep(_LOOK_S)

    def _note(self, codes: Sequence[int | None]) -> bool:
        # A killed process takes the others with it: among those that ended by now, a signal is the cause.
        bad = [(rank, code) for rank, code in enumerate(codes) if code]
        if self.failed is None:
            self.failed = min(bad, key=lambda failure: failure[1] > 0, default=None)
        return self.failed is not None


def _start(folder: Path, rank: int, processes: int) -> subprocess.Popen[str]:
    loopback = _loopback()
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "GLOO_SOCKET_IFNAME": loopback,
        "NCCL_SOCKET_IFNAME": loopback,
        **thread_share(processes),
    }
    environment.pop(VARIABLE, None)
    return subprocess.Popen(
        tied([sys.executable, "-P", "-m", "harness.experiment.parallel.worker", str(folder)]),
        env=environment,
        stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
        text=True,
    )


def _loopback() -> str:
    """Name of the loopback interface ('lo' on Linux)."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.family == socket.AF_INET and entry.address == "127.0.0.1" for entry in addresses):
            return name
    raise RuntimeError("no network interface has the address 127.0.0.1, and processes that train together need one")


def _kill(processes: Sequence[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
