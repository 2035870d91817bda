"""The regression gate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.app import JsonOption, named_path
from harness.cli.output import print_json, say, write_file


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(compare)


def compare(
    baseline: Annotated[Path, typer.Argument(metavar="BASELINE", help="a folder that holds tables/, from before")],
    candidate: Annotated[Path, typer.Argument(metavar="CANDIDATE", help="a folder that holds tables/, from now")],
    as_json: JsonOption = False,
    junit: Annotated[
        Path | None, typer.Option(parser=named_path, metavar="FILE", help="also write JUnit XML, for a CI server")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(parser=named_path, metavar="FILE", help="also write Markdown, for a pull request")
    ] = None,
) -> None:
    """Compare two runs of a sweep, and fail with code 1 where the second is worse beyond noise.

    Scores, endings, memory, times and sizes are judged cell by cell; docs/ci.md says how.
    """
    from harness.cli.fresh import follow_records
    from harness.errors import InputError
    from harness.judgement.gate import gate
    from harness.report import gate as shown
    from harness.results.tables import read

    for folder in (baseline, candidate):
        follow_records(folder)
    sides = [read(folder) for folder in (baseline, candidate)]
    if sides[0]["trials"].empty:
        raise InputError(f"{baseline}: its tables hold no trial, so there is nothing to compare with")
    answer = gate(*sides)
    for path, text in ((junit, shown.in_junit), (markdown, shown.in_markdown)):
        if path is not None:
            write_file(path, text(answer))
    if as_json:
        print_json(shown.document(answer))
    else:
        for line in shown.lines(answer):
            say(line)
    if not answer.passes:
        raise typer.Exit(1)
