"""What the files of a sweep's folder are called, and how a file is written so that nobody reads half of it."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
from functools import cache
from pathlib import Path

import psutil

#: In the folder of a sweep, ``results/<sweep>/``.
SWEEP_FILE = "sweep.yaml"
PLAN_FILE = "plan.json"
TRIALS_DIR = "trials"
ARTIFACTS_DIR = "artifacts"
TABLES_DIR = "tables"
#: Which records the tables were made from.
SOURCES_FILE = "tables.json"

#: In the folder of a trial, ``results/<sweep>/trials/<trial_id>/``.
TRIAL_FILE = "trial.json"
RECORD_FILE = "record.json"
OUTCOME_FILE = "outcome.json"
PROGRESS_FILE = "progress.json"
NOTEBOOK_FILE = "notebook.ipynb"
LOG_FILE = "log.txt"

#: In the folder of a checkpoint: what ``sha256sum -c`` reads.
CHECKSUMS_FILE = "SHA256SUMS"


@cache
def source_digest(rooms: tuple[str, ...]) -> str:
    """The SHA-256 of the source of some rooms of the package, such as 'models', with all below them."""
    package = Path(__file__).resolve().parent
    digest = hashlib.sha256()
    for room in rooms:
        for file in sorted((package / room).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def part_of(path: Path) -> Path:
    """A name beside ``path`` that no other process takes, on this host or another that sees the folder."""
    return path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.part")


def remove_dead_parts(folder: Path) -> None:
    """Delete what processes of this host left half-written in ``folder`` when they were killed."""
    ours = re.compile(rf"\..+\.{re.escape(platform.node())}\.([0-9]+)\.part")
    for path in folder.glob(".*.part"):
        if (match := ours.fullmatch(path.name)) is not None and not psutil.pid_exists(int(match[1])):
            path.unlink(missing_ok=True)


def write_atomically(path: Path, text: str, durable: bool = True) -> None:
    """Write ``text`` so that a reader sees the whole file or none of it; ``durable``: after a crash too."""
    part = part_of(path)
    try:
        _write(part, text, durable)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def create_atomically(path: Path, text: str) -> None:
    """:func:`write_atomically`, but never over a file: raises FileExistsError where there is one."""
    part = part_of(path)
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


def write_checksums(folder: Path) -> None:
    """Write the SHA-256 of every file in ``folder`` beside them, as ``sha256sum`` does."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != CHECKSUMS_FILE)
    write_atomically(folder / CHECKSUMS_FILE, "".join(f"{sha256(path)}  {path.name}\n" for path in files))


def missing_file(folder: Path) -> str | None:
    """The first file that the checksums of ``folder`` name and that is not there; None if all are, or none are named.

    It reads no content, so it may look at many folders.
    """
    return next((name for name in _checksums(folder) if not (folder / name).is_file()), None)


def damaged_file(folder: Path) -> str | None:
    """The first file of ``folder`` that is not what its checksum says; None if all are, or there are no checksums."""
    for name, expected in _checksums(folder).items():
        path = folder / name
        if not path.is_file() or sha256(path) != expected:
            return name
    return None


def _checksums(folder: Path) -> dict[str, str]:
    """Name -> SHA-256. A damaged line gives a name that no file has, or a hash that none has."""
    try:
        lines = (folder / CHECKSUMS_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    return {name: checksum for checksum, _, name in (line.partition("  ") for line in lines)}


def sha256(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def version_of(path: Path) -> str:
    """12 digits of the SHA-256 of a file: enough to tell two versions of it apart. Raises OSError."""
    return sha256(path)[:12]
