"""Write the report of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.app import FolderArgument, check_folder, named_path


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(report)


def report(
    folder: FolderArgument,
    out: Annotated[
        Path | None,
        typer.Option(parser=named_path, metavar="DIR", help="folder of the report; default: reports/<name of DIR>"),
    ] = None,
) -> None:
    """Write the report of a sweep: one HTML page."""
    out = out or Path("reports") / folder.resolve().name
    check_folder(out, "--out")
    write_report(folder, out)


def write_report(folder: Path, out: Path) -> None:
    """Write the report of ``folder`` to ``out``, from tables that follow its records, and print its path."""
    from harness.cli.fresh import follow_records
    from harness.report import build

    follow_records(folder)
    print(build(folder, out))
