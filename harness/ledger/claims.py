"""Claims: the right to run one attempt of one trial, and whether its owner still works.

The owner touches its claim while it works. On the owner's machine, its process shows whether it is alive. Elsewhere, a
claim is dead after :data:`LEASE_S` seconds without a touch. Both the file's time and a watch of that length can show
this; the watch serves machines whose clocks disagree.

A wrong verdict costs a second run of the trial. The ledger then keeps the first record.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil

from harness.errors import InputError, cut


def _lease() -> float:
    given = os.environ.get("TUNEBENCH_LEASE_S") or "30"
    with suppress(ValueError):
        if 0 < (seconds := float(given)) < math.inf:
            return seconds
    raise InputError(f"$TUNEBENCH_LEASE_S: '{cut(given)}' is not a number of seconds above 0, such as 60")


#: Seconds without a heartbeat after which a claim is dead; ``$TUNEBENCH_LEASE_S`` sets another number, the same for
#: all drivers of a ledger.
LEASE_S = _lease()


@dataclass(frozen=True)
class Claim:
    """The right to run one attempt of one trial."""

    trial_id: str
    path: Path
    attempt: int
    started_at: datetime

    def write(self) -> None:
        """Create the file. Raises FileExistsError if another driver was faster."""
        descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            started_at = self.started_at.isoformat()
            json.dump({**_this_process(), "attempt": self.attempt, "started_at": started_at}, stream)

    def beat(self) -> None:
        """Show that the owner is alive. Call it at least every :data:`LEASE_S` / 3 seconds."""
        with suppress(FileNotFoundError):  # the folder was removed: there is nothing that could be shown
            os.utime(self.path)

    def is_superseded(self) -> bool:
        """Whether another driver took this owner for dead and began another attempt."""
        return self.path.with_name(f"claim.{self.attempt + 1}.json").exists()

    def release(self) -> None:
        """Give the trial back without a record: any driver may take it at once."""
        with suppress(FileNotFoundError):
            os.utime(self.path, (0, 0))


class OwnerWatch:
    """Tells whether the owners of claims are alive. It remembers what it saw; each ledger has one."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[int, float]] = {}

    def alive(self, claim: Path) -> bool:
        """Whether the owner of a claim still works, as far as this machine can tell."""
        try:
            touched = claim.stat().st_mtime_ns
        except FileNotFoundError:
            return False  # removed, or a link to nothing
        if touched == 0:
            return False  # released
        owner = _owner(claim)
        if owner is not None and all(owner.get(key) == value for key, value in this_system().items()):
            return _is_running(owner["pid"], owner["born"])
        if time.time() - touched / 1e9 > LEASE_S:
            return False
        now = time.monotonic()
        last, since = self._seen.get(claim, (None, now))
        if last != touched:
            since = now
            self._seen[claim] = (touched, since)
        if now - since <= LEASE_S:
            return True
        with suppress(FileNotFoundError):
            os.utime(claim, (0, 0))  # released, so that nobody else has to watch for as long
        return False


def _this_process() -> dict[str, str | int | float]:
    return {**this_system(), "pid": os.getpid(), "born": _born(psutil.Process())}


@lru_cache(maxsize=1)
def this_system() -> dict[str, str]:
    """The system within which process numbers are unique: containers may share a host name, but not these numbers."""
    system = {"host": platform.node()}
    with suppress(OSError):  # elsewhere than on Linux the name has to do
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        system["system"] = f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return system


def _born(process: psutil.Process) -> float:
    """Start of a process in seconds after the boot; unlike a date, it does not change when a clock is set."""
    boot = psutil.boot_time()
    return process.create_time() - boot


def _is_running(pid: int, born: float) -> bool:
    try:
        process = psutil.Process(pid)
        # A number is used again after a while: the birth tells whether it is the same process.
        return abs(_born(process) - born) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _owner(claim: Path) -> dict[str, Any] | None:
    """The holder of a claim; None if the file does not say, because it is brand new or was left by a crash."""
    try:
        owner = json.loads(claim.read_bytes())
    except (ValueError, OSError, RecursionError):
        return None
    named = {"host": str, "pid": int, "born": float}
    whole = isinstance(owner, dict) and all(isinstance(owner.get(key), kind) for key, kind in named.items())
    return owner if whole else None
