"""Draw the figures of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.app import FolderArgument, check_folder, named_path

if TYPE_CHECKING:
    from harness.results.files import Stored


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(figures)


def figures(
    folder: FolderArgument,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="only this figure; may be repeated; see 'list figures'")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=named_path, metavar="DIR", help="folder of the figures; default: reports/<name of DIR>/figures"
        ),
    ] = None,
    kind: Annotated[str, typer.Option("--format", metavar="png|svg|pdf", help="format of the files")] = "png",
) -> None:
    """Draw the figures of a sweep, all that its tables support."""
    from harness.cli.output import say
    from harness.figures import FIGURES, Nothing, save_as

    names = _wanted(only, kind)
    place = out or Path("reports") / folder.resolve().name / "figures"
    check_folder(place, "--out")
    tables = with_judgements(folder)
    for name in names:
        drawn = FIGURES[name](tables)
        if isinstance(drawn, Nothing):
            say(f"{name}: left out because {drawn.reason}")
        else:
            say(str(save_as(drawn, place, name, kind)))


def _wanted(only: Sequence[str] | None, kind: str) -> list[str]:
    """The names to draw, in the order of the list. Raises :class:`InputError` for an unknown name or format."""
    from harness.errors import unknown
    from harness.figures import FIGURES, FORMATS

    if kind not in FORMATS:
        raise unknown("--format", kind, FORMATS)
    for name in only or ():
        if name not in FIGURES:
            raise unknown("--only", name, FIGURES)
    return [name for name in FIGURES if not only or name in only]


def with_judgements(folder: Path) -> Stored:
    """The tables of ``folder``, following its records, and beside them what was said of the answers since."""
    from harness.cli.fresh import follow_records
    from harness.judgement import surprise
    from harness.judgement.answer_pairs import add_judgements
    from harness.results.tables import read

    follow_records(folder)
    tables = read(folder)
    add_judgements(tables, folder)
    surprise.add(tables, folder)
    return tables
