"""Have a model behind an endpoint judge the stored answers pair by pair, or the untouched model read them."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.app import FolderArgument, stoppable


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(judge)


def judge(
    folder: FolderArgument,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="TUNEBENCH_JUDGE_URL",
            help="an OpenAI-compatible endpoint, such as http://HOST:8000/v1",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", envvar="TUNEBENCH_JUDGE_MODEL", help="the name of the judge at that endpoint"),
    ] = None,
    examples: Annotated[
        int, typer.Option(metavar="N", min=1, help="test examples on which each pair of methods meets, at each seed")
    ] = 20,
    jobs: Annotated[int, typer.Option(metavar="N", min=1, max=64, help="questions at a time")] = 4,
    plan: Annotated[bool, typer.Option("--plan", help="say how many questions that is, and send nothing")] = False,
    perplexity: Annotated[
        bool,
        typer.Option(
            "--perplexity", help="instead, how surprising the answers are to the untouched model, which runs here"
        ),
    ] = False,
) -> None:
    """Have a model judge free answers in pairs, each in both orders; the report then rates the methods by it too.

    The prompts and answers go to the endpoint. $TUNEBENCH_JUDGE_KEY holds its key, if it needs one. Replies are kept
    in tables/judgements.jsonl, and nothing is asked twice. With --perplexity nothing is sent: the model that no trial
    changed reads every stored answer, and the report says whose answers surprise it most.
    """
    import os

    if perplexity:
        from harness.cli import surprising

        with stoppable():
            surprising.measure(folder)
        return

    from harness.cli import judging
    from harness.cli.output import say
    from harness.errors import InputError
    from harness.judgement.endpoint import KEY, Endpoint

    if url is None or model is None:
        missing = "--url" if url is None else "--model"
        raise InputError(f"judge: give {missing}, or --perplexity, which needs no endpoint")
    endpoint = Endpoint(url, model, os.environ.get(KEY) or None)
    work = judging.work(folder, model, examples)
    say(work.described(endpoint.host))
    if plan or not work.open:
        return
    with stoppable():
        judging.judge(work, endpoint, jobs)
