"""Files of a user's own: where a path in a sweep leads, the names it goes by, and a digest of what stands there.

A model of the hub looks like a path, so what tells the two apart is here, too.

An own model folder or task file is written as a path. Tables and filters know it by a short name, so that neither the
folder in which a sweep was started nor the host is part of a row; what was in the files is kept as a digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import own_method
from harness.files import sha256, write_atomically
from harness.sources import cache

#: Files from this size on are hashed once and remembered; smaller ones are hashed in less time than it takes to ask.
_WORTH_KEEPING_BYTES = 16 * 2**20


#: What the name of a model of the hub may begin with.
HUB = "hub:"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


def is_model_path(name: str) -> bool:
    """Whether ``name`` is meant as a model folder: it has a slash in it, or begins with ``.`` or ``~``."""
    return not name.startswith(HUB) and ("/" in name or "\\" in name or name.startswith((".", "~")))


def may_be_of_hub(name: str) -> bool:
    """Whether ``name`` has the form ORG/NAME[@REVISION]: a model of the hub, where no such folder exists."""
    return _HUB_NAME.fullmatch(name) is not None


def is_task_path(name: str) -> bool:
    """Whether ``name`` is meant as the YAML file of a task: it ends like one."""
    return name.lower().endswith((".yaml", ".yml"))


_IS_PATH = {"model": is_model_path, "task": is_task_path, "method": own_method.is_path}


def is_path(axis: str, name: str) -> bool:
    """Whether ``name`` on ``axis``, 'model', 'task' or 'method', is meant as a path."""
    return _IS_PATH[axis](name)


def absolute(path: str | Path) -> Path:
    """``path`` from the root, without ``.`` and ``..``; a link keeps its own name, which somebody chose for it."""
    path = Path(path).expanduser().absolute()
    return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name


def locate(path: str, folder: Path) -> Path:
    """Where ``path`` leads: below ``folder``, or, where nothing is there, below the current folder."""
    below = absolute(folder / Path(path).expanduser())
    here = absolute(path)
    return here if here.exists() and not below.exists() else below


def address(axis: str, name: str, folder: Path) -> str:
    """What finds the model, task or method ``name`` from anywhere; relative paths are relative to ``folder``.

    An absolute path for a path, ``hub:ORG/NAME`` for ORG/NAME where no such folder exists, else the name itself.
    """
    if not is_path(axis, name):
        return name
    path = locate(name, folder)
    return HUB + name if axis == "model" and may_be_of_hub(name) and not path.exists() else str(path)


@dataclass(frozen=True)
class Aliases:
    """Other texts that name a model or task of a sweep: the paths of own files, and ``hub:`` before a hub's name."""

    folder: Path = Path()
    """What relative paths are relative to: the folder of the sweep's file."""
    short_names: Mapping[str, Mapping[Path, str]] = field(default_factory=dict)
    """'model', 'task' or 'method' -> absolute path -> the name in trials and tables."""

    def short(self, axis: str, value: Any) -> Any:
        """The short name of the own file that ``value`` leads to; whatever leads to none stays as it is."""
        known = self.short_names.get(axis)
        if isinstance(value, list):
            return [self.short(axis, item) for item in value]
        if axis == "model" and isinstance(value, str) and value.startswith(HUB):
            return value.removeprefix(HUB)
        if not known or not isinstance(value, str) or not is_path(axis, value):
            return value
        places = (absolute(self.folder / Path(value).expanduser()), absolute(value))
        return next((known[place] for place in places if place in known), value)

    def in_match(self, match: Mapping[str, Any]) -> dict[str, Any]:
        """A filter, such as ``{model: ./folder}``, with short names in it."""
        return {axis: self.short(axis, value) for axis, value in match.items()}


def digest(files: Iterable[tuple[str, Path]]) -> str:
    """12 hexadecimal digits of a SHA-256 over files and the names that they are given here, wherever they lie.

    Raises OSError when one of them cannot be read.
    """
    whole = hashlib.sha256()
    for name, path in sorted(files):
        whole.update(f"{name}\0{_sha256(path)}\n".encode())
    return whole.hexdigest()[:12]


def _sha256(path: Path) -> str:
    """SHA-256 of a file; that of a large one is remembered in the cache until its size or time changes."""
    state = path.stat()
    if state.st_size < _WORTH_KEEPING_BYTES:
        return sha256(path)
    key = hashlib.sha256(f"{path.resolve()}\0{state.st_size}\0{state.st_mtime_ns}".encode()).hexdigest()[:24]
    digest_file = cache.root() / "digests" / f"{key}.json"
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        return str(json.loads(digest_file.read_text(encoding="utf-8"))["sha256"])
    digest = sha256(path)
    with contextlib.suppress(OSError):  # where there is no place to keep it, it is hashed again next time
        digest_file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(digest_file, json.dumps({"sha256": digest}), durable=False)
    return digest
