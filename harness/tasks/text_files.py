"""A folder of texts: each file is one row."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from harness.tasks.reader import COMPRESSED

_ENDINGS = (".txt", ".text", ".md")


def is_text(path: Path) -> bool:
    """Whether a file's name says that it is a text."""
    return ends_in(path, _ENDINGS)


def ends_in(path: Path, endings: Collection[str]) -> bool:
    """Whether a file's name, but for that of a compression, ends in one of ``endings``, in capitals or not."""
    plain = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return plain.suffix.lower() in endings


def below(folder: Path) -> list[Path]:
    """The visible files below ``folder``, in the order of their names."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def row(path: Path, folder: Path, text: str) -> dict[str, str]:
    """The columns of one text: what it says, the file below ``folder``, and the name of the folder that it is in."""
    inside = path.relative_to(folder)
    return {"text": text, "file": inside.as_posix(), "folder": path.parent.name}
