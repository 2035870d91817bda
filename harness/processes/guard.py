"""A guard: starts one process, and ends its whole family when that process ends, or when the guard's own parent does.

Whatever a notebook starts is to end with it: also what it puts into a session of its own, and daemons whose parents
have ended. No other process can see to it, because every other one may be killed. So a guard stands between a trial and
its kernel: Linux gives it the family's orphans (``PR_SET_CHILD_SUBREAPER``), and it holds the read end of a pipe, the
lifeline, whose other end closes with the trial, however that ends. The guard also removes the family's folder for
temporary files. Elsewhere than on Linux, it ends the process group of its process.

It starts in some hundredths of a second: it imports nothing outside the standard library.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from harness.processes.lifetime import STOP_SIGNALS, adopt_orphans, die_with, fork, kill_group

#: What a process is to become; it comes as one line of JSON through the lifeline.
Order = dict[str, Any]

#: Seconds between two looks: at orphans that have ended, and, without process descriptors, at the process itself.
_LOOK_S, _LOOK_OFTEN_S = 1.0, 0.05
#: Seconds after which a guard leaves alone what cannot be killed: the processes of another user, or of a driver.
_PATIENCE_S = 30.0

_IGNORED = (signal.SIGINT, *STOP_SIGNALS)


def main() -> None:
    """``guard FOLDER``: standard input is the lifeline, the rest is the process's."""
    watch(0, sys.argv[1], _execute)


def watch(lifeline: int, folder: str, become: Callable[[Order], None]) -> NoReturn:
    """Guard one process, which runs ``become`` with the order that it gets; end as it ended.

    Without an order, which is so when the parent ends before it gives one, only ``folder`` is removed.
    """
    adopt_orphans()
    for number in _IGNORED:  # what ends its parent ends the guard in its turn
        signal.signal(number, signal.SIG_IGN)
    code = None
    if (line := _line(lifeline)) is not None:
        pid = fork(partial(_child, lifeline, os.getpid(), become, json.loads(line)))
        code = _end_family(pid, _wait(pid, lifeline))
    shutil.rmtree(folder, ignore_errors=True)
    _end_like(code)


def _child(lifeline: int, parent: int, become: Callable[[Order], None], order: Order) -> None:
    os.setsid()
    die_with(parent)
    os.close(lifeline)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    become(order)


def _execute(order: Order) -> None:
    """Become the program of ``order``: its command, environment and working folder."""
    null = os.open(os.devnull, os.O_RDONLY)  # the lowest descriptor that is free: standard input
    os.set_inheritable(null, True)
    os.chdir(order["folder"])
    os.execvpe(order["command"][0], order["command"], order["environment"])  # noqa: S606


def _line(lifeline: int) -> bytes | None:
    """The line that comes through the lifeline; None when it closes before."""
    read = b""
    while not read.endswith(b"\n"):
        if not (piece := os.read(lifeline, 65536)):
            return None
        read += piece
    return read


def _wait(pid: int, lifeline: int) -> int | None:
    """Wait until the process has ended or the lifeline is closed; the exit code, None while it lives."""
    watched, seconds = [lifeline], _LOOK_OFTEN_S
    if hasattr(os, "pidfd_open"):
        watched, seconds = [lifeline, os.pidfd_open(pid)], _LOOK_S
    while True:
        ready, _, _ = select.select(watched, [], [], seconds)
        code = _reap(pid)
        if code is not None or lifeline in ready:
            return code


def _reap(pid: int) -> int | None:
    """Take the endings of all that have ended; the exit code of process ``pid`` if it is among them.

    Raises ChildProcessError when there is nobody left.
    """
    while True:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended == pid:
            return os.waitstatus_to_exitcode(status)
        if not ended:
            return None


def _end_family(pid: int, code: int | None) -> int | None:
    """Kill until nobody is left, for what is killed may have just started another; the exit code of ``pid``."""
    limit = time.monotonic() + _PATIENCE_S
    with suppress(ChildProcessError):
        while time.monotonic() < limit:
            if sys.platform != "linux":
                kill_group(pid)
            for member in descendants(os.getpid()):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(member, signal.SIGKILL)
            ended = _reap(pid)
            code = code if ended is None else ended
            time.sleep(0.005)
    return code


def descendants(pid: int) -> list[int]:
    """Processes below ``pid``; nobody where there is no ``/proc``."""
    children: dict[int, list[int]] = {}
    with suppress(FileNotFoundError):
        for place in Path("/proc").iterdir():
            if place.name.isdecimal():
                with suppress(OSError):
                    parent = int((place / "stat").read_bytes().rpartition(b")")[2].split()[1])
                    children.setdefault(parent, []).append(int(place.name))
    below = children.get(pid, [])
    for member in below:  # grows while it is walked
        below += children.get(member, [])
    return below


def _end_like(code: int | None) -> NoReturn:
    """End with that exit code, or by that signal if it is negative."""
    if code is not None and code < 0:
        with suppress(ImportError, ValueError):
            import resource

            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the process's own core is enough
        with suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
        code = 128 - code
    os._exit(code or 0)
