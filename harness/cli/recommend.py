"""Recommend a method for a model, a task, a memory and a goal, from results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.app import JsonOption
from harness.cli.output import print_json, print_table, say
from harness.errors import InputError, unknown


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(recommend)


def recommend(
    model: Annotated[str, typer.Option(metavar="M", help="the model to tune: a name, or the path of its config.json")],
    task: Annotated[str, typer.Option(metavar="T", help="the task to tune it for")],
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[DIR ...]", help="folders with tables; default: every one under results/"),
    ] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="memory to train in, such as 24GB")] = None,
    goal: Annotated[str, typer.Option(help="score, speed, latency or size")] = "score",
    as_json: JsonOption = False,
) -> None:
    """Recommend a method from results, and say what that rests on, what does not fit and what cannot be told."""
    from harness.cli import recommending
    from harness.estimate.fits import parse_bytes
    from harness.judgement.recommendation import GOALS

    limit = None if memory is None else parse_bytes(memory, "--memory")
    if goal not in GOALS:
        raise unknown("--goal", goal, GOALS)
    places = folders or sorted(path.parent.parent for path in Path("results").glob("**/tables/trials.parquet"))
    if not places:
        raise InputError("results: no folder with tables here; name one, or run a sweep with 'tunebench run quick'")
    answer = recommending.answer(places, model, task, limit, goal)
    if as_json:
        print_json(answer.document)
        return
    say(answer.headline)
    if answer.rows:
        print_table(answer.header, answer.rows)
    for line in answer.remarks:
        say(f"- {line}")
