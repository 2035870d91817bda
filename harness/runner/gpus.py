"""The GPUs of this machine that may be used, without torch: asking CUDA would initialise it."""

from __future__ import annotations

import os
import subprocess

#: In the environment: the GPUs that a process may use, by number or name, with commas between them.
VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible() -> list[str]:
    """What ``$CUDA_VISIBLE_DEVICES`` names, or else all that the driver shows; none without a driver."""
    named = os.environ.get(VARIABLE)
    if named is None:
        named = ",".join(_shown())
    return [name.strip() for name in named.split(",") if name.strip()]


def _shown() -> list[str]:
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
