"""How many processes train one trial together."""

from __future__ import annotations

import os

#: In the environment of a notebook: how many processes train together. Set by the runner from the sweep's resources.
VARIABLE = "TUNEBENCH_PROCESSES"


def processes() -> int:
    """How many processes are to train together; 1 where nobody says."""
    return int(os.environ.get(VARIABLE) or 1)
