"""How much memory a trial can have: of the accelerator, or of the machine within its container's limit. No torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness.processes.tied import tied

#: Without one of these (NVIDIA, AMD, Windows' subsystem for Linux) Linux has no accelerator, and torch need not be
#: asked, which takes seconds.
_ACCELERATORS = ("nvidia0", "kfd", "dxg")

_ASK = """
import json, sys
from harness.models.load import pick_device
import torch
device = pick_device(sys.argv[1])
memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
print(json.dumps([str(device), memory]))
"""


@dataclass(frozen=True)
class MemoryLimit:
    """The memory of one place."""

    place: str
    """Whose it is, as it stands in a sentence: 'this machine', 'cuda:0'."""
    bytes: int


def limit_of(device: str) -> MemoryLimit | None:
    """The memory behind a trial's ``device``; None when it cannot be known here, such as that of a GPU elsewhere.

    torch decides what ``auto`` is, in a process of its own.
    """
    if device != "cpu" and _accelerator_possible():
        command = tied([sys.executable, "-c", _ASK, device])
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        if asked.returncode:
            return None
        place, memory = json.loads(asked.stdout.splitlines()[-1])
        return MemoryLimit(place, memory) if memory is not None else _machine()
    return _machine() if device in ("auto", "cpu") else None


def _accelerator_possible() -> bool:
    return sys.platform != "linux" or any(Path("/dev", name).exists() for name in _ACCELERATORS)


def _machine() -> MemoryLimit:
    total = int(psutil.virtual_memory().total)
    allowed = min(_cgroup_limits(), default=total)
    return MemoryLimit("this container", allowed) if allowed < total else MemoryLimit("this machine", total)


def _cgroup_limits(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """The limits of the control groups that this process is in, the outer ones included (cgroups(7))."""
    try:
        lines = proc.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            folder, name = root, "memory.max"
        elif controllers == "memory":
            folder, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        # Inside a container the own group is mounted as the root, and the path that the kernel tells is not there.
        own = folder / path.lstrip("/")
        for group in {folder, own, *(parent for parent in own.parents if folder in parent.parents)}:
            try:
                yield int((group / name).read_text(encoding="utf-8"))
            except (OSError, ValueError):  # no such file, or the word "max"
                continue
