"""Make a folder to work in: notebooks, sweeps and an example of an own task, to read and change."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from harness.errors import InputError

_EXAMPLE = Path(__file__).with_name("example")

_NEXT = """\
{folder}: notebooks, sweeps, and a task of your own to start from
next:
  cd {folder}
  tunebench run quick                # {folder}/sweeps/quick.yaml with {folder}/notebooks: minutes on two cores
  tunebench run example/sweep.yaml   # the task in example/tickets.yaml
  tunebench lab                      # open the notebooks"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(init)


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="new or empty; its parent exists")],
) -> None:
    """Make a folder with notebooks, sweeps and an example of an own task."""
    from harness import notebooks

    sources = {
        "notebooks": (notebooks.shipped("notebooks"), "*.ipynb"),
        "sweeps": (notebooks.shipped("sweeps"), "*.yaml"),
        "example": (_EXAMPLE, "*.*"),
    }
    _check(folder)
    existed = folder.exists()
    # An empty folder that is there stays the one it is: it may be the current one, or another disk.
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
        raise InputError(f"{folder}: a link to nothing; give a new or an empty folder")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a new or an empty folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder}: is not empty; give a new or an empty folder")
    if not folder.absolute().parent.is_dir():
        raise InputError(f"{folder}: {folder.parent} is no folder; make it first")


def _copy(source: Path, pattern: str, target: Path) -> None:
    """Copy the files below ``source`` that match, without hidden ones such as an editor's checkpoints."""
    for file in sorted(source.rglob(pattern)):
        inside = file.relative_to(source)
        if file.is_file() and not any(part.startswith(".") for part in inside.parts):
            (target / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target / inside)  # not its mode: an installed file may be read-only


def _publish(staging: Path, folder: Path, names: list[str] | None) -> None:
    """Give the finished folder its name, or move ``names`` into the one that is there: all of them or none."""
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
