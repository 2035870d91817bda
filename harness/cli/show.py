"""Show one thing as it is: a task with its data, a model, or a trial with its curves and answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.app import JsonOption
from harness.cli.output import print_json
from harness.errors import InputError, unknown


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(show)


def show(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="a task or a model, by name or path, or the folder of a trial")
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="M", help="of a task: a model that reads the examples; may be repeated; default: a small "
                     "encoder and a small decoder, where the cache has them"),
    ] = None,
    max_length: Annotated[int, typer.Option(min=1, help="of a task: tokens that an example is cut to")] = 128,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Show a task's data as models read it, a model's facts, or a trial's scores, curves and answers."""
    from harness.cli.shown import Shown, of_model, of_task, of_trial

    shown: Shown
    match _kind(what):
        case "trial":
            shown = of_trial(Path(what))
        case "model":
            shown = of_model(_model_path(what))
        case _:
            shown = of_task(what, model, max_length)
    if as_json:
        print_json(shown.document)
    else:
        print("\n".join(shown.lines))


def _model_path(what: str) -> str:
    """A folder without a slash in its name as the path that a sweep would need."""
    from harness.models.spec import names

    return what if what.partition("@")[0] in names() or "/" in what else f"./{what}"


def _kind(what: str) -> str:
    """'task', 'model' or 'trial'. Raises InputError for what is none of them."""
    from harness.files import RECORD_FILE, TRIAL_FILE
    from harness.models.spec import names as models
    from harness.sources import own_files
    from harness.tasks.spec import names as tasks

    folder = Path(what).expanduser()
    if own_files.is_task_path(what) or what in tasks():
        return "task"
    if what.partition("@")[0] in models():
        return "model"
    if (folder / TRIAL_FILE).is_file() or (folder / RECORD_FILE).is_file():
        return "trial"
    if (folder / "config.json").is_file():
        return "model"
    if folder.is_dir():
        raise InputError(f"show: {what}: neither a model (config.json) nor a trial (trial.json) is in this folder")
    if own_files.is_model_path(what):
        raise InputError(f"show: {what}: there is no such folder")
    raise unknown("show", what, [*tasks(), *models()])
