"""Write a task and a sweep for a data file, each choice with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.app import MemoryOption, check_folder, named_path
from harness.cli.output import print_table, say
from harness.errors import InputError

_FILES = ("task.yaml", "sweep.yaml")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(advise)


def advise(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="a file with rows, or a folder of texts")],
    model: Annotated[str, typer.Option(metavar="M", help="the model to tune, by name or path")],
    memory: MemoryOption = None,
    hours: Annotated[float, typer.Option(metavar="H", help="time for the whole sweep on this machine")] = 3.0,
    goal: Annotated[str, typer.Option(metavar="G", help="what counts most: score, speed or size")] = "score",
    out: Annotated[
        Path | None,
        typer.Option(parser=named_path, metavar="DIR", help="where the two files go; default: NAME-sweep beside DATA"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace the two files if they are there")] = False,
) -> None:
    """Recognise a data file, write task.yaml and sweep.yaml for it, and show what they would run."""
    from harness.cli import console_tables
    from harness.estimate import advice, time
    from harness.files import write_atomically

    folder = out or data.parent / f"{data.name.split('.')[0]}-sweep"
    check_folder(folder, "--out")
    taken = [name for name in _FILES if (folder / name).exists()]
    if taken and not force:
        raise InputError(f"--out: {folder / taken[0]} is there already; give another folder, or --force to replace it")
    answer = advice.advise(data, model, folder, memory=memory, hours=hours, goal=goal)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in zip(_FILES, (answer.task, answer.sweep), strict=True):
        write_atomically(folder / name, text)
    lines = console_tables.plan(answer.plan)
    print_table(lines.header, lines.rows)
    for line in console_tables.time_of(*time.total_s(answer.plan)):
        say(line)
    say(answer.task.splitlines()[0].removeprefix("# "))
    say(f"wrote {folder / _FILES[0]} and {folder / _FILES[1]}, with the reason for each choice")
    say(f"next: tunebench run {folder / _FILES[1]}")
