"""Start a program that the kernel of the system kills when its parent ends, from its very first moment.

A program that ties itself does so seconds after its start, when its libraries are imported. This launcher ties itself
and becomes the program.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from harness.processes.lifetime import die_with, light


def tied(command: Sequence[str]) -> list[str]:
    """The command line that runs ``command`` for as long as this process lives, as a child of it.

    Start it from a thread that lives as long: Linux counts the end of that thread as the end of the parent.
    """
    return light("harness.processes.tied", str(os.getpid()), *command)


def main() -> None:
    """``tied PARENT COMMAND``."""
    die_with(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606
