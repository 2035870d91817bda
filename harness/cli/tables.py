"""Write the tables of a sweep again."""

from __future__ import annotations

import typer

from harness.cli.app import FolderArgument


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(tables)


def tables(folder: FolderArgument) -> None:
    """Write the tables of a sweep again, from its records."""
    from harness.ledger.records import read_records
    from harness.results import tables as tidy_tables

    for name, rows in tidy_tables.write(read_records(folder), folder).items():
        print(f"{folder / 'tables' / name}.parquet: {rows} rows")
