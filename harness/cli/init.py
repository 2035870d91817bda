"""Create a folder to work in: notebooks, sweeps, an example task and an example method, to read and change."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from harness.errors import InputError

_EXAMPLE = Path(__file__).with_name("example")

#: What the name of an example in Python ends with here: it is the user's code, and none of the package's.
_AS_TEXT = ".txt"

_NEXT = """\
created {folder}: notebooks, sweeps, and an example of a task and a method of your own
next:
  cd {folder}
  tunebench run quick                # {folder}/sweeps/quick.yaml with {folder}/notebooks: minutes on two cores
  tunebench run example/sweep.yaml   # the task in example/tickets.yaml, the method in example/norms.py among others
  tunebench lab                      # open the notebooks"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(init)


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a new or empty folder, inside a folder that exists")],
) -> None:
    """Create a folder to work in: notebooks, sweeps and an example of a task and a method of your own."""
    from harness import notebooks

    sources = {
        "notebooks": (notebooks.shipped("notebooks"), "*.ipynb"),
        "sweeps": (notebooks.shipped("sweeps"), "*.yaml"),
        "example": (_EXAMPLE, "*.*"),
    }
    _check(folder)
    existed = folder.exists()
    # Keep an empty folder that exists: it may be the current folder, or a mounted disk.
    staging = folder / ".init.part" if existed else folder.absolute().parent / f".{folder.name}.init.part"
    staging.mkdir()
    try:
        for name, (source, pattern) in sources.items():
            _copy(source, pattern, staging / name)
        _publish(staging, folder, list(sources) if existed else None)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    print(_NEXT.format(folder=folder))


def _check(folder: Path) -> None:
    if folder.is_symlink() and not folder.exists():
        raise InputError(f"{folder}: is a broken link; give a new or an empty folder")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a new or an empty folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder}: is not empty; give a new or an empty folder")
    if not folder.absolute().parent.is_dir():
        raise InputError(f"{folder}: {folder.parent} is not a folder; create it first")


def _copy(source: Path, pattern: str, target: Path) -> None:
    """Copy the files below ``source`` that match ``pattern``, but no hidden ones, such as an editor's checkpoints."""
    for file in sorted(source.rglob(pattern)):
        inside = file.relative_to(source)
        if file.is_file() and not any(part.startswith(".") for part in inside.parts):
            (target / inside).parent.mkdir(parents=True, exist_ok=True)
            copied = target / str(inside).removesuffix(_AS_TEXT)
            shutil.copyfile(file, copied)  # without the mode: an installed file may be read-only


def _publish(staging: Path, folder: Path, names: list[str] | None) -> None:
    """Rename the finished folder to ``folder``, or move all or none of ``names`` into the ``folder`` that exists."""
    if names is None:
        staging.rename(folder)
        return
    try:
        for name in names:
            (staging / name).rename(folder / name)
    except BaseException:
        for name in names:
            shutil.rmtree(folder / name, ignore_errors=True)
        raise
