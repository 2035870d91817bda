"""Where the notebooks are, and which parameters they take. It reads the files and starts no kernel."""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import InputError, shown

if TYPE_CHECKING:  # the command line imports this file at its start, which must stay fast
    from pydantic import JsonValue

#: Every notebook takes these parameters, and the trial gives their values. Only a notebook that trains needs
#: ``learning_rate``.
COMMON = ("model", "task", "objective", "seed", "learning_rate", "budget", "dtype", "device")

#: The runner fills these in where the notebook declares them. ``trial_dir``: the trial's folder; ``artifact_dir``: the
#: folder for a checkpoint that later trials or the user want to load, ``None`` when nobody does; ``parent_dirs``:
#: role -> the artifact folder of a parent. All are ``None`` or empty when a user runs the notebook by hand. In one that
#: a trial has executed they name its folders, which that trial alone writes (:mod:`harness.results.ownership`).
RUNNER = ("trial_dir", "artifact_dir", "parent_dirs")

#: The notebook of an objective takes the method's name, and the method's arguments as one mapping.
METHOD = ("method", "method_args")

#: This environment variable names the folder of the notebooks, and overrules every other place.
VARIABLE = "TUNEBENCH_NOTEBOOKS"


def root() -> Path:
    """The folder of the notebooks: the first of these that exists.

    1. ``$TUNEBENCH_NOTEBOOKS``.
    2. ``notebooks/`` in the current folder, if that is a :func:`workspace`.
    3. The notebooks that belong to the package: see :func:`shipped`.
    """
    if named := os.environ.get(VARIABLE):
        return Path(named)
    return (workspace() or shipped("notebooks").parent) / "notebooks"


def workspace() -> Path | None:
    """The current folder if it has ``notebooks/methods/``, as ``tunebench init`` creates it; ``None`` otherwise."""
    here = Path.cwd()
    return here if (here / "notebooks" / "methods").is_dir() else None


def shipped(name: str) -> Path:
    """The package's own folder ``name``, 'notebooks', 'sweeps' or 'claims': the checkout's or the wheel's."""
    package = Path(__file__).resolve().parent
    beside = package.parent / name
    # In site-packages, a folder of that name beside the package belongs to another project; use the one inside.
    inside = package / "assets" / name
    return inside if inside.is_dir() else beside


def hand_on() -> None:
    """Let child processes find the same notebooks as this process, whatever their current folder.

    Sets ``$TUNEBENCH_NOTEBOOKS``, which executors pass on. It stays unset for the package's own notebooks: another host
    may have the package elsewhere.
    """
    if (notebooks_dir := root().absolute()) != shipped("notebooks"):
        os.environ[VARIABLE] = str(notebooks_dir)


def check_name(notebook: str) -> None:
    """Raise :class:`InputError` for a name that may lead out of the folder of the notebooks: those never run."""
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*", notebook):
        raise InputError(f"notebook '{notebook}': not the name of a notebook below notebooks/, such as 'methods/lora'")


def path(notebook: str) -> Path:
    """The file of ``notebook``, such as 'methods/lora'.

    Raises :class:`InputError` if it does not exist, and for a name that may lead to another folder.
    """
    check_name(notebook)
    file = root() / f"{notebook}.ipynb"
    if not file.is_file():
        raise InputError(f"notebook '{notebook}': {file} does not exist; is $TUNEBENCH_NOTEBOOKS right?")
    return file


def parameters(notebook: str) -> dict[str, Any]:
    """Read name -> default from the cell tagged ``parameters``, in the order of the cell.

    Raises :class:`InputError` when the notebook has no such cell, or when the cell holds more than assignments of
    literals.
    """
    file = path(notebook)
    return dict(_parameters(file, file.stat().st_mtime_ns))


@lru_cache(maxsize=256)
def _parameters(file: Path, _modified: int) -> tuple[tuple[str, Any], ...]:
    defaults: dict[str, Any] = {}
    try:
        tree = ast.parse(_parameters_source(file))
    except SyntaxError as error:
        raise InputError(f"{file}: the cell tagged 'parameters' is not Python: {error.msg}") from error
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pass
            case _:
                raise InputError(
                    f"{file}: line {statement.lineno} of the cell tagged 'parameters' is not 'name = literal'"
                )
        try:
            defaults[name] = ast.literal_eval(value)
        except ValueError as error:
            raise InputError(f"{file}: the default of parameter '{name}' is not a literal") from error
    return tuple(defaults.items())


def _parameters_source(file: Path) -> str:
    try:
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: not a notebook") from error
    for cell in cells:
        if "parameters" in cell.get("metadata", {}).get("tags", ()):
            source = cell["source"]
            return source if isinstance(source, str) else "".join(source)
    raise InputError(f"{file}: no cell is tagged 'parameters'")


def conform(value: JsonValue, default: Any, where: str) -> JsonValue:
    """``value`` for a parameter with the default ``default``; a whole number becomes a float where the default is one.

    A parameter whose default is ``None`` takes any value. Raises :class:`InputError`, which begins with
    ``where``, where the types differ.
    """
    if default is None:
        return value
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is type(default):
        return value
    wanted = _KINDS.get(type(default), type(default).__name__)
    raise InputError(f"{where}: must be {wanted}, like the notebook's default {shown(default)} (given: {shown(value)})")


_KINDS: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a mapping",
}
