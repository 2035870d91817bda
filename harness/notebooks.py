"""Where the notebooks are and which parameters they take: read from the file, without starting a kernel."""

from __future__ import annotations

import ast
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import InputError

if TYPE_CHECKING:  # the command line imports this file at once, and it is to start at once
    from pydantic import JsonValue

#: Every notebook takes these; they come from the trial. Only a notebook that trains needs ``learning_rate``.
COMMON = ("model", "task", "objective", "seed", "learning_rate", "budget", "dtype", "device")

#: What the runner fills in, each only where the notebook declares it. ``trial_dir``: the trial's folder;
#: ``artifact_dir``: where to leave what later trials or the user want to load, null when nobody does;
#: ``parent_dirs``: role -> the artifact folder of a parent. All are null or empty when a notebook is run by hand.
RUNNER = ("trial_dir", "artifact_dir", "parent_dirs")

#: A notebook that belongs to an objective takes the method by name, and its arguments as one mapping.
METHOD = ("method", "method_args")


#: Where this variable is set, the notebooks are there, whatever else there is.
VARIABLE = "TUNEBENCH_NOTEBOOKS"


def root() -> Path:
    """The folder of the notebooks, the first of these that there is.

    1. ``$TUNEBENCH_NOTEBOOKS``.
    2. ``notebooks/`` of the current folder, if that is a :func:`workspace`.
    3. What comes along: see :func:`shipped`.
    """
    if named := os.environ.get(VARIABLE):
        return Path(named)
    return (workspace() or shipped("notebooks").parent) / "notebooks"


def workspace() -> Path | None:
    """The current folder, where it has ``notebooks/methods/`` like one that ``tunebench init`` made; None elsewhere."""
    here = Path.cwd()
    return here if (here / "notebooks" / "methods").is_dir() else None


def shipped(name: str) -> Path:
    """The folder ``name``, 'notebooks' or 'sweeps', that comes along: a checkout's own, or the one in the wheel."""
    package = Path(__file__).resolve().parent
    beside = package.parent / name
    # A folder of that name in site-packages is somebody else's: in a wheel, what is inside the package counts.
    inside = package / "assets" / name
    return inside if inside.is_dir() else beside


def hand_on() -> None:
    """Let every process that this one starts find the notebooks that it finds itself, whatever its current folder.

    Sets ``$TUNEBENCH_NOTEBOOKS``, which executors hand on. What comes along is left to each host: another host may
    have the package elsewhere.
    """
    if (found := root().absolute()) != shipped("notebooks"):
        os.environ[VARIABLE] = str(found)


def path(notebook: str) -> Path:
    """The file of ``notebook``, such as 'methods/lora'. Raises :class:`InputError` if there is none."""
    file = root() / f"{notebook}.ipynb"
    if not file.is_file():
        raise InputError(f"notebook '{notebook}': {file} does not exist; is $TUNEBENCH_NOTEBOOKS right?")
    return file


def parameters(notebook: str) -> dict[str, Any]:
    """Name -> default of the literal assignments in the cell tagged ``parameters``, in the order of the cell.

    Raises :class:`InputError` when the notebook has no such cell, or the cell holds anything else.
    """
    file = path(notebook)
    return dict(_parameters(file, file.stat().st_mtime_ns))


@lru_cache(maxsize=256)
def _parameters(file: Path, _modified: int) -> tuple[tuple[str, Any], ...]:
    found: dict[str, Any] = {}
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
            found[name] = ast.literal_eval(value)
        except ValueError as error:
            raise InputError(f"{file}: the default of parameter '{name}' is not a literal") from error
    return tuple(found.items())


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
    """``value`` as a parameter whose default is ``default``; whole numbers become floats where the default is one.

    A null default takes anything. Raises :class:`InputError` naming ``where`` and both types otherwise.
    """
    if default is None:
        return value
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is type(default):
        return value
    raise InputError(
        f"{where}: {value!r} is {_kind(value)}, must be {_kind(default)} like the notebook's default, {default!r}"
    )


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__
