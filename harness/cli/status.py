"""Count the trials of a sweep by how they ended."""

from __future__ import annotations

from pathlib import Path

import typer

from harness.cli.app import FolderArgument, JsonOption
from harness.cli.output import print_json, print_table, say
from harness.files import TABLES_DIR, TRIALS_DIR


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(status)


def status(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Count the trials of a sweep by how they ended.

    'planned later' are those that follow when settings have been tried.
    """
    from harness.ledger.ledger import Ledger

    ledger = Ledger.open(folder)
    counts = ledger.status()
    if later := sum(one.trials for one in ledger.plan.later):
        counts["planned later"] = later
    if as_json:
        print_json(dict(counts))
    else:
        print_table(("status", "trials"), counts.items())
        if (folder / TABLES_DIR / "trials.parquet").is_file() and not (folder / TRIALS_DIR).is_dir():
            say(f"without the records of its trials; its tables {_by_tables(folder)}")


def _by_tables(folder: Path) -> str:
    from harness.results.files import read

    counts = read(folder)["trials"].status.value_counts()
    return f"say: {', '.join(f'{n} {status}' for status, n in counts.items())}" if len(counts) else "hold no trial"
