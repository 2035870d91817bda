"""The cache: folders that are built once and are whole or not there at all.

A folder is built beside its place under another name, gets a marker with the size and SHA-256 of each of its files,
and is then renamed. A crash leaves a ``.part`` folder that the next builder sweeps away; two processes that want the
same folder wait for one another on a lock file.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from harness.errors import InputError
from harness.files import sha256

MARKER = ".complete.json"


def root() -> Path:
    """``$TUNEBENCH_CACHE``, or ``tunebench`` in the user's cache folder."""
    if place := os.environ.get("TUNEBENCH_CACHE"):
        return Path(place).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("tunebench", appauthor=False)


def is_whole(folder: Path, *, verify: bool = False) -> bool:
    """Whether ``folder`` holds what its marker says: every file with its size and, with ``verify``, its SHA-256."""
    try:
        files = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        return all(
            (folder / name).stat().st_size == entry["bytes"]
            and (not verify or sha256(folder / name) == entry["sha256"])
            for name, entry in files.items()
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def build_once(folder: Path, build: Callable[[Path], None], *, verify: bool = False) -> Path:
    """``folder``, built by ``build(empty folder)`` if it is not whole yet.

    Sizes are checked on every use; ``verify`` also hashes every file. Whatever does not match is built anew; if that
    fails, nobody uses the damaged folder. Raises
    :class:`InputError` when the disk is full or the cache may not be written, and whatever ``build`` raises; then
    nothing is left behind.
    """
    if is_whole(folder, verify=verify):
        return folder
    from filelock import FileLock

    part = folder.with_name(f".{folder.name}.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if is_whole(folder, verify=verify):
                return folder
            if (folder / MARKER).exists():  # from here on nobody uses it, also if it cannot be built anew
                print(f"cache: {folder} is damaged and is made anew", file=sys.stderr, flush=True)
                (folder / MARKER).unlink()
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            try:
                build(part)
                _mark(part)
                shutil.rmtree(folder, ignore_errors=True)
                part.rename(folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise _told(folder, error) from error
    return folder


def _mark(folder: Path) -> None:
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    with (folder / MARKER).open("w", encoding="utf-8") as stream:
        json.dump(files, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())


def _told(folder: Path, error: OSError) -> InputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"cache: no space left for {folder}; free some, or point TUNEBENCH_CACHE to a larger disk")
    return InputError(
        f"cache: {error.filename or folder}: {error.strerror or error}; TUNEBENCH_CACHE can point to another folder"
    )
