"""How many threads each of several processes computes with."""

from __future__ import annotations

import os

#: What OpenMP, MKL and torch read when they are imported.
VARIABLE = "OMP_NUM_THREADS"


def processor_count() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_share(processes: int) -> dict[str, str]:
    """The environment by which ``processes`` share the processors; empty for one, and where somebody has set it.

    By default each takes a thread for every processor, and they wait for each other at every product: two trainings of
    a small encoder on two cores took six times as long as with a thread each.
    """
    if processes == 1 or VARIABLE in os.environ:
        return {}
    return {VARIABLE: str(max(1, processor_count() // processes))}
