"""Open JupyterLab."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.errors import InputError


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(lab)


def lab(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="folder to open; default: the notebooks of TuneBench")
    ] = None,
) -> None:
    """Open JupyterLab, on this machine only and protected by a token."""
    import os

    from harness import notebooks

    where = folder or notebooks.root()
    if not where.is_dir():
        raise InputError(f"{where}: no such folder; give one that exists, or none for the notebooks of TuneBench")
    command = [sys.executable, "-P", "-m", "jupyterlab", "--ip", "127.0.0.1"]
    command += ["--ServerApp.root_dir", str(where.resolve())]
    # JupyterLab would look for updates and news on the network.
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url=None"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # containers usually run as root; Jupyter would refuse
    os.execv(sys.executable, command)  # noqa: S606
