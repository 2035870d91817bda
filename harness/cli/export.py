"""A sweep's comparison for elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.app import FolderArgument
from harness.cli.output import say

_TEXTS = {"latex": "in_latex", "markdown": "in_markdown", "model-card": "in_model_card"}
_MLFLOW = "mlflow"


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(export)


def export(
    folder: FolderArgument,
    to: Annotated[str, typer.Option("--to", metavar="FORM", help="latex, markdown, model-card or mlflow")],
) -> None:
    """Print the comparison of a sweep for a paper, a page or a model card, or log its trials to MLflow."""
    from harness.cli.fresh import follow_records
    from harness.errors import unknown
    from harness.report import export as exports
    from harness.report import mlflow
    from harness.results.tables import read

    if to not in (*_TEXTS, _MLFLOW):
        raise unknown("--to", to, (*_TEXTS, _MLFLOW))
    follow_records(folder)
    tables = read(folder)
    if to == _MLFLOW:
        logged, there = mlflow.log(tables)
        say(f"logged {logged} trials; {there} were there already")
    else:
        print(getattr(exports, _TEXTS[to])(tables), end="")
