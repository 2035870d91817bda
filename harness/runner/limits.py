"""The limits of a sweep, enforced from outside: a kernel that uses more time or memory than they allow is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psutil

from harness.runner.endings import Ending
from harness.sweeps.spec import Limits

_LOOK_S = 0.25
_GB = 10**9


class LimitEnforcer:
    """A thread that calls ``kill`` when a limit is reached, and repeats it until the ``with`` block ends.

    It repeats the call because a new kernel may be about to start. ``pid`` returns the process id of the kernel's
    guard, or None while there is none.
    """

    def __init__(self, limits: Limits, pid: Callable[[], int | None], kill: Callable[[], None]) -> None:
        self._limits = limits
        self._pid = pid
        self._kill = kill
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._enforce, name="limits", daemon=True)
        self.broken: Ending | None = None
        """The ending that names the limit that was reached; None until one is."""

    def __enter__(self) -> LimitEnforcer:
        if self._limits.time_s is not None or self._limits.memory_gb is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        if self._thread.is_alive():
            self._thread.join()

    def _enforce(self) -> None:
        began = time.monotonic()
        while not self._left.wait(_LOOK_S):
            if self.broken is None:
                self.broken = self._over_time(time.monotonic() - began) or self._over_memory()
            if self.broken is not None:
                self._kill()

    def _over_time(self, seconds: float) -> Ending | None:
        limit = self._limits.time_s
        if limit is None or seconds < limit:
            return None
        return Ending("timeout", f"the time limit of {limit:g} s was reached")

    def _over_memory(self) -> Ending | None:
        limit, pid = self._limits.memory_gb, self._pid()
        if limit is None or pid is None or (used := memory_bytes(pid, limit * _GB)) <= limit * _GB:
            return None
        return Ending("oom", f"the memory limit of {limit:g} GB was reached ({used / _GB:.2f} GB)")


def memory_bytes(pid: int, enough: float = 0) -> int:
    """Bytes of main memory that the descendants of a process hold; 0 when it is gone.

    Shared memory, such as the libraries of a forked kernel, is split among its users (the proportional set size).
    Measuring that walks through all pages. The resident sets count shared pages in full, so their sum is an upper
    bound; it is returned instead while it does not exceed ``enough``.
    """
    try:
        processes = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return 0
    resident = sum(_of(process, "rss") for process in processes)
    if resident <= enough:
        return resident
    return sum(_of(process, "pss") for process in processes)


def _of(process: psutil.Process, kind: str) -> int:
    try:
        usage = process.memory_info() if kind == "rss" else process.memory_full_info()
        # Only Linux tells the proportional set size; elsewhere the memory of the process alone comes nearest.
        return int(getattr(usage, kind) if hasattr(usage, kind) else getattr(usage, "uss", 0))
    except psutil.Error:
        return 0
