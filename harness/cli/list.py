"""List the names that a sweep can use."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.app import JsonOption
from harness.cli.output import print_json, print_table
from harness.errors import unknown


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("list")(list_)


def list_(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="methods, objectives, models, tasks, sweeps, figures or claims")
    ],
    as_json: JsonOption = False,
) -> None:
    """List the names that a sweep can use."""
    from harness.cli import listing

    if what not in listing.LISTINGS:
        raise unknown("list", what, listing.LISTINGS)
    rows = listing.LISTINGS[what]()
    if as_json:
        print_json(rows)
    elif rows:
        print_table(tuple(rows[0]), (row.values() for row in rows))
