"""No orphans: a process that ends with the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

#: In the environment of a trial: the process that it must not outlive.
DRIVER_VARIABLE = "TUNEBENCH_DRIVER"

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent, process ``parent``, ends (Linux; elsewhere nothing).

    Ends the process at once if the parent is gone already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def kill_group(pid: int) -> None:
    """Kill a process that leads a group, and all of the group; nothing if they are gone."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def ending(returncode: int) -> str:
    """How a process ended, in words: 'exit code 3' or 'SIGKILL'."""
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"
