"""The name of a method of a user's own, which is given by the path of a Python file."""

from __future__ import annotations

import re
from pathlib import PurePath

from harness.errors import InputError

#: What its name begins with in trials and tables; the rest is its file's name.
PREFIX = "own:"


def is_path(name: str) -> bool:
    """Whether ``name`` is meant as the file of such a method: it ends like Python."""
    return name.endswith(".py")


def name_of(path: str, where: str) -> str:
    """Its name in trials and tables, 'own:norms' for './norms.py'. Raises InputError for a name that cannot be one."""
    stem = PurePath(path.replace("\\", "/")).stem
    if not re.fullmatch(r"[A-Za-z_][\w-]*", stem, re.ASCII):
        raise InputError(
            f"{where}: '{stem}.py': a method is called like its file, so that needs a name of letters, digits and _"
        )
    return f"{PREFIX}{stem}"
