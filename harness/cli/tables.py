"""Write the tables of a sweep again."""

from __future__ import annotations

import typer

from harness.cli.app import FolderArgument


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(tables)


def tables(folder: FolderArgument) -> None:
    """Write the tables of a sweep again, from its records."""
    from harness.errors import InputError
    from harness.judgement.controls import control_sentences
    from harness.ledger.tables import refresh
    from harness.results.files import read

    following = refresh(folder, anew=True)
    if following.rows is None:
        raise InputError(f"{folder}: no record here can be used; run the sweep again")
    for name, rows in following.rows.items():
        print(f"{folder / 'tables' / name}.parquet: {rows} rows")
    for said in control_sentences(read(folder)):
        print(f"{said.place}: {said.sentence}")
