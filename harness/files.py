"""What the files of a sweep's folder are called, and how a file is written so that nobody reads half of it."""

from __future__ import annotations

import errno
import os
import platform
from pathlib import Path

#: In the folder of a sweep, ``results/<sweep>/``.
SWEEP_FILE = "sweep.yaml"
PLAN_FILE = "plan.json"
TRIALS_DIR = "trials"
ARTIFACTS_DIR = "artifacts"
TABLES_DIR = "tables"

#: In the folder of a trial, ``results/<sweep>/trials/<trial_id>/``.
TRIAL_FILE = "trial.json"
RECORD_FILE = "record.json"
OUTCOME_FILE = "outcome.json"
PROGRESS_FILE = "progress.json"
NOTEBOOK_FILE = "notebook.ipynb"
LOG_FILE = "log.txt"


def write_atomically(path: Path, text: str, durable: bool = True) -> None:
    """Write ``text`` so that a reader sees the whole file or none of it; ``durable``: after a crash too."""
    part = _part(path)
    try:
        _write(part, text, durable)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def create_atomically(path: Path, text: str) -> None:
    """:func:`write_atomically`, but never over a file: raises FileExistsError where there is one."""
    part = _part(path)
    try:
        _write(part, text, durable=True)
        _link(part, path)
    finally:
        part.unlink(missing_ok=True)


def open_log(path: Path) -> int:
    """A descriptor that appends to a log. A link would lead what is printed elsewhere, so it gives way to a file."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        path.unlink()
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), 0o644)


def _part(path: Path) -> Path:
    """A name beside ``path`` that no other process takes, on this host or another that sees the folder."""
    return path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.part")


def _write(part: Path, text: str, durable: bool) -> None:
    with part.open("w", encoding="utf-8") as stream:
        stream.write(text)
        if durable:
            stream.flush()
            os.fsync(stream.fileno())


def _link(part: Path, path: Path) -> None:
    """Give ``part`` its final name unless that is taken (FileExistsError)."""
    try:
        path.hardlink_to(part)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        # A file system without hard links: a second writer within this instant would overwrite, not be refused.
        if path.exists():
            raise FileExistsError(path) from error
        part.replace(path)
