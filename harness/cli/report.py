"""Write the report of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.app import FolderArgument


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(report)


def report(
    folder: FolderArgument,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="folder of the report; default: reports/<name of DIR>")
    ] = None,
) -> None:
    """Write the report of a sweep: one HTML page."""
    write_report(folder, out or Path("reports") / folder.resolve().name)


def write_report(folder: Path, out: Path) -> None:
    """Write the report of ``folder`` to ``out``, from tables that follow its records; print the path of its page."""
    from harness.report import build

    follow(folder)
    print(build(folder, out))


def follow(folder: Path) -> None:
    """Make the tables of ``folder`` follow its records. A folder of tables alone has none that they could follow.

    Raises :class:`InputError` where they cannot be written.
    """
    from harness.errors import InputError
    from harness.files import TRIALS_DIR
    from harness.ledger.tables import refresh

    if (folder / TRIALS_DIR).is_dir():
        try:
            refresh(folder)
        except OSError as error:
            raise InputError(
                f"{folder}: its tables do not follow its records, and cannot be written: {error.strerror}"
            ) from error
