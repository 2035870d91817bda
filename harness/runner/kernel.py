"""The IPython kernel of a trial: ``python -m harness.runner.kernel -f CONNECTION_FILE``, or forked.

A trial that was forked from a warm parent forks its kernel's guard at once, while it has one thread and nothing of its
own; the guard waits until the trial sends it what a cold kernel gets on its command line, and forks the kernel.
"""

from __future__ import annotations

import os
import sys
import tempfile

from harness.processes.guard import Order
from harness.processes.guarded import Guarded

#: The environment of a kernel whose output holds what its notebook prints. Otherwise the debugger warns of modules that
#: Python has frozen, and tokenizers of processes that the notebook forks.
QUIET = {"PYDEVD_DISABLE_FILE_VALIDATION": "1", "TOKENIZERS_PARALLELISM": "false"}


def main() -> None:
    """Serve until told to stop."""
    from harness.runner.outstream import TrialKernelApp

    TrialKernelApp.launch_instance()


_waiting: list[Guarded] = []


def prepare() -> None:
    """Fork a guard for :func:`take`."""
    _waiting.append(Guarded.forked(_become))


def take() -> Guarded | None:
    """The guard that waits to fork a kernel, once; None where there is none, and a cold kernel is to be started."""
    return _waiting.pop() if _waiting else None


def _become(order: Order) -> None:
    """What a forked kernel does: the same as a cold one."""
    command, folder = order["command"], order["folder"]
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(folder)
    # ipykernel read the environment when it was imported, and may want to watch a parent that is not this one's.
    sys.argv = [__file__, *command[command.index("-f") :], "--IPKernelApp.parent_handle=0"]
    tempfile.tempdir = None  # so did this
    import numpy

    numpy.random.seed()  # its state is that of the warm parent; torch's is a constant, warm or cold
    main()


if __name__ == "__main__":
    main()
