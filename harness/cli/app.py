"""The application, and what several commands share: options, exit codes and a clean stop."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from harness import __version__
from harness.errors import InputError, cut

BAD_INPUT = 2
INTERRUPTED = 130

app = typer.Typer(
    help="Which fine-tuning method should I use for my model, my task and my hardware?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

SweepArgument = Annotated[str, typer.Argument(metavar="SWEEP", help="a sweep's YAML file, or its name in sweeps/")]
FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="the folder of a sweep, such as results/quick")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="change the sweep: a dotted key and a YAML value; may be repeated",
    ),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option(metavar="EXPR", help="only these trials, such as 'method=lora|full,seed=0'; may be repeated"),
]
MemoryOption = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="memory that a trial may use, such as 24GB; default: its device's memory here"),
]
ForceOption = Annotated[bool, typer.Option("--force", help="do not skip trials whose estimated memory is too large")]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]


def named_path(text: str) -> Path:
    """The path in an option. An empty text, as an unset variable leaves it, would be the current folder."""
    if not text:
        raise typer.BadParameter("must not be empty")
    return Path(text)


def check_folder(path: Path, option: str) -> None:
    """Raise :class:`InputError`, which names ``option``, where no folder can be at ``path``."""
    there = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
    if not there.is_dir():
        raise InputError(f"{option}: {path if there == path.absolute() else there} is a file; give a folder")


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False,
) -> None:
    if version:
        print(f"tunebench {__version__}")
        raise typer.Exit


@contextmanager
def stoppable() -> Iterator[None]:
    """When the user interrupts, say that nothing is lost and exit with code 130."""
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted: finished trials are kept; run the same command again to continue", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def parse_only(texts: Sequence[str] | None) -> dict[str, Sequence[Any]]:
    """Parse ``method=lora|full,seed=0``, given once or more often, into name -> wanted values.

    Raises :class:`InputError` for any other form, and for a name that is given twice.
    """
    wanted: dict[str, Sequence[Any]] = {}
    for text in texts or ():
        where = f"--only {cut(text)}"
        for part in text.split(","):
            name, separator, values = part.partition("=")
            if not separator or not (name := name.strip()):
                raise InputError(f"{where}: write KEY=VALUE,KEY=VALUE, with '|' between alternative values")
            if name in wanted:
                raise InputError(f"{where}: '{name}' is given twice; write {name}=A|B for either")
            if not all(value.strip() for value in values.split("|")):
                raise InputError(f"{where}: a value of '{name}' is empty; write {name}=A or {name}=A|B")
            wanted[name] = [_meant(name, value.strip(), where) for value in values.split("|")]
    return wanted


#: Facts that are texts, such as the id 809057490441, and a task called 2024.
_TEXTS = ("trial_id", "method", "objective", "model", "task")


def _meant(name: str, text: str, where: str) -> Any:
    from harness import specfile

    value = specfile.parse_yaml(text, where)
    return text if name in _TEXTS and not isinstance(value, str) else value
