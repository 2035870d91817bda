"""Where a trial ran: the columns of the trials table that describe machine, versions and commit. No torch."""

from __future__ import annotations

import platform
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path

_PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes")


@lru_cache(maxsize=1)
def environment() -> dict[str, str | bool | None]:
    """The columns by name; None where something cannot be known, such as the commit outside a checkout."""
    commit, dirty = _git(Path(__file__).resolve().parents[2])
    return {
        "hostname": platform.node() or None,
        "processor": _processor(),
        "accelerator": _accelerator(),
        **{f"{package}_version": _version(package) for package in _PACKAGES},
        "git_commit": commit,
        "git_dirty": dirty,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str | None:
    """The model name that Linux knows; elsewhere what Python knows."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or None


def _accelerator() -> str | None:
    """The model of the first NVIDIA GPU that the driver shows; a notebook that uses one says so itself."""
    for information in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("Model:"):
                return line.partition(":")[2].strip()
    return None


def _git(folder: Path) -> tuple[str | None, bool | None]:
    """Commit and whether tracked files differ from it; nulls outside a checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != folder:
            return None, None
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None
