"""Open JupyterLab."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.errors import InputError

#: Settings of JupyterLab that a user has not chosen otherwise.
_DEFAULTS = Path(__file__).with_name("jupyter")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(lab)


def lab(
    place: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIR",
            help="folder to open, such as results/quick, or a notebook; default: the notebooks of TuneBench",
        ),
    ] = None,
) -> None:
    """Open JupyterLab, on this machine only and protected by a token. What trials have recorded is read-only in it."""
    import os

    from harness import notebooks
    from harness.runner.kernel import QUIET

    where = place or notebooks.root()
    if not where.exists():
        raise InputError(f"{where}: no such folder; give one that exists, or none for the notebooks of TuneBench")
    if where.is_file() and where.suffix != ".ipynb":
        raise InputError(f"{where}: not a notebook; give a notebook, or a folder")
    os.environ |= {name: value for name, value in QUIET.items() if name not in os.environ}
    # JupyterLab asks whether to fetch news, which the command line alone does not prevent.
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(
        filter(None, [str(_DEFAULTS), os.environ.get("JUPYTER_CONFIG_PATH")])
    )
    os.execv(sys.executable, [sys.executable, "-P", "-m", "jupyterlab", *_settings(where.resolve())])  # noqa: S606


def _settings(where: Path) -> list[str]:
    """The command line of JupyterLab for a folder or a notebook."""
    import os

    folder = where if where.is_dir() else where.parent
    settings = ["--ip", "127.0.0.1", f"--ServerApp.root_dir={folder}"]
    settings.append("--ServerApp.contents_manager_class=harness.cli.contents.ResultsStay")
    if where != folder:
        settings.append(f"--LabApp.default_url=/lab/tree/{where.name}")
    # JupyterLab would look for updates and news on the network.
    settings += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url=None"]
    # A kernel warns of connections in plain text, even on this machine.
    settings.append("--KernelManager.transport_encryption=auto")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        settings.append("--allow-root")  # containers usually run as root; Jupyter would refuse
    return settings
