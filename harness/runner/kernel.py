"""An IPython kernel that ends when its trial ends: ``python -m harness.runner.kernel -f CONNECTION_FILE``, or forked.

A trial that was forked from a warm parent forks its kernel at once, while it has one thread and nothing of its own;
the kernel waits until the trial sends it what a cold one gets on its command line.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from harness.processes.lifetime import Forked, die_with, fork, reap

#: The environment of a kernel whose output holds what its notebook prints. Otherwise the debugger warns of modules that
#: Python has frozen, and tokenizers of processes that the notebook forks.
QUIET = {"PYDEVD_DISABLE_FILE_VALIDATION": "1", "TOKENIZERS_PARALLELISM": "false"}


def main() -> None:
    """Tie this process to its parent, then serve until told to stop."""
    die_with(int(os.environ["JPY_PARENT_PID"]))
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()


class WaitingKernel:
    """A forked kernel that has not begun to serve."""

    def __init__(self) -> None:
        read, self._order = os.pipe()
        pid = fork(partial(_wait, read, self._order, os.getpid()))
        os.close(read)
        self.process = Forked(pid, partial(reap, pid))

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], folder: str | Path) -> bool:
        """Let it serve with these command line arguments, environment and working folder; false if it is dead."""
        order = {"arguments": [*arguments], "environment": {**environment}, "folder": str(folder)}
        try:
            with os.fdopen(self._order, "wb") as stream:
                stream.write(json.dumps(order).encode())
        except BrokenPipeError:
            return False
        return True


_waiting: list[WaitingKernel] = []


def prepare() -> None:
    """Fork a kernel for :func:`take`."""
    _waiting.append(WaitingKernel())


def take() -> WaitingKernel | None:
    """The kernel that waits, once; None where there is none, and a cold one is to be started."""
    return _waiting.pop() if _waiting else None


def _wait(read: int, write: int, parent: int) -> None:
    """What a forked kernel does: nothing until it is told, then what a cold one does."""
    os.close(write)
    os.setsid()
    die_with(parent)
    with os.fdopen(read, "rb") as stream:
        text = stream.read()
    if not text:
        return  # nobody needed it
    order = json.loads(text)
    os.environ.clear()
    os.environ.update(order["environment"], JPY_PARENT_PID=str(parent))
    os.chdir(order["folder"])
    sys.path[0] = order["folder"]  # as ``python -m`` does
    # ipykernel has read the environment when it was imported; its own handle on the parent comes as an argument.
    sys.argv = [__file__, *order["arguments"], f"--IPKernelApp.parent_handle={parent}"]
    import numpy

    numpy.random.seed()  # its state is that of the warm parent; torch's is a constant, warm or cold
    main()


if __name__ == "__main__":
    main()
