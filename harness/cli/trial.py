"""Run one trial: what every executor calls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.app import stoppable


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(trial)


def trial(
    folder: Annotated[Path, typer.Argument(metavar="TRIAL_DIR", help="results/<sweep>/trials/<trial_id>")],
) -> None:
    """Run one trial here."""
    import os

    from harness.processes.lifetime import DRIVER_VARIABLE
    from harness.runner.trial import run_trial

    driven = DRIVER_VARIABLE in os.environ  # asked now, because run_trial takes it out of there
    with stoppable():
        record = run_trial(folder)
    if record is None:
        print(f"{folder.name}: nothing to do: it is done, or somebody else works on it")
        return
    print(f"{record.trial_id}: {record.status}" + (f": {record.reason}" if record.reason else ""))
    # A driver reads records: to it, any other code than 0 says that the process left none.
    if record.status != "ok" and not driven:
        raise typer.Exit(1)
