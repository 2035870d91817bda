"""Whether a timed region got the processors that it asked for (protocol, rule 6).

Linux counts for every thread how long it ran, and how long it was ready to run while others had the processors. A
region whose threads wait says how busy the machine was: its times are marked, and give no headline.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

#: A region that got less of its time than this is disturbed.
QUIET_SHARE = 0.95
#: How often a short measurement is made before a disturbed one is taken.
TRIES = 3
_THREADS = Path("/proc/self/task")
_Result = TypeVar("_Result")


@dataclass
class Processors:
    """What a region got; known when it has ended."""

    share: float | None = None
    """Time that its threads ran, over the time that they were ready to run. None: this system does not count it."""


def disturbed(*shares: float | None) -> bool | None:
    """Whether a region with one of these shares was disturbed; None where no share is known."""
    known = [share for share in shares if share is not None]
    return any(share < QUIET_SHARE for share in known) if known else None


def undisturbed(measure: Callable[[], _Result], tries: int = TRIES) -> tuple[_Result, float | None]:
    """What ``measure`` gives, with its share: the first of ``tries`` that is undisturbed, else the best of them."""
    attempts: list[tuple[_Result, float | None]] = []
    while len(attempts) < tries:
        with processors() as got:
            result = measure()
        attempts.append((result, got.share))
        if not disturbed(got.share):
            return attempts[-1]
    return max(attempts, key=lambda attempt: attempt[1] or 0.0)


@contextlib.contextmanager
def processors(threads: Path = _THREADS) -> Iterator[Processors]:
    """Watch the region; costs some ten microseconds for each thread at both ends, and nothing in between.

    Threads that end within the region are left out. What a hypervisor took from the machine counts as waiting.
    """
    got = Processors()
    before, machine_before = _times(threads), psutil.cpu_times()
    try:
        yield got
    finally:
        got.share = _share(before, _times(threads), _stolen(machine_before, psutil.cpu_times()))


def _times(threads: Path) -> dict[str, tuple[int, int]]:
    """Thread -> nanoseconds that it ran, and that it waited for a processor."""
    times = {}
    for path in threads.glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError):  # a thread that ends now, or a system that counts nothing
            ran, waited, _ = map(int, path.read_text().split())
            times[path.parent.name] = (ran, waited)
    return times


def _share(before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]], stolen: float) -> float | None:
    grown = [(ran - start[0], waited - start[1]) for thread, (ran, waited) in after.items()
             for start in [before.get(thread, (0, 0))]]  # fmt: skip
    ran, waited = (sum(column) for column in zip(*grown, strict=True)) if grown else (0, 0)
    return (1 - stolen) * ran / (ran + waited) if ran else None


def _stolen(before: object, after: object) -> float:
    """Share of the machine's working time that a hypervisor gave to other machines."""
    idle = ("idle", "iowait", "guest", "guest_nice")  # a guest's time is in its user's already
    spent = {name: getattr(after, name) - getattr(before, name) for name in after._fields if name not in idle}  # type: ignore[attr-defined]
    total = sum(spent.values())
    return max(0.0, spent.get("steal", 0.0) / total) if total > 0 else 0.0
