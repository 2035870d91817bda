"""Processes: forked ones, and none that outlives the one that started it."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import TimeoutExpired

#: In the environment of a trial: the process that it must not outlive.
DRIVER_VARIABLE = "TUNEBENCH_DRIVER"

#: What asks a process to end, beside Ctrl-C's SIGINT: schedulers, a terminal that is closed, Ctrl-\\.
STOP_SIGNALS = tuple(
    signal.Signals[name]
    for name in ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
    if name in signal.Signals.__members__  # Windows has the first alone
)

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

#: For processes that start in some hundredths of a second: no site-packages, nothing of the environment.
_LIGHT = """
import sys, importlib
sys.path.append(sys.argv.pop(1))
importlib.import_module(sys.argv.pop(1)).main()
"""


def light(module: str, *arguments: str) -> list[str]:
    """The command line of ``main`` in a module of this package that needs the standard library alone."""
    return [sys.executable, "-I", "-S", "-c", _LIGHT, str(Path(__file__).parents[2]), module, *arguments]


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent, process ``parent``, ends (Linux; elsewhere nothing).

    Ends the process at once if the parent is gone already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of each process below this one whose own parent ends (Linux; elsewhere nothing)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)


@contextmanager
def ended_by_signals(code: int, said: str) -> Iterator[None]:
    """Ctrl-C and :data:`STOP_SIGNALS` end this process at once with ``code``, after the line ``said``.

    Without an exception: a library that is being imported may swallow one, and go on half imported. Temporary folders
    go as they do when the interpreter ends.
    """

    def end(_number: int, _frame: object) -> None:
        os.write(2, f"{said}\n".encode())
        with suppress(BaseException):
            atexit._run_exitfuncs()
        os._exit(code)

    heard = [number for number in (signal.SIGINT, *STOP_SIGNALS) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is end:
                signal.signal(number, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """:data:`STOP_SIGNALS` interrupt as Ctrl-C does: with KeyboardInterrupt, unless they are ignored (``nohup``).

    Only the first does. Schedulers send several, and the second would break off what the first one began to tidy. A
    second Ctrl-\\ (SIGQUIT) ends the process at once.
    """

    def interrupt(_number: int, _frame: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_DFL if each.name == "SIGQUIT" else lambda _number, _frame: None)
        raise KeyboardInterrupt

    heard = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in heard}
    if (ctrl_c := signal.getsignal(signal.SIGINT)) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, ctrl_c or signal.default_int_handler)
        for number, handler in before.items():
            if signal.getsignal(number) is interrupt:
                signal.signal(number, handler)


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


def fork(child: Callable[[], None]) -> int:
    """Fork a process that runs ``child`` and then ends as an interpreter ends; returns its process id.

    Only for a process with one native thread: what other threads hold, the child would wait for without end.
    """
    if pid := os.fork():
        return pid
    code: object = 1
    try:
        child()
        code = 0
    except SystemExit as exit_:
        code = 0 if exit_.code is None else exit_.code
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            atexit._run_exitfuncs()
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        # Never back into the frames of the parent.
        os._exit(code if isinstance(code, int) else 1)


def reap(pid: int) -> int | None:
    """Exit code of a child (negative: a signal), None while it lives. Answers once."""
    ended_pid, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended_pid else None


class Forked:
    """A forked process, with as much of :class:`subprocess.Popen` as kernels and trials need.

    ``look`` tells the exit code once it is known, before that None.
    """

    stdin = stdout = stderr = None

    def __init__(self, pid: int, look: Callable[[], int | None]) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._look = look

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._look()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises :class:`subprocess.TimeoutExpired` after ``timeout`` seconds."""
        began = time.monotonic()
        while (code := self.poll()) is None:
            if timeout is not None and time.monotonic() - began > timeout:
                raise TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
