"""Run one trial: the command that every executor starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.app import stoppable
from harness.cli.output import say


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(trial)


def trial(
    folder: Annotated[
        Path, typer.Argument(metavar="TRIAL_DIR", help="the folder of a trial: results/<sweep>/trials/<trial_id>")
    ],
) -> None:
    """Run one trial on this machine; every executor starts this command."""
    import os

    from harness.processes.lifetime import DRIVER_VARIABLE
    from harness.runner.trial import run_trial

    driven = DRIVER_VARIABLE in os.environ  # read now, because run_trial removes the variable
    with stoppable():
        record = run_trial(folder)
    if record is None:
        say(f"{folder.name}: nothing to do: the trial is done, or another process is running it")
        return
    say(f"{record.trial_id}: {record.status}" + (f": {record.reason}" if record.reason else ""))
    # A driver reads the record; a code other than 0 tells it that the process left none.
    if record.status != "ok" and not driven:
        raise typer.Exit(1)
